/*
 * checkpoint.h: writing checkpoints of numbers that are not in a session: those kept on the host
 * when the device is gone. The rest of checkpoints is in runtime.h.
 */
#ifndef UNET_CHECKPOINT_H
#define UNET_CHECKPOINT_H

#include "runtime/runtime.h"

struct checkpoint_source {
    const struct plan *plan;
    const struct unet_device_info *device;
    const char *methods; /* unet_session_choices_text */
    bool has_state;
    /* As unet_session_read_param. */
    bool (*read)(void *user, uint32_t index, int state, float *data, struct err *err);
    /* The words of a tensor that is no parameter and no state of one. */
    bool (*read_tensor)(void *user, uint32_t tensor, float *data, struct err *err);
    void *user;
};

bool checkpoint_write(const struct checkpoint_source *source, const char *path,
                      const struct unet_checkpoint_info *info, struct err *err);

#endif
