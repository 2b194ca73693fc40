/*
 * slow.c: see slow.h.
 */
#include "tests/faults/slow.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Handles may be used again, so places are too. */
static struct slow_item *item_of(struct slow_item *items, const void *object) {
    for (int i = 0; i < SLOW_OBJECTS; i++) {
        if (items[i].object == object)
            return &items[i];
        if (items[i].object == NULL) {
            items[i].object = object;
            return &items[i];
        }
    }
    fprintf(stderr, "fault layer: more than %d command buffers\n", SLOW_OBJECTS);
    abort();
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t group_ns(void) {
    const char *text = getenv("UNET_FAULT_SLOW");
    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

void slow_begin(struct slow *slow, VkCommandBuffer commands) {
    item_of(slow->commands, commands)->value = 0;
}

void slow_dispatch(struct slow *slow, VkCommandBuffer commands, uint32_t x, uint32_t y,
                   uint32_t z) {
    item_of(slow->commands, commands)->value += (uint64_t)x * y * z;
}

void slow_submit(struct slow *slow, uint32_t count, const VkSubmitInfo *submits, VkFence fence) {
    const uint64_t now = now_ns(), each_ns = group_ns();
    if (slow->free_ns < now)
        slow->free_ns = now;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < submits[i].commandBufferCount; k++)
            slow->free_ns +=
                each_ns * item_of(slow->commands, submits[i].pCommandBuffers[k])->value;
    item_of(slow->fences, (const void *)fence)->value = slow->free_ns;
}

VkResult slow_wait(struct slow *slow, VkFence fence, uint64_t timeout_ns) {
    const uint64_t now = now_ns(), end = item_of(slow->fences, (const void *)fence)->value;
    uint64_t wait_ns = end > now ? end - now : 0;
    const bool in_time = wait_ns <= timeout_ns;
    if (!in_time)
        wait_ns = timeout_ns;
    const struct timespec pause = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
    nanosleep(&pause, NULL);
    return in_time ? VK_SUCCESS : VK_TIMEOUT;
}
