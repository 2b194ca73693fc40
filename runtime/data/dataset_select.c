/*
 * dataset_select.c: splits a data set by a list of frame names, "09-11,24-26", or into folds
 * (dataset.h).
 */
#include "runtime/data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/vec.h"
#include "runtime/data/memory.h"

#define NOT_A_NUMBER UINT64_MAX

/* The number that n_bytes of text spell, all of them digits. */
static uint64_t number_of(const char *text, size_t n_bytes) {
    uint64_t value = 0;
    if (n_bytes == 0 || n_bytes > 18)
        return NOT_A_NUMBER;
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return NOT_A_NUMBER;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    return value;
}

static uint64_t frame_number(const struct dataset_frame *frame) {
    return number_of(frame->name, strlen(frame->name));
}

/* Marks the frames with numbers from first to last; true when both ends exist. */
static bool mark_numbers(const struct dataset *dataset, uint64_t first, uint64_t last,
                         bool *marks) {
    bool has_first = false, has_last = false;
    for (size_t i = 0; i < dataset->n_frames; i++) {
        uint64_t number = frame_number(&dataset->frames[i]);
        if (number == NOT_A_NUMBER || number < first || number > last)
            continue;
        marks[i] = true;
        has_first = has_first || number == first;
        has_last = has_last || number == last;
    }
    return has_first && has_last;
}

static bool mark_name(const struct dataset *dataset, const char *name, size_t n_bytes,
                      bool *marks) {
    for (size_t i = 0; i < dataset->n_frames; i++)
        if (strlen(dataset->frames[i].name) == n_bytes &&
            memcmp(dataset->frames[i].name, name, n_bytes) == 0) {
            marks[i] = true;
            return true;
        }
    return false;
}

/* Says what exists: all names when they are few, else the first and the last. */
static bool unknown_frame(const struct dataset *dataset, const char *item, size_t n_bytes,
                          struct err *err) {
    char names[400];
    size_t length = 0, n = dataset->n_frames;
    err_set(err, ERR_USAGE, "frame \"%.*s\" is not in the data", (int)n_bytes, item);
    for (size_t i = 0; i < n; i++) {
        int written = snprintf(names + length, sizeof names - length, "%s%s", i > 0 ? ", " : "",
                               dataset->frames[i].name);
        if ((size_t)written >= sizeof names - length)
            return err_hint(err, "there are %zu frames, from \"%.100s\" to \"%.100s\"", n,
                            dataset->frames[0].name, dataset->frames[n - 1].name);
        length += (size_t)written;
    }
    return err_hint(err, "there are: %s", names);
}

static bool mark_item(const struct dataset *dataset, const char *item, size_t n_bytes, bool *marks,
                      struct err *err) {
    if (mark_name(dataset, item, n_bytes, marks))
        return true;
    uint64_t number = number_of(item, n_bytes);
    if (number != NOT_A_NUMBER && mark_numbers(dataset, number, number, marks))
        return true;
    const char *dash = memchr(item, '-', n_bytes);
    if (!dash)
        return unknown_frame(dataset, item, n_bytes, err);
    size_t head = (size_t)(dash - item), tail = n_bytes - head - 1;
    uint64_t first = number_of(item, head), last = number_of(dash + 1, tail);
    if (first == NOT_A_NUMBER || last == NOT_A_NUMBER)
        return unknown_frame(dataset, item, n_bytes, err);
    if (first > last)
        return err_set(err, ERR_USAGE, "the range \"%.*s\" runs backwards", (int)n_bytes, item);
    if (mark_numbers(dataset, first, last, marks))
        return true;
    bool *ignored = memory_new(dataset->n_frames, sizeof *ignored);
    bool first_exists = mark_numbers(dataset, first, first, ignored);
    free(ignored);
    return first_exists ? unknown_frame(dataset, dash + 1, tail, err)
                        : unknown_frame(dataset, item, head, err);
}

static bool mark_list(const struct dataset *dataset, const char *list, bool *marks,
                      struct err *err) {
    for (const char *item = list;; item++) {
        size_t n_bytes = strcspn(item, ",");
        size_t blanks = strspn(item, " ");
        const char *start = item + (blanks < n_bytes ? blanks : n_bytes);
        size_t length = n_bytes - (size_t)(start - item);
        while (length > 0 && start[length - 1] == ' ')
            length--;
        if (length == 0) {
            err_set(err, ERR_USAGE, "the list of frames \"%s\" has an empty item", list);
            return err_hint(err, "names and ranges with commas between, such as 09-11,24-26");
        }
        if (!mark_item(dataset, start, length, marks, err))
            return false;
        item += n_bytes;
        if (*item == 0)
            return true;
    }
}

/* Reads a list into marks, one for each frame, freed by the caller; NULL on failure. */
static bool *read_list(const struct dataset *dataset, const char *list, size_t *n_marked_out,
                       struct err *err) {
    bool *marks = memory_new(dataset->n_frames, sizeof *marks);
    if (!mark_list(dataset, list, marks, err)) {
        free(marks);
        return NULL;
    }
    *n_marked_out = 0;
    for (size_t i = 0; i < dataset->n_frames; i++)
        *n_marked_out += marks[i];
    return marks;
}

static void move_marked(struct dataset *dataset, const bool *marks, struct dataset *chosen) {
    VEC(struct dataset_frame) moved = {0};
    size_t kept = 0;
    for (size_t i = 0; i < dataset->n_frames; i++) {
        if (marks[i])
            vec_push(&moved, dataset->frames[i]);
        else
            dataset->frames[kept++] = dataset->frames[i];
    }
    dataset->n_frames = kept;
    *chosen = *dataset;
    chosen->n_frames = moved.count;
    chosen->frames = moved.items;
}

bool dataset_select(struct dataset *dataset, const char *list, struct dataset *chosen,
                    struct err *err) {
    memset(chosen, 0, sizeof *chosen);
    size_t n_marked;
    bool *marks = read_list(dataset, list, &n_marked, err);
    if (!marks)
        return false;
    bool some_left = n_marked < dataset->n_frames;
    if (some_left)
        move_marked(dataset, marks, chosen);
    else
        err_set(err, ERR_USAGE, "\"%s\" names all %zu frames: none is left to train on", list,
                n_marked);
    free(marks);
    return some_left;
}

bool dataset_select_fold(struct dataset *dataset, uint32_t n_folds, uint32_t fold,
                         struct dataset *chosen, struct err *err) {
    memset(chosen, 0, sizeof *chosen);
    const uint64_t n = dataset->n_frames;
    if (n_folds < 2)
        return err_set(err, ERR_USAGE, "%u folds: at least 2 are needed", n_folds) ||
               err_hint(err, "each fold is held out once, the others are trained on");
    if (fold < 1 || fold > n_folds)
        return err_set(err, ERR_USAGE, "fold %u: folds are numbered from 1 to %u", fold, n_folds);
    if (n < n_folds)
        return err_set(err, ERR_USAGE, "%u folds of %zu frames: a fold would be empty", n_folds,
                       dataset->n_frames);
    bool *marks = memory_new(dataset->n_frames, sizeof *marks);
    for (uint64_t i = n * (fold - 1) / n_folds; i < n * fold / n_folds; i++)
        marks[i] = true;
    move_marked(dataset, marks, chosen);
    free(marks);
    return true;
}

bool dataset_keep(struct dataset *dataset, const char *list, struct err *err) {
    size_t n_marked;
    bool *marks = read_list(dataset, list, &n_marked, err);
    if (!marks)
        return false;
    struct dataset chosen;
    move_marked(dataset, marks, &chosen);
    dataset_free(dataset);
    *dataset = chosen;
    free(marks);
    return true;
}
