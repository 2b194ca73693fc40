/*
 * strike.h: which calls fail (fault.h: UNET_FAULT, unet_fault_set), and how many there were.
 */
#ifndef UNET_TESTS_STRIKE_H
#define UNET_TESTS_STRIKE_H

#include <vulkan/vulkan.h>

#include <stdbool.h>

#include "tests/faults/fault.h"

/* What strikes have made of a device. */
struct strike_state {
    bool lost, hangs;
};

/* Counts a call, and tells the result that it is given instead of its own; VK_SUCCESS: its own.
 * device NULL: a call on an instance. */
VkResult strike_call(struct strike_state *device, const char *name);
/* The same of vkCreateDevice, which may be refused for a while after a fault. */
VkResult strike_creation(void);

/* Counts, and says on stderr, what is left over; nothing when count is 0. */
void strike_leak(long count, const char *what, const char *until);

/* Without n_devices. */
struct fault_report strike_report(void);
/* On stderr, where UNET_FAULT asks for it. */
void strike_print_report(void);

#endif
