/*
 * infer_outputs.h: the pictures that unetrun infer writes of a page, and the directories they go
 * to.
 */
#ifndef UNET_INFER_OUTPUTS_H
#define UNET_INFER_OUTPUTS_H

#include "common/err.h"
#include "common/plan.h"
#include "runtime/data/image.h"
#include "tools/infer_pages.h"

/* Where to; NULL: not wanted. */
struct infer_outputs {
    const struct plan_model *model;
    const char *out;           /* STEM.png, label values of the most likely classes */
    const char *probabilities; /* STEM.png, or STEM.class-K.png with more than two classes */
    const char *overlay;       /* STEM.png, the image with contours */
    const char *instances;     /* STEM.png, ids of objects */
    uint32_t min_pixels;       /* of an object; 0 or 1: all are kept */
    bool fill_holes;
};

/*
 * Before anything is made or run: that label values fit into pictures, that no two directories are
 * the same, that each can be made and written to, and that no result overwrites an image that is
 * read. ERR_INPUT, ERR_USAGE, ERR_IO.
 */
bool infer_outputs_check(const struct infer_outputs *outputs, const struct infer_pages *pages,
                         struct err *err);

/* Makes the directories, and checks again those that exist only now. */
bool infer_outputs_make(const struct infer_outputs *outputs, const struct infer_pages *pages,
                        struct err *err);

/*
 * Writes the pictures of one page, each whole or not at all, the one in --out last. input is
 * [channels][height][width], as normalised; probs [n_classes][height][width]. More than 65535
 * objects: ERR_INPUT, and nothing of this page is written.
 */
bool infer_outputs_write(const struct infer_outputs *outputs, const char *stem, int width,
                         int height, const float *input, const float *probs, struct err *err);

#endif
