/*
 * conv_winograd.h: the method "winograd" of convolutions and their data gradients.
 */
#ifndef UNET_CONV_WINOGRAD_H
#define UNET_CONV_WINOGRAD_H

#include "compiler/lower.h"

/* Whether the kernel, the channels and the room for scratch allow the method. */
bool conv_winograd_fits(const struct lower *lower, const struct conv_params *params);

/* Adds the method, which fits, to the choice that is open. tensors: x, the layer's weights, aux, y.
   transposed: params are those of the data gradient. */
void conv_winograd_lower(struct lower *lower, const struct node *node, const char *role,
                         const struct conv_params *params, bool transposed,
                         const uint32_t tensors[4]);

#endif
