/*
 * storage.c: queries on where a value lives: its own memory, or channels of another value's.
 */
#include "compiler/passes.h"

struct value *storage_root(struct value *value) {
    return value->storage ? value->storage : value;
}

int storage_channel(const struct value *value) {
    return value->storage ? value->storage_channel : 0;
}

bool storage_overlaps(struct value *a, struct value *b) {
    if (storage_root(a) != storage_root(b)) {
        return false;
    }
    int a_begin = storage_channel(a), b_begin = storage_channel(b);
    return a_begin < b_begin + b->shape.c && b_begin < a_begin + a->shape.c;
}
