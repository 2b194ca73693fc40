/*
 * exec.c: the loop over dispatch records. Each program is prepared once here: its records become
 * batches of bounded work, and a record that alone exceeds a batch is divided into slabs of work
 * groups, so that no submission keeps a device busy for long (display drivers end work after one or
 * two seconds). Nothing here knows what a kernel computes.
 */
#include "runtime/exec.h"

#include <stdio.h>
#include <string.h>

const char *const exec_block_names[PLAN_BLOCK_COUNT] = {"weights", "state", "arena", "io",
                                                        "control"};

uint64_t exec_cost(const struct plan *plan, const struct plan_record *record) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kernel_table[record->kernel].n_bindings; i++)
        bytes += plan->tensors[record->tensors[i]].size_bytes;
    return record->flops + bytes * EXEC_COST_PER_BYTE;
}

/* The axis to divide: the longest, or, when the shader numbers its groups by their counts, the
   outermost in use, because x + count_x * (y + count_y * z) does not contain that one's count. */
static uint32_t slab_axis(const uint32_t groups[3], bool counts_groups) {
    uint32_t axis = 0;
    for (uint32_t i = 1; i < 3; i++) {
        if (counts_groups ? groups[i] > 1 : groups[i] > groups[axis])
            axis = i;
    }
    return axis;
}

struct cutter {
    struct exec *exec;
    uint64_t cost; /* of the batch so far */
};

static bool add_piece(struct cutter *cutter, const struct exec_piece *piece, uint64_t cost,
                      struct err *err) {
    struct exec *exec = cutter->exec;
    if (cutter->cost > 0 && cutter->cost + cost > exec->batch_cost) {
        if (!exec->ops->cut(exec, cutter->cost, err))
            return false;
        cutter->cost = 0;
    }
    cutter->cost += cost;
    return exec->ops->dispatch(exec, piece, err);
}

static bool add_record(struct cutter *cutter, const struct plan_program *program, uint32_t index,
                       struct err *err) {
    struct exec *exec = cutter->exec;
    const struct plan_record *record = &program->records[index];
    const struct plan_dispatch *dispatch = &record->dispatch[exec->class_];
    const uint64_t cost = exec_cost(exec->plan, record);
    const uint32_t axis = slab_axis(dispatch->groups, exec->ops->counts_groups(exec, record));
    const uint32_t length = dispatch->groups[axis];
    const uint64_t wanted = cost / exec->batch_cost + (cost % exec->batch_cost > 0 ? 1 : 0);
    const uint32_t slabs = (uint32_t)MAX(1u, MIN(wanted, (uint64_t)length));
    for (uint32_t i = 0; i < slabs; i++) {
        struct exec_piece piece = {.record = index,
                                   /* slabs of one record write disjoint elements; the barrier
                                      between them states that to whoever checks byte ranges */
                                   .barrier = record->barrier || i > 0,
                                   .is_first = i == 0,
                                   .is_last = i + 1 == slabs};
        memcpy(piece.groups, dispatch->groups, sizeof(piece.groups));
        piece.first[axis] = (uint32_t)((uint64_t)length * i / slabs);
        piece.groups[axis] = (uint32_t)((uint64_t)length * (i + 1) / slabs) - piece.first[axis];
        if (!add_piece(cutter, &piece, cost / slabs, err))
            return false;
    }
    return true;
}

static bool prepare_program(struct exec *exec, uint32_t index, struct err *err) {
    const struct plan_program *program = &exec->plan->programs[index];
    struct cutter cutter = {.exec = exec};
    if (!exec->ops->begin(exec, index, err))
        return false;
    for (uint32_t i = 0; i < program->n_records; i++) {
        if (!add_record(&cutter, program, i, err))
            return err_prefix(err, "%s, record %u (%s)", program->name, i,
                              program->records[i].label);
    }
    return exec->ops->end(exec, cutter.cost, err);
}

bool exec_open(struct unet_device *device, const struct exec_request *request, struct exec **out,
               struct err *err) {
    *out = NULL;
    struct exec *exec;
    if (!device->backend->open(device, request, &exec, err))
        return false;
    for (uint32_t i = 0; i < request->plan->n_programs; i++) {
        if (request->programs[i] && !prepare_program(exec, i, err)) {
            exec->ops->close(exec);
            return false;
        }
    }
    *out = exec;
    return true;
}

struct exec_place exec_place_of(const struct plan_chunks *chunks,
                                const struct plan_tensor *tensor) {
    const uint32_t chunk = plan_chunk_find(chunks, tensor->block, tensor->offset_bytes);
    return (struct exec_place){chunk,
                               tensor->offset_bytes - chunks->items.items[chunk].begin_bytes};
}

bool exec_find(const struct plan_chunks *chunks, enum plan_block block, uint64_t offset_bytes,
               uint64_t size_bytes, struct exec_place *place, struct err *err) {
    const uint32_t number = plan_chunk_find(chunks, block, offset_bytes);
    const struct plan_chunk *chunk = &chunks->items.items[number];
    *place = (struct exec_place){number, offset_bytes - chunk->begin_bytes};
    if (size_bytes <= chunk->size_bytes && place->offset_bytes <= chunk->size_bytes - size_bytes)
        return true;
    char name[EXEC_CHUNK_TEXT];
    return err_set(err, ERR_INPUT,
                   "bytes %llu to %llu of the %s: the programs opened have %llu bytes there",
                   (unsigned long long)place->offset_bytes,
                   (unsigned long long)(place->offset_bytes + size_bytes),
                   exec_chunk_name(chunks, number, name), (unsigned long long)chunk->size_bytes);
}

const char *exec_chunk_name(const struct plan_chunks *chunks, uint32_t chunk,
                            char text[EXEC_CHUNK_TEXT]) {
    const enum plan_block block = chunks->items.items[chunk].block;
    const uint32_t first = plan_chunk_find(chunks, block, 0);
    const bool is_split = chunk > first || (chunk + 1 < chunks->items.count &&
                                            chunks->items.items[chunk + 1].block == block);
    if (is_split)
        snprintf(text, EXEC_CHUNK_TEXT, "%s block, chunk %u", exec_block_names[block],
                 chunk - first);
    else
        snprintf(text, EXEC_CHUNK_TEXT, "%s block", exec_block_names[block]);
    return text;
}
