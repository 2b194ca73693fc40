/*
 * slow.h: a device that is slower than the one at hand (fault.h: UNET_FAULT_SLOW). Work groups are
 * counted as they are recorded; what is submitted takes its time after what was submitted before.
 */
#ifndef UNET_TESTS_SLOW_H
#define UNET_TESTS_SLOW_H

#include <vulkan/vulkan.h>

#include <stdint.h>

#define SLOW_OBJECTS 4096 /* command buffers, or fences */

struct slow_item {
    const void *object; /* NULL: a free place, and all after it */
    uint64_t value;     /* of a command buffer: its work groups; of a fence: when it is signalled */
};

struct slow {
    uint64_t free_ns; /* when all that was submitted is done */
    struct slow_item commands[SLOW_OBJECTS], fences[SLOW_OBJECTS];
};

void slow_begin(struct slow *slow, VkCommandBuffer commands);
void slow_dispatch(struct slow *slow, VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z);
void slow_submit(struct slow *slow, uint32_t count, const VkSubmitInfo *submits, VkFence fence);
/* After the driver's own wait. VK_TIMEOUT: the fence would not be signalled yet. */
VkResult slow_wait(struct slow *slow, VkFence fence, uint64_t timeout_ns);

#endif
