/*
 * rng.h: counter-based random numbers, Philox-4x32-10 (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number is a pure function of key and counter: no state to save, the
 * same on host and device.
 */
#ifndef UNET_RNG_H
#define UNET_RNG_H

#include <stdint.h>

struct rng_block {
    uint32_t word[4];
};

/* The 128 random bits at counter (c0..c3) for a 64-bit key. shaders/philox.glsl computes the same.
 */
struct rng_block rng_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3);

/* A stream over the counters (0, 1, 2, ...; stream numbers a, b): successive draws for host code.
 */
struct rng {
    uint64_t key;
    uint32_t a, b;
    uint64_t index; /* 32-bit words drawn so far */
};

struct rng rng_stream(uint64_t seed, uint32_t a, uint32_t b);
uint32_t rng_u32(struct rng *rng);
uint32_t rng_below(struct rng *rng, uint32_t bound);        /* 0 .. bound - 1, unbiased */
double rng_uniform(struct rng *rng);                        /* [0, 1) with 53 bits */
double rng_range(struct rng *rng, double low, double high); /* [low, high) */
double rng_normal(struct rng *rng);                         /* mean 0, standard deviation 1 */

#endif
