/*
 * overlap.h: how many pixels two maps of ids share, pair by pair of ids: the table that scores of
 * regions and of objects are worked out from.
 */
#ifndef UNET_RUNTIME_OVERLAP_H
#define UNET_RUNTIME_OVERLAP_H

#include <stddef.h>
#include <stdint.h>

/* Pixels with this id in the truth and this one in the proposal. */
struct overlap_pair {
    uint32_t truth, proposal;
    uint64_t n_pixels; /* at least 1 */
};

struct overlap {
    struct overlap_pair *pairs; /* each pair that occurs, once; without (0, 0) */
    size_t count;
};

/* Counts; pairs come sorted by truth, then proposal. Any ids, 0 being "none". */
struct overlap overlap_count(const uint32_t *truth, const uint32_t *proposal, size_t n_pixels);

void overlap_sort_by_proposal(struct overlap *overlap); /* then by truth */
void overlap_sort_by_truth(struct overlap *overlap);    /* then by proposal */
void overlap_free(struct overlap *overlap);

#endif
