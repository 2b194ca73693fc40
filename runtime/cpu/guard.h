/*
 * guard.h: in builds with AddressSanitizer, memory of the blocks that a record may not touch, which
 * is everything but the tensors bound to it: a kernel that reads or writes there is reported.
 * Elsewhere nothing.
 */
#ifndef UNET_CPU_GUARD_H
#define UNET_CPU_GUARD_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define CPU_GUARD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CPU_GUARD 1
#endif
#endif

#if defined(CPU_GUARD)

#include <sanitizer/asan_interface.h>

static inline void cpu_guard_close(const void *memory, size_t size_bytes) {
    __asan_poison_memory_region(memory, size_bytes);
}

static inline void cpu_guard_open(const void *memory, size_t size_bytes) {
    __asan_unpoison_memory_region(memory, size_bytes);
}

#else

#define CPU_GUARD 0

static inline void cpu_guard_close(const void *memory, size_t size_bytes) {
    (void)memory, (void)size_bytes;
}

static inline void cpu_guard_open(const void *memory, size_t size_bytes) {
    (void)memory, (void)size_bytes;
}

#endif

#endif
