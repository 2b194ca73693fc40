/*
 * kernel.h: what stands between the native executor (executor.c), which knows threads and memory,
 * and the native kernels, which know arithmetic. One struct cpu_kernel for each kernel of
 * common/kernel_contract.h; the contract there says what it computes.
 *
 * A kernel divides a record into phases, and a phase into units that any thread may compute in any
 * order. How many units there are, and the order of every sum inside one, depends on the parameters
 * alone: results are the same, bit for bit, for any number of threads. Phases of a record run one
 * after the other. Units of one phase write disjoint elements.
 */
#ifndef UNET_CPU_KERNEL_H
#define UNET_CPU_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/kernel.h"

struct cpu_call {
    const union kernel_params *params;
    void *bindings[KERNEL_MAX_BINDINGS]; /* first element of each; 256-byte aligned in a plan */
    void *shared;  /* of the record: from phase to phase; 64-byte aligned, undefined at first */
    void *scratch; /* of the thread: within one unit; 64-byte aligned, undefined at first */
};

struct cpu_kernel {
    enum kernel_id id;
    uint32_t n_phases;
    /* Units of a phase: at least 1; enough that a few threads share them evenly. */
    uint32_t (*units)(const union kernel_params *params, uint32_t phase);
    /* Bytes of call->shared and call->scratch; NULL: none. */
    size_t (*shared_bytes)(const union kernel_params *params);
    size_t (*scratch_bytes)(const union kernel_params *params);
    void (*run)(const struct cpu_call *call, uint32_t phase, uint32_t unit);
};

/* Instruction sets that kernels are compiled for, each including the one before. */
enum cpu_isa { CPU_ISA_PLAIN, CPU_ISA_AVX2, CPU_ISA_AVX512, CPU_ISA_COUNT };

/* The best one that this machine has. */
enum cpu_isa cpu_isa_detect(void);
/* The one that UNET_CPU names, which the machine may lack, else the best. ERR_USAGE: no such. */
bool cpu_isa_choose(enum cpu_isa *isa_out, struct err *err);
const char *cpu_isa_name(enum cpu_isa isa); /* "plain", "avx2", "avx512" */

/* Ways to compute conv_fwd and conv_dgrad: the faster one for each record (a rule of conv_table.c),
   always sums of products (conv.c), Winograd wherever it is possible (winograd.c). */
enum cpu_conv { CPU_CONV_BY_RECORD, CPU_CONV_DIRECT, CPU_CONV_WINOGRAD };

/* What UNET_CPU_CONV says. ERR_USAGE: no such way. */
bool cpu_conv_choose(enum cpu_conv *conv_out, struct err *err);

/* The kernel of a record, the form for its parameters and instruction set; NULL when there is none.
 */
const struct cpu_kernel *cpu_kernel_find(enum cpu_isa isa, enum cpu_conv conv, enum kernel_id id,
                                         const union kernel_params *params);

/* The matrix-like kernels (conv.c and its neighbours), compiled once for each instruction set:
   conv_fwd, conv_dgrad, conv_wgrad, upconv_fwd, upconv_dgrad, upconv_wgrad. NULL for others. */
const struct cpu_kernel *cpu_conv_find(enum cpu_isa isa, enum cpu_conv conv, enum kernel_id id,
                                       const union kernel_params *params);
/* Whether that kernel computes conv_fwd or conv_dgrad by Winograd's algorithm. */
bool cpu_conv_is_winograd(enum cpu_conv conv, enum kernel_id id, const union kernel_params *params);

#endif
