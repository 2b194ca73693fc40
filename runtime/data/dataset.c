/*
 * dataset.c: finds the pairs of a data set, reads and checks them (dataset.h). Which files belong
 * together is settled first; then each pair is read, page by page.
 */
#include "runtime/data/dataset.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base.h"
#include "common/file.h"
#include "common/vec.h"
#include "runtime/data/dataset_labels.h"
#include "runtime/data/image.h"
#include "runtime/data/memory.h"
#include "runtime/data/normalise.h"
#include "runtime/data/problems.h"

/* A file of images/ or labels/. */
struct entry {
    char *stem, *file; /* "07", "images/07.png" */
};

struct entries {
    VEC(struct entry) list;
};

struct loader {
    const char *directory;
    const struct dataset_spec *spec;
    struct dataset_table table;
    struct problems problems;
    VEC(struct dataset_frame) frames;
};

__attribute__((format(printf, 1, 2))) static char *format_text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = memory_new((size_t)length + 1, 1);
    va_start(arguments, format);
    vsnprintf(text, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return text;
}

/* ---------------------------------------------------------------- finding files */

static bool has_image_extension(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && dot != name &&
           (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".tif") == 0 ||
            strcasecmp(dot, ".tiff") == 0);
}

static int by_stem(const void *a, const void *b) {
    const struct entry *left = a, *right = b;
    int order = strcmp(left->stem, right->stem);
    return order ? order : strcmp(left->file, right->file);
}

static void entries_free(struct entries *entries) {
    for (size_t i = 0; i < entries->list.count; i++) {
        free(entries->list.items[i].stem);
        free(entries->list.items[i].file);
    }
    vec_free(&entries->list);
}

/* Drops, and reports, all but the first file of a stem. */
static void drop_doubles(struct loader *loader, struct entries *entries) {
    size_t kept = 0;
    for (size_t i = 0; i < entries->list.count; i++) {
        struct entry *entry = &entries->list.items[i];
        if (kept > 0 && strcmp(entries->list.items[kept - 1].stem, entry->stem) == 0) {
            problems_add(&loader->problems, ERR_INPUT, "%s: there is also %s", entry->file,
                         entries->list.items[kept - 1].file);
            free(entry->stem);
            free(entry->file);
        } else {
            entries->list.items[kept++] = *entry;
        }
    }
    entries->list.count = kept;
}

static void list_folder(struct loader *loader, const char *folder, struct entries *out) {
    char *path = format_text("%s/%s", loader->directory, folder);
    DIR *directory = opendir(path);
    free(path);
    if (!directory) {
        problems_add(&loader->problems, ERR_IO, "%s: cannot open: %s", folder, strerror(errno));
        return;
    }
    for (struct dirent *item; (item = readdir(directory)) != NULL;)
        if (item->d_name[0] != '.' && has_image_extension(item->d_name)) {
            struct entry entry = {file_stem(item->d_name),
                                  format_text("%s/%s", folder, item->d_name)};
            vec_push(&out->list, entry);
        }
    closedir(directory);
    if (out->list.count > 0)
        qsort(out->list.items, out->list.count, sizeof *out->list.items, by_stem);
    drop_doubles(loader, out);
}

/* ---------------------------------------------------------------- pairs */

static void frame_free(struct dataset_frame *frame) {
    free(frame->name);
    free(frame->image);
    free(frame->classes);
    free(frame->labelled);
    free(frame->weights);
    free(frame->instances);
    free(frame->border);
    memset(frame, 0, sizeof *frame);
}

static bool check_pair(struct loader *loader, const char *image_file, const struct image *image,
                       const char *label_file, const struct image *labels) {
    struct problems *problems = &loader->problems;
    size_t before = problems->count;
    if (image->channels != loader->spec->channels) {
        problems_add(problems, ERR_INPUT, "%s: the model takes %s images, this one is %s",
                     image_file, loader->spec->channels == 1 ? "grey" : "RGB",
                     image->channels == 1 ? "grey" : "RGB");
        problems_hint(problems, "convert the images, or set the model's channels to %d",
                      image->channels);
    }
    if (labels->channels != 1) {
        problems_add(problems, ERR_INPUT, "%s: labels are grey, this file is RGB", label_file);
        problems_hint(problems, "save labels as grey values, or as a palette of class numbers");
    }
    if (image->width != labels->width || image->height != labels->height)
        problems_add(problems, ERR_INPUT, "%s: %dx%d pixels, but %s has %dx%d", label_file,
                     labels->width, labels->height, image_file, image->width, image->height);
    return problems->count == before;
}

static void add_frame(struct loader *loader, char *name_taken, const struct image *image,
                      const char *label_file, const struct image *labels) {
    const struct dataset_spec *spec = loader->spec;
    size_t n = image_samples(labels);
    struct dataset_frame frame = {
        .name = name_taken,
        .width = image->width,
        .height = image->height,
        .image = memory_new(image_samples(image), sizeof(float)),
        .classes = memory_new(n, sizeof(uint8_t)),
        .weights = memory_new(n, sizeof(float)),
    };
    if (loader->table.has_instances) {
        frame.instances = memory_new(n, sizeof(uint32_t));
        frame.labelled = memory_new(n, sizeof(uint8_t));
    }
    if (!dataset_table_apply(&loader->table, labels, &frame)) {
        dataset_table_report(&loader->table, label_file, labels, &loader->problems);
        frame_free(&frame);
        return;
    }
    normalise_image(image, spec->normalise, spec->input_offset, spec->input_scale, frame.image);
    vec_push(&loader->frames, frame);
}

/* "00", "01", ... with as many digits as the last page needs, two at least. */
static char *page_name(const char *stem, size_t page, size_t n_pages) {
    int digits = 2;
    for (size_t limit = 100; n_pages > limit; limit *= 10)
        digits++;
    return stem ? format_text("%s/%0*zu", stem, digits, page) : format_text("%0*zu", digits, page);
}

static bool read_one(struct loader *loader, struct image_file *file, size_t page,
                     enum image_use use, struct image *out) {
    struct err err;
    if (image_file_read(file, page, use, out, &err))
        return true;
    problems_add_err(&loader->problems, &err);
    return false;
}

/* stem is NULL for a data set that is one stack. */
static void load_pages(struct loader *loader, const char *stem, const char *image_name,
                       struct image_file *images, const char *label_name,
                       struct image_file *labels) {
    size_t n_pages = image_file_pages(images);
    for (size_t page = 0; page < n_pages; page++) {
        struct image image, label;
        char *page_of_image = n_pages > 1 ? format_text("%s page %zu", image_name, page)
                                          : format_text("%s", image_name);
        char *page_of_label = n_pages > 1 ? format_text("%s page %zu", label_name, page)
                                          : format_text("%s", label_name);
        bool ok = read_one(loader, images, page, IMAGE_PICTURE, &image);
        ok = read_one(loader, labels, page, IMAGE_LABELS, &label) && ok;
        if (ok && check_pair(loader, page_of_image, &image, page_of_label, &label)) {
            bool one = stem && n_pages == 1;
            char *name = one ? format_text("%s", stem) : page_name(stem, page, n_pages);
            add_frame(loader, name, &image, page_of_label, &label);
        }
        image_free(&image);
        image_free(&label);
        free(page_of_image);
        free(page_of_label);
    }
}

static struct image_file *open_or_report(struct loader *loader, const char *name) {
    struct err err;
    struct image_file *file = NULL;
    char *path = format_text("%s/%s", loader->directory, name);
    FILE *stream = fopen(path, "rb");
    if (!stream)
        problems_add(&loader->problems, ERR_IO, "%s: cannot open: %s", name, strerror(errno));
    else if (!image_file_open_stream(stream, name, &file, &err))
        problems_add_err(&loader->problems, &err);
    free(path);
    return file;
}

static void load_pair(struct loader *loader, const char *stem, const char *image_name,
                      const char *label_name) {
    struct image_file *images = open_or_report(loader, image_name);
    struct image_file *labels = open_or_report(loader, label_name);
    if (images && labels) {
        size_t n_images = image_file_pages(images), n_labels = image_file_pages(labels);
        if (n_images == n_labels)
            load_pages(loader, stem, image_name, images, label_name, labels);
        else
            problems_add(&loader->problems, ERR_INPUT, "%s has %zu pages, %s has %zu", image_name,
                         n_images, label_name, n_labels);
    }
    image_file_close(images);
    image_file_close(labels);
}

static void load_folders(struct loader *loader) {
    struct entries images = {0}, labels = {0};
    list_folder(loader, "images", &images);
    list_folder(loader, "labels", &labels);
    struct entry *image = images.list.items, *image_end = image + images.list.count;
    struct entry *label = labels.list.items, *label_end = label + labels.list.count;
    while (image < image_end || label < label_end) {
        int order = image == image_end   ? 1
                    : label == label_end ? -1
                                         : strcmp(image->stem, label->stem);
        if (order == 0)
            load_pair(loader, image->stem, image->file, label->file);
        else if (order < 0)
            problems_add(&loader->problems, ERR_INPUT, "%s: no labels/%s.png or .tif", image->file,
                         image->stem);
        else
            problems_add(&loader->problems, ERR_INPUT, "%s: no images/%s.png or .tif", label->file,
                         label->stem);
        image += order <= 0;
        label += order >= 0;
    }
    if (images.list.count + labels.list.count == 0 && loader->problems.count == 0)
        problems_add(&loader->problems, ERR_INPUT,
                     "images/ and labels/ hold no .png, .tif or .tiff file");
    entries_free(&images);
    entries_free(&labels);
}

/* ---------------------------------------------------------------- the whole */

static bool is_there(const struct loader *loader, const char *name, bool as_directory) {
    char *path = format_text("%s/%s", loader->directory, name);
    bool there = as_directory ? file_is_directory(path) : file_exists(path);
    free(path);
    return there;
}

static void find_and_load(struct loader *loader) {
    static const char *const stacks[][2] = {{"images.tif", "labels.tif"},
                                            {"images.tiff", "labels.tiff"},
                                            {"train-volume.tif", "train-labels.tif"}};
    if (!file_is_directory(loader->directory)) {
        problems_add(&loader->problems, ERR_IO, "no such directory");
        return;
    }
    if (is_there(loader, "images", true) || is_there(loader, "labels", true)) {
        load_folders(loader);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++)
        if (is_there(loader, stacks[i][0], false) || is_there(loader, stacks[i][1], false)) {
            load_pair(loader, NULL, stacks[i][0], stacks[i][1]);
            return;
        }
    problems_add(&loader->problems, ERR_INPUT, "holds no data set");
    problems_hint(&loader->problems,
                  "expected images/STEM.png with labels/STEM.png (or .tif), or the stacks "
                  "images.tif and labels.tif");
}

struct dataset_spec dataset_spec_of_model(const struct plan_model *model,
                                          struct dataset_label *rows_out) {
    for (uint32_t i = 0; i < model->n_labels; i++) {
        const struct plan_label *label = &model->labels[i];
        rows_out[i] = (struct dataset_label){.value = label->value,
                                             .last_value = label->last_value,
                                             .class_ = label->class_,
                                             .any_other = label->value == PLAN_LABEL_OTHER,
                                             .instances = label->instances,
                                             .weight = label->weight};
    }
    return (struct dataset_spec){
        .channels = (int)model->channels,
        .labels = rows_out,
        .n_labels = model->n_labels,
        .has_ignore = model->has_ignore,
        .ignore_value = model->ignore_value,
        .normalise = model->normalise,
        .input_offset = model->input_offset,
        .input_scale = model->input_scale,
    };
}

static void set_classes(const struct loader *loader, struct dataset *out) {
    const struct dataset_spec *spec = loader->spec;
    out->background = loader->table.background;
    for (size_t i = spec->n_labels; i-- > 0;)
        out->class_factors[spec->labels[i].class_] = spec->labels[i].weight;
    memcpy(out->class_weights, out->class_factors, sizeof out->class_weights);
}

bool dataset_load(const char *directory, const struct dataset_spec *spec, struct dataset *out,
                  struct err *err) {
    memset(out, 0, sizeof *out);
    struct loader *loader = memory_new(1, sizeof *loader);
    loader->directory = directory;
    loader->spec = spec;
    loader->problems.max_shown = DATASET_MAX_PROBLEMS;
    bool ok = dataset_table_build(&loader->table, spec, err);
    if (ok) {
        find_and_load(loader);
        set_classes(loader, out);
        out->channels = spec->channels;
        out->n_frames = loader->frames.count;
        out->frames = loader->frames.items;
        ok = problems_report(&loader->problems, directory, err);
    }
    if (ok)
        dataset_warn_masks(out, directory);
    else
        dataset_free(out);
    free(loader);
    return ok;
}

bool dataset_load_for_model(const char *directory, const struct plan_model *model,
                            const char *frames, struct dataset *out, struct err *err) {
    struct dataset_label *rows = memory_new(model->n_labels, sizeof *rows);
    const struct dataset_spec spec = dataset_spec_of_model(model, rows);
    bool good = dataset_load(directory, &spec, out, err) &&
                (frames == NULL || dataset_keep(out, frames, err));
    free(rows);
    return good;
}

void dataset_free(struct dataset *dataset) {
    for (size_t i = 0; i < dataset->n_frames; i++)
        frame_free(&dataset->frames[i]);
    vec_release(dataset->frames);
    memset(dataset, 0, sizeof *dataset);
}

const uint8_t *dataset_labelled(const struct dataset_frame *frame) {
    return frame->labelled != NULL ? frame->labelled : frame->classes;
}

void dataset_count(const struct dataset *dataset, uint64_t counts[DATASET_MAX_CLASSES],
                   uint64_t *ignored_out) {
    memset(counts, 0, DATASET_MAX_CLASSES * sizeof *counts);
    *ignored_out = 0;
    for (size_t i = 0; i < dataset->n_frames; i++) {
        const struct dataset_frame *frame = &dataset->frames[i];
        size_t n = (size_t)frame->width * (size_t)frame->height;
        for (size_t k = 0; k < n; k++) {
            if (frame->weights[k] == 0)
                ++*ignored_out;
            else
                counts[frame->classes[k]]++;
        }
    }
}
