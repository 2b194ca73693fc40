/*
 * region.c: native kernels that move rectangles of planes: copy_region, add_region, embed_region. A
 * unit is a band of rows of one plane.
 */
#include <string.h>

#include "runtime/cpu/variant.h"

static uint32_t copy_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    const struct copy_region_params *copy = &p->copy_region;
    return copy->n * copy->c * cpu_bands(copy->n * copy->c, copy->h);
}

/* Calls row(dst, src, width) for the rows of a unit. */
static void each_row(const struct cpu_call *call, uint32_t unit,
                     void (*row)(float *dst, const float *src, uint32_t width)) {
    const struct copy_region_params *p = &call->params->copy_region;
    const struct cpu_plane plane = cpu_plane_of(p->n, p->c, p->h, unit);
    const float *src =
        (const float *)call->bindings[0] +
        cpu_offset(plane.image, p->src_stride_n, (size_t)plane.channel * p->src_h * p->src_w) +
        (size_t)p->src_top * p->src_w + p->src_left;
    float *dst =
        (float *)call->bindings[1] +
        cpu_offset(plane.image, p->dst_stride_n, (size_t)plane.channel * p->dst_h * p->dst_w) +
        (size_t)p->dst_top * p->dst_w + p->dst_left;
    for (uint32_t y = plane.rows.begin; y < plane.rows.end; y++)
        row(dst + (size_t)y * p->dst_w, src + (size_t)y * p->src_w, p->w);
}

static void copy_row(float *dst, const float *src, uint32_t width) {
    memcpy(dst, src, width * sizeof(float));
}

static void add_row(float *dst, const float *src, uint32_t width) {
    CPU_INDEPENDENT
    for (uint32_t x = 0; x < width; x++)
        dst[x] = src[x] + dst[x];
}

static void copy_region(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    each_row(call, unit, copy_row);
}

static void add_region(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    each_row(call, unit, add_row);
}

static uint32_t embed_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    const struct embed_region_params *embed = &p->embed_region;
    return embed->n * embed->c * cpu_bands(embed->n * embed->c, embed->dst_h);
}

static void embed_region(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct embed_region_params *p = &call->params->embed_region;
    const struct cpu_plane plane = cpu_plane_of(p->n, p->c, p->dst_h, unit);
    const size_t src_plane = (size_t)p->src_h * p->src_w, dst_plane = (size_t)p->dst_h * p->dst_w;
    const float *src = (const float *)call->bindings[0] +
                       cpu_offset(plane.image, p->src_stride_n, plane.channel * src_plane);
    float *dst = (float *)call->bindings[1] +
                 cpu_offset(plane.image, p->dst_stride_n, plane.channel * dst_plane);
    const uint32_t right = p->left + p->src_w;
    for (uint32_t y = plane.rows.begin; y < plane.rows.end; y++) {
        float *row = dst + (size_t)y * p->dst_w;
        if (y < p->top || y >= p->top + p->src_h) {
            memset(row, 0, p->dst_w * sizeof(float));
            continue;
        }
        memset(row, 0, p->left * sizeof(float));
        copy_row(row + p->left, src + (size_t)(y - p->top) * p->src_w, p->src_w);
        memset(row + right, 0, (p->dst_w - right) * sizeof(float));
    }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_copy_region, .n_phases = 1, .units = copy_units, .run = copy_region},
    {.id = KERNEL_ID_add_region, .n_phases = 1, .units = copy_units, .run = add_region},
    {.id = KERNEL_ID_embed_region, .n_phases = 1, .units = embed_units, .run = embed_region},
};

CPU_FIND(cpu_region_find)
