/*
 * guard.h: device memory between pages that nobody may touch, for drivers that compute on the CPU
 * (docs/porting.md, validation). A program that is linked with guard.c (meson.build lists the calls
 * that it takes over) gives each of its buffers pages of its own, imported as the host's
 * (VK_EXT_external_memory_host): the buffer ends where its pages end, or begins where they begin,
 * and beyond lies GUARD_BYTES of address space without access. Whatever reads or writes there is
 * noted, its guard is opened, and it goes on: so one run finds every such place.
 */
#ifndef UNET_TESTS_GUARD_H
#define UNET_TESTS_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_BYTES ((size_t)1 << 20)
/* Buffers begin at multiples of this much, as shaders may expect of tensors that they reach by
   addresses (shaders/access.glsl); so up to one word less of memory may lie before the guard. */
#define GUARD_ALIGNMENT 16u

/* Which end of a buffer lies at a guard; at the other end are up to a page's bytes in between. */
enum guard_side { GUARD_AFTER, GUARD_BEFORE, GUARD_SIDE_COUNT };

/* A touched guard. */
struct guard_hit {
    uint32_t buffer;     /* number of the buffer, in the order they were made since guard_begin */
    bool after;          /* its end, else its start */
    bool is_write;       /* at least one access was */
    size_t beyond_bytes; /* how far off the first access was: 0 next to the buffer */
};

/* From now on buffers are guarded on this side, and numbered from 0. None may be left from before.
 */
void guard_begin(enum guard_side side);
/* How many there are; and whether the driver can do it: false after a device was opened that
   cannot, or is no CPU. */
uint32_t guard_count(void);
bool guard_is_possible(void);
uint64_t guard_size_bytes(uint32_t buffer);

/* What is running, for the message when something else is touched that nobody may, which ends the
   program. Kept, not copied. */
void guard_set_what(const char *what);

/* One of the guards touched since it was last asked, each once; it is closed again. False: none. */
bool guard_take(struct guard_hit *hit);

#endif
