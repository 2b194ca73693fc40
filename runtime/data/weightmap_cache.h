/*
 * weightmap_cache.h: border terms kept on disk between runs (runtime/cachedir.h), one file for each
 * picture of objects and set of parameters. Files that are damaged or another's are passed over,
 * and where nothing can be written nothing is kept. UNET_WEIGHT_CACHE=off turns it off.
 */
#ifndef UNET_RUNTIME_WEIGHTMAP_CACHE_H
#define UNET_RUNTIME_WEIGHTMAP_CACHE_H

#include "common/err.h"
#include "common/plan.h"
#include "runtime/data/dataset.h"

/* What went wrong; zeroed at the start. */
struct weightmap_cache {
    size_t n_damaged;
    bool cannot_write;           /* found out once, then left alone */
    struct err damage, obstacle; /* the first of each */
};

/* NULL: not kept. malloc'ed. */
char *weightmap_cache_path(const struct weightmap_cache *cache, const struct dataset_frame *frame,
                           const struct plan_weights *settings);
/* Fills frame->border, or returns false and leaves its content undefined. */
bool weightmap_cache_load(struct weightmap_cache *cache, const char *path,
                          struct dataset_frame *frame, const struct plan_weights *settings);
void weightmap_cache_save(struct weightmap_cache *cache, const char *path,
                          const struct dataset_frame *frame, const struct plan_weights *settings);
/* Tells people, on the level of information. */
void weightmap_cache_report(const struct weightmap_cache *cache);

#endif
