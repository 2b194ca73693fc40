/*
 * plan_memory.c: what a plan needs: blocks, lifetimes, bytes moved.
 */
#include "common/plan_memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- blocks ---- */

const char *plan_block_title(enum plan_block block) {
    static const char *const titles[PLAN_BLOCK_COUNT] = {"weights", "optimiser state", "arena",
                                                         "inputs and outputs", "control"};
    return titles[block];
}

static uint32_t find_root(const struct plan *plan, uint32_t tensor) {
    while (plan->tensors[tensor].base != tensor)
        tensor = plan->tensors[tensor].base;
    return tensor;
}

static void list_chunks(const struct plan *plan, struct plan_chunks *chunks) {
    *chunks = (struct plan_chunks){{NULL, 0, 0}};
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        struct plan_chunk chunk = {.block = (enum plan_block)block};
        vec_push(&chunks->items, chunk);
        for (uint32_t i = 0; i < plan->n_splits[block]; i++) {
            chunk.begin_bytes = plan->splits[block][i];
            vec_push(&chunks->items, chunk);
        }
    }
}

uint32_t plan_chunk_find(const struct plan_chunks *chunks, enum plan_block block,
                         uint64_t offset_bytes) {
    uint32_t low = 0, high = (uint32_t)chunks->items.count; /* low is at or before, high after */
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        const struct plan_chunk *chunk = &chunks->items.items[middle];
        if (chunk->block < block || (chunk->block == block && chunk->begin_bytes <= offset_bytes))
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* All of a block that keeps its content from run to run or is the host's, or the chunk's part. */
static void need_tensor(const struct plan *plan, uint32_t index, bool whole[PLAN_BLOCK_COUNT],
                        struct plan_chunks *chunks) {
    const struct plan_tensor *tensor = &plan->tensors[find_root(plan, index)];
    if (tensor->block != PLAN_BLOCK_ARENA) {
        whole[tensor->block] = true;
        return;
    }
    const uint32_t number = plan_chunk_find(chunks, tensor->block, tensor->offset_bytes);
    struct plan_chunk *chunk = &chunks->items.items[number];
    const uint64_t end_bytes = tensor->offset_bytes + align_up(tensor->size_bytes, PLAN_ALIGNMENT);
    chunk->size_bytes = MAX(chunk->size_bytes, end_bytes - chunk->begin_bytes);
}

static void need_program(const struct plan *plan, const struct plan_program *program,
                         bool whole[PLAN_BLOCK_COUNT], struct plan_chunks *chunks) {
    for (uint32_t j = 0; j < program->n_ports; j++)
        need_tensor(plan, program->ports[j].tensor, whole, chunks);
    for (uint32_t j = 0; j < program->n_records; j++) {
        const struct plan_record *record = &program->records[j];
        for (uint32_t k = 0; k < kernel_table[record->kernel].n_bindings; k++)
            need_tensor(plan, record->tensors[k], whole, chunks);
    }
}

void plan_chunks_derive(const struct plan *plan, const bool *programs, struct plan_chunks *chunks) {
    bool whole[PLAN_BLOCK_COUNT] = {false};
    list_chunks(plan, chunks);
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        if (programs == NULL || programs[i])
            need_program(plan, &plan->programs[i], whole, chunks);
    }
    for (size_t i = 0; i < chunks->items.count; i++) {
        struct plan_chunk *chunk = &chunks->items.items[i];
        const bool is_last = i + 1 == chunks->items.count || chunk[1].block != chunk->block;
        if (whole[chunk->block])
            chunk->size_bytes = (is_last ? plan->block_bytes[chunk->block] : chunk[1].begin_bytes) -
                                chunk->begin_bytes;
    }
}

void plan_chunks_free(struct plan_chunks *chunks) {
    vec_free(&chunks->items);
}

/* Adds up chunks by block; returns the sum of all. */
static uint64_t sum_chunks(const struct plan_chunks *chunks,
                           uint64_t block_bytes[PLAN_BLOCK_COUNT]) {
    uint64_t total_bytes = 0;
    memset(block_bytes, 0, PLAN_BLOCK_COUNT * sizeof(block_bytes[0]));
    for (size_t i = 0; i < chunks->items.count; i++) {
        block_bytes[chunks->items.items[i].block] += chunks->items.items[i].size_bytes;
        total_bytes += chunks->items.items[i].size_bytes;
    }
    return total_bytes;
}

void plan_block_bytes(const struct plan *plan, const bool *programs,
                      uint64_t block_bytes[PLAN_BLOCK_COUNT]) {
    struct plan_chunks chunks;
    plan_chunks_derive(plan, programs, &chunks);
    sum_chunks(&chunks, block_bytes);
    plan_chunks_free(&chunks);
}

static bool is_needed(const struct plan_program *program, enum plan_use_case use_case) {
    if (use_case == PLAN_FOR_INFERENCE)
        return strcmp(program->name, "infer") == 0;
    return strcmp(program->name, "train_step") == 0 || strcmp(program->name, "accumulate") == 0;
}

uint64_t plan_use_chunks(const struct plan *plan, enum plan_use_case use_case,
                         struct plan_chunks *chunks) {
    uint64_t block_bytes[PLAN_BLOCK_COUNT];
    VEC(bool) flags = {0};
    for (uint32_t i = 0; i < plan->n_programs; i++)
        vec_push(&flags, is_needed(&plan->programs[i], use_case));
    plan_chunks_derive(plan, flags.items, chunks);
    vec_free(&flags);
    return sum_chunks(chunks, block_bytes);
}

uint64_t plan_device_bytes(const struct plan *plan, enum plan_use_case use_case,
                           uint64_t block_bytes[PLAN_BLOCK_COUNT]) {
    struct plan_chunks chunks;
    plan_use_chunks(plan, use_case, &chunks);
    const uint64_t total_bytes = sum_chunks(&chunks, block_bytes);
    plan_chunks_free(&chunks);
    return total_bytes;
}

/* ---- the arena ---- */

const char *plan_content_title(enum plan_content content) {
    static const char *const titles[PLAN_CONTENT_COUNT] = {"maps", "gradients of weights",
                                                           "scratch"};
    return titles[content];
}

static bool is_update(enum kernel_id kernel) {
    return kernel == KERNEL_ID_sgd || kernel == KERNEL_ID_adam || kernel == KERNEL_ID_accumulate;
}

/* A gradient is what an update reads under the name g. */
static bool is_gradient(const struct plan_record *record, uint32_t binding) {
    return is_update(record->kernel) &&
           strcmp(kernel_table[record->kernel].bindings[binding].name, "g") == 0;
}

static void touch(const struct plan *plan, const struct plan_record *record, uint32_t binding,
                  uint32_t number, uint32_t *places, struct plan_lifetimes *lifetimes) {
    const uint32_t root = find_root(plan, record->tensors[binding]);
    const struct plan_tensor *tensor = &plan->tensors[root];
    if (tensor->block != PLAN_BLOCK_ARENA)
        return;
    if (places[root] == PLAN_NONE) {
        const struct plan_lifetime fresh = {
            .tensor = root,
            .first = number,
            .offset_bytes = tensor->offset_bytes,
            .size_bytes = align_up(tensor->size_bytes, PLAN_ALIGNMENT),
            .content =
                tensor->layout == PLAN_LAYOUT_PLANES ? PLAN_CONTENT_MAP : PLAN_CONTENT_SCRATCH};
        places[root] = (uint32_t)lifetimes->tensors.count;
        vec_push(&lifetimes->tensors, fresh);
    }
    struct plan_lifetime *lifetime = &lifetimes->tensors.items[places[root]];
    lifetime->last = number;
    if (is_gradient(record, binding))
        lifetime->content = PLAN_CONTENT_GRADIENT;
}

static void find_bound(struct plan_lifetimes *lifetimes, uint32_t n_records) {
    for (uint32_t r = 0; r < n_records; r++) {
        uint64_t live_bytes = 0;
        for (size_t i = 0; i < lifetimes->tensors.count; i++)
            if (plan_lifetime_contains(&lifetimes->tensors.items[i], r))
                live_bytes += lifetimes->tensors.items[i].size_bytes;
        if (live_bytes > lifetimes->bound_bytes) {
            lifetimes->bound_bytes = live_bytes;
            lifetimes->bound_record = r;
        }
    }
}

static int by_first(const void *a, const void *b) {
    const struct plan_lifetime *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->offset_bytes != y->offset_bytes)
        return x->offset_bytes < y->offset_bytes ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

void plan_lifetimes_derive(const struct plan *plan, const struct plan_program *program,
                           struct plan_lifetimes *lifetimes) {
    *lifetimes = (struct plan_lifetimes){.bound_bytes = 0};
    VEC(uint32_t) places = {0}; /* of each tensor in lifetimes */
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        vec_push(&places, PLAN_NONE);
    for (uint32_t r = 0; r < program->n_records; r++) {
        const struct plan_record *record = &program->records[r];
        struct kernel_region regions[KERNEL_MAX_BINDINGS];
        const char *why;
        if (!kernel_regions(record->kernel, record->params, regions, &why))
            continue; /* no verified plan */
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++)
            if (regions[b].form != KERNEL_UNUSED)
                touch(plan, record, b, r, places.items, lifetimes);
    }
    vec_free(&places);
    if (lifetimes->tensors.count > 0)
        qsort(lifetimes->tensors.items, lifetimes->tensors.count, sizeof(struct plan_lifetime),
              by_first);
    find_bound(lifetimes, program->n_records);
}

void plan_lifetimes_free(struct plan_lifetimes *lifetimes) {
    vec_free(&lifetimes->tensors);
}

bool plan_lifetime_contains(const struct plan_lifetime *lifetime, uint32_t record) {
    return lifetime->first <= record && record <= lifetime->last;
}

void plan_live_bytes(const struct plan_lifetimes *lifetimes, uint32_t record,
                     uint64_t content_bytes[PLAN_CONTENT_COUNT]) {
    memset(content_bytes, 0, PLAN_CONTENT_COUNT * sizeof(content_bytes[0]));
    for (size_t i = 0; i < lifetimes->tensors.count; i++) {
        const struct plan_lifetime *lifetime = &lifetimes->tensors.items[i];
        if (plan_lifetime_contains(lifetime, record))
            content_bytes[lifetime->content] += lifetime->size_bytes;
    }
}

/* ---- work ---- */

static uint64_t region_elements(const struct kernel_region *region) {
    switch (region->form) {
    case KERNEL_UNUSED:
        return 0;
    case KERNEL_WEIGHTS:
    case KERNEL_FLAT:
        return region->extent;
    default: /* without the gaps between images that lie apart */
        return (uint64_t)region->n * region->c * region->h * region->w;
    }
}

/* Elements of the rectangle that a kernel takes out of larger planes; 0: it has none. */
static uint64_t rectangle_elements(const struct plan_record *record) {
    if (record->kernel != KERNEL_ID_copy_region && record->kernel != KERNEL_ID_add_region)
        return 0;
    struct copy_region_params p;
    memcpy(&p, record->params, sizeof(p));
    return (uint64_t)p.n * p.c * p.h * p.w;
}

uint64_t plan_record_bytes(const struct plan_record *record) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    const uint64_t rectangle = rectangle_elements(record);
    struct kernel_region regions[KERNEL_MAX_BINDINGS];
    const char *why;
    uint64_t words = 0;
    if (!kernel_regions(record->kernel, record->params, regions, &why))
        return 0;
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const uint64_t touched = rectangle > 0 ? rectangle : region_elements(&regions[i]);
        if (info->bindings[i].access & KERNEL_READ)
            words += touched;
        if (info->bindings[i].access & KERNEL_WRITE)
            words += touched;
    }
    return words * 4;
}

struct plan_work plan_program_work(const struct plan_program *program) {
    struct plan_work work = {0};
    for (uint32_t r = 0; r < program->n_records; r++) {
        if (plan_record_counts(&program->records[r])) {
            work.dispatches++;
            work.flops += program->records[r].flops;
            work.moved_bytes += plan_record_bytes(&program->records[r]);
        }
        work.barriers += program->records[r].barrier;
    }
    return work;
}
