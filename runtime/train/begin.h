/*
 * begin.h: where a training run begins: at new weights, at those of another training, or at the
 * checkpoint that it continues; and what its best weights are told by.
 */
#ifndef UNET_BEGIN_H
#define UNET_BEGIN_H

#include "runtime/runtime.h"

/* Puts the first weights and optimiser state into the session, and fills in what a checkpoint of
 * them would say: seed, steps done and in all, the best so far. */
bool begin_set_state(struct unet_session *session, const struct plan *plan,
                     const struct unet_train_options *options, struct unet_checkpoint_info *info,
                     struct err *err);

#endif
