/*
 * test_peak_loops.c: the loops behind the CPU's ceilings do the work they are counted for, for
 * every instruction set of the machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/cpu/memory.h"
#include "runtime/cpu/peak.h"

/* With a = b = 1 every step adds one to every element of every chain: how much the result grows
   with the steps is the number of multiply-adds in one. Chains stay below 2^24, where floats are
   exact. */
static void test_multiply_adds(void **state) {
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        const struct cpu_peak_loops *loops = cpu_peak_find((enum cpu_isa)isa);
        assert_non_null(loops);
        const double start = (double)loops->multiply_add(0, 1.0f, 1.0f);
        for (uint32_t steps = 1; steps <= 1000; steps *= 10) {
            const double grown = (double)loops->multiply_add(steps, 1.0f, 1.0f) - start;
            const double wanted = 0.5 * loops->flops * steps;
            assert_true(grown > 0.999 * wanted && grown < 1.001 * wanted);
        }
        assert_true((double)loops->multiply_add(1000, 0.0f, 1.0f) == 0.5 * loops->flops);
    }
}

static void test_copy(void **state) {
    (void)state;
    const size_t n = 4096, guard = 16;
    float *from = cpu_memory_allocate((n + guard) * sizeof(float));
    float *to = cpu_memory_allocate((n + guard) * sizeof(float));
    assert_non_null(from);
    assert_non_null(to);
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        for (size_t i = 0; i < n + guard; i++) {
            from[i] = (float)(i + 1);
            to[i] = -1.0f;
        }
        cpu_peak_find((enum cpu_isa)isa)->copy(to, from, n);
        for (size_t i = 0; i < n + guard; i++)
            assert_true(to[i] == (i < n ? (float)(i + 1) : -1.0f));
    }
    free(from);
    free(to);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_multiply_adds),
                                       cmocka_unit_test(test_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
