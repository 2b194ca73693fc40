/*
 * conv_reference.h: the kernels of the convolution family written down once more from
 * common/kernel_contract.h, plainly and in double: what the native kernels are judged against.
 */
#ifndef UNET_TESTS_CONV_REFERENCE_H
#define UNET_TESTS_CONV_REFERENCE_H

#include <stdbool.h>

#include "common/kernel.h"

/* What a kernel writes; index as in the output binding. NAN: an element that it leaves alone. */
struct conv_reference {
    double *value;
    double *magnitude; /* the same with every product and addend replaced by its magnitude */
    double terms;      /* roundings on the way to one element, at most */
};

/* The output binding of a kernel of the family. */
int conv_reference_output(enum kernel_id id);

/*
 * value and magnitude hold as many elements as the output binding's extent. winograd: 0, or
 * magnitude and terms are those of Winograd's algorithm on tiles of 4 x 4 (runtime/cpu/winograd.c,
 * shaders/winograd.glsl) or 2 x 2 (shaders/conv_winograd2.comp) pixels, with which gamma(terms) * magnitude bounds its error: every element of the three transform matrices
 * replaced by its magnitude, too.
 */
void conv_reference_run(enum kernel_id id, const union kernel_params *params,
                        const float *const *bindings, uint32_t winograd, struct conv_reference *out);

#endif
