/*
 * param.c: layouts and initialisers; see kernel_contract.h for [in][tap][out4].
 */
#include "runtime/param.h"

#include <string.h>

#include "common/rng.h"

/* Second stream number of initialisers; data and dropout use others. */
#define PARAM_STREAM 0x696e6974u /* "init" */

uint64_t param_elements(const struct plan_param *param) {
    uint64_t count = 1;
    for (uint32_t i = 0; i < param->rank; i++)
        count *= param->dims[i];
    return count;
}

static bool is_weights(const struct plan_tensor *tensor) {
    return tensor->layout == PLAN_LAYOUT_WEIGHTS;
}

struct strides {
    uint64_t in, out; /* elements between neighbours in the dense shape; taps are 1 apart */
    uint32_t n_in, n_out, n_taps, out4;
};

static struct strides strides_of(const struct plan_param *param, const struct plan_tensor *tensor) {
    struct strides s = {.n_in = (uint32_t)tensor->shape.c,
                        .n_out = (uint32_t)tensor->shape.n,
                        .n_taps = (uint32_t)(tensor->shape.h * tensor->shape.w)};
    s.out4 = (uint32_t)align_up(s.n_out, 4);
    s.in = param->transposed ? (uint64_t)s.n_out * s.n_taps : s.n_taps;
    s.out = param->transposed ? s.n_taps : (uint64_t)s.n_in * s.n_taps;
    return s;
}

void param_pack(const struct plan_param *param, const struct plan_tensor *tensor,
                const float *dense, float *packed) {
    memset(packed, 0, tensor->size_bytes);
    if (!is_weights(tensor)) {
        memcpy(packed, dense, param_elements(param) * sizeof(float));
        return;
    }
    const struct strides s = strides_of(param, tensor);
    for (uint32_t i = 0; i < s.n_in; i++) {
        for (uint32_t t = 0; t < s.n_taps; t++) {
            for (uint32_t o = 0; o < s.n_out; o++)
                packed[o] = dense[i * s.in + o * s.out + t];
            packed += s.out4;
        }
    }
}

void param_unpack(const struct plan_param *param, const struct plan_tensor *tensor,
                  const float *packed, float *dense) {
    if (!is_weights(tensor)) {
        memcpy(dense, packed, param_elements(param) * sizeof(float));
        return;
    }
    const struct strides s = strides_of(param, tensor);
    for (uint32_t i = 0; i < s.n_in; i++) {
        for (uint32_t t = 0; t < s.n_taps; t++) {
            for (uint32_t o = 0; o < s.n_out; o++)
                dense[i * s.in + o * s.out + t] = packed[o];
            packed += s.out4;
        }
    }
}

void param_init(const struct plan_param *param, uint64_t seed, uint32_t number, float *dense) {
    const uint64_t count = param_elements(param);
    const double scale = (double)param->init_scale;
    struct rng rng = rng_stream(seed, PARAM_STREAM, number);
    switch (param->init) {
    case PLAN_INIT_ZERO:
        memset(dense, 0, count * sizeof(float));
        break;
    case PLAN_INIT_NORMAL:
        for (uint64_t i = 0; i < count; i++)
            dense[i] = (float)(scale * rng_normal(&rng));
        break;
    case PLAN_INIT_UNIFORM:
        for (uint64_t i = 0; i < count; i++)
            dense[i] = (float)rng_range(&rng, -scale, scale);
        break;
    }
}
