/*
 * dataset_labels.h: from the values of a label picture to classes, weights and objects, by the
 * model's label table. Part of dataset.c's work.
 */
#ifndef UNET_RUNTIME_DATASET_LABELS_H
#define UNET_RUNTIME_DATASET_LABELS_H

#include "runtime/data/dataset.h"
#include "runtime/data/image.h"
#include "runtime/data/problems.h"

struct dataset_table {
    const struct dataset_spec *spec;
    bool has_instances;
    uint8_t background;                   /* dataset.h */
    int16_t row_of_value[UINT16_MAX + 1]; /* for every value a file can hold; negative: none */
};

/* ERR_INPUT for a table that makes no sense. */
bool dataset_table_build(struct dataset_table *table, const struct dataset_spec *spec,
                         struct err *err);
/* Fills classes, weights and instances of a frame; false when a value is unknown. */
bool dataset_table_apply(const struct dataset_table *table, const struct image *labels,
                         struct dataset_frame *frame);
/* Adds the unknown values of a file to the problems. */
void dataset_table_report(const struct dataset_table *table, const char *file,
                          const struct image *labels, struct problems *problems);

/* Warns when objects should be told apart but no label picture numbers them. */
void dataset_warn_masks(const struct dataset *dataset, const char *directory);

#endif
