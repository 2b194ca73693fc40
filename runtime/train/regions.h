/*
 * regions.h: segmentations as regions: components, thinned borders, and how well two sets of
 * regions agree (Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation
 * algorithms for connectomics", Frontiers in Neuroanatomy 2015: the ISBI 2012 challenge).
 */
#ifndef UNET_RUNTIME_REGIONS_H
#define UNET_RUNTIME_REGIONS_H

#include <stddef.h>
#include <stdint.h>

/* Numbers the 4-connected components of the pixels that are set 1, 2, ... in raster order, 0 where
 * not set. Returns their number. */
uint32_t regions_components(const uint8_t *set, int width, int height, uint32_t *labels);

/*
 * The same, and then grows the components over the rest until they meet: the watershed of a
 * two-valued image after L. Vincent and P. Soille (IEEE PAMI 13, 1991), 4-connected. Lines one
 * pixel wide, labelled 0, stay between different components, also where an even number of pixels
 * lay between them (a pixel reached at the same time by its neighbour's component becomes line).
 * With nothing set, all pixels are one region.
 */
uint32_t regions_thin(const uint8_t *set, int width, int height, uint32_t *labels);

/*
 * Foreground-restricted scores of a proposal against the truth. Pixels with truth 0 are left out;
 * each proposal pixel 0 inside the truth's foreground counts as a region of its own. With p_ij the
 * share of foreground pixels in truth region i and proposal region j, a_i and b_j its sums:
 *
 *   split = sum p_ij^2 / sum a_i^2,  merge = sum p_ij^2 / sum b_j^2,  rand = their harmonic mean
 *   info  = 2 I(S;T) / (H(S) + H(T)), 1 when both are a single region
 */
struct regions_score {
    uint64_t n_pixels; /* of the truth's foreground; the scores mean nothing when 0 */
    double rand, rand_split, rand_merge;
    double info;
};

struct regions_score regions_compare(const uint32_t *truth, const uint32_t *proposal, int width,
                                     int height);

#endif
