/*
 * score.c: the scores of validation as the public API names and compares them (runtime.h). A score
 * more is an enumerator there, a row here and a line in validate.c.
 */
#include <math.h>
#include <string.h>

#include "common/base.h"
#include "runtime/runtime.h"

struct score_row {
    const char *name;
    bool more_is_better;
};

static const struct score_row table[UNET_SCORE_COUNT] = {
    [UNET_SCORE_LOSS] = {"loss", false},    [UNET_SCORE_PIXEL_ERROR] = {"pixel_error", false},
    [UNET_SCORE_IOU] = {"iou", true},       [UNET_SCORE_MEAN_IOU] = {"mean_iou", true},
    [UNET_SCORE_DICE] = {"dice", true},     [UNET_SCORE_SEG] = {"seg", true},
    [UNET_SCORE_V_RAND] = {"v_rand", true},
};

const char *unet_score_name(enum unet_score score) {
    return table[score].name;
}

bool unet_score_find(const char *name, enum unet_score *score_out, struct err *err) {
    char names[200] = "";
    for (int i = 0; i < UNET_SCORE_COUNT; i++) {
        if (strcmp(name, table[i].name) == 0) {
            *score_out = (enum unet_score)i;
            return true;
        }
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i > 0 ? ", " : "",
                 table[i].name);
    }
    err_set(err, ERR_USAGE, "\"%s\" is no score of validation", name);
    return err_hint(err, "scores: %s", names);
}

bool unet_score_is_better(enum unet_score score, double value, double best) {
    if (isinf(best))
        return !isnan(value);
    return table[score].more_is_better ? value > best : value < best;
}
