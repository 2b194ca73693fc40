/*
 * plan_memory.h: what a plan needs, read off the plan alone: bytes of device memory by purpose,
 * lifetimes of the tensors of the arena and the moment that forces its size, bytes that records
 * move. For reports and pictures (compiler/explain.c, tools/) and for the runtime's allocations;
 * plan_verify derives its own figures. Plans must have passed plan_verify.
 */
#ifndef UNET_PLAN_MEMORY_H
#define UNET_PLAN_MEMORY_H

#include "common/plan.h"
#include "common/vec.h"

/* ---- blocks ---- */

/* "weights", "optimiser state", "arena", "inputs and outputs", "control" */
const char *plan_block_title(enum plan_block block);

/* A chunk of a block: one allocation. */
struct plan_chunk {
    enum plan_block block;
    uint64_t begin_bytes; /* where in the block */
    uint64_t size_bytes;  /* what is needed of it; 0: it is not allocated */
};
struct plan_chunks {
    VEC(struct plan_chunk) items; /* by block, then by begin */
};

/* All chunks, with what the programs flagged (NULL: all) need. A program that touches nothing of a
   block does not need it; of each chunk of the arena it needs the part that it uses. */
void plan_chunks_derive(const struct plan *plan, const bool *programs, struct plan_chunks *chunks);
void plan_chunks_free(struct plan_chunks *chunks);
/* The number of the chunk that a byte of a block lies in. */
uint32_t plan_chunk_find(const struct plan_chunks *chunks, enum plan_block block,
                         uint64_t offset_bytes);

/* Bytes of each block for the programs flagged (NULL: all): the sum of its chunks. */
void plan_block_bytes(const struct plan *plan, const bool *programs,
                      uint64_t block_bytes[PLAN_BLOCK_COUNT]);

/* What a session is opened for. */
enum plan_use_case { PLAN_FOR_TRAINING, PLAN_FOR_INFERENCE };

/* The chunks for training (train_step, accumulate) or inference (infer); returns the sum of their
   bytes. Training with validation opens infer too: its chunks are those of both. */
uint64_t plan_use_chunks(const struct plan *plan, enum plan_use_case use_case,
                         struct plan_chunks *chunks);
/* The same by block. */
uint64_t plan_device_bytes(const struct plan *plan, enum plan_use_case use_case,
                           uint64_t block_bytes[PLAN_BLOCK_COUNT]);

/* ---- the arena ---- */

/* What a tensor of the arena holds. */
enum plan_content {
    PLAN_CONTENT_MAP,      /* activations, and gradients of activations */
    PLAN_CONTENT_GRADIENT, /* of a parameter */
    PLAN_CONTENT_SCRATCH,  /* partial sums, transposed weights */
    PLAN_CONTENT_COUNT
};
const char *plan_content_title(enum plan_content content); /* "maps", "gradients of weights", ... */

struct plan_lifetime {
    uint32_t tensor;                   /* with memory of its own; parts of it count for it */
    uint32_t first, last;              /* records that touch it */
    uint64_t offset_bytes, size_bytes; /* size rounded up to PLAN_ALIGNMENT */
    enum plan_content content;
};

struct plan_lifetimes {
    VEC(struct plan_lifetime) tensors; /* by first, then by offset */
    uint64_t bound_bytes;              /* most bytes alive at one record: the lower bound */
    uint32_t bound_record;             /* the first record where so many are alive */
};

void plan_lifetimes_derive(const struct plan *plan, const struct plan_program *program,
                           struct plan_lifetimes *lifetimes);
void plan_lifetimes_free(struct plan_lifetimes *lifetimes);
bool plan_lifetime_contains(const struct plan_lifetime *lifetime, uint32_t record);
/* Bytes alive at a record, by content. */
void plan_live_bytes(const struct plan_lifetimes *lifetimes, uint32_t record,
                     uint64_t content_bytes[PLAN_CONTENT_COUNT]);

/* ---- work ---- */

/* Bytes that a record reads and writes when every element it touches crosses the memory bus once.
   What is read and written counts twice, of copied rectangles only the rectangle. */
uint64_t plan_record_bytes(const struct plan_record *record);

/* Of a choice, its first method's. Barriers are executed whatever is chosen: all count. */
struct plan_work {
    uint64_t flops, moved_bytes;
    uint32_t barriers;
    uint32_t dispatches; /* records that run, were every choice's first method taken */
};
struct plan_work plan_program_work(const struct plan_program *program);

#endif
