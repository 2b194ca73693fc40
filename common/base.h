/*
 * base.h: what every file may use: sizes, minima, shapes.
 */
#ifndef UNET_BASE_H
#define UNET_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Images, channels, rows, columns: always in this order. */
struct shape {
    int32_t n, c, h, w;
};

static inline uint64_t align_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

static inline uint32_t div_up(uint32_t value, uint32_t divisor) {
    return (value + divisor - 1) / divisor;
}

static inline uint64_t shape_elements(struct shape s) {
    return (uint64_t)s.n * (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w;
}

static inline bool shape_equal(struct shape a, struct shape b) {
    return a.n == b.n && a.c == b.c && a.h == b.h && a.w == b.w;
}

#endif
