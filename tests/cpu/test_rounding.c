/*
 * test_rounding.c: factors rounded as by matrix units (runtime/cpu/rounding.h), for every
 * instruction set of the machine, beside the same in double precision and the C library's rint.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/cpu/rounding.h"

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The nearest multiple of 2^-24, or of 2^-10 of the power of two below the number. */
static float nearest(float value, bool is_gradient) {
    const double most = 65504, size = fabs((double)value);
    int exponent = 0;
    if (!(size <= most))
        return copysignf(is_gradient ? INFINITY : (float)most, value);
    frexp(size, &exponent); /* size < 2^exponent */
    const double unit = ldexp(1, size < 0x1p-14 ? -24 : exponent - 11);
    return (float)copysign(rint(size / unit) * unit, (double)value);
}

/* Around every half and every middle between two, with both signs, and what lies beyond. */
static uint32_t fill(uint32_t *bits) {
    uint32_t count = 0;
    for (uint32_t top = 0; top < 1u << 20; top++)
        for (uint32_t low = 0; low < 4; low++)
            bits[count++] = (top << 12) + (uint32_t[]){0, 1, 0x800, 0xfff}[low];
    return count;
}

static void every_form_rounds_to_nearest(void **state) {
    (void)state;
    uint32_t *from = malloc((4u << 20) * sizeof(*from)), *to = malloc((4u << 20) * sizeof(*to));
    assert_non_null(from);
    assert_non_null(to);
    const uint32_t count = fill(from);
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        for (int is_gradient = 0; is_gradient < 2; is_gradient++) {
            cpu_round_factors_find((enum cpu_isa)isa)(from, to, count, is_gradient != 0);
            for (uint32_t i = 0; i < count; i++) {
                const float wanted = nearest(float_of(from[i]), is_gradient != 0);
                if (memcmp(&to[i], &wanted, sizeof(wanted)) != 0)
                    fail_msg("%s: %08x (%a) became %a instead of %a",
                             cpu_isa_name((enum cpu_isa)isa), from[i], (double)float_of(from[i]),
                             (double)float_of(to[i]), (double)wanted);
            }
        }
    }
    free(from);
    free(to);
}

/* Other kernels of the method read what they read. */
static void only_factors_are_rounded(void **state) {
    (void)state;
    const size_t bytes[] = {4000, 400};
    const struct cpu_rounding sum = cpu_rounding_of(KERNEL_ID_wgrad_reduce, bytes);
    const struct cpu_rounding transpose = cpu_rounding_of(KERNEL_ID_weights_transpose, bytes);
    const struct cpu_rounding wgrad = cpu_rounding_of(KERNEL_ID_conv_wgrad, bytes);
    assert_false(cpu_rounding_is_on(&sum));
    assert_int_equal(cpu_rounding_bytes(&sum), 0);
    assert_false(cpu_rounding_is_on(&transpose));
    assert_true(cpu_rounding_is_on(&wgrad));
    assert_false(wgrad.is_gradient[0]);
    assert_true(wgrad.is_gradient[1]);
    assert_int_equal(cpu_rounding_bytes(&wgrad), 4032 + 448);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_form_rounds_to_nearest),
                                       cmocka_unit_test(only_factors_are_rounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
