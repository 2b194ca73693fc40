/*
 * regions.h: segmentations as regions: components, thinned borders, and how well two sets of
 * regions agree (Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation
 * algorithms for connectomics", Frontiers in Neuroanatomy 2015: the ISBI 2012 challenge).
 */
#ifndef UNET_RUNTIME_REGIONS_H
#define UNET_RUNTIME_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers the 4-connected components of the pixels that are set 1, 2, ... in raster order, 0 where
 * not set. Returns their number. */
uint32_t regions_components(const uint8_t *set, int width, int height, uint32_t *labels);

/*
 * Thins borders: grows regions (any ids below 2^32 - 2) over the pixels of id 0 until they meet:
 * the watershed of a two-valued image after P. Soille and L. Vincent (1990), 4-connected. Lines one
 * pixel wide, of id 0, stay between different regions, also where an even number of pixels lay
 * between them. A pixel beside a line and one region joins the region. Without any region all
 * pixels become region 1.
 */
void regions_grow(int width, int height, uint32_t *labels);

/*
 * Foreground-restricted scores of a proposal against the truth. Pixels with truth 0 are left out;
 * each proposal pixel 0 inside the truth's foreground counts as a region of its own. With p_ij the
 * share of foreground pixels in truth region i and proposal region j, a_i and b_j its sums:
 *
 *   rand_split = sum p_ij^2 / sum a_i^2 (recall), rand_merge = sum p_ij^2 / sum b_j^2 (precision),
 *   rand = 2 sum p_ij^2 / (sum a_i^2 + sum b_j^2), their harmonic mean
 *   info_split = I(S;T) / H(S), info_merge = I(S;T) / H(T), info = 2 I(S;T) / (H(S) + H(T))
 *
 * with S the proposal, T the truth, each 1 where the entropy is 0 (a single region). Splits of true
 * regions lower the split scores, mergers the merge scores.
 */
struct regions_score {
    uint64_t n_pixels; /* of the truth's foreground; the scores mean nothing when 0 */
    double rand, rand_split, rand_merge;
    double info, info_split, info_merge;
    /* Pairs of different foreground pixels in one region of the truth, of the proposal, of both. */
    uint64_t truth_pairs, proposal_pairs, common_pairs;
};

struct regions_score regions_compare(const uint32_t *truth, const uint32_t *proposal, int width,
                                     int height);

#endif
