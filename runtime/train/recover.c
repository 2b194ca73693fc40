/*
 * recover.c: see recover.h.
 */
#include "runtime/train/recover.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/log.h"
#include "runtime/exec.h"
#include "runtime/param.h"
#include "runtime/train/checkpoint.h"

#define WAIT_SECONDS 10.0 /* a driver that resets a GPU takes seconds */
#define WAIT_SLICE_NS 200000000

void recover_open(struct recover *recover, struct unet_device *device, const struct watch *watch) {
    *recover = (struct recover){.device = device, .watch = watch};
}

void recover_close(struct recover *recover) {
    free(recover->methods);
    free(recover->methods_text);
    *recover = (struct recover){0};
}

bool recover_note_session(struct recover *recover, const struct unet_session *session,
                          struct err *err) {
    const struct unet_choice *choices;
    const uint32_t count = unet_session_choices(session, &choices);
    if (recover->methods != NULL)
        return true;
    recover->has_state = unet_session_has_state(session);
    recover->methods_text = unet_session_choices_text(session);
    recover->methods = calloc(MAX(count, 1u), sizeof(*recover->methods));
    if (recover->methods == NULL || recover->methods_text == NULL)
        return err_set(err, ERR_INPUT, "no memory for a training run");
    for (uint32_t i = 0; i < count; i++)
        recover->methods[i] = choices[i].method;
    return true;
}

void recover_note_kept(struct recover *recover, const struct unet_checkpoint_info *info) {
    if (!recover->has_kept || info->step > recover->kept.step)
        recover->losses = 0;
    recover->kept = *info;
    recover->has_kept = true;
}

/* ---- the device ---- */

static double wait_seconds(void) {
    double seconds = WAIT_SECONDS;
    fast_path_number("UNET_DEVICE_WAIT", &seconds,
                     NULL); /* a mistake was told when it was opened */
    return seconds;
}

/* Adds to the text of an error, which stays what it is. */
static bool add_reason(struct err *err, const char *reason) {
    const struct err before = *err;
    err_set(err, before.code, "%.500s; %.400s", before.text, reason);
    err->device_lost = before.device_lost;
    return err_hint(err, "%s", before.hint);
}

bool recover_reopen(struct unet_device *device, struct err *err) {
    const double end = clock_now_seconds() + wait_seconds();
    const struct timespec slice = {.tv_nsec = WAIT_SLICE_NS};
    while (!unet_device_reopen(device, err)) {
        if (clock_now_seconds() >= end || unet_train_stop)
            return false;
        nanosleep(&slice, NULL);
    }
    return true;
}

bool recover_device(struct recover *recover, struct err *err) {
    struct err why;
    if (err->device_hangs)
        return false;
    if (++recover->losses >= RECOVER_LOSSES)
        return add_reason(err, "this happened several times at the same steps");
    log_print(LOG_WARNING, "%s; opening the device again", err->text);
    return recover_reopen(recover->device, &why) || add_reason(err, why.text);
}

/* ---- the state kept ---- */

static bool read_kept(void *user, uint32_t index, int state, float *data, struct err *err) {
    const struct recover *recover = user;
    const struct plan *plan = recover->watch->plan;
    const struct plan_param *param = &plan->params[index];
    const uint32_t tensor = state < 0 ? param->tensor : param->states[state];
    const float *kept = watch_kept_tensor(recover->watch, tensor);
    if (kept == NULL)
        return err_set(err, ERR_INPUT, "tensor %s was not kept", plan->tensors[tensor].name);
    param_unpack(param, &plan->tensors[tensor], kept, data);
    return true;
}

static bool read_kept_tensor(void *user, uint32_t tensor, float *data, struct err *err) {
    const struct recover *recover = user;
    const struct plan *plan = recover->watch->plan;
    const float *kept = watch_kept_tensor(recover->watch, tensor);
    if (kept == NULL)
        return err_set(err, ERR_INPUT, "tensor %s was not kept", plan->tensors[tensor].name);
    memcpy(data, kept, plan->tensors[tensor].size_bytes);
    return true;
}

bool recover_save(const struct recover *recover, const char *path, struct err *err) {
    const struct checkpoint_source source = {.plan = recover->watch->plan,
                                             .device = unet_device_get_info(recover->device),
                                             .methods = recover->methods_text,
                                             .has_state = recover->has_state,
                                             .read = read_kept,
                                             .read_tensor = read_kept_tensor,
                                             .user = (void *)recover};
    return checkpoint_write(&source, path, &recover->kept, err);
}
