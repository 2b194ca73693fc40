/*
 * exec.c: the loop over dispatch records. A program is prepared here: its records become batches of
 * bounded work, and a record that alone exceeds a batch is divided into slabs of work groups, so
 * that no submission keeps a device busy for long (display drivers end work after one or two
 * seconds). Nothing here knows what a kernel computes.
 */
#include "runtime/exec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

uint64_t exec_cost(const struct plan *plan, const struct plan_record *record) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kernel_table[record->kernel].n_bindings; i++)
        bytes += plan->tensors[record->tensors[i]].size_bytes;
    return record->flops + bytes * EXEC_COST_PER_BYTE;
}

/* What is being divided: a record of a program, along axes in this order. */
struct cutter {
    struct exec *exec;
    const struct plan_program *program;
    const struct plan_record *record;
    const uint32_t *groups; /* of the record */
    double group_cost;
    uint32_t axes[3], n_axes;
    double filled; /* of the batch so far; over all records */
};

/* Along the longest axis first, then, where one slab of that is too much, along the next. A shader
   that numbers its groups by their counts can be divided along the outermost axis in use only:
   x + count_x * (y + count_y * z) does not contain that one's count. */
static void choose_axes(struct cutter *cutter, bool counts_groups) {
    const uint32_t *groups = cutter->groups;
    cutter->n_axes = 0;
    for (uint32_t axis = 0; axis < 3; axis++) {
        uint32_t place = cutter->n_axes;
        if (groups[axis] == 1)
            continue;
        for (; place > 0 && (counts_groups || groups[axis] > groups[cutter->axes[place - 1]]);
             place--)
            cutter->axes[place] = cutter->axes[place - 1];
        cutter->axes[place] = axis;
        cutter->n_axes++;
    }
    if (cutter->n_axes == 0)
        cutter->axes[cutter->n_axes++] = 0;
    if (counts_groups)
        cutter->n_axes = 1;
}

static uint64_t count_groups(const uint32_t groups[3]) {
    return (uint64_t)groups[0] * groups[1] * groups[2];
}

static bool add_piece(struct cutter *cutter, struct exec_piece piece, double share,
                      struct err *err) {
    bool is_first = true, is_last = true;
    for (uint32_t axis = 0; axis < 3; axis++) {
        is_first = is_first && piece.first[axis] == 0;
        is_last = is_last && piece.first[axis] + piece.groups[axis] == cutter->groups[axis];
    }
    piece.cost = cutter->group_cost * (double)count_groups(piece.groups);
    piece.is_first = is_first;
    piece.is_last = is_last;
    /* slabs of one record write disjoint elements; the barrier between them states that to whoever
       checks byte ranges */
    piece.barrier = cutter->record->barrier || !is_first;
    cutter->filled += share;
    return cutter->exec->ops->dispatch(cutter->exec, &piece, err) ||
           err_prefix(err, "%s, record %u (%s)", cutter->program->name, piece.record,
                      cutter->record->label);
}

static bool cut_batch(struct cutter *cutter, struct err *err) {
    cutter->filled = 0;
    return cutter->exec->ops->cut(cutter->exec, err);
}

/* Of one slab, one group thick, of a box of groups along an axis. */
static double share_of_slab(const struct cutter *cutter, const uint32_t groups[3], uint32_t axis) {
    const double cost = cutter->group_cost * (double)(count_groups(groups) / groups[axis]);
    const struct exec *exec = cutter->exec;
    return exec->ops->share != NULL ? exec->ops->share(exec, cutter->record, cost) : 0;
}

/* How many slabs of `share` to take of those left: as many as fit a batch, and pieces about equal.
 */
static uint32_t slabs_of_piece(double share, uint32_t left) {
    const double fit = share * left > 1 ? MAX(1.0, floor(1 / share)) : left;
    const double n_pieces = ceil(left / fit);
    return (uint32_t)ceil(left / n_pieces);
}

/* Divides a box of groups along the axes from `depth` on. */
static bool add_box(struct cutter *cutter, const struct exec_piece *box, uint32_t depth,
                    struct err *err) {
    const uint32_t axis = cutter->axes[depth], length = box->groups[axis];
    const bool is_innermost = depth + 1 == cutter->n_axes;
    for (uint32_t done = 0; done < length;) {
        const double share = share_of_slab(cutter, box->groups, axis);
        const uint32_t count = share > 1 ? 1 : slabs_of_piece(share, length - done);
        if (cutter->filled > 0 && cutter->filled + share * count > 1) {
            if (!cut_batch(cutter, err))
                return false;
            continue; /* shares may be others now */
        }
        struct exec_piece piece = *box;
        piece.first[axis] += done;
        piece.groups[axis] = count;
        piece.is_least = is_innermost && count == 1;
        if (!(share > 1 && !is_innermost ? add_box(cutter, &piece, depth + 1, err)
                                         : add_piece(cutter, piece, share * count, err)))
            return false;
        done += count;
    }
    return true;
}

static bool add_record(struct cutter *cutter, uint32_t index, struct err *err) {
    struct exec *exec = cutter->exec;
    struct exec_piece whole = {.record = index};
    cutter->record = &cutter->program->records[index];
    cutter->groups = cutter->record->dispatch[exec->class_].groups;
    cutter->group_cost =
        (double)exec_cost(exec->plan, cutter->record) / (double)count_groups(cutter->groups);
    choose_axes(cutter, exec->ops->counts_groups(exec, cutter->record));
    memcpy(whole.groups, cutter->groups, sizeof(whole.groups));
    return add_box(cutter, &whole, 0, err);
}

bool exec_prepare(struct exec *exec, uint32_t index, struct err *err) {
    struct cutter cutter = {.exec = exec, .program = &exec->plan->programs[index]};
    if (!exec->ops->begin(exec, index, err))
        return false;
    for (uint32_t i = 0; i < cutter.program->n_records; i++) {
        if (!add_record(&cutter, i, err))
            return false;
    }
    return exec->ops->end(exec, err);
}

bool exec_open(struct unet_device *device, const struct exec_request *request, struct exec **out,
               struct err *err) {
    *out = NULL;
    struct exec *exec;
    if (!device->backend->open(device, request, &exec, err))
        return false;
    for (uint32_t i = 0; i < request->plan->n_programs; i++) {
        if (request->programs[i] && !exec->ops->load(exec, i, err)) {
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
        snprintf(text, EXEC_CHUNK_TEXT, "%s block, chunk %u", plan_block_names[block],
                 chunk - first);
    else
        snprintf(text, EXEC_CHUNK_TEXT, "%s block", plan_block_names[block]);
    return text;
}
