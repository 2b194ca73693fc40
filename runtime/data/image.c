/*
 * image.c: the table of file formats and what they share: telling them apart, sizes, memory.
 */
#include "runtime/data/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base.h"
#include "runtime/data/image_format.h"
#include "runtime/data/memory.h"

static const struct image_format *const formats[] = {&image_format_png, &image_format_tiff};

struct image_file {
    char *name;
    FILE *stream;
    const struct image_format *format;
    void *state;
    size_t n_pages;
};

static bool describe_unknown(const uint8_t *head, size_t n_bytes, struct err *err) {
    static const struct {
        const char *magic;
        size_t length;
        const char *name;
    } known[] = {
        {"\xff\xd8\xff", 3, "a JPEG"},  {"GIF8", 4, "a GIF"},       {"BM", 2, "a BMP"},
        {"\x89HDF", 4, "an HDF5 file"}, {"PK\x03\x04", 4, "a ZIP"}, {"%PDF", 4, "a PDF"},
    };
    if (n_bytes == 0)
        return err_set(err, ERR_INPUT, "the file is empty");
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (n_bytes >= known[i].length && memcmp(head, known[i].magic, known[i].length) == 0) {
            err_set(err, ERR_INPUT, "this is %s; PNG and TIFF are read", known[i].name);
            return err_hint(err, "convert it to PNG or TIFF without loss of grey values");
        }
    return err_set(err, ERR_INPUT, "not an image: neither PNG nor TIFF");
}

static const struct image_format *find_format(FILE *stream, struct err *err) {
    uint8_t head[16];
    size_t n_bytes = fread(head, 1, sizeof head, stream);
    if (ferror(stream)) {
        err_set(err, ERR_IO, "cannot read: %s", strerror(errno));
        return NULL;
    }
    rewind(stream);
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (formats[i]->recognise(head, n_bytes))
            return formats[i];
    describe_unknown(head, n_bytes, err);
    return NULL;
}

bool image_file_open_stream(FILE *stream, const char *name, struct image_file **out,
                            struct err *err) {
    *out = NULL;
    struct image_file *file = memory_new(1, sizeof *file);
    file->name = memory_new(strlen(name) + 1, 1);
    memcpy(file->name, name, strlen(name));
    file->stream = stream;
    file->format = find_format(stream, err);
    if (!file->format || !file->format->open(stream, &file->state, &file->n_pages, err)) {
        err_prefix(err, "%s", name);
        image_file_close(file);
        return false;
    }
    *out = file;
    return true;
}

bool image_file_open(const char *path, struct image_file **out, struct err *err) {
    *out = NULL;
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return err_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat status;
    if (fstat(fileno(stream), &status) == 0 && S_ISDIR(status.st_mode)) {
        fclose(stream);
        return err_set(err, ERR_IO, "%s: is a directory, not an image", path);
    }
    return image_file_open_stream(stream, path, out, err);
}

size_t image_file_pages(const struct image_file *file) {
    return file->n_pages;
}

bool image_file_read(struct image_file *file, size_t page, enum image_use use, struct image *out,
                     struct err *err) {
    memset(out, 0, sizeof *out);
    if (page >= file->n_pages)
        return err_set(err, ERR_INPUT, "%s: no page %zu: the file has %zu", file->name, page,
                       file->n_pages);
    if (file->format->read(file->state, page, use, out, err))
        return true;
    image_free(out);
    if (file->n_pages > 1)
        err_prefix(err, "page %zu", page);
    return err_prefix(err, "%s", file->name);
}

void image_file_close(struct image_file *file) {
    if (!file)
        return;
    if (file->state)
        file->format->close(file->state);
    fclose(file->stream);
    free(file->name);
    free(file);
}

bool image_load(const char *path, enum image_use use, struct image *out, struct err *err) {
    memset(out, 0, sizeof *out);
    struct image_file *file;
    if (!image_file_open(path, &file, err))
        return false;
    bool ok = file->n_pages == 1;
    if (ok)
        ok = image_file_read(file, 0, use, out, err);
    else
        err_set(err, ERR_INPUT, "%s: a stack of %zu pages where one image is expected", path,
                file->n_pages);
    image_file_close(file);
    return ok;
}

bool image_allocate(uint64_t width, uint64_t height, int channels, int bits, struct image *out,
                    struct err *err) {
    memset(out, 0, sizeof *out);
    if (width == 0 || height == 0)
        return err_set(err, ERR_INPUT, "the image is empty (%llux%llu pixels)",
                       (unsigned long long)width, (unsigned long long)height);
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || width * height > IMAGE_MAX_PIXELS)
        return err_set(err, ERR_INPUT,
                       "%llux%llu pixels are past the limits of %u a side and %llu in all",
                       (unsigned long long)width, (unsigned long long)height, IMAGE_MAX_SIDE,
                       (unsigned long long)IMAGE_MAX_PIXELS);
    out->pixels = calloc((size_t)(width * height) * (size_t)channels, sizeof *out->pixels);
    if (!out->pixels)
        return err_set(err, ERR_IO, "no memory for %llux%llu pixels", (unsigned long long)width,
                       (unsigned long long)height);
    out->width = (int)width;
    out->height = (int)height;
    out->channels = channels;
    out->bits = bits;
    return true;
}

struct image image_new(int width, int height, int channels, int bits) {
    size_t n_samples = (size_t)width * (size_t)height * (size_t)channels;
    return (struct image){width, height, channels, bits, memory_new(n_samples, sizeof(uint16_t))};
}

void image_free(struct image *image) {
    free(image->pixels);
    memset(image, 0, sizeof *image);
}

size_t image_samples(const struct image *image) {
    return (size_t)image->width * (size_t)image->height * (size_t)image->channels;
}
