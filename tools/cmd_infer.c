/*
 * cmd_infer.c: unetrun infer: label pictures, probabilities and overlays of images of any size.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/image.h"
#include "runtime/data/normalise.h"
#include "runtime/data/overlay.h"
#include "runtime/train/metrics.h"
#include "tools/cmd.h"
#include "tools/infer_pages.h"

struct infer_values {
    struct cli_common common;
    const char *weights, *out, *probabilities, *overlay, *tta;
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
     "also STEM.png, for people: the image with the outlines of what was found"},
    {"tta", 0, CLI_CHOICE, "1|4|8", offsetof(struct infer_values, tta), false, "1",
     "average over 4 mirrored, or 8 mirrored and turned copies"},
};

/* One page on its way through the network. */
struct work {
    const struct plan_model *model;
    struct image image, labels;
    float *input, *probs;
    uint8_t *classes; /* of each pixel */
    size_t pixels;
};

static void free_work(struct work *work) {
    image_free(&work->image);
    image_free(&work->labels);
    free(work->classes);
    free(work->input);
    free(work->probs);
}

/* The value in label pictures of a class: of its first row in the model's table. */
static uint32_t value_of_class(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_ && model->labels[i].value != PLAN_LABEL_OTHER)
            return model->labels[i].value;
    return class_;
}

static bool check_values(const struct plan_model *model, bool *wide_out, struct err *err) {
    *wide_out = false;
    for (uint32_t k = 0; k < model->n_classes; k++) {
        const uint32_t value = value_of_class(model, k);
        if (value > UINT16_MAX)
            return err_set(err, ERR_INPUT,
                           "class %u has the label value %u; pictures hold 65535 "
                           "at most",
                           k, value);
        *wide_out = *wide_out || value > UINT8_MAX;
    }
    return true;
}

static void choose_labels(struct work *work) {
    const struct plan_model *model = work->model;
    metrics_argmax(work->probs, model->n_classes, work->pixels, work->classes);
    for (size_t i = 0; i < work->pixels; i++)
        work->labels.pixels[i] = (uint16_t)value_of_class(model, work->classes[i]);
}

static bool make_path(const char *directory, const char *stem, const char *suffix, char *path,
                      size_t room, struct err *err) {
    const int length = snprintf(path, room, "%s/%s%s.png", directory, stem, suffix);
    if (length >= 0 && (size_t)length < room)
        return true;
    return err_set(err, ERR_IO, "%s: the path of its result is too long", stem);
}

static bool write_probability(const struct work *work, uint32_t class_, const char *path,
                              struct err *err) {
    struct image picture = image_new(work->image.width, work->image.height, 1, 16);
    const float *plane = work->probs + (size_t)class_ * work->pixels;
    for (size_t i = 0; i < work->pixels; i++)
        picture.pixels[i] = (uint16_t)(MIN(MAX(plane[i], 0.0f), 1.0f) * 65535.0f + 0.5f);
    const bool good = image_write_png(path, &picture, err);
    image_free(&picture);
    return good;
}

static bool write_probabilities(const struct work *work, const char *directory, const char *stem,
                                struct err *err) {
    char path[4096], suffix[32];
    const uint32_t n_classes = work->model->n_classes;
    if (n_classes <= 2)
        return make_path(directory, stem, "", path, sizeof(path), err) &&
               write_probability(work, n_classes - 1, path, err);
    for (uint32_t k = 0; k < n_classes; k++) {
        snprintf(suffix, sizeof(suffix), ".class-%u", k);
        if (!make_path(directory, stem, suffix, path, sizeof(path), err) ||
            !write_probability(work, k, path, err))
            return false;
    }
    return true;
}

static bool write_overlay(const struct work *work, const char *directory, const char *stem,
                          struct err *err) {
    char path[4096];
    if (!make_path(directory, stem, "", path, sizeof(path), err))
        return false;
    const struct overlay overlay = {
        .width = work->image.width,
        .height = work->image.height,
        .channels = work->image.channels,
        .image = work->input,
        .prediction = work->classes,
        .n_classes = work->model->n_classes,
    };
    /* Of the panels side by side only the last one: a picture of the image's own size. */
    struct image panels = overlay_draw(&overlay);
    struct image picture = image_new(work->image.width, work->image.height, panels.channels, 8);
    const size_t row = (size_t)picture.width * (size_t)picture.channels;
    const size_t panels_row = (size_t)panels.width * (size_t)panels.channels;
    for (size_t y = 0; y < (size_t)picture.height; y++)
        memcpy(picture.pixels + y * row, panels.pixels + (y + 1) * panels_row - row,
               row * sizeof(*picture.pixels));
    const bool good = image_write_png(path, &picture, err);
    image_free(&picture);
    image_free(&panels);
    return good;
}

static bool write_results(const struct infer_values *values, const struct work *work,
                          const char *stem, struct err *err) {
    char path[4096];
    return make_path(values->out, stem, "", path, sizeof(path), err) &&
           (values->probabilities == NULL ||
            write_probabilities(work, values->probabilities, stem, err)) &&
           (values->overlay == NULL || write_overlay(work, values->overlay, stem, err)) &&
           image_write_png(path, &work->labels, err);
}

static bool read_page(const struct infer_page *page, struct image *image, struct err *err) {
    struct image_file *file;
    if (!image_file_open(page->path, &file, err))
        return false;
    const bool good = image_file_read(file, page->page, IMAGE_PICTURE, image, err);
    image_file_close(file);
    return good;
}

static bool infer_page(const struct infer_values *values, const struct cmd_network *network,
                       const struct infer_page *page, bool wide, struct err *err) {
    const struct plan_model *model = &network->plan->model;
    struct work work = {.model = model};
    if (!read_page(page, &work.image, err))
        return false;
    work.pixels = (size_t)work.image.width * (size_t)work.image.height;
    work.labels = image_new(work.image.width, work.image.height, 1, wide ? 16 : 8);
    work.classes = malloc(work.pixels);
    work.input = malloc(work.pixels * model->channels * sizeof(float));
    work.probs = malloc(work.pixels * model->n_classes * sizeof(float));
    bool good = work.classes != NULL && work.input != NULL && work.probs != NULL;
    if (!good)
        err_set(err, ERR_INPUT, "%s: no memory for an image of %dx%d", page->path, work.image.width,
                work.image.height);
    if (good) {
        normalise_image(&work.image, model->normalise, model->input_offset, model->input_scale,
                        work.input);
        good = unet_infer(network->session, work.input, (uint32_t)work.image.height,
                          (uint32_t)work.image.width, atoi(values->tta), work.probs, err) ||
               err_prefix(err, "%s", page->path);
    }
    if (good) {
        choose_labels(&work);
        good = write_results(values, &work, page->stem, err);
    }
    free_work(&work);
    return good;
}

static bool is_same_directory(const char *a, const char *b) {
    struct stat x, y;
    if (a == NULL || b == NULL)
        return false;
    return strcmp(a, b) == 0 ||
           (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static bool check_directories(const struct infer_values *values, const struct infer_pages *pages,
                              struct err *err) {
    const char *const directories[] = {values->out, values->probabilities, values->overlay};
    static const char *const names[] = {"--out", "--probabilities", "--overlay"};
    for (size_t i = 0; i < ARRAY_LEN(directories); i++) {
        if (directories[i] == NULL)
            continue;
        for (size_t k = 0; k < i; k++)
            if (is_same_directory(directories[i], directories[k]))
                return err_set(err, ERR_USAGE, "%s and %s name the same directory, %s", names[k],
                               names[i], directories[i]);
        if (!infer_pages_check_directory(pages, directories[i], err))
            return false;
    }
    return true;
}

static bool make_directories(const struct infer_values *values, struct err *err) {
    return file_make_directories(values->out, err) &&
           (values->probabilities == NULL || file_make_directories(values->probabilities, err)) &&
           (values->overlay == NULL || file_make_directories(values->overlay, err));
}

static bool infer_all(const struct infer_values *values, const struct cmd_network *network,
                      const struct infer_pages *pages, bool wide, struct err *err) {
    /* Once more for directories that exist only now. */
    if (!make_directories(values, err) || !check_directories(values, pages, err))
        return false;
    for (size_t i = 0; i < pages->count; i++) {
        if (!infer_page(values, network, &pages->items[i], wide, err))
            return false;
        log_print(LOG_INFO, "%s/%s.png (%zu of %zu)", values->out, pages->items[i].stem, i + 1,
                  pages->count);
    }
    return true;
}

static bool run_infer(const void *data, struct err *err) {
    const struct infer_values *values = data;
    const struct cli_list *operands = &values->common.operands;
    struct plan *plan = NULL;
    struct infer_pages pages = {0};
    struct cmd_network network = {0};
    bool wide;
    bool good = plan_load(operands->items[0], &plan, err) &&
                check_values(&plan->model, &wide, err) &&
                infer_pages_list(operands, 1, &plan->model, &pages, err) &&
                check_directories(values, &pages, err) &&
                cmd_network_open(plan, &values->common, values->weights, &network, err) &&
                infer_all(values, &network, &pages, wide, err);
    cmd_network_close(&network);
    infer_pages_free(&pages);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_infer = {
    .name = "infer",
    .summary = "Segments images of any size: PNG or TIFF, 8 or 16 bits, grey or RGB.",
    .details = "Each page of a TIFF stack gives a result of its own: STEM-000.png, STEM-001.png, "
               "...\nAll images are read and checked before the first one is segmented.",
    .operands = "FILE.plan IMAGE...",
    .options = infer_options,
    .n_options = ARRAY_LEN(infer_options),
    .values_bytes = sizeof(struct infer_values),
    .run = run_infer,
};
