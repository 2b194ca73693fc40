/*
 * golden.h: the PyTorch tensors of tests/parity/unet-small.safetensors (written by make_golden.py)
 * and the comparison that both parity tests use: largest difference over largest value.
 */
#ifndef UNET_TESTS_PARITY_GOLDEN_H
#define UNET_TESTS_PARITY_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/safetensors.h"

#define PARITY_BATCHES 2 /* training steps take them in turn */

struct golden {
    struct safetensors file;
    char directory[1024]; /* of the model and the tensors */
};

/* directory: the folder of the committed files. Fails the test when they cannot be read. */
void golden_open(struct golden *golden, const char *directory);
void golden_close(struct golden *golden);

/* The tensor called PREFIX/NAME, or PREFIX when name is NULL; fails the test when it is missing. */
const struct safetensors_entry *golden_find(const struct golden *golden, const char *prefix,
                                            const char *name);
const float *golden_floats(const struct golden *golden, const char *prefix, const char *name,
                           size_t count);
/* As above for a tensor of one value. */
float golden_number(const struct golden *golden, const char *name);

/* max |a - b| / max |b|; infinity when a holds something that is not a number. */
double golden_error(const float *a, const float *b, size_t count);

/* Fails the test, naming what of which tensor (may be empty), when the error is above the
   tolerance; otherwise keeps the largest error seen in *worst. */
void golden_compare(const char *what, const char *name, const float *a, const float *b,
                    size_t count, double tolerance, double *worst);

#endif
