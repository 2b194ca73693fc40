/*
 * test_extents.c: the table of kernels and the memory that each kernel touches, against figures
 * worked out by hand from kernel_contract.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/kernel.h"
#include "common/rng.h"

static void test_kernel_table(void **state) {
    (void)state;
    for (int i = 0; i < KERNEL_COUNT; i++) {
        const struct kernel_info *info = &kernel_table[i];
        assert_int_equal(kernel_find(info->name), i);
        assert_in_range(info->n_bindings, 2, KERNEL_MAX_BINDINGS);
        assert_in_range(info->n_params, 1, KERNEL_MAX_PARAMS);
    }
    assert_int_equal(kernel_find("conv"), -1);
    const struct kernel_info *conv = &kernel_table[KERNEL_ID_conv_fwd];
    assert_string_equal(conv->name, "conv_fwd");
    assert_int_equal(conv->n_bindings, 4);
    assert_int_equal(conv->n_params * 4, sizeof(struct conv_params));
    assert_string_equal(conv->bindings[3].name, "y");
    assert_int_equal(conv->bindings[3].access, KERNEL_WRITE);
    assert_string_equal(conv->params[16].name, "slope");
    assert_true(conv->params[16].is_float && !conv->params[15].is_float);
    assert_int_equal(kernel_table[KERNEL_ID_adam].bindings[3].access, KERNEL_UPDATE);
}

/* Parameter words of each kernel and the extents worked out by hand from the contract. */
#define ONE_AND_A_HALF 0x3fc00000u /* floats as words */
#define TWO 0x40000000u

static const struct extent_case {
    enum kernel_id kernel;
    uint32_t params[KERNEL_MAX_PARAMS];
    uint64_t extents[KERNEL_MAX_BINDINGS];
    const char *why;
} extent_cases[] = {
    /* x: 1 * 1000 + 3*20*30, w: 3 taps 9 of 8, bias 5, y: 600 * 5 - ... 18 x 28 */
    {KERNEL_ID_conv_fwd,
     {2, 3, 20, 30, 2000, 5, 18, 28, 2520, 0, 0, 1, 3, 3, 0, 1},
     {3800, 216, 5, 5040},
     NULL},
    {KERNEL_ID_conv_fwd,
     {2, 3, 20, 30, 1800, 5, 20, 28, 3000, 1, 0, 1, 3, 3, 3500, 4},
     {3600, 216, 6300, 5800},
     NULL},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 5, 5, 0, 0, 0, 2, 3, 3, 0, 0}, {81, 36, 0, 25}, NULL},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 2, 2, 0, 0}, {81, 16, 0, 81}, NULL},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 10, 9, 0, 0, 0, 1, 2, 2, 0, 0}, {0}, "larger than"},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 5, 9, 0, 0, 0, 1, 3, 1, 0, 0}, {0}, "smaller than"},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 13, 9, 0, 3, 0, 1, 3, 1, 0, 0}, {0}, "more padding"},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 1, 1, 0, 8}, {0}, "unknown epilogue"},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 1, 1, 0, 5}, {0}, "bias and a mask"},
    {KERNEL_ID_conv_fwd, {1, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 0, 1}, {0}, "a size is zero"},
    {KERNEL_ID_conv_fwd, {0, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 1, 1}, {0}, "a size is zero"},
    {KERNEL_ID_conv_fwd, {2, 3, 20, 30, 1799, 5, 20, 30, 3000, 0, 0, 1, 1, 1}, {0}, "overlap"},
    {KERNEL_ID_conv_fwd, {1, 1, 65536, 65536, 0, 1, 65536, 65536, 0, 0, 0, 1, 1, 1}, {0}, "2^31"},
    {KERNEL_ID_conv_fwd,
     {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0, 0, ~0u, ~0u, ~0u, ~0u, 0},
     {0},
     "larger"},
    {KERNEL_ID_conv_fwd,
     {1, 1, 9, 9, 0, 1, 9, 9, 0, 0, 0, 1, 1, 1, 0, 0, 0x7f800000},
     {0},
     "not finite"},
    {KERNEL_ID_conv_dgrad,
     {1, 4, 6, 6, 0, 2, 8, 8, 0, 2, 2, 1, 3, 3, 0, 0},
     {144, 144, 0, 128},
     NULL},
    {KERNEL_ID_conv_dgrad,
     {1, 4, 6, 6, 0, 2, 8, 8, 0, 2, 2, 1, 3, 3, 0, EPILOGUE_MASK, 0, 1, 1},
     {144, 144, 128, 128},
     NULL},
    {KERNEL_ID_conv_dgrad,
     {1, 4, 6, 6, 0, 2, 8, 8, 0, 2, 2, 1, 3, 3, 0, EPILOGUE_MASK, 0, 2, 1},
     {0},
     "leaves out do not exist"},
    {KERNEL_ID_conv_dgrad,
     {1, 4, 6, 6, 0, 2, 8, 8, 0, 2, 2, 1, 3, 3, 0, EPILOGUE_MASK, 0, 0, 2},
     {0},
     "left out of no mask"},
    {KERNEL_ID_conv_dgrad,
     {1, 4, 6, 6, 0, 2, 8, 8, 0, 2, 2, 1, 3, 3, 0, 0, 0, 0, 1},
     {0},
     "left out of no mask"},
    {KERNEL_ID_conv_wgrad,
     {2, 3, 8, 8, 192, 5, 6, 6, 180, 0, 0, 1, 3, 3, 4},
     {384, 360, 864},
     NULL},
    {KERNEL_ID_conv_wgrad,
     {2, 3, 8, 8, 192, 5, 6, 6, 180, 0, 0, 1, 3, 3, 0},
     {0},
     "splits is zero"},
    {KERNEL_ID_conv_wgrad,
     {1, 1, 70000, 1, 0, 1, 70000, 1, 0, 0, 0, 1, 1, 1, 70000},
     {0},
     "32 bits"},
    {KERNEL_ID_wgrad_reduce, {216, 4}, {864, 216}, NULL},
    {KERNEL_ID_wgrad_reduce, {1u << 20, 1u << 20}, {0}, "2^31"},
    {KERNEL_ID_weights_transpose, {3, 5, 9, 1}, {216, 180}, NULL},
    {KERNEL_ID_weights_transpose, {3, 5, 9, 2}, {0}, "flip"},
    {KERNEL_ID_weights_transpose, {3, 0xffffffff, 9, 1}, {0}, "2^31"},
    {KERNEL_ID_bias_grad, {2, 5, 6, 6, 200}, {380, 5}, NULL},
    {KERNEL_ID_upconv_fwd, {2, 6, 4, 5, 120, 3, 300, 2, 0, 1}, {240, 96, 3, 540}, NULL},
    {KERNEL_ID_upconv_fwd, {1, 6, 4, 5, 120, 3, 300, 0x80000000u, 0, 0}, {0}, "2^31"},
    {KERNEL_ID_upconv_dgrad, {2, 6, 4, 5, 130, 3, 300, 2, 140, 4}, {540, 96, 260, 250}, NULL},
    {KERNEL_ID_upconv_wgrad, {2, 6, 4, 5, 120, 3, 300, 2, 8}, {240, 540, 768}, NULL},
    {KERNEL_ID_maxpool_fwd, {2, 3, 9, 8, 216, 4, 4, 50, 2, 2, 1}, {432, 98}, NULL},
    {KERNEL_ID_maxpool_fwd, {2, 3, 9, 8, 216, 5, 4, 60, 2, 2, 1}, {0}, "larger than"},
    {KERNEL_ID_maxpool_fwd, {2, 3, 9, 8, 216, 3, 4, 60, 2, 2, 1}, {0}, "smaller than"},
    {KERNEL_ID_maxpool_fwd, {1, 1, 9, 9, 0, 5, 5, 0, 3, 1, 2}, {81, 25}, NULL},
    {KERNEL_ID_maxpool_bwd, {2, 3, 8, 8, 192, 4, 4, 48, 200, 2, 2, 1}, {384, 96, 392}, NULL},
    {KERNEL_ID_maxpool_index, {2, 3, 9, 8, 216, 4, 4, 50}, {432, 98, 384}, NULL},
    {KERNEL_ID_maxpool_index, {1, 2, 66, 64, 0, 33, 32, 0}, {8448, 2112, 256}, NULL},
    {KERNEL_ID_maxpool_index, {2, 3, 9, 8, 216, 3, 4, 60}, {0}, "smaller than"},
    {KERNEL_ID_maxpool_unpool, {2, 3, 9, 8, 4, 4, 50, 220}, {384, 98, 436}, NULL},
    {KERNEL_ID_maxpool_unpool, {2, 3, 9, 8, 5, 4, 60, 220}, {0}, "larger than"},
    {KERNEL_ID_act_fwd, {3, 10, 12, 11}, {34, 32}, NULL},
    {KERNEL_ID_act_bwd, {3, 10, 12, 11, 10}, {34, 32, 30}, NULL},
    {KERNEL_ID_add, {3, 10, 12, 11, 10}, {34, 32, 30}, NULL},
    {KERNEL_ID_add, {3, 10, 9, 11, 10}, {0}, "images overlap"},
    {KERNEL_ID_copy_region, {2, 3, 4, 5, 8, 9, 4, 4, 216, 4, 5, 0, 0, 60}, {432, 120}, NULL},
    {KERNEL_ID_copy_region, {2, 3, 4, 5, 8, 9, 5, 4, 216, 4, 5, 0, 0, 60}, {0}, "the source"},
    {KERNEL_ID_copy_region, {2, 3, 4, 5, 8, 9, ~0u, 4, 216, 4, 5, 0, 0, 60}, {0}, "the source"},
    {KERNEL_ID_add_region, {2, 3, 4, 5, 8, 9, 4, 4, 216, 4, 5, 0, 1, 60}, {0}, "the destination"},
    {KERNEL_ID_embed_region, {2, 3, 4, 5, 60, 8, 9, 4, 4, 216}, {120, 432}, NULL},
    {KERNEL_ID_embed_region, {2, 3, 4, 5, 60, 8, 9, 5, 4, 216}, {0}, "leaves"},
    {KERNEL_ID_dropout, {2, 10, 10, 12, 1, 0x80000000u, TWO}, {20, 8, 22}, NULL},
    {KERNEL_ID_dropout, {2, 10, 10, 12, 1, 0x80000000u, ONE_AND_A_HALF}, {0}, "scale"},
    /* 2 images of 3 blocks of 64 words */
    {KERNEL_ID_half_store, {2, 257, 300}, {557, 384}, NULL},
    {KERNEL_ID_half_store, {2, 257, 256}, {0}, "images overlap"},
    {KERNEL_ID_half_store, {1, ~0u, 0}, {0}, "2^31"},
    {KERNEL_ID_half_load, {2, 256, 300}, {256, 556}, NULL},
    {KERNEL_ID_half_load, {3, 1, 1}, {192, 3}, NULL},
    {KERNEL_ID_half_load, {3, 0, 1}, {0}, "a size is zero"},
    {KERNEL_ID_softmax, {2, 3, 50, 150, 160}, {300, 310}, NULL},
    {KERNEL_ID_softmax_loss, {2, 3, 600, 1800, 2000}, {3600, 1200, 1200, 3800, 8}, NULL},
    {KERNEL_ID_loss_reduce, {5}, {20, 8}, NULL},
    {KERNEL_ID_softmax_loss_grad, {2, 3, 600, 1800, 2000}, {3600, 1200, 1200, 8, 3800}, NULL},
    {KERNEL_ID_sgd, {100, ONE_AND_A_HALF, 0}, {100, 100, 100, 8}, NULL},
    {KERNEL_ID_adam, {100}, {100, 100, 100, 100, 8}, NULL},
    {KERNEL_ID_adam, {0}, {0}, "a size is zero"},
    {KERNEL_ID_accumulate, {100, 1}, {100, 100, 8, 100}, NULL},
    {KERNEL_ID_accumulate, {100, 2}, {0}, "mean is neither"},
    /* 9 x 36 taps of 8; 2 blocks of outputs, 3 chunks of 4 x 36 x 4 */
    {KERNEL_ID_winograd_weights, {9, 7, 0, 0, 7}, {648, 3456}, NULL},
    {KERNEL_ID_winograd_weights, {9, 7, 1, 4, 3}, {756, 1728}, NULL},
    {KERNEL_ID_winograd_weights, {9, 7, 2, 4, 3}, {0}, "transposed"},
    {KERNEL_ID_winograd_weights, {9, 7, 1, 4, 4}, {0}, "past the end"},
    {KERNEL_ID_winograd_weights, {9, 7, 1, 4, 0}, {0}, "a size is zero"},
    /* 2 x 2 rows of 5 tiles: 2 blocks of 16, 2 chunks of 4 x 36 */
    {KERNEL_ID_winograd_input, {2, 5, 12, 20, 2000, 10, 18, 0, 0, 1, 2}, {3200, 9216}, NULL},
    {KERNEL_ID_winograd_input, {2, 5, 12, 20, 2000, 10, 18, 0, 0, 2, 2}, {0}, "past the end"},
    {KERNEL_ID_winograd_input, {2, 5, 12, 20, 2000, 10, 18, 3, 0, 1, 1}, {0}, "more padding"},
    {KERNEL_ID_winograd_product,
     {2, 5, 7, 10, 18, 1300, 1400, EPILOGUE_MASK, 0, 1, 2, 1, 2, 4, 3},
     {9216, 1152, 2660, 2560},
     NULL},
    {KERNEL_ID_winograd_product,
     {2, 5, 7, 10, 18, 1300, 0, EPILOGUE_BIAS, 0, 0, 0, 0, 3, 0, 7},
     {9216, 2304, 7, 2560},
     NULL},
    {KERNEL_ID_winograd_product,
     {2, 5, 7, 10, 18, 1300, 0, 0, 0, 0, 0, 0, 4, 0, 7},
     {0},
     "past the end"},
    {KERNEL_ID_winograd_product,
     {2, 5, 7, 10, 18, 1300, 0, 0, 0, 1, 2, 0, 3, 0, 7},
     {0},
     "no mask"},
    {KERNEL_ID_scale_gradient, {3, 10, 12, 11, TWO}, {34, 4, 32}, NULL},
    {KERNEL_ID_scale_gradient, {3, 10, 9, 11, TWO}, {0}, "images overlap"},
    {KERNEL_ID_scale_gradient, {3, 10, 12, 11, ONE_AND_A_HALF}, {0}, "no power of two"},
    {KERNEL_ID_scale_gradient, {3, 10, 12, 11, 0}, {0}, "no power of two"},
    {KERNEL_ID_gradient_check, {100}, {100, 64}, NULL},
    {KERNEL_ID_gradient_check, {0}, {0}, "a size is zero"},
    {KERNEL_ID_loss_scale, {128, 2000, TWO}, {128, 4, 8, 4}, NULL},
    {KERNEL_ID_loss_scale, {100, 2000, TWO}, {0}, "flags of a part"},
    {KERNEL_ID_loss_scale, {128, 2000, 0x7f000000}, {0}, "no power of two"}, /* 2^127 */
    {KERNEL_ID_loss_scale, {128, 2000, 0xc0000000}, {0}, "no power of two"}, /* -2 */
    {KERNEL_ID_sgd_scaled, {100, ONE_AND_A_HALF, 0}, {100, 100, 100, 8, 4}, NULL},
    {KERNEL_ID_adam_scaled, {100}, {100, 100, 100, 100, 8, 4}, NULL},
    {KERNEL_ID_adam_scaled, {0}, {0}, "a size is zero"},
    {KERNEL_COUNT, {0}, {0}, "no such kernel"},
};

static void test_kernel_extents(void **state) {
    (void)state;
    bool seen[KERNEL_COUNT + 1] = {false};
    for (size_t i = 0; i < ARRAY_LEN(extent_cases); i++) {
        const struct extent_case *c = &extent_cases[i];
        uint64_t extents[KERNEL_MAX_BINDINGS];
        const char *why = NULL;
        const bool good = kernel_extents(c->kernel, c->params, extents, &why);
        seen[c->kernel] |= good;
        if (good != (c->why == NULL))
            fail_msg("case %zu: %s", i, good ? "accepted" : why);
        if (!good && strstr(why, c->why) == NULL)
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, why, c->why);
        for (uint32_t b = 0; good && b < KERNEL_MAX_BINDINGS; b++) {
            if (extents[b] != c->extents[b])
                fail_msg("case %zu, binding %u: %llu, expected %llu", i, b,
                         (unsigned long long)extents[b], (unsigned long long)c->extents[b]);
        }
    }
    for (int i = 0; i < KERNEL_COUNT; i++) {
        if (!seen[i] && i != KERNEL_ID_add_region)
            fail_msg("no case of kernel %s", kernel_table[i].name);
    }
}

/* Whatever the words, an answer; and what is accepted is bounded. */
static void test_kernel_random_params(void **state) {
    (void)state;
    struct rng rng = rng_stream(5, 0, 0);
    uint32_t accepted = 0;
    for (int round = 0; round < 200000; round++) {
        uint32_t params[KERNEL_MAX_PARAMS];
        uint64_t extents[KERNEL_MAX_BINDINGS];
        const char *why;
        for (size_t i = 0; i < ARRAY_LEN(params); i++) {
            const uint32_t bits = rng_below(&rng, 33);
            params[i] = bits == 0 ? 0 : rng_u32(&rng) >> (32 - bits);
            if (rng_below(&rng, 2) == 0)
                params[i] &= 3;
        }
        const enum kernel_id id = (enum kernel_id)rng_below(&rng, KERNEL_COUNT);
        if (!kernel_extents(id, params, extents, &why)) {
            assert_non_null(why);
            continue;
        }
        accepted++;
        for (uint32_t b = 0; b < KERNEL_MAX_BINDINGS; b++)
            assert_true(extents[b] <= (uint64_t)1 << 31);
    }
    assert_true(accepted > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_table),
        cmocka_unit_test(test_kernel_extents),
        cmocka_unit_test(test_kernel_random_params),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
