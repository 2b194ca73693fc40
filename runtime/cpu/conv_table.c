/*
 * conv_table.c: the choice among the convolution kernels: by instruction set, and between the
 * direct sum and Winograd's algorithm.
 */
#include "runtime/cpu/conv_table.h"

#include <stdlib.h>
#include <string.h>

#include "common/base.h"

#define COLUMN(isa)                                                                                \
    {                                                                                              \
        &cpu_conv_fwd_##isa, &cpu_conv_dgrad_##isa, &cpu_conv_wgrad_##isa, &cpu_upconv_fwd_##isa,  \
            &cpu_upconv_dgrad_##isa, &cpu_upconv_wgrad_##isa                                       \
    }
#define N_KERNELS 6
#define WINOGRAD_COLUMN(isa)                                                                       \
    { &cpu_conv_fwd_winograd_##isa, &cpu_conv_dgrad_winograd_##isa }

/* Empty where the compiler's target knows no such instructions. */
static const struct cpu_kernel *const kernels[CPU_ISA_COUNT][N_KERNELS] = {
    [CPU_ISA_PLAIN] = COLUMN(plain),
#ifdef CPU_HAS_X86
    [CPU_ISA_AVX2] = COLUMN(avx2),
    [CPU_ISA_AVX512] = COLUMN(avx512),
#endif
};

static const struct cpu_kernel *const winograd_kernels[CPU_ISA_COUNT][2] = {
    [CPU_ISA_PLAIN] = WINOGRAD_COLUMN(plain),
#ifdef CPU_HAS_X86
    [CPU_ISA_AVX2] = WINOGRAD_COLUMN(avx2),
    [CPU_ISA_AVX512] = WINOGRAD_COLUMN(avx512),
#endif
};

bool cpu_conv_choose(enum cpu_conv *conv_out, struct err *err) {
    const char *wanted = getenv("UNET_CPU_CONV");
    *conv_out = CPU_CONV_BY_RECORD;
    if (wanted == NULL || wanted[0] == '\0')
        return true;
    if (strcmp(wanted, "direct") == 0)
        *conv_out = CPU_CONV_DIRECT;
    else if (strcmp(wanted, "winograd") == 0)
        *conv_out = CPU_CONV_WINOGRAD;
    else {
        err_set(err, ERR_USAGE, "UNET_CPU_CONV=%s: no such way to compute convolutions", wanted);
        return err_hint(err, "UNET_CPU_CONV is direct or winograd, or not set: the faster one for "
                             "each layer");
    }
    return true;
}

/*
 * The rule: Winograd where its estimated time is at most 4/5 of that of the direct sum. Times are
 * in multiply-adds of its products of matrices, of which there are 36 for each tile and pair of
 * channels; fitted to the layers of U-Nets of widths 16 to 64 (tests/cpu/bench_cpu_conv.c,
 * AVX-512): what it costs to transform a tile of a channel (memory for the most part), and the
 * weights of a pair of channels, once in each block of tiles where tiles are few. The direct sum
 * does 9 for each pixel, a little slower.
 */
#define TILE_COST 1600.0
#define WEIGHT_COST 3000.0
#define DIRECT_COST (9 * 1.18)
#define BLOCK_TILES 144

static bool is_faster(const struct conv_params *p) {
    const double pairs = (double)p->c_in * p->c_out;
    const double pixels = (double)p->n * p->h_out * p->w_out;
    const uint32_t tiles = p->n * div_up(p->h_out, 4) * div_up(p->w_out, 4);
    const double times = tiles < p->c_out ? div_up(tiles, BLOCK_TILES) : 1;
    const double winograd_cost = pairs * (36.0 * tiles + WEIGHT_COST * times) +
                                 TILE_COST * tiles * ((double)p->c_in + p->c_out);
    return winograd_cost <= 0.8 * DIRECT_COST * pairs * pixels;
}

bool cpu_conv_is_winograd(enum cpu_conv conv, enum kernel_id id,
                          const union kernel_params *params) {
    const struct conv_params *p = &params->conv;
    if (id != KERNEL_ID_conv_fwd && id != KERNEL_ID_conv_dgrad)
        return false;
    if (conv == CPU_CONV_DIRECT || p->kh != 3 || p->kw != 3 || p->dilation != 1)
        return false;
    return conv == CPU_CONV_WINOGRAD || is_faster(p);
}

const struct cpu_kernel *cpu_conv_find(enum cpu_isa isa, enum cpu_conv conv, enum kernel_id id,
                                       const union kernel_params *params) {
    if (cpu_conv_is_winograd(conv, id, params))
        return winograd_kernels[isa][id == KERNEL_ID_conv_dgrad];
    for (int i = 0; i < N_KERNELS; i++)
        if (kernels[isa][i] != NULL && kernels[isa][i]->id == id)
            return kernels[isa][i];
    return NULL;
}
