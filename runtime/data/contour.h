/*
 * contour.h: which pixels outline a region, and colours that tell the outlines of neighbouring
 * regions apart. Used by the pictures of overlay.h.
 *
 * Maps of regions are [height][width], 0 where there is none.
 */
#ifndef UNET_RUNTIME_CONTOUR_H
#define UNET_RUNTIME_CONTOUR_H

#include <stdbool.h>
#include <stdint.h>

#define CONTOUR_COLOURS 8u

/* Width of a line, px, that is seen in a picture of this size: 1, and 2 above 1000 px a side. */
int contour_thickness(int width, int height);

/*
 * Whether pixel (y, x) belongs to the outline of its region: a pixel of another region, or of none,
 * lies within a city-block distance of thickness. The edge of the picture is no outline.
 */
bool contour_of_region(const uint32_t *ids, int width, int height, int y, int x, int thickness);

/* The same for a map of classes: a pixel of a lower class lies within that distance, so that a line
 * between two classes is drawn once, inside the higher one. */
bool contour_of_class(const uint8_t *classes, int width, int height, int y, int x, int thickness);

/*
 * A colour, 0 .. CONTOUR_COLOURS - 1, for every id up to the largest: colours[id], with colours[0]
 * unused; freed by the caller. Regions that come within 2 * reach px of each other with no third
 * one between have different colours wherever each region is in one piece (4-connected): their
 * graph is planar then, and a planar graph always has a node with at most five neighbours, which
 * can be put back last. Pieces scattered over the picture may leave no colour free; the one seldom
 * used nearby is taken. Memory grows with the largest id.
 */
uint8_t *contour_colours(const uint32_t *ids, int width, int height, int reach);

#endif
