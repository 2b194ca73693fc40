/*
 * sample_kinds.h: the kinds of drawn samples. A new kind is a file with one function, an enumerator
 * in sample.h and a row in sample.c.
 */
#ifndef UNET_RUNTIME_SAMPLE_KINDS_H
#define UNET_RUNTIME_SAMPLE_KINDS_H

#include "runtime/data/image.h"

/* Fill a black image and black labels of the same size. number is that of the picture. */
void sample_membrane(uint64_t seed, uint32_t number, struct image *image, struct image *labels);
void sample_cells(uint64_t seed, uint32_t number, struct image *image, struct image *labels);

#endif
