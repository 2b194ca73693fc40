/*
 * prepare.h: what a training run looks at before its session is opened: whether its options belong
 * together, its data, and the methods of the checkpoint that it continues.
 */
#ifndef UNET_PREPARE_H
#define UNET_PREPARE_H

#include "runtime/data/dataset.h"
#include "runtime/runtime.h"

/* Whether frames are held out for validation. */
bool prepare_holds_out(const struct unet_train_options *options);
bool prepare_check(const struct unet_train_options *options, const struct plan *plan,
                   struct err *err);

/* Reads what to train on and what is held out, with the border weights of the model. */
bool prepare_data(const struct unet_train_options *options, const struct plan_model *model,
                  struct dataset *data, struct dataset *held_out, struct err *err);

/* A run goes on with the methods it began with, or its results would depend on where it was
   interrupted: those of the checkpoint, NULL when it does not say or they do not fit. Freed by the
   caller. */
bool prepare_methods(const struct unet_device *device, const struct plan *plan, const char *path,
                     uint32_t **methods_out, struct err *err);
/* Says where a session has others than these (NULL: nothing is said), or would have had. */
void prepare_report_methods(const struct unet_session *session, const uint32_t *methods);

#endif
