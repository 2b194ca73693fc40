/*
 * known_bad.c: the table. A row needs a report that others can read, or that this project has seen
 * it: so far only with Mesa's CPU driver. docs/porting.md says how to try a path in spite of it,
 * and how to report.
 */
#include "runtime/gpu/known_bad.h"

#include <stdlib.h>
#include <string.h>

#include "common/base.h"

static const struct gpu_known_bad rows[] = {
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_MESA_LLVMPIPE, "512 bits", 0, UINT32_MAX,
     "Mesa 26.1.6 crashes while it compiles them for subgroups of 16", "docs/porting.md"},
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_AMD_PROPRIETARY, NULL, 0, UINT32_MAX,
     "wrong results and crashes were reported", "llama.cpp issues 11074 and 18763"},
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_AMD_OPEN_SOURCE, NULL, 0, UINT32_MAX,
     "asking for the sizes of matrices was reported to crash", "llama.cpp issue 22750"},
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_MESA_RADV, "NAVI2", 0, UINT32_MAX,
     "RDNA 2 has no matrix units, the driver's substitute is slow", "ncnn issue 6504"},
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, "Arc(tm) A", 0, UINT32_MAX,
     "far slower than plain shaders on Arc A", "llama.cpp issue 14001"},
    {PLAN_METHOD_MATRIX, VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, "Arc(TM) A", 0, UINT32_MAX,
     "far slower than plain shaders on Arc A", "llama.cpp issue 14001"},
};

const struct gpu_known_bad *gpu_known_bad_find(enum plan_method_kind path, VkDriverId driver,
                                               const char *device, uint32_t version) {
    const char *table = getenv("UNET_KNOWN_BAD");
    if (table != NULL && strcmp(table, "off") == 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct gpu_known_bad *row = &rows[i];
        if (row->path == path && row->driver == driver && version >= row->first_version &&
            version <= row->last_version &&
            (row->device == NULL || strstr(device, row->device) != NULL))
            return row;
    }
    return NULL;
}
