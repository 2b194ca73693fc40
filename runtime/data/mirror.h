/*
 * mirror.h: what lies beyond the border of an image: the image, reflected in its outermost pixel,
 * which is not repeated (... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ...), over and over. Training tiles and
 * inference tiles use this one rule.
 */
#ifndef UNET_RUNTIME_MIRROR_H
#define UNET_RUNTIME_MIRROR_H

#include <stdint.h>

/* The index 0 .. n - 1 that shows at any index; n > 0. */
static inline int mirror_index(int64_t index, int n) {
    if (index >= 0 && index < n)
        return (int)index;
    if (index < 0 && index > -n) /* one reflection: the common case, without a division */
        return (int)-index;
    if (index >= n && index < 2 * (int64_t)n - 1)
        return (int)(2 * ((int64_t)n - 1) - index);
    if (n == 1)
        return 0;
    int64_t period = 2 * ((int64_t)n - 1);
    index %= period;
    if (index < 0)
        index += period;
    return (int)(index < n ? index : period - index);
}

#endif
