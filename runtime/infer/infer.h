/*
 * infer.h: how a plan's tiles cover an image; the rest of inference is in runtime.h.
 */
#ifndef UNET_INFER_H
#define UNET_INFER_H

#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "runtime/infer/tile.h"

/* The tiles for an image of height x width. ERR_INPUT when it cannot be covered. */
bool infer_plan_grid(const struct plan_model *model, uint32_t height, uint32_t width,
                     struct tile_grid *grid, struct err *err);

#endif
