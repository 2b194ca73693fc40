/*
 * test_cpu_conv.c: the convolution family of the native CPU device, in every instruction set that
 * this machine has, against conv_reference.h: sizes around the edges of vectors, register tiles and
 * blocks, batches of images that lie apart, padding, dilation, epilogues, splits. Sums are judged
 * by their a-priori bound, gamma(k) * sum |a||b| (Higham, Accuracy and Stability of Numerical
 * Algorithms, section 3.1); those of Winograd's algorithm with the magnitudes of its transforms
 * (conv_reference.h).
 *
 * Inputs are allocated to the element, so that a sanitizer sees a read past their end. Outputs lie
 * between guard words, and what the contract does not let a kernel write must stay as it was.
 * Scratch memory holds NaN at first.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "runtime/cpu/kernel.h"
#include "tests/cpu/conv_reference.h"

#define GUARD_WORDS 64
static const uint32_t guard_bits = 0x7fc0dead; /* a NaN that no arithmetic makes */

/* The instruction sets to test: those that the processor has. */
static int n_isas;

static int isas_of_machine(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw"))
        return 2;
    return 3;
#else
    return 1;
#endif
}

static uint64_t random_state = 1;

static float random_float(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) / 2147483648.0f;
}

static void *allocate(size_t bytes, size_t alignment) {
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, alignment, MAX(bytes, 1)), 0);
    return p;
}

/* One record: parameters and memory of its own. */
struct record {
    enum kernel_id id;
    union kernel_params params;
    uint64_t extents[KERNEL_MAX_BINDINGS];
    int n_bindings, output;
    float *inputs[KERNEL_MAX_BINDINGS];
};

static struct record record_new(enum kernel_id id, const void *params, size_t bytes) {
    struct record record = {.id = id, .n_bindings = (int)kernel_table[id].n_bindings};
    memcpy(&record.params, params, bytes);
    record.output = conv_reference_output(id);
    const char *why = NULL;
    if (!kernel_extents(id, record.params.words, record.extents, &why))
        fail_msg("%s: parameters of the test: %s", kernel_table[id].name, why);
    for (int b = 0; b < record.n_bindings; b++) {
        record.inputs[b] = NULL;
        if (b == record.output)
            continue;
        record.inputs[b] = allocate(record.extents[b] * sizeof(float), 64);
        for (uint64_t i = 0; i < record.extents[b]; i++)
            record.inputs[b][i] = random_float();
    }
    return record;
}

static void record_free(struct record *record) {
    for (int b = 0; b < record->n_bindings; b++)
        free(record->inputs[b]);
}

/* rows of `count` outputs, rounded up to a multiple of 4: the padding is zero. */
static void clear_padding(float *weights, uint64_t extent, uint32_t count) {
    const uint32_t count4 = (uint32_t)align_up(count, 4);
    for (uint64_t i = 0; i < extent; i++)
        if (i % count4 >= count)
            weights[i] = 0;
}

static uint32_t unit_in_order(uint32_t i, uint32_t n, int order) {
    if (order == 0)
        return i;
    if (order == 1)
        return n - 1 - i;
    return i < n / 2 ? 2 * i + 1 : 2 * (i - n / 2); /* odd ones first */
}

/* conv_dgrad: the mask is copied to where the output goes, and read there. */
static bool is_in_place;

/* Runs the record; the output between its guards, to be freed by the caller. */
static float *record_run(const struct record *record, enum cpu_isa isa, enum cpu_conv conv,
                         int order) {
    const struct cpu_kernel *kernel = cpu_conv_find(isa, conv, record->id, &record->params);
    assert_non_null(kernel);
    const union kernel_params *params = &record->params;
    const size_t shared_bytes = kernel->shared_bytes ? kernel->shared_bytes(params) : 0;
    const size_t scratch_bytes = kernel->scratch_bytes ? kernel->scratch_bytes(params) : 0;
    const uint64_t words = record->extents[record->output] + 2 * GUARD_WORDS;
    float *memory = allocate(words * sizeof(float), 64);
    for (uint64_t i = 0; i < words; i++)
        memcpy(&memory[i], &guard_bits, sizeof(guard_bits));
    struct cpu_call call = {.params = params};
    call.shared = allocate(shared_bytes, 64);
    call.scratch = allocate(scratch_bytes, 64);
    memset(call.shared, 0xff, shared_bytes);
    memset(call.scratch, 0xff, scratch_bytes);
    for (int b = 0; b < record->n_bindings; b++)
        call.bindings[b] = b == record->output ? memory + GUARD_WORDS : record->inputs[b];
    if (is_in_place) {
        memcpy(call.bindings[3], record->inputs[2], record->extents[2] * sizeof(float));
        call.bindings[2] = call.bindings[3];
    }
    for (uint32_t phase = 0; phase < kernel->n_phases; phase++) {
        const uint32_t n = kernel->units(params, phase);
        assert_true(n >= 1);
        for (uint32_t i = 0; i < n; i++)
            kernel->run(&call, phase, unit_in_order(i, n, order));
    }
    free(call.shared);
    free(call.scratch);
    return memory;
}

static void describe(const struct record *record, enum cpu_isa isa, enum cpu_conv conv, char *text,
                     size_t size) {
    static const char *const names[] = {"plain", "avx2", "avx512"};
    size_t used = (size_t)snprintf(text, size, "%s (%s%s):", kernel_table[record->id].name,
                                   names[isa], conv == CPU_CONV_WINOGRAD ? ", Winograd" : "");
    for (uint32_t i = 0; i < kernel_table[record->id].n_params && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, " %s %u",
                                 kernel_table[record->id].params[i].name, record->params.words[i]);
}

static void check_output(const struct record *record, enum cpu_isa isa, enum cpu_conv conv,
                         const float *memory, const struct conv_reference *want) {
    char text[600];
    describe(record, isa, conv, text, sizeof(text));
    const uint64_t extent = record->extents[record->output];
    const double u = want->terms * ldexp(1, -24), gamma = u / (1 - u);
    for (uint64_t i = 0; i < extent + 2 * GUARD_WORDS; i++) {
        const bool is_guard =
            i < GUARD_WORDS || i >= GUARD_WORDS + extent || isnan(want->value[i - GUARD_WORDS]);
        if (is_guard) {
            if (memcmp(&memory[i], &guard_bits, sizeof(guard_bits)) != 0)
                fail_msg("%s: wrote to word %lld, which is not its own", text,
                         (long long)i - GUARD_WORDS);
            continue;
        }
        const double value = want->value[i - GUARD_WORDS];
        const double bound = gamma * want->magnitude[i - GUARD_WORDS];
        if (!(fabs(memory[i] - value) <= bound))
            fail_msg("%s: element %llu is %.9g, must be %.9g +- %.3g", text,
                     (unsigned long long)i - GUARD_WORDS, memory[i], value, bound);
    }
}

/* Every instruction set against the reference, and its units in three orders against each other. */
static void check_way(const struct record *record, enum cpu_conv conv,
                      struct conv_reference *want) {
    const uint64_t extent = record->extents[record->output];
    conv_reference_run(record->id, &record->params, (const float *const *)record->inputs,
                       conv == CPU_CONV_WINOGRAD ? 4 : 0, want);
    for (int isa = 0; isa < n_isas; isa++) {
        float *first = record_run(record, (enum cpu_isa)isa, conv, 0);
        check_output(record, (enum cpu_isa)isa, conv, first, want);
        for (int order = 1; order < 3; order++) {
            float *again = record_run(record, (enum cpu_isa)isa, conv, order);
            assert_memory_equal(first, again, (extent + 2 * GUARD_WORDS) * sizeof(float));
            free(again);
        }
        free(first);
    }
}

static bool has_winograd(const struct record *record) {
    return cpu_conv_is_winograd(CPU_CONV_WINOGRAD, record->id, &record->params);
}

static void check_record(const struct record *record) {
    const uint64_t extent = record->extents[record->output];
    struct conv_reference want = {.value = allocate(extent * sizeof(double), 64),
                                  .magnitude = allocate(extent * sizeof(double), 64)};
    check_way(record, CPU_CONV_DIRECT, &want);
    if (has_winograd(record))
        check_way(record, CPU_CONV_WINOGRAD, &want);
    free(want.value);
    free(want.magnitude);
}

struct conv_case {
    uint32_t n, c_in, c_out, h, w, kh, kw, pad_h, pad_w, dilation;
};

static const struct conv_case conv_cases[] = {
    {1, 1, 1, 3, 3, 3, 3, 0, 0, 1},      {1, 1, 16, 37, 35, 3, 3, 0, 0, 1},
    {1, 1, 64, 20, 50, 3, 3, 0, 0, 1},   {2, 3, 5, 8, 66, 3, 3, 0, 0, 1},
    {1, 16, 16, 14, 67, 3, 3, 0, 0, 1},  {2, 4, 33, 9, 18, 3, 3, 0, 0, 1},
    {2, 33, 4, 10, 17, 3, 3, 1, 1, 1},   {1, 32, 32, 12, 33, 3, 3, 1, 1, 1},
    {1, 17, 31, 21, 130, 3, 3, 0, 0, 1}, {1, 64, 8, 7, 7, 3, 3, 1, 1, 1},
    {3, 33, 33, 5, 6, 3, 3, 2, 2, 1},    {1, 2, 2, 11, 13, 1, 1, 0, 0, 1},
    {2, 16, 2, 33, 65, 1, 1, 0, 0, 1},   {1, 2, 40, 9, 16, 1, 1, 0, 0, 1},
    {2, 5, 6, 12, 14, 5, 5, 2, 2, 1},    {1, 3, 4, 16, 15, 4, 4, 0, 0, 1},
    {1, 2, 9, 15, 13, 7, 7, 3, 3, 1},    {1, 2, 3, 11, 12, 9, 9, 4, 4, 1},
    {1, 6, 7, 20, 22, 3, 3, 0, 0, 2},    {1, 9, 12, 13, 24, 3, 3, 4, 4, 4},
    {1, 2, 3, 9, 30, 1, 5, 0, 2, 1},     {1, 2, 3, 30, 9, 5, 1, 2, 0, 1},
    {1, 4, 8, 25, 25, 4, 4, 0, 0, 4},    {3, 8, 12, 6, 5, 3, 3, 0, 0, 1},
    {1, 40, 24, 6, 6, 3, 3, 2, 2, 1},    {1, 3, 2, 1, 1, 1, 1, 0, 0, 1},
    {1, 3, 2, 1, 1, 3, 3, 2, 2, 1},      /* more padding than image */
    {1, 130, 20, 30, 30, 3, 3, 1, 1, 1}, /* several blocks of inputs */
    {1, 12, 140, 18, 17, 3, 3, 0, 0, 1}, /* several blocks of outputs */
    {1, 3, 4, 5, 700, 3, 3, 1, 1, 1},    /* several tiles side by side */
    {2, 2, 3, 150, 40, 3, 3, 0, 0, 1},   /* and below each other */
    {2, 100, 21, 43, 70, 3, 3, 1, 1, 1}, /* Winograd: blocks of tiles over two images */
    {2, 70, 150, 22, 31, 3, 3, 0, 0, 1}, /* and of outputs, for more outputs than tiles */
};

#define WIDTHS 70 /* every width up to this one: each remainder of every vector and tile */

/* Images of a tensor lie this much further apart than they must. */
static uint32_t gap(uint32_t n, uint32_t extra) {
    return n > 1 ? extra : 0;
}

static struct conv_params conv_params_of(const struct conv_case *c, uint32_t epilogue) {
    struct conv_params p = {.n = c->n,
                            .c_in = c->c_in,
                            .h_in = c->h,
                            .w_in = c->w,
                            .c_out = c->c_out,
                            .h_out = c->h + 2 * c->pad_h - c->dilation * (c->kh - 1),
                            .w_out = c->w + 2 * c->pad_w - c->dilation * (c->kw - 1),
                            .pad_h = c->pad_h,
                            .pad_w = c->pad_w,
                            .dilation = c->dilation,
                            .kh = c->kh,
                            .kw = c->kw,
                            .epilogue = epilogue,
                            .slope = 0.125f};
    p.x_stride_n = p.c_in * p.h_in * p.w_in + gap(p.n, 37);
    p.y_stride_n = p.c_out * p.h_out * p.w_out + gap(p.n, 29);
    p.aux_stride_n = p.c_out * p.h_out * p.w_out + gap(p.n, 101);
    return p;
}

static const uint32_t epilogues[] = {0, EPILOGUE_BIAS, EPILOGUE_BIAS | EPILOGUE_ACT, EPILOGUE_MASK,
                                     EPILOGUE_ACT};

static void check_conv(enum kernel_id id, const struct conv_case *c, uint32_t epilogue) {
    struct conv_params p = conv_params_of(c, epilogue);
    struct record record = record_new(id, &p, sizeof(p));
    clear_padding(record.inputs[1], record.extents[1], c->c_out);
    check_record(&record);
    record_free(&record);
}

static void conv_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(conv_cases); i++)
        for (size_t e = 0; e < ARRAY_LEN(epilogues); e++)
            if (e == i % ARRAY_LEN(epilogues) || conv_cases[i].c_out < 10)
                check_conv(KERNEL_ID_conv_fwd, &conv_cases[i], epilogues[e]);
    for (uint32_t w = 1; w < WIDTHS; w++) {
        check_conv(KERNEL_ID_conv_fwd, &(struct conv_case){1, 2, 9, 3, w + 2, 3, 3, 0, 0, 1},
                   epilogues[w % ARRAY_LEN(epilogues)]);
        check_conv(KERNEL_ID_conv_fwd, &(struct conv_case){1, 3, w, 2, 5, 2, 2, 1, 1, 1},
                   epilogues[w % ARRAY_LEN(epilogues)]);
    }
}

/* As the gradient of each case: the input is the gradient of its output. */
static void conv_data_gradient(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(conv_cases); i++) {
        const struct conv_case *c = &conv_cases[i];
        const uint32_t reach_h = c->dilation * (c->kh - 1), reach_w = c->dilation * (c->kw - 1);
        if (c->pad_h > reach_h || c->pad_w > reach_w)
            continue;
        const struct conv_case back = {c->n,
                                       c->c_out,
                                       c->c_in,
                                       c->h + 2 * c->pad_h - reach_h,
                                       c->w + 2 * c->pad_w - reach_w,
                                       c->kh,
                                       c->kw,
                                       reach_h - c->pad_h,
                                       reach_w - c->pad_w,
                                       c->dilation};
        check_conv(KERNEL_ID_conv_dgrad, &back, i % 2 ? EPILOGUE_MASK : 0);
    }
}

static void check_conv_wgrad(const struct conv_case *c, uint32_t splits) {
    const struct conv_params f = conv_params_of(c, 0);
    const struct conv_wgrad_params p = {.n = f.n,
                                        .c_in = f.c_in,
                                        .h_in = f.h_in,
                                        .w_in = f.w_in,
                                        .x_stride_n = f.x_stride_n,
                                        .c_out = f.c_out,
                                        .h_out = f.h_out,
                                        .w_out = f.w_out,
                                        .dy_stride_n = f.y_stride_n,
                                        .pad_h = f.pad_h,
                                        .pad_w = f.pad_w,
                                        .dilation = f.dilation,
                                        .kh = f.kh,
                                        .kw = f.kw,
                                        .splits = splits};
    struct record record = record_new(KERNEL_ID_conv_wgrad, &p, sizeof(p));
    check_record(&record);
    record_free(&record);
}

static void conv_weight_gradient(void **state) {
    (void)state;
    static const uint32_t splits[] = {1, 3, 7, 40};
    for (size_t i = 0; i < ARRAY_LEN(conv_cases); i++) {
        check_conv_wgrad(&conv_cases[i], splits[i % ARRAY_LEN(splits)]);
        check_conv_wgrad(&conv_cases[i], 1);
    }
    for (uint32_t w = 1; w < WIDTHS; w++) {
        check_conv_wgrad(&(struct conv_case){1, 9, 5, 3, w + 2, 3, 3, 0, 0, 1}, 2);
        check_conv_wgrad(&(struct conv_case){1, w, 3, 3, 4, 2, 2, 0, 0, 1}, 1);
        check_conv_wgrad(&(struct conv_case){1, 3, w, 3, 4, 2, 2, 0, 0, 1}, 1);
    }
    /* Rows enough to be cut into parts, of one image and of two. */
    check_conv_wgrad(&(struct conv_case){1, 1, 9, 130, 130, 3, 3, 0, 0, 1}, 1);
    check_conv_wgrad(&(struct conv_case){2, 9, 3, 101, 90, 1, 3, 0, 1, 1}, 2);
}

struct upconv_case {
    uint32_t n, c_in, c_out, h, w, k;
};

static const struct upconv_case upconv_cases[] = {
    {1, 1, 1, 1, 1, 2},    {1, 16, 8, 9, 33, 2}, {2, 7, 5, 6, 11, 2},    {1, 32, 16, 17, 70, 2},
    {1, 33, 17, 5, 4, 3},  {1, 2, 2, 3, 5, 8},   {1, 4, 4, 8, 8, 4},     {1, 64, 32, 7, 7, 2},
    {3, 5, 6, 2, 3, 1},    {1, 3, 2, 2, 3, 19},  {1, 150, 3, 40, 30, 2}, {2, 2, 3, 3, 400, 2},
    {1, 3, 50, 60, 30, 2}, {1, 2, 2, 2, 1, 300},
};

static void check_upconv(const struct upconv_case *c, uint32_t epilogue) {
    struct upconv_params p = {.n = c->n,
                              .c_in = c->c_in,
                              .h_in = c->h,
                              .w_in = c->w,
                              .c_out = c->c_out,
                              .k = c->k,
                              .epilogue = epilogue,
                              .slope = 0.125f};
    p.x_stride_n = c->c_in * c->h * c->w + gap(c->n, 5);
    p.y_stride_n = c->c_out * c->h * c->w * c->k * c->k + gap(c->n, 11);
    p.aux_stride_n = c->c_out * c->h * c->w * c->k * c->k + gap(c->n, 3);
    struct record record = record_new(KERNEL_ID_upconv_fwd, &p, sizeof(p));
    clear_padding(record.inputs[1], record.extents[1], c->c_out);
    check_record(&record);
    record_free(&record);
}

static void check_upconv_dgrad(const struct upconv_case *c, uint32_t epilogue) {
    struct upconv_dgrad_params p = {.n = c->n,
                                    .c_in = c->c_in,
                                    .h_in = c->h,
                                    .w_in = c->w,
                                    .c_out = c->c_out,
                                    .k = c->k,
                                    .epilogue = epilogue,
                                    .slope = 0.125f};
    p.dx_stride_n = c->c_in * c->h * c->w + gap(c->n, 5);
    p.dy_stride_n = c->c_out * c->h * c->w * c->k * c->k + gap(c->n, 11);
    p.aux_stride_n = c->c_in * c->h * c->w + gap(c->n, 3);
    struct record record = record_new(KERNEL_ID_upconv_dgrad, &p, sizeof(p));
    clear_padding(record.inputs[1], record.extents[1], c->c_in);
    check_record(&record);
    record_free(&record);
}

static void check_upconv_wgrad(const struct upconv_case *c, uint32_t splits) {
    struct upconv_wgrad_params p = {.n = c->n,
                                    .c_in = c->c_in,
                                    .h_in = c->h,
                                    .w_in = c->w,
                                    .c_out = c->c_out,
                                    .k = c->k,
                                    .splits = splits};
    p.x_stride_n = c->c_in * c->h * c->w + gap(c->n, 5);
    p.dy_stride_n = c->c_out * c->h * c->w * c->k * c->k + gap(c->n, 11);
    struct record record = record_new(KERNEL_ID_upconv_wgrad, &p, sizeof(p));
    check_record(&record);
    record_free(&record);
}

static void upconv_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(upconv_cases); i++)
        for (size_t e = 0; e < ARRAY_LEN(epilogues); e++)
            check_upconv(&upconv_cases[i], epilogues[e]);
    for (uint32_t w = 1; w < WIDTHS; w++)
        check_upconv(&(struct upconv_case){1, 3, 3, 2, w, 2}, EPILOGUE_BIAS);
}

static void upconv_data_gradient(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(upconv_cases); i++)
        for (size_t e = 0; e < ARRAY_LEN(epilogues); e++)
            check_upconv_dgrad(&upconv_cases[i], epilogues[e]);
    for (uint32_t w = 1; w < WIDTHS; w++)
        check_upconv_dgrad(&(struct upconv_case){1, 3, 3, 2, w, 2}, EPILOGUE_MASK);
}

static void upconv_weight_gradient(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(upconv_cases); i++) {
        check_upconv_wgrad(&upconv_cases[i], 1);
        check_upconv_wgrad(&upconv_cases[i], 3);
    }
    for (uint32_t w = 1; w < WIDTHS; w++) {
        check_upconv_wgrad(&(struct upconv_case){1, 3, 3, 2, w, 2}, 1);
        check_upconv_wgrad(&(struct upconv_case){1, 2, w, 2, 3, 2}, 1);
    }
}

/* Inputs that are not finite reach the sums they belong to, and never the padding. */
static void padding_of_weight_gradient(void **state) {
    (void)state;
    const struct conv_wgrad_params conv = {1, 9, 6, 6, 324, 5, 4, 4, 80, 0, 0, 1, 3, 3, 1};
    const struct upconv_wgrad_params up = {1, 9, 6, 6, 324, 5, 720, 2, 1};
    struct record records[] = {record_new(KERNEL_ID_conv_wgrad, &conv, sizeof(conv)),
                               record_new(KERNEL_ID_upconv_wgrad, &up, sizeof(up))};
    for (size_t r = 0; r < ARRAY_LEN(records); r++) {
        for (uint64_t i = 0; i < records[r].extents[0]; i++)
            records[r].inputs[0][i] = INFINITY;
        for (int isa = 0; isa < n_isas; isa++) {
            float *memory = record_run(&records[r], (enum cpu_isa)isa, CPU_CONV_DIRECT, 0);
            for (uint64_t i = 0; i < records[r].extents[2]; i++) {
                if (i % 8 < 5)
                    assert_false(isfinite(memory[GUARD_WORDS + i]));
                else
                    assert_true(memory[GUARD_WORDS + i] == 0);
            }
            free(memory);
        }
        record_free(&records[r]);
    }
}

/*
 * The same pixels in maps of other sizes, at other places: the same bits. The map of `big` is cut
 * out of (top, left) into one of h x w; `reach` input pixels around an output pixel decide it.
 */
static float *cut(const float *src, uint32_t c, uint32_t big_h, uint32_t big_w, uint32_t top,
                  uint32_t left, uint32_t h, uint32_t w) {
    float *dst = allocate((size_t)c * h * w * sizeof(float), 64);
    for (uint32_t i = 0; i < c; i++)
        for (uint32_t y = 0; y < h; y++)
            memcpy(dst + ((size_t)i * h + y) * w,
                   src + ((size_t)i * big_h + top + y) * big_w + left, w * sizeof(float));
    return dst;
}

struct window {
    uint32_t top, left, h, w;
};

static const struct window windows[] = {{0, 0, 9, 11},  {3, 5, 20, 40}, {1, 17, 33, 16},
                                        {7, 2, 5, 61},  {4, 4, 40, 47}, {2, 1, 13, 35},
                                        {0, 31, 48, 3}, {47, 0, 3, 64}, {10, 10, 3, 3}};
#define BIG_H 50
#define BIG_W 64

static void compare_windows(const struct record *big, const struct record *small, uint32_t channels,
                            uint32_t scale, uint32_t lost, const struct window *at, int isa) {
    float *whole = record_run(big, (enum cpu_isa)isa, CPU_CONV_DIRECT, 0);
    float *part = record_run(small, (enum cpu_isa)isa, CPU_CONV_DIRECT, 0);
    const uint32_t big_h = (BIG_H - lost) * scale, big_w = (BIG_W - lost) * scale;
    const uint32_t h = (at->h - lost) * scale, w = (at->w - lost) * scale;
    for (uint32_t c = 0; c < channels; c++)
        for (uint32_t y = 0; y < h; y++)
            assert_memory_equal(part + GUARD_WORDS + ((size_t)c * h + y) * w,
                                whole + GUARD_WORDS +
                                    ((size_t)c * big_h + at->top * scale + y) * big_w +
                                    at->left * scale,
                                w * sizeof(float));
    free(whole);
    free(part);
}

static void position_of_conv(void **state) {
    (void)state;
    const struct conv_case big_case = {1, 70, 21, BIG_H, BIG_W, 3, 3, 0, 0, 1};
    const struct conv_params big_params = conv_params_of(&big_case, EPILOGUE_BIAS | EPILOGUE_ACT);
    struct record big = record_new(KERNEL_ID_conv_fwd, &big_params, sizeof(big_params));
    for (size_t i = 0; i < ARRAY_LEN(windows); i++) {
        const struct window *at = &windows[i];
        const struct conv_case c = {1, 70, 21, at->h, at->w, 3, 3, 0, 0, 1};
        const struct conv_params p = conv_params_of(&c, EPILOGUE_BIAS | EPILOGUE_ACT);
        struct record small = record_new(KERNEL_ID_conv_fwd, &p, sizeof(p));
        free(small.inputs[0]);
        small.inputs[0] = cut(big.inputs[0], 70, BIG_H, BIG_W, at->top, at->left, at->h, at->w);
        memcpy(small.inputs[1], big.inputs[1], big.extents[1] * sizeof(float));
        memcpy(small.inputs[2], big.inputs[2], big.extents[2] * sizeof(float));
        for (int isa = 0; isa < n_isas; isa++)
            compare_windows(&big, &small, 21, 1, 2, at, isa);
        record_free(&small);
    }
    record_free(&big);
}

/* Winograd: of the tiles of 4 x 4 that lie wholly in both maps, at places a multiple of 4 apart. */
static void compare_tiles(const float *whole, const float *part, const struct window *at) {
    const uint32_t big_h = BIG_H - 2, big_w = BIG_W - 2, h = at->h - 2, w = at->w - 2;
    uint32_t n_rows = 0;
    for (uint32_t c = 0; c < 21; c++)
        for (uint32_t y = 0; y < h / 4 * 4; y++, n_rows++)
            assert_memory_equal(part + GUARD_WORDS + ((size_t)c * h + y) * w,
                                whole + GUARD_WORDS + ((size_t)c * big_h + at->top + y) * big_w +
                                    at->left,
                                w / 4 * 4 * sizeof(float));
    assert_true(n_rows > 0);
}

static void position_of_winograd(void **state) {
    (void)state;
    static const struct window places[] = {
        {0, 0, 14, 18}, {4, 8, 26, 40}, {16, 12, 10, 52}, {8, 4, 7, 9}, {20, 0, 30, 64}};
    const struct conv_case big_case = {1, 70, 21, BIG_H, BIG_W, 3, 3, 0, 0, 1};
    const struct conv_params big_params = conv_params_of(&big_case, EPILOGUE_BIAS | EPILOGUE_ACT);
    struct record big = record_new(KERNEL_ID_conv_fwd, &big_params, sizeof(big_params));
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        const struct window *at = &places[i];
        const struct conv_case c = {1, 70, 21, at->h, at->w, 3, 3, 0, 0, 1};
        const struct conv_params p = conv_params_of(&c, EPILOGUE_BIAS | EPILOGUE_ACT);
        struct record small = record_new(KERNEL_ID_conv_fwd, &p, sizeof(p));
        free(small.inputs[0]);
        small.inputs[0] = cut(big.inputs[0], 70, BIG_H, BIG_W, at->top, at->left, at->h, at->w);
        memcpy(small.inputs[1], big.inputs[1], big.extents[1] * sizeof(float));
        memcpy(small.inputs[2], big.inputs[2], big.extents[2] * sizeof(float));
        for (int isa = 0; isa < n_isas; isa++) {
            float *whole = record_run(&big, (enum cpu_isa)isa, CPU_CONV_WINOGRAD, 0);
            float *part = record_run(&small, (enum cpu_isa)isa, CPU_CONV_WINOGRAD, 0);
            compare_tiles(whole, part, at);
            free(whole);
            free(part);
        }
        record_free(&small);
    }
    record_free(&big);
}

/* A data gradient whose mask lies where it is written: the same as with a mask of its own. */
static void gradient_in_place(void **state) {
    (void)state;
    static const enum cpu_conv ways[] = {CPU_CONV_DIRECT, CPU_CONV_WINOGRAD};
    const struct conv_case c = {2, 20, 37, 17, 30, 3, 3, 2, 2, 1};
    struct conv_params p = conv_params_of(&c, EPILOGUE_MASK);
    p.aux_stride_n = p.y_stride_n;
    p.plain_first = 5;
    p.plain_count = 9;
    struct record record = record_new(KERNEL_ID_conv_dgrad, &p, sizeof(p));
    for (int isa = 0; isa < n_isas; isa++)
        for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
            float *apart = record_run(&record, (enum cpu_isa)isa, ways[i], 0);
            is_in_place = true;
            float *same = record_run(&record, (enum cpu_isa)isa, ways[i], 2);
            is_in_place = false;
            for (uint32_t n = 0; n < p.n; n++)
                assert_memory_equal(apart + GUARD_WORDS + (size_t)n * p.y_stride_n,
                                    same + GUARD_WORDS + (size_t)n * p.y_stride_n,
                                    (size_t)p.c_out * p.h_out * p.w_out * sizeof(float));
            free(apart);
            free(same);
        }
    record_free(&record);
}

/* Which way the device takes by itself. */
static void choice_of_way(void **state) {
    (void)state;
    static const struct {
        struct conv_case c;
        bool is_winograd;
    } choices[] = {{{1, 64, 64, 200, 200, 3, 3, 0, 0, 1}, true},
                   {{1, 512, 512, 66, 66, 3, 3, 1, 1, 1}, true},
                   {{1, 1, 64, 200, 200, 3, 3, 0, 0, 1}, false}, /* transforms outweigh the rest */
                   {{1, 512, 512, 6, 6, 3, 3, 0, 0, 1}, false},  /* or those of weights */
                   {{1, 64, 64, 200, 200, 3, 3, 0, 0, 2}, false},
                   {{1, 64, 64, 200, 200, 1, 3, 0, 0, 1}, false},
                   {{1, 64, 64, 200, 200, 3, 1, 0, 0, 1}, false}};
    for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
        union kernel_params params = {{0}};
        const struct conv_params p = conv_params_of(&choices[i].c, 0);
        memcpy(&params, &p, sizeof(p));
        assert_int_equal(cpu_conv_is_winograd(CPU_CONV_BY_RECORD, KERNEL_ID_conv_fwd, &params),
                         choices[i].is_winograd);
        assert_false(cpu_conv_is_winograd(CPU_CONV_DIRECT, KERNEL_ID_conv_dgrad, &params));
        assert_false(cpu_conv_is_winograd(CPU_CONV_WINOGRAD, KERNEL_ID_conv_wgrad, &params));
        assert_int_equal(cpu_conv_is_winograd(CPU_CONV_WINOGRAD, KERNEL_ID_conv_dgrad, &params),
                         i < 4);
    }
}

static struct upconv_params upconv_window(uint32_t h, uint32_t w) {
    return (struct upconv_params){.n = 1,
                                  .c_in = 70,
                                  .h_in = h,
                                  .w_in = w,
                                  .x_stride_n = 70 * h * w,
                                  .c_out = 21,
                                  .y_stride_n = 21 * 4 * h * w,
                                  .k = 2,
                                  .epilogue = EPILOGUE_BIAS | EPILOGUE_ACT};
}

static void position_of_upconv(void **state) {
    (void)state;
    const struct upconv_params big_params = upconv_window(BIG_H, BIG_W);
    struct record big = record_new(KERNEL_ID_upconv_fwd, &big_params, sizeof(big_params));
    for (size_t i = 0; i < ARRAY_LEN(windows); i++) {
        const struct window *at = &windows[i];
        const struct upconv_params p = upconv_window(at->h, at->w);
        struct record small = record_new(KERNEL_ID_upconv_fwd, &p, sizeof(p));
        free(small.inputs[0]);
        small.inputs[0] = cut(big.inputs[0], 70, BIG_H, BIG_W, at->top, at->left, at->h, at->w);
        memcpy(small.inputs[1], big.inputs[1], big.extents[1] * sizeof(float));
        memcpy(small.inputs[2], big.inputs[2], big.extents[2] * sizeof(float));
        for (int isa = 0; isa < n_isas; isa++)
            compare_windows(&big, &small, 21, 2, 0, at, isa);
        record_free(&small);
    }
    record_free(&big);
}

static void unknown_kernel(void **state) {
    (void)state;
    union kernel_params params = {{0}};
    for (int isa = 0; isa < n_isas; isa++)
        assert_null(
            cpu_conv_find((enum cpu_isa)isa, CPU_CONV_BY_RECORD, KERNEL_ID_softmax, &params));
}

int main(void) {
    n_isas = isas_of_machine();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_forward),
        cmocka_unit_test(conv_data_gradient),
        cmocka_unit_test(conv_weight_gradient),
        cmocka_unit_test(upconv_forward),
        cmocka_unit_test(upconv_data_gradient),
        cmocka_unit_test(upconv_weight_gradient),
        cmocka_unit_test(padding_of_weight_gradient),
        cmocka_unit_test(position_of_conv),
        cmocka_unit_test(position_of_winograd),
        cmocka_unit_test(position_of_upconv),
        cmocka_unit_test(gradient_in_place),
        cmocka_unit_test(choice_of_way),
        cmocka_unit_test(unknown_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
