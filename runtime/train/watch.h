/*
 * watch.h: finds where numbers of a training run first left the range of floats.
 *
 * Weights and optimiser state are copied to the host now and then, when all of them are finite: the
 * kept state. Training is a function of state, seed and step, to the bit; so once something is seen
 * to be wrong, the steps since the kept state can be repeated one record at a time, each record's
 * results being looked at before the next runs. The first one that is not finite is the origin: a
 * layer and what was computed there. The loss alone does not tell: it may have overflowed steps
 * after a gradient did.
 *
 * Copies cost less than a hundredth of the training time, unless they are asked for more often; the
 * host memory for them is twice that of the blocks weights and state: the newest copy, and the one
 * being made. A device that fails meanwhile leaves the former whole.
 */
#ifndef UNET_WATCH_H
#define UNET_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/runtime.h"

struct watch {
    const struct plan *plan;
    uint8_t *kept;       /* the persistent tensors one after another */
    uint8_t *next;       /* the same, while they are being read */
    uint32_t every;      /* steps from copy to copy; 0: chosen by what a copy costs */
    float *tensor;       /* room for the largest tensor of the plan */
    bool has_next;       /* all of it was read, and is finite */
    uint32_t next_step;  /* steps done when it was read */
    double next_seconds; /* that reading took */
    uint32_t kept_step;  /* steps done when they were kept */
    uint32_t due_step;   /* steps done at which they should be kept again */
    double kept_seconds; /* clock at that time; 0: never yet */
};

bool watch_open(struct watch *watch, const struct plan *plan, uint32_t every, struct err *err);
void watch_close(struct watch *watch); /* safe on a zeroed one */

/* Reads all weights and optimiser state after so many steps, unless that was done, and looks
 * whether they are finite: else *name_out is the tensor. What is kept stays as it is. */
bool watch_look(struct watch *watch, struct unet_session *session, uint32_t steps_done,
                bool *finite_out, const char **name_out, struct err *err);
/* Keeps what was looked at last, which was finite. */
void watch_keep(struct watch *watch);
bool watch_is_due(const struct watch *watch, uint32_t steps_done);

/* A tensor of the plan as it was kept; NULL: it is not one that lasts. */
const float *watch_kept_tensor(const struct watch *watch, uint32_t tensor);

/* Puts the kept state back. */
bool watch_restore(struct watch *watch, struct unet_session *session, struct err *err);

/* Runs a program of a stepped session up to the first record whose results are not all finite:
 * then false, *found_out true, and err names the record. */
bool watch_run(struct watch *watch, struct unet_session *session, const char *program,
               bool *found_out, struct err *err);

#endif
