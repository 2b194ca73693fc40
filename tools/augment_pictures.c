/*
 * augment_pictures.c: see augment_pictures.h.
 */
#include "tools/augment_pictures.h"

#include <math.h>
#include <stdlib.h>

#include "common/base.h"
#include "runtime/data/memory.h"

#define SHEET_PANEL 240 /* most pixels along a side of a panel of the sheet */
#define SHEET_GAP 4

struct colour {
    float red, green, blue; /* 0 .. 1 */
};

static const struct colour yellow = {1, 0.9f, 0}, red = {1, 0.1f, 0.1f}, cyan = {0.2f, 0.9f, 1},
                           ignored = {0.2f, 0.3f, 0.6f};

static void put(struct image *out, int y, int x, struct colour colour) {
    if (y < 0 || x < 0 || y >= out->height || x >= out->width)
        return;
    uint16_t *to = out->pixels + ((size_t)y * (size_t)out->width + (size_t)x) * 3;
    const float parts[3] = {colour.red, colour.green, colour.blue};
    for (int c = 0; c < 3; c++)
        to[c] = (uint16_t)lroundf(255 * fminf(fmaxf(parts[c], 0), 1));
}

static struct colour mix(struct colour under, struct colour over, float cover) {
    return (struct colour){under.red + cover * (over.red - under.red),
                           under.green + cover * (over.green - under.green),
                           under.blue + cover * (over.blue - under.blue)};
}

struct view {
    const float *planes[3];
    float low, range;
};

static struct view view_image(const struct augment_sample *sample) {
    const struct sampler *sampler = sample->sampler;
    const size_t plane = (size_t)sampler->in_h * (size_t)sampler->in_w;
    struct view view;
    float high;
    sampler_grey_range(sampler, sample->place.frame, &view.low, &high);
    view.range = high != view.low ? high - view.low : 1;
    for (int c = 0; c < 3; c++)
        view.planes[c] = sample->image + (sampler->data->channels == 3 ? (size_t)c * plane : 0);
    return view;
}

static struct colour view_colour(const struct view *view, size_t i) {
    return (struct colour){(view->planes[0][i] - view->low) / view->range,
                           (view->planes[1][i] - view->low) / view->range,
                           (view->planes[2][i] - view->low) / view->range};
}

/* ---------------------------------------------------------------- panels */

/* Outside the window, so that it hides nothing that counts. */
static void mark_window(const struct sampler *sampler, struct image *out) {
    const int top = sampler->margin_top - 1, left = sampler->margin_left - 1;
    const int bottom = top + sampler->out_h + 1, right = left + sampler->out_w + 1;
    for (int x = left; x <= right; x++) {
        put(out, top, x, yellow);
        put(out, bottom, x, yellow);
    }
    for (int y = top; y <= bottom; y++) {
        put(out, y, left, yellow);
        put(out, y, right, yellow);
    }
}

static void draw_image(const struct augment_sample *sample, struct image *out) {
    const struct view view = view_image(sample);
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++)
            put(out, y, x, view_colour(&view, (size_t)y * (size_t)out->width + (size_t)x));
    mark_window(sample->sampler, out);
}

int augment_picture_spacing(const struct sampler *sampler) {
    int spacing = 8;
    while (spacing * 24 < MIN(sampler->in_h, sampler->in_w))
        spacing *= 2;
    return spacing;
}

static int lattice_cell(double position, int spacing) {
    return (int)floor(position / spacing);
}

/* A lattice line runs where a pixel's cell differs from that of the pixel above or to the left. */
static void draw_grid(const struct augment_sample *sample, struct image *out) {
    static const struct colour black = {0, 0, 0};
    const struct sampler *sampler = sample->sampler;
    const struct dataset_frame *frame = &sampler->data->frames[sample->place.frame];
    const struct augment_warp warp = sampler_warp(sampler, &sample->place, sample->scratch);
    const struct view view = view_image(sample);
    const int spacing = augment_picture_spacing(sampler), n = out->width + 1;
    double *y = memory_new((size_t)n, sizeof(*y)), *x = memory_new((size_t)n, sizeof(*x));
    int *cells = memory_new((size_t)n * 4, sizeof(*cells));
    int *rows = cells, *columns = cells + n, *rows_above = cells + 2 * n,
        *columns_above = cells + 3 * n;
    for (int i = -1; i < out->height; i++) {
        augment_warp_row(&warp, i - sampler->margin_top, -sampler->margin_left - 1, n, y, x);
        for (int j = 0; j < n; j++) {
            rows[j] = lattice_cell(y[j], spacing);
            columns[j] = lattice_cell(x[j], spacing);
        }
        for (int j = 1; j < n && i >= 0; j++) {
            const bool line = rows[j] != rows[j - 1] || rows[j] != rows_above[j] ||
                              columns[j] != columns[j - 1] || columns[j] != columns_above[j];
            const bool inside = y[j] > -0.5 && x[j] > -0.5 && y[j] < frame->height - 0.5 &&
                                x[j] < frame->width - 0.5;
            struct colour colour = mix(
                view_colour(&view, (size_t)i * (size_t)out->width + (size_t)j - 1), black, 0.3f);
            colour = inside ? colour : mix(colour, red, 0.3f);
            put(out, i, j - 1, line ? mix(colour, cyan, 0.75f) : colour);
        }
        int *swap = rows_above;
        rows_above = rows, rows = swap;
        swap = columns_above;
        columns_above = columns, columns = swap;
    }
    mark_window(sampler, out);
    free(y);
    free(x);
    free(cells);
}

static void draw_label(const struct augment_sample *sample, struct image *out) {
    const float top = sample->n_classes > 1 ? (float)(sample->n_classes - 1) : 1;
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++) {
            const size_t i = (size_t)y * (size_t)out->width + (size_t)x;
            const float grey = (float)sample->labels[i] / top;
            put(out, y, x, sample->weights[i] != 0 ? (struct colour){grey, grey, grey} : ignored);
        }
}

static struct colour heat(float part) {
    static const struct colour stops[] = {
        {0, 0, 0}, {0.35f, 0.05f, 0.45f}, {0.85f, 0.2f, 0.2f}, {1, 0.8f, 0.2f}, {1, 1, 1}};
    const float place = fminf(fmaxf(part, 0), 1) * (ARRAY_LEN(stops) - 1);
    const int stop = MIN((int)place, (int)ARRAY_LEN(stops) - 2);
    return mix(stops[stop], stops[stop + 1], place - (float)stop);
}

static void draw_weights(const struct augment_sample *sample, float most, struct image *out) {
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++) {
            const float weight = sample->weights[(size_t)y * (size_t)out->width + (size_t)x];
            put(out, y, x, heat(most > 0 ? weight / most : 0));
        }
}

struct image augment_picture_draw(const struct augment_sample *sample, enum augment_panel panel,
                                  float most_weight) {
    const struct sampler *sampler = sample->sampler;
    const bool whole = panel == PANEL_IMAGE || panel == PANEL_GRID;
    struct image out = whole ? image_new(sampler->in_w, sampler->in_h, 3, 8)
                             : image_new(sampler->out_w, sampler->out_h, 3, 8);
    if (panel == PANEL_IMAGE)
        draw_image(sample, &out);
    else if (panel == PANEL_GRID)
        draw_grid(sample, &out);
    else if (panel == PANEL_LABEL)
        draw_label(sample, &out);
    else
        draw_weights(sample, most_weight, &out);
    return out;
}

/* ---------------------------------------------------------------- the sheet */

struct augment_sheet augment_sheet_new(const struct sampler *sampler, int n_samples) {
    struct augment_sheet sheet = {0};
    const int longest = MAX(sampler->in_h, sampler->in_w);
    const int reduce = (longest + SHEET_PANEL - 1) / SHEET_PANEL;
    sheet.panel_h = (sampler->in_h + reduce - 1) / reduce;
    sheet.panel_w = (sampler->in_w + reduce - 1) / reduce;
    sheet.columns = n_samples > 6 ? 2 : 1;
    sheet.rows = (n_samples + sheet.columns - 1) / sheet.columns;
    sheet.image = image_new(
        sheet.columns * (PANEL_COUNT * (sheet.panel_w + SHEET_GAP) + SHEET_GAP) - 2 * SHEET_GAP,
        sheet.rows * (sheet.panel_h + SHEET_GAP) - SHEET_GAP, 3, 8);
    for (size_t i = 0; i < image_samples(&sheet.image); i++)
        sheet.image.pixels[i] = 48;
    return sheet;
}

/* Value number channel of the pixel of a panel: the mean of reduce x reduce pixels. */
static uint16_t mean_of_block(const struct image *picture, int y, int x, int reduce, int channel) {
    uint32_t sum = 0, n = 0;
    for (int i = y * reduce; i < MIN((y + 1) * reduce, picture->height); i++)
        for (int j = x * reduce; j < MIN((x + 1) * reduce, picture->width); j++, n++)
            sum += picture->pixels[((size_t)i * (size_t)picture->width + (size_t)j) * 3 +
                                   (size_t)channel];
    return (uint16_t)((sum + n / 2) / n);
}

void augment_sheet_put(struct augment_sheet *sheet, int sample, enum augment_panel panel,
                       const struct image *picture) {
    /* Into the middle of the panel, as large as whole factors allow. */
    const int reduce = MAX((picture->height + sheet->panel_h - 1) / sheet->panel_h,
                           (picture->width + sheet->panel_w - 1) / sheet->panel_w);
    const int repeat =
        reduce > 1 ? 1 : MIN(sheet->panel_h / picture->height, sheet->panel_w / picture->width);
    const int height = MAX(picture->height / reduce, 1) * repeat;
    const int width = MAX(picture->width / reduce, 1) * repeat;
    const int top =
        sample / sheet->columns * (sheet->panel_h + SHEET_GAP) + (sheet->panel_h - height) / 2;
    const int left =
        sample % sheet->columns * (PANEL_COUNT * (sheet->panel_w + SHEET_GAP) + SHEET_GAP) +
        (int)panel * (sheet->panel_w + SHEET_GAP) + (sheet->panel_w - width) / 2;
    for (int y = 0; y < height; y++) {
        uint16_t *to = sheet->image.pixels +
                       ((size_t)(top + y) * (size_t)sheet->image.width + (size_t)left) * 3;
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *to++ = mean_of_block(picture, y / repeat, x / repeat, reduce, c);
    }
}
