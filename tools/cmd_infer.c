/*
 * cmd_infer.c: unetrun infer: every page through the network, one after the other, with progress;
 * infer_pages.h says which pages, infer_outputs.h what is written of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/log.h"
#include "runtime/data/image.h"
#include "runtime/data/normalise.h"
#include "runtime/infer/infer.h"
#include "tools/cmd.h"
#include "tools/infer_outputs.h"
#include "tools/infer_pages.h"

struct infer_values {
    struct cli_common common;
    const char *weights, *out, *probabilities, *overlay, *instances, *tta;
    uint32_t min_size;
    bool fill_holes;
};

static const struct cli_option infer_options[] = {
    {"weights", 0, CLI_TEXT, "CHECKPOINT", offsetof(struct infer_values, weights), true, NULL,
     "trained weights, a .safetensors file"},
    {"out", 0, CLI_TEXT, "DIR", offsetof(struct infer_values, out), true, NULL,
     "for STEM.png, the label value of each pixel's most likely class; made when missing"},
    {"probabilities", 0, CLI_TEXT, "DIR", offsetof(struct infer_values, probabilities), false, NULL,
     "also STEM.png, 16 bits, 65535 x probability of the last class; with more than two classes "
     "STEM.class-K.png of each"},
    {"overlay", 0, CLI_TEXT, "DIR", offsetof(struct infer_values, overlay), false, NULL,
     "also STEM.png, for people: the image with coloured outlines of what was found"},
    {"instances", 0, CLI_TEXT, "DIR", offsetof(struct infer_values, instances), false, NULL,
     "also STEM.png, 16 bits, the objects found: each 4-connected region has a number"},
    {"min-size", 0, CLI_COUNT, "N", offsetof(struct infer_values, min_size), false, NULL,
     "with --instances: drop objects of fewer pixels"},
    {"fill-holes", 0, CLI_FLAG, NULL, offsetof(struct infer_values, fill_holes), false, NULL,
     "with --instances: what an object encloses becomes part of it"},
    {"tta", 0, CLI_CHOICE, "1|4|8", offsetof(struct infer_values, tta), false, "1",
     "average over 4 mirrored, or 8 mirrored and turned copies"},
};

/* The lines on stderr. */
struct progress_state {
    bool live;      /* one line that is written over, on a terminal */
    bool open_line; /* the live line is on the screen */
    const char *stem;
    size_t page, n_pages;
    double pixels_done, pixels; /* of pages before this one, and of all */
    double page_pixels;
    double start_seconds, shown_seconds;
};

static void end_line(struct progress_state *state) {
    if (state->open_line)
        fputs("\r\033[K", stderr);
    state->open_line = false;
}

/* Inside a page: live ten times a second at most, in plain lines every ten seconds. */
static void show_progress(double share, void *user) {
    struct progress_state *state = user;
    const double now = clock_now_seconds(), done = state->pixels_done + share * state->page_pixels;
    if (!log_enabled(LOG_INFO) || share >= 1 ||
        now - state->shown_seconds < (state->live ? 0.1 : 10))
        return;
    char left[48];
    cmd_format_duration((now - state->start_seconds) / done * (state->pixels - done), left,
                        sizeof(left));
    fprintf(stderr, "%s%s (%zu of %zu): %.0f %% done, %s left%s", state->live ? "\r" : "",
            state->stem, state->page + 1, state->n_pages, 100 * share, left,
            state->live ? "\033[K" : "\n");
    fflush(stderr);
    state->open_line = state->live;
    state->shown_seconds = now;
}

static bool read_page(const struct infer_page *page, struct image *image, struct err *err) {
    struct image_file *file;
    if (!image_file_open(page->path, &file, err))
        return false;
    const bool good = image_file_read(file, page->page, IMAGE_PICTURE, image, err);
    image_file_close(file);
    return good;
}

static bool infer_page(const struct infer_values *values, const struct infer_outputs *outputs,
                       struct cmd_network *network, const struct infer_page *page,
                       struct progress_state *state, struct err *err) {
    const struct plan_model *model = outputs->model;
    const struct infer_progress progress = {show_progress, state};
    struct image image;
    if (!read_page(page, &image, err))
        return false;
    const size_t pixels = (size_t)image.width * (size_t)image.height;
    float *input = malloc(pixels * model->channels * sizeof(*input));
    float *probs = malloc(pixels * model->n_classes * sizeof(*probs));
    bool good = input != NULL && probs != NULL;
    if (!good)
        err_set(err, ERR_INPUT, "no memory for an image of %dx%d", image.width, image.height);
    if (good) {
        normalise_image(&image, model->normalise, model->input_offset, model->input_scale, input);
        good = cmd_network_infer(network, input, (uint32_t)image.height, (uint32_t)image.width,
                                 atoi(values->tta), &progress, probs, err);
    }
    end_line(state);
    good = good &&
           infer_outputs_write(outputs, page->stem, image.width, image.height, input, probs, err);
    image_free(&image);
    free(input);
    free(probs);
    return good || err_prefix(err, "%s", page->stem);
}

/* What to do when no device is left. */
static bool hint_rest(size_t n_done, const struct infer_pages *pages, struct err *err) {
    const struct err before = *err;
    return err_hint(err,
                    "%zu of %zu images are done and written; when the device is back, run again "
                    "with those from %s on%s%s",
                    n_done, pages->count, pages->items[n_done].stem,
                    before.device_hangs ? "; " : "", before.device_hangs ? before.hint : "");
}

static bool infer_all(const struct infer_values *values, const struct infer_outputs *outputs,
                      struct cmd_network *network, const struct infer_pages *pages,
                      struct err *err) {
    if (!infer_outputs_make(outputs, pages, err))
        return false;
    struct progress_state state = {.live = isatty(STDERR_FILENO) == 1,
                                   .n_pages = pages->count,
                                   .start_seconds = clock_now_seconds()};
    state.shown_seconds = state.start_seconds;
    for (size_t i = 0; i < pages->count; i++)
        state.pixels += pages->items[i].pixels;
    for (size_t i = 0; i < pages->count; i++) {
        const struct infer_page *page = &pages->items[i];
        state.stem = page->stem;
        state.page = i;
        state.page_pixels = page->pixels;
        if (!infer_page(values, outputs, network, page, &state, err))
            return err->code == ERR_DEVICE ? hint_rest(i, pages, err) : false;
        state.pixels_done += page->pixels;
        log_print(LOG_INFO, "%s/%s.png (%zu of %zu)", values->out, page->stem, i + 1, pages->count);
    }
    return true;
}

static bool run_infer(const void *data, struct err *err) {
    const struct infer_values *values = data;
    const struct cli_list *operands = &values->common.operands;
    struct plan *plan = NULL;
    struct infer_pages pages = {0};
    struct cmd_network network = {0};
    struct infer_outputs outputs = {
        .out = values->out,
        .probabilities = values->probabilities,
        .overlay = values->overlay,
        .instances = values->instances,
        .min_pixels = values->min_size,
        .fill_holes = values->fill_holes,
    };
    if (values->instances == NULL && (values->min_size > 0 || values->fill_holes))
        return err_set(err, ERR_USAGE, "%s is about objects: it needs --instances",
                       values->min_size > 0 ? "--min-size" : "--fill-holes");
    bool good = plan_load(operands->items[0], &plan, err);
    outputs.model = good ? &plan->model : NULL;
    good = good && infer_pages_list(operands, 1, &plan->model, &pages, err) &&
           infer_outputs_check(&outputs, &pages, err) &&
           cmd_network_open(plan, &values->common, values->weights, &network, err) &&
           infer_all(values, &outputs, &network, &pages, err);
    cmd_network_close(&network);
    infer_pages_free(&pages);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_infer = {
    .name = "infer",
    .summary = "Segments images of any size: PNG or TIFF, 8 or 16 bits, grey or RGB.",
    .details = "Each page of a TIFF stack gives a result of its own: STEM-000.png, STEM-001.png, "
               "...\nAll images are read and checked before the first one is segmented.\n"
               "Objects are regions of the classes that the model labels as instances, or of all "
               "classes but\nthe first. Where there are such labels, or --instances is given, the "
               "overlay outlines each object\nin a colour of its own.",
    .operands = "FILE.plan IMAGE...",
    .options = infer_options,
    .n_options = ARRAY_LEN(infer_options),
    .values_bytes = sizeof(struct infer_values),
    .run = run_infer,
};
