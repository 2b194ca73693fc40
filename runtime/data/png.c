/*
 * png.c: PNG through libpng. libpng reports errors by a long jump; everything that must survive
 * one lives in struct reader or struct writer, not in local variables.
 */
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "runtime/data/image_format.h"

struct message {
    char text[256];
    jmp_buf jump;
};

static void on_error(png_structp png, png_const_charp text) {
    struct message *message = png_get_error_ptr(png);
    snprintf(message->text, sizeof message->text, "%s", text);
    longjmp(message->jump, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

/* ---------------------------------------------------------------- reading */

struct reader {
    FILE *stream;
    png_structp png;
    png_infop info;
    png_bytep data; /* one row; all of them when interlaced */
    struct message message;
};

static bool recognise(const uint8_t *head, size_t n_bytes) {
    return n_bytes >= 8 && png_sig_cmp(head, 0, 8) == 0;
}

static void on_read(png_structp png, png_bytep data, size_t n_bytes) {
    struct reader *reader = png_get_io_ptr(png);
    if (fread(data, 1, n_bytes, reader->stream) != n_bytes)
        png_error(png, ferror(reader->stream) ? "reading the file failed" : "the file is cut off");
}

static bool open_file(FILE *stream, void **state_out, size_t *n_pages_out, struct err *err) {
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return err_set(err, ERR_IO, "out of memory");
    reader->stream = stream;
    *state_out = reader;
    *n_pages_out = 1;
    return true;
}

static bool palette_is_grey(const struct reader *reader) {
    png_colorp palette;
    int n = 0;
    if (!png_get_PLTE(reader->png, reader->info, &palette, &n))
        return true;
    for (int i = 0; i < n; i++)
        if (palette[i].red != palette[i].green || palette[i].red != palette[i].blue)
            return false;
    return true;
}

/* Sets libpng's conversions; returns the number of channels delivered. */
static int set_conversions(struct reader *reader, enum image_use use) {
    int type = png_get_color_type(reader->png, reader->info);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        if (!palette_is_grey(reader) && use == IMAGE_LABELS) {
            png_set_packing(reader->png);
            return 1;
        }
        png_set_palette_to_rgb(reader->png);
        return palette_is_grey(reader) ? 1 : 3;
    }
    if (png_get_bit_depth(reader->png, reader->info) < 8)
        png_set_expand_gray_1_2_4_to_8(reader->png);
    return type & PNG_COLOR_MASK_COLOR ? 3 : 1;
}

/* libpng hands out big-endian samples, step of them per pixel: more than are wanted with alpha and
 * for a grey palette, which comes as RGB. */
static void unpack_row(const uint8_t *from, int step, int y, struct image *out) {
    uint16_t *to = out->pixels + (size_t)y * (size_t)out->width * (size_t)out->channels;
    for (int x = 0; x < out->width; x++)
        for (int c = 0; c < out->channels; c++) {
            size_t i = (size_t)x * (size_t)step + (size_t)c;
            *to++ = out->bits == 16 ? (uint16_t)(from[2 * i] << 8 | from[2 * i + 1]) : from[i];
        }
}

/* Row by row, so that a short file that claims to be large is found out before memory is used. */
static bool decode_rows(struct reader *reader, int n_passes, struct image *out, struct err *err) {
    size_t row_bytes = png_get_rowbytes(reader->png, reader->info);
    size_t kept_rows = n_passes > 1 ? (size_t)out->height : 1;
    int step = png_get_channels(reader->png, reader->info);
    reader->data = calloc(kept_rows, row_bytes);
    if (!reader->data)
        return err_set(err, ERR_IO, "no memory for %dx%d pixels", out->width, out->height);
    for (int pass = 0; pass < n_passes; pass++)
        for (int y = 0; y < out->height; y++) {
            png_bytep row = reader->data + (kept_rows > 1 ? (size_t)y * row_bytes : 0);
            png_read_row(reader->png, row, NULL);
            if (pass == n_passes - 1)
                unpack_row(row, step, y, out);
        }
    png_read_end(reader->png, NULL);
    return true;
}

__attribute__((noinline)) static bool decode(struct reader *reader, enum image_use use,
                                             struct image *out, struct err *err) {
    png_structp png = reader->png;
    png_infop info = reader->info;
    png_set_read_fn(png, reader, on_read);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff); /* image_allocate has the limit */
    png_read_info(png, info);
    int channels = set_conversions(reader, use);
    int bits = png_get_bit_depth(png, info) == 16 ? 16 : 8;
    if (!image_allocate(png_get_image_width(png, info), png_get_image_height(png, info), channels,
                        bits, out, err))
        return false;
    int n_passes = png_set_interlace_handling(png);
    png_read_update_info(png, info); /* takes memory for rows: after the check of the size */
    return decode_rows(reader, n_passes, out, err);
}

/* Apart from its caller, so that no local variable is alive across the jump. */
__attribute__((noinline)) static bool decode_guarded(struct reader *reader, enum image_use use,
                                                     struct image *out, struct err *err) {
    if (setjmp(reader->message.jump))
        return err_set(err, ERR_INPUT, "damaged PNG: %s", reader->message.text);
    return decode(reader, use, out, err);
}

static bool read_page(void *state, size_t page, enum image_use use, struct image *out,
                      struct err *err) {
    (void)page;
    struct reader *reader = state;
    rewind(reader->stream);
    reader->png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader->message, on_error, on_warning);
    reader->info = reader->png ? png_create_info_struct(reader->png) : NULL;
    bool ok = reader->info ? decode_guarded(reader, use, out, err)
                           : err_set(err, ERR_IO, "out of memory");
    png_destroy_read_struct(&reader->png, &reader->info, NULL);
    free(reader->data);
    reader->data = NULL;
    return ok;
}

static void close_file(void *state) {
    free(state);
}

const struct image_format image_format_png = {"PNG", recognise, open_file, read_page, close_file};

/* ---------------------------------------------------------------- writing */

struct writer {
    struct file_writer file;
    png_structp png;
    png_infop info;
    png_bytep row;
    struct message message;
};

static void on_write(png_structp png, png_bytep data, size_t n_bytes) {
    struct writer *writer = png_get_io_ptr(png);
    if (fwrite(data, 1, n_bytes, writer->file.stream) != n_bytes)
        png_error(png, "writing failed: is the disk full?");
}

static void on_flush(png_structp png) {
    (void)png; /* file_writer_commit flushes */
}

__attribute__((noinline)) static void encode(struct writer *writer, const struct image *image) {
    png_structp png = writer->png;
    png_set_write_fn(png, writer, on_write, on_flush);
    png_set_compression_level(png, 5);
    png_set_IHDR(png, writer->info, (png_uint_32)image->width, (png_uint_32)image->height,
                 image->bits, image->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, writer->info);
    size_t row_samples = (size_t)image->width * (size_t)image->channels;
    for (int y = 0; y < image->height; y++) {
        const uint16_t *from = image->pixels + (size_t)y * row_samples;
        for (size_t i = 0; i < row_samples; i++) {
            if (image->bits == 16) {
                writer->row[2 * i] = (png_byte)(from[i] >> 8);
                writer->row[2 * i + 1] = (png_byte)(from[i] & 0xff);
            } else {
                writer->row[i] = (png_byte)from[i];
            }
        }
        png_write_row(png, writer->row);
    }
    png_write_end(png, writer->info);
}

/* As decode_guarded. */
__attribute__((noinline)) static bool encode_guarded(struct writer *writer, const char *path,
                                                     const struct image *image, struct err *err) {
    if (setjmp(writer->message.jump))
        return err_set(err, ERR_IO, "%s: %s", path, writer->message.text);
    encode(writer, image);
    return true;
}

bool image_write_png(const char *path, const struct image *image, struct err *err) {
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return err_set(err, ERR_IO, "%s: out of memory", path);
    if (!file_writer_open(&writer->file, path, err)) {
        free(writer);
        return false;
    }
    writer->png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer->message, on_error, on_warning);
    writer->info = writer->png ? png_create_info_struct(writer->png) : NULL;
    writer->row = malloc((size_t)image->width * (size_t)image->channels * 2);
    bool ok = writer->info && writer->row ? encode_guarded(writer, path, image, err)
                                          : err_set(err, ERR_IO, "%s: out of memory", path);
    png_destroy_write_struct(&writer->png, &writer->info);
    if (ok)
        ok = file_writer_commit(&writer->file, err);
    else
        file_writer_abandon(&writer->file);
    free(writer->row);
    free(writer);
    return ok;
}
