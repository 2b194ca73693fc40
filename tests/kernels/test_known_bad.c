/*
 * test_known_bad.c: which fast paths of which drivers are off. The devices are not there: only the
 * table is asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/gpu/known_bad.h"

static const char *reference(VkDriverId driver, const char *device, uint32_t version) {
    const struct gpu_known_bad *row =
        gpu_known_bad_find(PLAN_METHOD_MATRIX, driver, device, version);
    return row != NULL ? row->reference : NULL;
}

static void drivers_are_told_apart(void **state) {
    (void)state;
    assert_non_null(reference(VK_DRIVER_ID_AMD_PROPRIETARY, "AMD Radeon RX 7900 XTX", 1));
    assert_non_null(reference(VK_DRIVER_ID_AMD_OPEN_SOURCE, "AMD Radeon RX 7900 XTX", UINT32_MAX));
    assert_null(reference(VK_DRIVER_ID_MESA_RADV, "AMD Radeon RX 7900 XTX (RADV NAVI31)", 1));
    assert_null(reference(VK_DRIVER_ID_NVIDIA_PROPRIETARY, "NVIDIA H200", 1));
    assert_null(reference(VK_DRIVER_ID_MESA_LLVMPIPE, "llvmpipe (LLVM 19.1.7, 256 bits)", 1));
    assert_non_null(reference(VK_DRIVER_ID_MESA_LLVMPIPE, "llvmpipe (LLVM 19.1.7, 512 bits)", 1));
}

static void devices_are_told_apart(void **state) {
    (void)state;
    assert_non_null(reference(VK_DRIVER_ID_MESA_RADV, "AMD Radeon RX 6800 (RADV NAVI21)", 1));
    assert_non_null(
        reference(VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, "Intel(R) Arc(tm) A770 Graphics (DG2)", 1));
    assert_null(reference(VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA,
                          "Intel(R) Arc(tm) B580 Graphics (BMG G21)", 1));
}

static void paths_are_told_apart(void **state) {
    (void)state;
    for (int path = 0; path < PLAN_METHOD_KIND_COUNT; path++) {
        const struct gpu_known_bad *row = gpu_known_bad_find(
            (enum plan_method_kind)path, VK_DRIVER_ID_AMD_PROPRIETARY, "AMD Radeon", 1);
        assert_int_equal(row != NULL, path == PLAN_METHOD_MATRIX);
    }
}

static void table_can_be_left_out(void **state) {
    (void)state;
    setenv("UNET_KNOWN_BAD", "off", 1);
    assert_null(reference(VK_DRIVER_ID_AMD_PROPRIETARY, "AMD Radeon RX 7900 XTX", 1));
    unsetenv("UNET_KNOWN_BAD");
    assert_non_null(reference(VK_DRIVER_ID_AMD_PROPRIETARY, "AMD Radeon RX 7900 XTX", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drivers_are_told_apart),
        cmocka_unit_test(devices_are_told_apart),
        cmocka_unit_test(paths_are_told_apart),
        cmocka_unit_test(table_can_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
