/*
 * conv_output.h: where the finished sums of conv_fwd and conv_dgrad go, whichever way they were
 * computed (conv.c, winograd.c): through the epilogue to one plane of y.
 */
#ifndef UNET_CPU_CONV_OUTPUT_H
#define UNET_CPU_CONV_OUTPUT_H

#include "runtime/cpu/conv_sum.h"

struct conv_output {
    struct conv_epilogue epilogue;
    float bias;
    const float *mask; /* NULL: none. Read where y is written, row by row and before: may be y */
    float *y;
};

/* Of output channel o of an image. */
CPU_INLINE struct conv_output conv_output_of(const struct cpu_call *call, uint32_t image,
                                             uint32_t o) {
    const struct conv_params *p = &call->params->conv;
    const size_t plane = o * (size_t)p->h_out * p->w_out;
    const float *aux = call->bindings[2];
    const bool is_plain = o - p->plain_first < p->plain_count;
    struct conv_output output = {.epilogue = {p->epilogue, p->slope},
                                 .y = (float *)call->bindings[3] + (size_t)image * p->y_stride_n +
                                      plane};
    if (is_plain)
        output.epilogue.bits &= ~EPILOGUE_MASK;
    if (output.epilogue.bits & EPILOGUE_BIAS)
        output.bias = aux[o];
    if (output.epilogue.bits & EPILOGUE_MASK)
        output.mask = aux + (size_t)image * p->aux_stride_n + plane;
    return output;
}

/* n sums of one row, `at` elements into the plane. sums is readable to a whole vector. */
CPU_INLINE void conv_output_row(const struct conv_output *output, const float *sums, size_t at,
                                uint32_t n) {
    CPU_FN(conv_epilogue_row)
    (output->epilogue, sums, output->bias, output->mask == NULL ? NULL : output->mask + at,
     output->y + at, n);
}

#endif
