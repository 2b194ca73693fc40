/*
 * warping.h: the warping error of the ISBI 2012 challenge: how far a proposal differs from the
 * truth in topology, whatever the exact place of the borders (V. Jain et al., "Boundary learning by
 * optimization with topological constraints", CVPR 2010).
 *
 * The truth is warped towards the proposal by flipping pixels that differ and are simple: those
 * whose change alters neither the 4-connected foreground's nor the 8-connected background's
 * components and holes. Pixels outside the image are background. Passes over the pixels that
 * differ, the most confident (largest |p - t|) first, go on until one changes nothing. What still
 * differs then is classified by the warped truth around it (the 8 neighbours; objects are its
 * 4-connected components):
 *
 *   merger   a background pixel with at least two objects around it
 *   split    a foreground pixel with at least two objects around it once it is removed
 *
 * Everything else (objects and holes that appear or vanish) is counted apart.
 */
#ifndef UNET_RUNTIME_WARPING_H
#define UNET_RUNTIME_WARPING_H

#include <stdint.h>

/* Numbers of pixels. */
struct warping_count {
    uint64_t mergers, splits;
    uint64_t
        local_splits; /* splits if all that is looked at is the square of 20 pixels around each
                         pixel, as the challenge's script does: a large ring cut once counts too */
    uint64_t others;
};

/*
 * truth [height][width], not 0 where foreground; foreground [height][width], the proposal's
 * probability, foreground where above the threshold; weights NULL, or 0 for pixels that stay as
 * they are in the truth and do not count.
 */
struct warping_count warping_compare(const uint8_t *truth, const float *foreground,
                                     const float *weights, int width, int height, double threshold);

#endif
