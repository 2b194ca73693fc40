/*
 * plan_check.h: what the parts of the verifier share. plan_verify.c checks tensors, parameters,
 * ports and the model; plan_verify_record.c each record by itself: bindings against the kernel,
 * dispatches; plan_choice.c which records are alternatives; plan_verify_memory.c the records of a
 * program together: what is defined, what is overwritten, hazards, memory figures;
 * plan_verify_limits.c what a device allows. All of it reads only the plan.
 */
#ifndef UNET_PLAN_CHECK_H
#define UNET_PLAN_CHECK_H

#include "common/plan.h"

/* Every function that returns bool here: true, or false with *err set. */
struct plan_check {
    const struct plan *plan;
    struct err *err;
    uint32_t *roots;  /* of each tensor: the tensor at the end of its chain of bases */
    uint32_t *owners; /* of each tensor of WEIGHTS and STATE: the parameter it belongs to */
};

/* Bytes begin <= b < begin + size, again count times at a distance of step. */
struct plan_span {
    enum plan_block block;
    uint64_t begin, size_bytes, step;
    uint32_t count;
};

/* What one binding of a record does to memory. */
struct plan_use {
    uint32_t tensor, root;
    bool reads, writes;
    struct plan_span span;
    struct kernel_region region; /* a write of some channels and rows: n_c is not 0 */
};

/* Images of a tensor that lie apart in memory are followed one by one: this many at most. */
#define PLAN_MAX_IMAGES_APART 4096

bool plan_check_record(const struct plan_check *check, const struct plan_program *program,
                       uint32_t index);
bool plan_check_record_limits(const struct plan_check *check, const struct plan_program *program,
                              uint32_t index, const struct plan_limits *limits);
bool plan_check_memory(const struct plan_check *check, const struct plan_program *program);
/* plan_choice.c: the choices of a program and the records that belong to them. */
bool plan_check_choices(const struct plan_check *check, const struct plan_program *program);

/* The chunk of a block that a byte of it is in, counted from 0; where it ends. */
uint32_t plan_chunk_of(const struct plan *plan, enum plan_block block, uint64_t offset_bytes);
uint64_t plan_chunk_end(const struct plan *plan, enum plan_block block, uint32_t chunk);

/* The bytes of a checked tensor that belong to its elements. */
struct plan_span plan_tensor_span(const struct plan_tensor *tensor);
/* The uses of a checked record; returns how many. */
uint32_t plan_record_uses(const struct plan_check *check, const struct plan_record *record,
                          struct plan_use uses[KERNEL_MAX_BINDINGS]);
bool plan_spans_overlap(const struct plan_span *a, const struct plan_span *b);

/* Puts "plan: program P: record I (LABEL)" before the error and returns false. */
bool plan_at_record(const struct plan_check *check, const struct plan_program *program,
                    uint32_t index);
/* The name for messages, whatever the index. */
const char *plan_tensor_name(const struct plan *plan, uint32_t tensor);

#endif
