/*
 * infer.h: how a plan's tiles cover an image; the rest of inference is in runtime.h.
 */
#ifndef UNET_INFER_H
#define UNET_INFER_H

#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "runtime/infer/tile.h"
#include "runtime/runtime.h"

/* Called after each run of the plan with the share of the image that is done, copies included. */
struct infer_progress {
    void (*report)(double share, void *user);
    void *user;
};

/* unet_infer (runtime.h) with reports on the way; progress may be NULL. */
bool infer_image(struct unet_session *session, const float *image, uint32_t height, uint32_t width,
                 int tta, const struct infer_progress *progress, float *probs, struct err *err);

/* The tiles for an image of height x width. ERR_INPUT when it cannot be covered. */
bool infer_plan_grid(const struct plan_model *model, uint32_t height, uint32_t width,
                     struct tile_grid *grid, struct err *err);

#endif
