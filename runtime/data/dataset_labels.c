/*
 * dataset_labels.c: see dataset_labels.h.
 */
#include "runtime/data/dataset_labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "runtime/data/instances.h"
#include "runtime/data/memory.h"

/* Instead of a row. */
enum { ROW_UNKNOWN = -1, ROW_IGNORED = -2 };

/* ---------------------------------------------------------------- the table */

static bool check_rows(const struct dataset_spec *spec, struct err *err) {
    for (size_t i = 0; i < spec->n_labels; i++) {
        const struct dataset_label *row = &spec->labels[i];
        if (row->class_ >= DATASET_MAX_CLASSES)
            return err_set(err, ERR_INPUT, "label %u: class %u is past the limit of %d classes",
                           row->value, row->class_, DATASET_MAX_CLASSES);
        if (!row->any_other && row->last_value < row->value)
            return err_set(err, ERR_INPUT, "label %u: its range ends at %u", row->value,
                           row->last_value);
    }
    return true;
}

static void fill_rows(struct dataset_table *table) {
    const struct dataset_spec *spec = table->spec;
    const bool ignores_other = spec->has_ignore && spec->ignore_value == PLAN_LABEL_OTHER;
    int16_t other = ignores_other ? ROW_IGNORED : ROW_UNKNOWN;
    for (size_t i = 0; i < spec->n_labels; i++)
        if (spec->labels[i].any_other)
            other = (int16_t)i;
    for (size_t value = 0; value <= UINT16_MAX; value++)
        table->row_of_value[value] = other;
    for (size_t i = 0; i < spec->n_labels; i++) {
        const struct dataset_label *row = &spec->labels[i];
        if (row->any_other)
            continue;
        for (size_t value = row->value; value <= MIN(row->last_value, UINT16_MAX); value++)
            table->row_of_value[value] = (int16_t)i;
    }
    if (spec->has_ignore && spec->ignore_value <= UINT16_MAX)
        table->row_of_value[spec->ignore_value] = ROW_IGNORED;
}

static bool find_background(struct dataset_table *table, struct err *err) {
    const struct dataset_spec *spec = table->spec;
    bool listed[DATASET_MAX_CLASSES] = {false}, has_objects[DATASET_MAX_CLASSES] = {false};
    for (size_t i = 0; i < spec->n_labels; i++) {
        const struct dataset_label *row = &spec->labels[i];
        listed[row->class_] = true;
        has_objects[row->class_] = has_objects[row->class_] || row->instances;
        table->has_instances = table->has_instances || row->instances;
    }
    for (size_t c = 0; c < DATASET_MAX_CLASSES; c++)
        if (listed[c] && !has_objects[c]) {
            table->background = (uint8_t)c;
            return true;
        }
    if (!table->has_instances)
        return true;
    err_set(err, ERR_INPUT, "the label table: every class has instances, none is the background");
    return err_hint(err, "give value 0 a row of its own, of a class without instances");
}

bool dataset_table_build(struct dataset_table *table, const struct dataset_spec *spec,
                         struct err *err) {
    *table = (struct dataset_table){.spec = spec};
    if (!check_rows(spec, err))
        return false;
    fill_rows(table);
    const int row = table->row_of_value[0];
    if (row >= 0 && spec->labels[row].instances) {
        err_set(err, ERR_INPUT,
                "the label table: value 0 is among values with instances, but no object can have "
                "the number 0");
        return err_hint(err, "give value 0 a row of its own: the background, or one to ignore");
    }
    return find_background(table, err);
}

/* ---------------------------------------------------------------- pictures */

bool dataset_table_apply(const struct dataset_table *table, const struct image *labels,
                         struct dataset_frame *frame) {
    const struct dataset_label *rows = table->spec->labels;
    const size_t n = image_samples(labels);
    bool known = true;
    for (size_t i = 0; i < n; i++) {
        const uint16_t value = labels->pixels[i];
        const int row = table->row_of_value[value];
        known = known && row != ROW_UNKNOWN;
        frame->classes[i] = row < 0 ? 0 : (uint8_t)rows[row].class_;
        frame->weights[i] = row < 0 ? 0.0f : rows[row].weight;
        if (frame->instances != NULL)
            frame->instances[i] = row >= 0 && rows[row].instances ? value : 0;
    }
    if (known && frame->instances != NULL) {
        memcpy(frame->labelled, frame->classes, n);
        instances_separate(frame->instances, frame->classes, frame->width, frame->height,
                           table->background);
    }
    return known;
}

/* "0, 1 to 65535, 7 to ignore", as the model's table has them. */
static void list_table(const struct dataset_spec *spec, char *text, size_t size_bytes) {
    size_t length = 0;
    text[0] = 0;
    for (size_t i = 0; i < spec->n_labels && length + 32 < size_bytes; i++) {
        const struct dataset_label *row = &spec->labels[i];
        char *end = text + length;
        const size_t room = size_bytes - length;
        const char *comma = i > 0 ? ", " : "";
        if (row->any_other)
            length += (size_t)snprintf(end, room, "%sany other", comma);
        else if (row->last_value > row->value)
            length += (size_t)snprintf(end, room, "%s%u to %u", comma, row->value, row->last_value);
        else
            length += (size_t)snprintf(end, room, "%s%u", comma, row->value);
    }
    if (spec->has_ignore && length + 32 < size_bytes)
        snprintf(text + length, size_bytes - length, ", %u to ignore", spec->ignore_value);
}

/* The commonest slip: a mask of 0 and 1 for a model of 0 and 255, or the other way round. */
static void hint_about_values(struct problems *problems, const uint64_t *counts, int bits) {
    uint64_t others = 0;
    for (size_t value = 2; value < UINT16_MAX; value++)
        others += value != 255 ? counts[value] : 0;
    if (others == 0 && counts[1] > 0 && counts[255] == 0)
        problems_hint(problems,
                      "the labels hold 0 and 1: give these values in the model's label table");
    else if (others == 0 && counts[255] > 0 && counts[1] == 0)
        problems_hint(problems,
                      "the labels hold 0 and 255: give these values in the model's label table");
    else if (others > 0 && bits == 16)
        problems_hint(problems,
                      "objects that are numbered one by one want one row for all their values: a "
                      "range, or \"other\"");
    else if (others > 0)
        problems_hint(problems,
                      "list every value in the model's label table, or name one to ignore; labels "
                      "that were saved with loss or resized smoothly have values in between");
}

void dataset_table_report(const struct dataset_table *table, const char *file,
                          const struct image *labels, struct problems *problems) {
    uint64_t *counts = memory_new(UINT16_MAX + 1, sizeof *counts);
    size_t n = image_samples(labels), n_values = 0, n_pixels = 0, length = 0;
    char text[200], names[160];
    for (size_t i = 0; i < n; i++)
        counts[labels->pixels[i]]++;
    for (size_t value = 0; value <= UINT16_MAX; value++) {
        if (counts[value] == 0 || table->row_of_value[value] != ROW_UNKNOWN)
            continue;
        n_pixels += counts[value];
        if (n_values++ < 3)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%zu (%llu pixels)",
                                       n_values > 1 ? ", " : "", value,
                                       (unsigned long long)counts[value]);
    }
    if (n_values > 3)
        snprintf(text + length, sizeof text - length, " and %zu more values (%zu pixels in all)",
                 n_values - 3, n_pixels);
    list_table(table->spec, names, sizeof names);
    problems_add(problems, ERR_INPUT, "%s: value%s %s not in the model's labels (%s)", file,
                 n_values > 1 ? "s" : "", text, names);
    hint_about_values(problems, counts, labels->bits);
    free(counts);
}

/* ---------------------------------------------------------------- masks instead of numbers */

/* The only id of a picture; 0 when there is none or are several. */
static uint32_t only_id(const struct dataset_frame *frame, bool *several_out) {
    const size_t n = (size_t)frame->width * (size_t)frame->height;
    uint32_t id = 0;
    *several_out = false;
    for (size_t i = 0; i < n; i++) {
        if (frame->instances[i] == 0 || frame->instances[i] == id)
            continue;
        *several_out = id != 0;
        if (id != 0)
            return 0;
        id = frame->instances[i];
    }
    return id;
}

/* Do the pixels of objects fall into parts that do not touch? */
static bool has_parts(const struct dataset_frame *frame) {
    const size_t n = (size_t)frame->width * (size_t)frame->height;
    const struct instances_options options = {.background = 0};
    uint8_t *mask = memory_new(n, sizeof *mask);
    uint32_t *parts = memory_new(n, sizeof *parts);
    for (size_t i = 0; i < n; i++)
        mask[i] = frame->instances[i] != 0;
    const uint32_t count = instances_label(mask, frame->width, frame->height, &options, parts);
    free(mask);
    free(parts);
    return count > 1;
}

void dataset_warn_masks(const struct dataset *dataset, const char *directory) {
    const struct dataset_frame *example = NULL;
    uint32_t example_id = 0;
    bool several;
    for (size_t i = 0; i < dataset->n_frames; i++) {
        const struct dataset_frame *frame = &dataset->frames[i];
        if (frame->instances == NULL)
            return;
        const uint32_t id = only_id(frame, &several);
        if (several)
            return;
        if (example == NULL && id != 0 && has_parts(frame)) {
            example = frame;
            example_id = id;
        }
    }
    if (example != NULL)
        log_print(LOG_WARNING,
                  "%s: the model tells objects apart by the values of their labels, but no label "
                  "image has more than one such value (\"%s\": %u): objects that touch count as "
                  "one, and there are no border weights. Number the objects of each image 1, 2, "
                  "..., or take the instances out of the model's label table",
                  directory, example->name, example_id);
}
