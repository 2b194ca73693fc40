/*
 * dataset.h: images with labels for training and scoring, read whole into memory and checked before
 * anything runs. A directory holds either
 *
 *   images/STEM.{png,tif,tiff} and labels/STEM.{png,tif,tiff}, or the stacks
 *   images.tif and labels.tif, or
 *   train-volume.tif and train-labels.tif
 *
 * Frames come in the order of their names. A stem is a frame's name; pages of a stack are numbered
 * from zero, "00", "01", ...; pages of a stack inside images/ are "STEM/00", ...
 *
 * Every problem is collected, up to DATASET_MAX_PROBLEMS of them named, before loading fails: a
 * missing partner, sizes or page counts that differ, channels the model does not take, label values
 * the model does not know.
 */
#ifndef UNET_RUNTIME_DATASET_H
#define UNET_RUNTIME_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/plan.h"

#define DATASET_MAX_PROBLEMS 10
#define DATASET_MAX_CLASSES 256

/* A row of the label table: pixels of this value belong to this class. */
struct dataset_label {
    uint32_t value;
    uint32_t class_;
    bool any_other; /* instead of value: every value that no other row and not "ignore" names */
    float weight;   /* of the class in the loss */
};

/* What a model expects of its data. */
struct dataset_spec {
    int channels; /* 1 grey, 3 RGB */
    const struct dataset_label *labels;
    size_t n_labels;
    bool has_ignore;
    uint32_t ignore_value; /* pixels of this value have weight 0 */
    enum plan_normalise normalise;
    float input_offset, input_scale;
};

struct dataset_frame {
    char *name;
    int width, height;
    float *image;     /* [channels][height][width], normalised */
    uint8_t *classes; /* [height][width]; 0 where ignored */
    float *weights; /* [height][width]: class weight; 0 where ignored, in training and in scores */
};

struct dataset {
    int channels;
    size_t n_frames;
    struct dataset_frame *frames;
};

/* The spec of a model; rows_out must have room for model->n_labels. */
struct dataset_spec dataset_spec_of_model(const struct plan_model *model,
                                          struct dataset_label *rows_out);

/* ERR_INPUT or ERR_IO; err->text lists the problems, with semicolons between. */
bool dataset_load(const char *directory, const struct dataset_spec *spec, struct dataset *out,
                  struct err *err);
void dataset_free(struct dataset *dataset); /* leaves it zeroed; safe on a zeroed one */

/* Pixels of each class, and those ignored. */
void dataset_count(const struct dataset *dataset, uint64_t counts[DATASET_MAX_CLASSES],
                   uint64_t *ignored_out);

/*
 * Moves the frames that a list names from *dataset to *chosen: names, numbers (leading zeros do not
 * matter) and ranges of numbers, "09-11,24-26,base". The ends of a range must exist; numbers
 * missing between them are passed over. ERR_USAGE for a frame that does not exist (what exists is
 * listed), a list that makes no sense, or one that leaves no frame behind. Nothing is moved on
 * failure.
 */
bool dataset_select(struct dataset *dataset, const char *list, struct dataset *chosen,
                    struct err *err);

/* Keeps only the frames that a list names (all of them, if it names all) and frees the others. */
bool dataset_keep(struct dataset *dataset, const char *list, struct err *err);

#endif
