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
 *
 * Where rows of the label table say instances, label values are also the numbers of objects, and
 * background is drawn between objects of one class that touch (runtime/data/instances.h). Value 0
 * cannot number an object, and one class must be left for the background: other tables are refused.
 */
#ifndef UNET_RUNTIME_DATASET_H
#define UNET_RUNTIME_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/plan.h"

#define DATASET_MAX_PROBLEMS 10
#define DATASET_MAX_CLASSES 256

/* A row of the label table: pixels of these values belong to this class. */
struct dataset_label {
    uint32_t value, last_value; /* a range, ends included */
    uint32_t class_;
    bool any_other; /* instead of values: every value that no other row and not "ignore" names */
    bool instances; /* each value is an object of its own */
    float weight;   /* factor of the class's weight in the loss */
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
    float *image;      /* [channels][height][width], normalised */
    uint8_t *classes;  /* [height][width]; 0 where ignored; lines cut between objects that touch:
                          what  a network learns */
    uint8_t *labelled; /* the same as labelled, without these lines: what its predictions are scored
                          against; NULL: classes (dataset_labelled) */
    float *weights;    /* [height][width]: 0 where ignored, in training and in scores; else, after
                          loading, the class's factor, after weightmap_apply the weight in the loss */
    uint32_t *instances; /* [height][width]: ids of objects (the label values), 0 elsewhere; NULL
                            when no row of the table says instances */
    float *border; /* [height][width]: border term of the weight map at every pixel, for background
                      only (weightmap.h); NULL: none */
};

struct dataset {
    int channels;
    uint8_t background; /* the class that is no object: the lowest without instances */
    float class_factors[DATASET_MAX_CLASSES]; /* the table's; 0: pixels of the class are ignored */
    float class_weights[DATASET_MAX_CLASSES]; /* in the loss, factors included: weightmap_apply; the
                                                 factors after loading */
    size_t n_frames;
    struct dataset_frame *frames;
};

/* The spec of a model; rows_out must have room for model->n_labels. */
struct dataset_spec dataset_spec_of_model(const struct plan_model *model,
                                          struct dataset_label *rows_out);

/* ERR_INPUT or ERR_IO; err->text lists the problems, with semicolons between. */
bool dataset_load(const char *directory, const struct dataset_spec *spec, struct dataset *out,
                  struct err *err);
/* The same with the spec of a model; frames NULL: all, else only those that the list names. */
bool dataset_load_for_model(const char *directory, const struct plan_model *model,
                            const char *frames, struct dataset *out, struct err *err);
void dataset_free(struct dataset *dataset); /* leaves it zeroed; safe on a zeroed one */

/* The classes that predictions are scored against. */
const uint8_t *dataset_labelled(const struct dataset_frame *frame);

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

/*
 * Moves block number fold, from 1, of n_folds contiguous blocks of the frames in the order of their
 * names from *dataset to *chosen. Blocks differ by one frame at most. ERR_USAGE when there is no
 * such block or there are fewer frames than blocks; nothing is moved then.
 */
bool dataset_select_fold(struct dataset *dataset, uint32_t n_folds, uint32_t fold,
                         struct dataset *chosen, struct err *err);

/* Keeps only the frames that a list names (all of them, if it names all) and frees the others. */
bool dataset_keep(struct dataset *dataset, const char *list, struct err *err);

#endif
