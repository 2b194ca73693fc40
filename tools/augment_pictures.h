/*
 * augment_pictures.h: training samples as pictures for people.
 *
 *   image    what the network sees, black and white as sampler_grey_range() says; the output window
 *            inside a yellow frame
 *   grid     the image, darker, with the frame's own coordinates drawn in as a lattice, so that its
 *            lines show how the frame was bent; red where the sample reaches beyond the frame
 *   label    the output window: classes from black (0) to white (the last); blue where the weight
 *            is 0
 *   weights  the output window: 0 black, then violet, red, yellow to white at the scale's end
 */
#ifndef UNET_AUGMENT_PICTURES_H
#define UNET_AUGMENT_PICTURES_H

#include "runtime/data/image.h"
#include "runtime/data/sampler.h"

enum augment_panel { PANEL_IMAGE, PANEL_GRID, PANEL_LABEL, PANEL_WEIGHTS, PANEL_COUNT };

/* A sample in memory, with the scratch its warp is made in. */
struct augment_sample {
    const struct sampler *sampler;
    struct sampler_scratch *scratch;
    struct sampler_place place;
    uint32_t n_classes;
    float *image;
    uint32_t *labels;
    float *weights;
};

/* A picture, 8-bit RGB, freed by the caller. most_weight: end of the scale of weights. */
struct image augment_picture_draw(const struct augment_sample *sample, enum augment_panel panel,
                                  float most_weight);

/* Distance of lattice lines, px. */
int augment_picture_spacing(const struct sampler *sampler);

/* A sheet of the panels of several samples, reduced; each sample is a row of four. The label and
   weights panels show the output window alone, larger than it is in the image. */
struct augment_sheet {
    struct image image;
    int panel_h, panel_w, rows, columns;
};
struct augment_sheet augment_sheet_new(const struct sampler *sampler, int n_samples);
void augment_sheet_put(struct augment_sheet *sheet, int sample, enum augment_panel panel,
                       const struct image *picture);

#endif
