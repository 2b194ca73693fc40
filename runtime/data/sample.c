/*
 * sample.c: the folder of labelled pictures that "unetrun sample" writes (sample.h).
 */
#include "runtime/data/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "runtime/data/memory.h"
#include "runtime/data/sample_kinds.h"

static const struct {
    void (*draw)(uint64_t seed, uint32_t number, struct image *image, struct image *labels);
    int label_bits;
} kinds[] = {[SAMPLE_MEMBRANE] = {sample_membrane, 8}, [SAMPLE_CELLS] = {sample_cells, 16}};

void sample_draw(const struct sample_options *options, int number, struct image *image,
                 struct image *labels) {
    *image = image_new(options->width, options->height, 1, 8);
    *labels = image_new(options->width, options->height, 1, kinds[options->kind].label_bits);
    kinds[options->kind].draw(options->seed, (uint32_t)number, image, labels);
}

static bool check_options(const struct sample_options *options, struct err *err) {
    if (options->count < 1 || options->count > 9999)
        return err_set(err, ERR_USAGE, "%d samples: 1 to 9999 can be made", options->count);
    if (options->width < SAMPLE_MIN_SIZE || options->height < SAMPLE_MIN_SIZE ||
        options->width > SAMPLE_MAX_SIZE || options->height > SAMPLE_MAX_SIZE)
        return err_set(err, ERR_USAGE,
                       "samples of %dx%d pixels: %d to %d pixels a side can be made",
                       options->width, options->height, SAMPLE_MIN_SIZE, SAMPLE_MAX_SIZE);
    return true;
}

static bool write_one(const char *directory, const char *folder, int digits, int number,
                      const struct image *image, struct err *err) {
    size_t size_bytes = strlen(directory) + 64;
    char *path = memory_new(size_bytes, 1);
    snprintf(path, size_bytes, "%s/%s/%0*d.png", directory, folder, digits, number);
    bool ok = image_write_png(path, image, err);
    free(path);
    return ok;
}

static bool make_folder(const char *directory, const char *folder, struct err *err) {
    size_t size_bytes = strlen(directory) + 64;
    char *path = memory_new(size_bytes, 1);
    snprintf(path, size_bytes, "%s/%s", directory, folder);
    bool ok = file_make_directories(path, err);
    free(path);
    return ok;
}

bool sample_write(const char *directory, const struct sample_options *options, struct err *err) {
    if (!check_options(options, err) || !make_folder(directory, "images", err) ||
        !make_folder(directory, "labels", err))
        return false;
    int digits = options->count > 1000 ? 4 : options->count > 100 ? 3 : 2;
    bool ok = true;
    for (int number = 0; ok && number < options->count; number++) {
        struct image image, labels;
        sample_draw(options, number, &image, &labels);
        ok = write_one(directory, "images", digits, number, &image, err) &&
             write_one(directory, "labels", digits, number, &labels, err);
        image_free(&image);
        image_free(&labels);
    }
    return ok;
}
