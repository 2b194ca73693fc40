/*
 * param.h: parameters between the dense shape of checkpoints (PyTorch's: out, in, kh, kw for
 * convolutions; in, out, kh, kw for up-convolutions) and the layout of kernels ([in][tap][out4],
 * padding zero), and their first values.
 */
#ifndef UNET_PARAM_H
#define UNET_PARAM_H

#include "common/plan.h"

/* Numbers in the dense shape. */
uint64_t param_elements(const struct plan_param *param);

/* dense -> layout of the tensor (all of it, padding too) and back. */
void param_pack(const struct plan_param *param, const struct plan_tensor *tensor,
                const float *dense, float *packed);
void param_unpack(const struct plan_param *param, const struct plan_tensor *tensor,
                  const float *packed, float *dense);

/* First values in dense order: a pure function of seed and the parameter's number in the plan. */
void param_init(const struct plan_param *param, uint64_t seed, uint32_t number, float *dense);

#endif
