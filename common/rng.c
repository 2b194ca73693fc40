/*
 * rng.c: Philox-4x32-10. J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011, section 3.3. Bounded integers: D. Lemire, "Fast random
 * integer generation in an interval", ACM TOMACS 29 (2019). Normals: Box and Muller, 1958.
 */
#include "common/rng.h"

#include <math.h>

struct rng_block rng_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        const uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (struct rng_block){{c0, c1, c2, c3}};
}

struct rng rng_stream(uint64_t seed, uint32_t a, uint32_t b) {
    return (struct rng){.key = seed, .a = a, .b = b, .index = 0};
}

/* The next count words of the stream; word i is element i % 4 of the block at counter i / 4. */
static void draw(struct rng *rng, uint32_t *words, int count) {
    struct rng_block block = {{0, 0, 0, 0}};
    for (int i = 0; i < count; i++, rng->index++) {
        const uint64_t counter = rng->index / 4;
        if (i == 0 || rng->index % 4 == 0)
            block =
                rng_philox(rng->key, (uint32_t)counter, (uint32_t)(counter >> 32), rng->a, rng->b);
        words[i] = block.word[rng->index % 4];
    }
}

uint32_t rng_u32(struct rng *rng) {
    uint32_t word;
    draw(rng, &word, 1);
    return word;
}

uint32_t rng_below(struct rng *rng, uint32_t bound) {
    if (bound == 0)
        return 0;
    uint64_t product = (uint64_t)rng_u32(rng) * bound;
    const uint32_t excess = (uint32_t)(-bound) % bound; /* 2^32 mod bound */
    while ((uint32_t)product < excess)
        product = (uint64_t)rng_u32(rng) * bound;
    return (uint32_t)(product >> 32);
}

static double unit(uint32_t low, uint32_t high) {
    return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}

double rng_uniform(struct rng *rng) {
    uint32_t words[2];
    draw(rng, words, 2);
    return unit(words[0], words[1]);
}

double rng_range(struct rng *rng, double low, double high) {
    const double value = low + (high - low) * rng_uniform(rng);
    return value < high ? value : low; /* the sum may round up to high */
}

double rng_normal(struct rng *rng) {
    uint32_t words[4];
    draw(rng, words, 4);
    const double radius = sqrt(-2.0 * log(1.0 - unit(words[0], words[1])));
    return radius * cos(6.283185307179586476925 * unit(words[2], words[3]));
}
