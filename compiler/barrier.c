/*
 * barrier.c: where a record must wait for earlier ones. Since the last barrier, the byte ranges
 * read and written are collected; a record that reads what was written, or writes what was read or
 * written, gets a barrier. Ranges are those of the tensors, so tensors that share memory one after
 * the other are ordered like any other conflict. Two methods of a choice never both run and need
 * none between them; barriers of methods that do not run are executed, so that what follows may
 * rely on them.
 */
#include "compiler/lower_internal.h"

struct range {
    enum plan_block block;
    uint64_t begin, end;
    bool write;
    uint32_t choice, method; /* of the record */
};

struct range_list {
    VEC(struct range) ranges;
};

static bool exclude_each_other(struct range a, struct range b) {
    return a.choice != PLAN_NONE && a.choice == b.choice && a.method != b.method;
}

static bool conflicts(const struct range_list *pending, struct range range) {
    for (size_t i = 0; i < pending->ranges.count; i++) {
        struct range other = pending->ranges.items[i];
        if (other.block == range.block && (other.write || range.write) && other.begin < range.end &&
            range.begin < other.end && !exclude_each_other(other, range)) {
            return true;
        }
    }
    return false;
}

static struct range binding_range(const struct lower *lower, const struct plan_record *record,
                                  uint32_t binding) {
    const struct plan_tensor *tensor = &lower->plan->tensors.items[record->tensors[binding]];
    return (struct range){
        .block = tensor->block,
        .begin = tensor->offset_bytes,
        .end = tensor->offset_bytes + tensor->size_bytes,
        .write = (kernel_table[record->kernel].bindings[binding].access & KERNEL_WRITE) != 0,
        .choice = record->choice,
        .method = record->method};
}

void barrier_insert(struct lower *lower) {
    struct range_list pending = {0};
    for (size_t r = 0; r < lower->records.count; r++) {
        struct plan_record *record = &lower->records.items[r];
        uint32_t n_bindings = kernel_table[record->kernel].n_bindings;
        for (uint32_t b = 0; b < n_bindings; b++) {
            record->barrier |= conflicts(&pending, binding_range(lower, record, b));
        }
        if (record->barrier) {
            pending.ranges.count = 0;
        }
        for (uint32_t b = 0; b < n_bindings; b++) {
            vec_push(&pending.ranges, binding_range(lower, record, b));
        }
    }
    vec_free(&pending.ranges);
}
