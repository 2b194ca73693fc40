/*
 * recover.h: what a training run needs to go on after its device was lost: the state that watch.h
 * keeps on the host, with what a checkpoint of it would say and the methods that ran; opening the
 * device again; and writing that state when no device comes back. Steps are a function of state,
 * seed and step, so the steps since then, repeated, give the bits that were lost.
 */
#ifndef UNET_RECOVER_H
#define UNET_RECOVER_H

#include "runtime/train/watch.h"

/* Losses without a step kept between them, after which a run is given up: something in these steps
 * is too much for the device. */
#define RECOVER_LOSSES 3

struct recover {
    struct unet_device *device;
    const struct watch *watch;
    bool has_kept;
    struct unet_checkpoint_info kept; /* of the state that watch has kept */
    uint32_t *methods;                /* of the run; NULL: not known yet */
    char *methods_text;
    bool has_state;
    uint32_t losses; /* since the last state was kept */
};

/* Opens a device again whose sessions are closed, and waits for it as long as UNET_DEVICE_WAIT says
 * (seconds; 10), or until unet_train_stop. */
bool recover_reopen(struct unet_device *device, struct err *err);

void recover_open(struct recover *recover, struct unet_device *device, const struct watch *watch);
void recover_close(struct recover *recover);

/* Remembers the methods of the run, for the sessions after it. */
bool recover_note_session(struct recover *recover, const struct unet_session *session,
                          struct err *err);
/* After watch_keep: what belongs to the state kept. */
void recover_note_kept(struct recover *recover, const struct unet_checkpoint_info *info);

/* The same after err, which is as it was when there is no device or it was lost too often, with the
 * reason added. */
bool recover_device(struct recover *recover, struct err *err);

/* Writes a checkpoint of the state kept. */
bool recover_save(const struct recover *recover, const char *path, struct err *err);

#endif
