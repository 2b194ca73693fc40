/*
 * loss.c: native kernels of the softmax and the weighted cross-entropy. Pixels are computed in
 * pieces, class by class, so that inner loops run over neighbouring pixels.
 */
#include <math.h>

#include "runtime/cpu/variant.h"

#define PIECE 256u /* pixels */

struct piece {
    float top[PIECE]; /* the largest logit of each pixel */
    float sum[PIECE]; /* of exp(logit - top) */
};

/* Softmax of count <= PIECE pixels; x and y are the first class of the first of them, classes lie
   hw elements apart. Leaves the largest logits and the sums of exponentials in piece. */
static void softmax_piece(const float *x, float *y, uint32_t k, uint32_t hw, uint32_t count,
                          struct piece *piece) {
    float *top = piece->top, *sum = piece->sum;
    for (uint32_t i = 0; i < count; i++) {
        top[i] = x[i];
        sum[i] = 0.0f;
    }
    for (uint32_t c = 1; c < k; c++) {
        const float *logits = x + (size_t)c * hw;
        for (uint32_t i = 0; i < count; i++)
            top[i] = logits[i] > top[i] ? logits[i] : top[i];
    }
    for (uint32_t c = 0; c < k; c++) {
        const float *logits = x + (size_t)c * hw;
        float *to = y + (size_t)c * hw;
        for (uint32_t i = 0; i < count; i++) {
            const float e = expf(logits[i] - top[i]);
            to[i] = e;
            sum[i] += e;
        }
    }
    for (uint32_t c = 0; c < k; c++) {
        float *to = y + (size_t)c * hw;
        for (uint32_t i = 0; i < count; i++)
            to[i] /= sum[i];
    }
}

static uint32_t pixel_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    /* n, k and hw are the first three parameters of both kernels */
    return p->softmax.n * div_up(p->softmax.hw, PIECE);
}

static void softmax(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct softmax_params *p = &call->params->softmax;
    const uint32_t pieces = div_up(p->hw, PIECE), image = unit / pieces;
    const uint32_t at = unit % pieces * PIECE;
    struct piece piece;
    softmax_piece((const float *)call->bindings[0] + cpu_offset(image, p->x_stride_n, at),
                  (float *)call->bindings[1] + cpu_offset(image, p->y_stride_n, at), p->k, p->hw,
                  MIN(PIECE, p->hw - at), &piece);
}

/* ---- loss: a unit is a group of LOSS_PIXELS_PER_GROUP pixels ---- */

struct loss_sums {
    double weighted, weights, correct, counted;
};

static uint32_t loss_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct softmax_loss_params *p = &params->softmax_loss;
    return div_up(p->n * p->hw, LOSS_PIXELS_PER_GROUP);
}

/* The first class that has the largest logit. */
static uint32_t top_class(const float *logits, uint32_t k, uint32_t hw, float top) {
    for (uint32_t c = 0; c < k; c++) {
        if (logits[(size_t)c * hw] == top)
            return c;
    }
    return 0; /* a logit that is no number */
}

/* pixel: of all images in a row. */
static void loss_piece(const struct cpu_call *call, uint32_t pixel, uint32_t count,
                       struct loss_sums *sums) {
    const struct softmax_loss_params *p = &call->params->softmax_loss;
    const uint32_t image = pixel / p->hw, at = pixel - image * p->hw;
    const float *logits =
        (const float *)call->bindings[0] + cpu_offset(image, p->logits_stride_n, at);
    const uint32_t *labels = (const uint32_t *)call->bindings[1] + pixel;
    const float *weights = (const float *)call->bindings[2] + pixel;
    float *probs = (float *)call->bindings[3] + cpu_offset(image, p->probs_stride_n, at);
    struct piece piece;
    softmax_piece(logits, probs, p->k, p->hw, count, &piece);
    for (uint32_t i = 0; i < count; i++) {
        const float weight = weights[i];
        const uint32_t label = labels[i];
        if (!(weight > 0.0f) || label >= p->k)
            continue;
        const float cross_entropy =
            logf(piece.sum[i]) + (piece.top[i] - logits[(size_t)label * p->hw + i]);
        sums->weighted += (double)(weight * cross_entropy);
        sums->weights += (double)weight;
        sums->correct += label == top_class(logits + i, p->k, p->hw, piece.top[i]) ? 1.0 : 0.0;
        sums->counted += 1.0;
    }
}

static void softmax_loss(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct softmax_loss_params *p = &call->params->softmax_loss;
    const uint32_t begin = unit * LOSS_PIXELS_PER_GROUP;
    const uint32_t end = MIN(begin + LOSS_PIXELS_PER_GROUP, p->n * p->hw);
    struct loss_sums sums = {0, 0, 0, 0};
    for (uint32_t pixel = begin; pixel < end;) {
        const uint32_t left = p->hw - pixel % p->hw; /* of this image */
        const uint32_t count = MIN(MIN(left, end - pixel), PIECE);
        loss_piece(call, pixel, count, &sums);
        pixel += count;
    }
    float *partial = (float *)call->bindings[4] + 4 * (size_t)unit;
    partial[0] = (float)sums.weighted;
    partial[1] = (float)sums.weights;
    partial[2] = (float)sums.correct;
    partial[3] = (float)sums.counted;
}

static uint32_t one_unit(const union kernel_params *params, uint32_t phase) {
    (void)params, (void)phase;
    return 1;
}

static void loss_reduce(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase, (void)unit;
    const float *partial = call->bindings[0];
    float *loss = call->bindings[1];
    double sums[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < call->params->loss_reduce.count; i++) {
        for (uint32_t j = 0; j < 4; j++)
            sums[j] += (double)partial[4 * (size_t)i + j];
    }
    loss[0] = sums[1] > 0.0 ? (float)(sums[0] / sums[1]) : 0.0f;
    for (uint32_t j = 0; j < 4; j++)
        loss[1 + j] = (float)sums[j];
    for (uint32_t j = 5; j < LOSS_WORDS; j++)
        loss[j] = 0.0f;
}

static void softmax_loss_grad(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct softmax_loss_grad_params *p = &call->params->softmax_loss_grad;
    const uint32_t pieces = div_up(p->hw, PIECE), image = unit / pieces;
    const uint32_t at = unit % pieces * PIECE, count = MIN(PIECE, p->hw - at);
    const uint32_t *labels = (const uint32_t *)call->bindings[1] + cpu_offset(image, p->hw, at);
    const float *weights = (const float *)call->bindings[2] + cpu_offset(image, p->hw, at);
    const float sum = ((const float *)call->bindings[3])[2];
    float scale[PIECE];
    for (uint32_t i = 0; i < count; i++) {
        const bool counts = sum > 0.0f && weights[i] > 0.0f && labels[i] < p->k;
        scale[i] = counts ? weights[i] / sum : 0.0f;
    }
    for (uint32_t c = 0; c < p->k; c++) {
        const size_t plane = (size_t)c * p->hw + at;
        const float *probs =
            (const float *)call->bindings[0] + cpu_offset(image, p->probs_stride_n, plane);
        float *dlogits = (float *)call->bindings[4] + cpu_offset(image, p->dlogits_stride_n, plane);
        CPU_INDEPENDENT
        for (uint32_t i = 0; i < count; i++)
            dlogits[i] = scale[i] * (probs[i] - (labels[i] == c ? 1.0f : 0.0f));
    }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_softmax, .n_phases = 1, .units = pixel_units, .run = softmax},
    {.id = KERNEL_ID_softmax_loss, .n_phases = 1, .units = loss_units, .run = softmax_loss},
    {.id = KERNEL_ID_loss_reduce, .n_phases = 1, .units = one_unit, .run = loss_reduce},
    {.id = KERNEL_ID_softmax_loss_grad,
     .n_phases = 1,
     .units = pixel_units,
     .run = softmax_loss_grad},
};

CPU_FIND(cpu_loss_find)
