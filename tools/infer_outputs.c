/*
 * infer_outputs.c: see infer_outputs.h.
 */
#include "tools/infer_outputs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base.h"
#include "common/file.h"
#include "runtime/data/instances.h"
#include "runtime/data/overlay.h"
#include "runtime/train/metrics.h"

#define N_DIRECTORIES 4
#define CLASS_SUFFIX 32 /* room for ".class-255" */

struct directory {
    const char *path, *option;
};

static void list_directories(const struct infer_outputs *outputs,
                             struct directory list[N_DIRECTORIES]) {
    list[0] = (struct directory){outputs->out, "--out"};
    list[1] = (struct directory){outputs->probabilities, "--probabilities"};
    list[2] = (struct directory){outputs->overlay, "--overlay"};
    list[3] = (struct directory){outputs->instances, "--instances"};
}

/* ---- what is checked before anything runs ---- */

/* The value in label pictures of a class: of its first row in the model's table that has one. */
static uint32_t value_of_class(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_ && model->labels[i].value != PLAN_LABEL_OTHER)
            return model->labels[i].value;
    return class_;
}

static bool check_values(const struct plan_model *model, struct err *err) {
    for (uint32_t k = 0; k < model->n_classes; k++)
        if (value_of_class(model, k) > UINT16_MAX)
            return err_set(err, ERR_INPUT,
                           "class %u has the label value %u; pictures hold 65535 at most", k,
                           value_of_class(model, k));
    return true;
}

/* The next component of a path that is neither empty nor "."; its length is 0 at the end. */
static size_t next_part(const char **at) {
    for (;;) {
        *at += strspn(*at, "/");
        const size_t length = strcspn(*at, "/");
        if (length != 1 || **at != '.')
            return length;
        *at += length;
    }
}

static bool is_same_path(const char *a, const char *b) {
    if ((*a == '/') != (*b == '/'))
        return false;
    for (;;) {
        const size_t length = next_part(&a);
        if (length != next_part(&b) || memcmp(a, b, length) != 0)
            return false;
        if (length == 0)
            return true;
        a += length;
        b += length;
    }
}

static bool is_same_directory(const char *a, const char *b) {
    struct stat x, y;
    return is_same_path(a, b) ||
           (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

/* That a file can be made in the directory, or the directory in the nearest one that is there. */
static bool check_writable(const char *path, struct err *err) {
    char *place = strdup(path);
    bool good = place != NULL;
    if (!good)
        return err_set(err, ERR_INPUT, "no memory for the name of a directory");
    while (!file_exists(place)) {
        char *slash = strrchr(place, '/');
        if (slash == NULL) {
            strcpy(place, ".");
            break;
        }
        slash[slash == place ? 1 : 0] = '\0';
    }
    if (!file_is_directory(place))
        good = err_set(err, ERR_IO, "%s: cannot write there: %s is no directory", path, place);
    else if (access(place, W_OK | X_OK) != 0)
        good = err_set(err, ERR_IO, "%s: cannot write there: %s", path, strerror(errno));
    free(place);
    return good;
}

static bool check_overwriting(const struct infer_outputs *outputs, const struct infer_pages *pages,
                              const char *directory, struct err *err) {
    const uint32_t n_classes = outputs->model->n_classes;
    if (directory != outputs->probabilities || n_classes <= 2)
        return infer_pages_check_directory(pages, directory, "", err);
    for (uint32_t k = 0; k < n_classes; k++) {
        char suffix[CLASS_SUFFIX];
        snprintf(suffix, sizeof(suffix), ".class-%u", k);
        if (!infer_pages_check_directory(pages, directory, suffix, err))
            return false;
    }
    return true;
}

bool infer_outputs_check(const struct infer_outputs *outputs, const struct infer_pages *pages,
                         struct err *err) {
    struct directory list[N_DIRECTORIES];
    list_directories(outputs, list);
    for (size_t i = 0; i < N_DIRECTORIES; i++) {
        if (list[i].path == NULL)
            continue;
        for (size_t k = 0; k < i; k++)
            if (list[k].path != NULL && is_same_directory(list[i].path, list[k].path))
                return err_set(err, ERR_USAGE, "%s and %s name the same directory, %s",
                               list[k].option, list[i].option, list[i].path);
        if (!check_writable(list[i].path, err) ||
            !check_overwriting(outputs, pages, list[i].path, err))
            return false;
    }
    return check_values(outputs->model, err);
}

bool infer_outputs_make(const struct infer_outputs *outputs, const struct infer_pages *pages,
                        struct err *err) {
    struct directory list[N_DIRECTORIES];
    list_directories(outputs, list);
    for (size_t i = 0; i < N_DIRECTORIES; i++)
        if (list[i].path != NULL && !file_make_directories(list[i].path, err))
            return false;
    return infer_outputs_check(outputs, pages, err);
}

/* ---- pictures of one page ---- */

struct page {
    const struct infer_outputs *outputs;
    const char *stem;
    int width, height;
    size_t pixels;
    const float *input, *probs;
    uint8_t *classes;  /* of each pixel */
    uint32_t *objects; /* ids; NULL: not told apart */
    uint32_t n_objects;
};

static bool has_instances(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_ && model->labels[i].instances)
            return true;
    return false;
}

static bool model_has_instances(const struct plan_model *model) {
    for (uint32_t k = 0; k < model->n_classes; k++)
        if (has_instances(model, k))
            return true;
    return false;
}

/* Which classes are objects: those labelled so, else all but the first. The result is the lowest
   class that is none; where all are labelled so, the first one. */
static uint8_t list_object_classes(const struct plan_model *model, bool *is_object) {
    const bool labelled = model_has_instances(model);
    uint32_t background = 0;
    for (uint32_t k = 0; k < model->n_classes; k++)
        is_object[k] = labelled ? has_instances(model, k) : k > 0;
    while (background < model->n_classes && is_object[background])
        background++;
    if (background == model->n_classes)
        background = 0;
    is_object[background] = false;
    return (uint8_t)background;
}

static bool find_objects(struct page *page, struct err *err) {
    const struct infer_outputs *outputs = page->outputs;
    const struct plan_model *model = outputs->model;
    bool is_object[UINT8_MAX + 1] = {false};
    const struct instances_options options = {
        .background = list_object_classes(model, is_object),
        .min_pixels = outputs->min_pixels,
        .fill_holes = outputs->fill_holes,
    };
    uint8_t *classes = malloc(page->pixels);
    page->objects = malloc(page->pixels * sizeof(*page->objects));
    if (classes == NULL || page->objects == NULL) {
        free(classes);
        return err_set(err, ERR_INPUT, "no memory for the objects of an image of %dx%d",
                       page->width, page->height);
    }
    for (size_t i = 0; i < page->pixels; i++)
        classes[i] = is_object[page->classes[i]] ? page->classes[i] : options.background;
    page->n_objects = instances_label(classes, page->width, page->height, &options, page->objects);
    free(classes);
    if (outputs->instances == NULL || page->n_objects <= UINT16_MAX)
        return true;
    err_set(err, ERR_INPUT, "%u objects; a picture of ids holds 65535 at most", page->n_objects);
    return err_hint(err, "drop small ones with a%s --min-size",
                    outputs->min_pixels > 1 ? " larger" : "");
}

static bool write_picture(const struct page *page, const char *directory, const char *suffix,
                          struct image *picture, struct err *err) {
    char path[4096];
    const int length = snprintf(path, sizeof(path), "%s/%s%s.png", directory, page->stem, suffix);
    const bool good = length >= 0 && (size_t)length < sizeof(path)
                          ? image_write_png(path, picture, err)
                          : err_set(err, ERR_IO, "the path of its result is too long");
    image_free(picture);
    return good;
}

static bool write_labels(const struct page *page, struct err *err) {
    const struct plan_model *model = page->outputs->model;
    uint16_t values[UINT8_MAX + 1] = {0};
    int bits = 8;
    for (uint32_t k = 0; k < model->n_classes; k++) {
        values[k] = (uint16_t)value_of_class(model, k);
        bits = values[k] > UINT8_MAX ? 16 : bits;
    }
    struct image picture = image_new(page->width, page->height, 1, bits);
    for (size_t i = 0; i < page->pixels; i++)
        picture.pixels[i] = values[page->classes[i]];
    return write_picture(page, page->outputs->out, "", &picture, err);
}

static bool write_probability(const struct page *page, uint32_t class_, const char *suffix,
                              struct err *err) {
    struct image picture = image_new(page->width, page->height, 1, 16);
    const float *plane = page->probs + (size_t)class_ * page->pixels;
    for (size_t i = 0; i < page->pixels; i++)
        picture.pixels[i] = (uint16_t)(MIN(MAX(plane[i], 0.0f), 1.0f) * 65535.0f + 0.5f);
    return write_picture(page, page->outputs->probabilities, suffix, &picture, err);
}

static bool write_probabilities(const struct page *page, struct err *err) {
    const uint32_t n_classes = page->outputs->model->n_classes;
    if (n_classes <= 2)
        return write_probability(page, n_classes - 1, "", err);
    for (uint32_t k = 0; k < n_classes; k++) {
        char suffix[CLASS_SUFFIX];
        snprintf(suffix, sizeof(suffix), ".class-%u", k);
        if (!write_probability(page, k, suffix, err))
            return false;
    }
    return true;
}

static bool write_overlay(const struct page *page, struct err *err) {
    const struct overlay overlay = {
        .width = page->width,
        .height = page->height,
        .channels = (int)page->outputs->model->channels,
        .image = page->input,
        .prediction = page->classes,
        .n_classes = page->outputs->model->n_classes,
        .predicted_objects = page->objects,
    };
    struct image picture = overlay_draw_contours(&overlay);
    return write_picture(page, page->outputs->overlay, "", &picture, err);
}

static bool write_instances(const struct page *page, struct err *err) {
    struct image picture = image_new(page->width, page->height, 1, 16);
    for (size_t i = 0; i < page->pixels; i++)
        picture.pixels[i] = (uint16_t)page->objects[i];
    return write_picture(page, page->outputs->instances, "", &picture, err);
}

static bool write_page(struct page *page, struct err *err) {
    const struct infer_outputs *outputs = page->outputs;
    metrics_argmax(page->probs, outputs->model->n_classes, page->pixels, page->classes);
    const bool objects = outputs->instances != NULL ||
                         (outputs->overlay != NULL && model_has_instances(outputs->model));
    return (!objects || find_objects(page, err)) &&
           (outputs->probabilities == NULL || write_probabilities(page, err)) &&
           (outputs->overlay == NULL || write_overlay(page, err)) &&
           (outputs->instances == NULL || write_instances(page, err)) && write_labels(page, err);
}

bool infer_outputs_write(const struct infer_outputs *outputs, const char *stem, int width,
                         int height, const float *input, const float *probs, struct err *err) {
    struct page page = {
        .outputs = outputs,
        .stem = stem,
        .width = width,
        .height = height,
        .pixels = (size_t)width * (size_t)height,
        .input = input,
        .probs = probs,
    };
    page.classes = malloc(page.pixels);
    const bool good =
        page.classes != NULL
            ? write_page(&page, err)
            : err_set(err, ERR_INPUT, "no memory for an image of %dx%d", width, height);
    free(page.classes);
    free(page.objects);
    return good;
}
