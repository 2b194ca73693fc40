/*
 * test_image.c: PNG and TIFF in and out: every kind of pixel that is read, every way to be broken,
 * and no crash on files cut off or changed anywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <png.h>
#include <tiffio.h>

#include "common/base.h"
#include "common/file.h"
#include "common/rng.h"
#include "runtime/data/image.h"
#include "tests/unit/scratch.h"

static struct image load(const char *path, enum image_use use) {
    struct image image;
    struct err err = {0};
    if (!image_load(path, use, &image, &err))
        fail_msg("%s", err.text);
    return image;
}

static void expect_failure(const char *path, enum err_code code, const char *fragment) {
    struct image image;
    struct err err = {0};
    assert_false(image_load(path, IMAGE_PICTURE, &image, &err));
    assert_null(image.pixels);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, fragment))
        fail_msg("\"%s\" lacks \"%s\"", err.text, fragment);
    if (!strstr(err.text, strrchr(path, '/') + 1))
        fail_msg("\"%s\" does not name the file", err.text);
}

static void expect_pixels(const struct image *image, int width, int height, int channels, int bits,
                          const uint16_t *pixels) {
    assert_int_equal(image->width, width);
    assert_int_equal(image->height, height);
    assert_int_equal(image->channels, channels);
    assert_int_equal(image->bits, bits);
    for (int i = 0; i < width * height * channels; i++)
        if (image->pixels[i] != pixels[i])
            fail_msg("sample %d is %u, not %u", i, image->pixels[i], pixels[i]);
}

/* ---------------------------------------------------------------- PNG */

static struct image random_image(int width, int height, int channels, int bits) {
    struct image image = image_new(width, height, channels, bits);
    struct rng rng = rng_stream(1, (uint32_t)width, (uint32_t)(channels * bits));
    for (size_t i = 0; i < image_samples(&image); i++)
        image.pixels[i] = (uint16_t)rng_below(&rng, bits == 16 ? 65536 : 256);
    return image;
}

static void test_png_round_trip(void **state) {
    (void)state;
    static const int kinds[][2] = {{1, 8}, {1, 16}, {3, 8}, {3, 16}};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct image image = random_image(37, 23, kinds[k][0], kinds[k][1]);
        struct err err = {0};
        const char *path = scratch_path("round.png");
        assert_true(image_write_png(path, &image, &err));
        struct image back = load(path, IMAGE_LABELS);
        expect_pixels(&back, 37, 23, kinds[k][0], kinds[k][1], image.pixels);
        image_free(&back);
        image_free(&image);
    }
}

static void test_png_write_failure(void **state) {
    (void)state;
    struct image image = random_image(4, 4, 1, 8);
    struct err err = {0};
    assert_false(image_write_png(scratch_path("no/such/folder.png"), &image, &err));
    assert_int_equal(err.code, ERR_IO);
    image_free(&image);
}

struct raw_png {
    uint32_t width, height;
    int bits, type, interlace;
    const png_color *palette;
    int n_palette;
    const uint8_t *rows;
    size_t row_bytes;
    bool transparent; /* index 0 of the palette */
};

static const char *write_raw_png(const char *name, const struct raw_png *raw) {
    const char *path = scratch_path("%s", name);
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, stream);
    png_set_IHDR(png, info, raw->width, raw->height, raw->bits, raw->type, raw->interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (raw->palette)
        png_set_PLTE(png, info, raw->palette, raw->n_palette);
    if (raw->transparent)
        png_set_tRNS(png, info, (const png_byte[]){0}, 1, NULL);
    png_write_info(png, info);
    png_bytep rows[64];
    for (uint32_t y = 0; y < raw->height; y++)
        rows[y] = (png_bytep)raw->rows + y * raw->row_bytes;
    png_write_image(png, rows);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(stream);
    return path;
}

static void test_png_low_bits(void **state) {
    (void)state;
    static const uint8_t one[] = {0xA0}, four[] = {0x0F, 0x70};
    struct raw_png raw = {.width = 3,
                          .height = 1,
                          .bits = 1,
                          .type = PNG_COLOR_TYPE_GRAY,
                          .rows = one,
                          .row_bytes = 1};
    struct image image = load(write_raw_png("one.png", &raw), IMAGE_LABELS);
    expect_pixels(&image, 3, 1, 1, 8, (const uint16_t[]){255, 0, 255});
    image_free(&image);
    raw.bits = 4;
    raw.rows = four;
    raw.row_bytes = 2;
    image = load(write_raw_png("four.png", &raw), IMAGE_PICTURE);
    expect_pixels(&image, 3, 1, 1, 8, (const uint16_t[]){0, 255, 119});
    image_free(&image);
}

static void test_png_palette(void **state) {
    (void)state;
    static const uint8_t indices[] = {2, 0, 1};
    static const png_color colours[] = {{0, 0, 0}, {200, 0, 0}, {0, 100, 50}};
    static const png_color greys[] = {{9, 9, 9}, {80, 80, 80}, {255, 255, 255}};
    struct raw_png raw = {.width = 3,
                          .height = 1,
                          .bits = 8,
                          .type = PNG_COLOR_TYPE_PALETTE,
                          .palette = colours,
                          .n_palette = 3,
                          .rows = indices,
                          .row_bytes = 3};
    const char *path = write_raw_png("palette.png", &raw);
    struct image image = load(path, IMAGE_PICTURE);
    expect_pixels(&image, 3, 1, 3, 8, (const uint16_t[]){0, 100, 50, 0, 0, 0, 200, 0, 0});
    image_free(&image);
    image = load(path, IMAGE_LABELS);
    expect_pixels(&image, 3, 1, 1, 8, (const uint16_t[]){2, 0, 1});
    image_free(&image);
    raw.transparent = true;
    image = load(write_raw_png("clear.png", &raw), IMAGE_PICTURE);
    expect_pixels(&image, 3, 1, 3, 8, (const uint16_t[]){0, 100, 50, 0, 0, 0, 200, 0, 0});
    image_free(&image);
    raw.palette = greys;
    path = write_raw_png("greys.png", &raw);
    for (int use = IMAGE_PICTURE; use <= IMAGE_LABELS; use++) {
        image = load(path, (enum image_use)use);
        expect_pixels(&image, 3, 1, 1, 8, (const uint16_t[]){255, 9, 80});
        image_free(&image);
    }
}

static void test_png_packed_palette(void **state) {
    (void)state;
    static const uint8_t indices[] = {0x90}; /* 2 bits each: 2, 1, 0 */
    static const png_color colours[] = {{0, 0, 0}, {200, 0, 0}, {0, 100, 50}};
    struct raw_png raw = {.width = 3,
                          .height = 1,
                          .bits = 2,
                          .type = PNG_COLOR_TYPE_PALETTE,
                          .palette = colours,
                          .n_palette = 3,
                          .rows = indices,
                          .row_bytes = 1};
    struct image image = load(write_raw_png("packed.png", &raw), IMAGE_LABELS);
    expect_pixels(&image, 3, 1, 1, 8, (const uint16_t[]){2, 1, 0});
    image_free(&image);
}

static void test_png_alpha_and_interlace(void **state) {
    (void)state;
    static const uint8_t rgba[] = {1, 2, 3, 0, 4, 5, 6, 128}, grey16[] = {0x12, 0x34, 0xff, 0xff};
    struct raw_png raw = {.width = 2,
                          .height = 1,
                          .bits = 8,
                          .type = PNG_COLOR_TYPE_RGB_ALPHA,
                          .interlace = PNG_INTERLACE_ADAM7,
                          .rows = rgba,
                          .row_bytes = 8};
    struct image image = load(write_raw_png("rgba.png", &raw), IMAGE_PICTURE);
    expect_pixels(&image, 2, 1, 3, 8, (const uint16_t[]){1, 2, 3, 4, 5, 6});
    image_free(&image);
    raw = (struct raw_png){.width = 1,
                           .height = 1,
                           .bits = 16,
                           .type = PNG_COLOR_TYPE_GRAY_ALPHA,
                           .rows = grey16,
                           .row_bytes = 4};
    image = load(write_raw_png("greya.png", &raw), IMAGE_PICTURE);
    expect_pixels(&image, 1, 1, 1, 16, (const uint16_t[]){0x1234});
    image_free(&image);
    uint8_t rows[20 * 20];
    uint16_t expected[20 * 20];
    for (int i = 0; i < 400; i++)
        expected[i] = rows[i] = (uint8_t)(i * 7);
    raw = (struct raw_png){.width = 20,
                           .height = 20,
                           .bits = 8,
                           .type = PNG_COLOR_TYPE_GRAY,
                           .interlace = PNG_INTERLACE_ADAM7,
                           .rows = rows,
                           .row_bytes = 20};
    image = load(write_raw_png("interlaced.png", &raw), IMAGE_PICTURE);
    expect_pixels(&image, 20, 20, 1, 8, expected);
    image_free(&image);
}

/* ---------------------------------------------------------------- TIFF */

struct raw_tiff {
    uint32_t width, height;
    uint16_t bits, samples, photometric, planar, format, compression;
    uint32_t rows_per_strip, tile; /* tile: side of square tiles, 0: strips */
    uint16_t extra;                /* kind of extra samples plus 1; 0: none declared */
    uint32_t subfile;
};

static const struct raw_tiff grey_tiff = {.width = 19,
                                          .height = 13,
                                          .bits = 8,
                                          .samples = 1,
                                          .photometric = PHOTOMETRIC_MINISBLACK,
                                          .planar = PLANARCONFIG_CONTIG,
                                          .format = SAMPLEFORMAT_UINT,
                                          .compression = COMPRESSION_NONE,
                                          .rows_per_strip = 5};

/* What test pages hold at (page, y, x, sample). */
static uint16_t value_at(int page, uint32_t y, uint32_t x, uint32_t sample, int bits) {
    uint32_t value = 31u * y + 7u * x + 101u * sample + 57u * (uint32_t)page;
    return (uint16_t)(bits == 16 ? value * 211u : value & ((1u << bits) - 1u));
}

static void put_sample(uint8_t *row, uint32_t i, int bits, uint16_t value) {
    if (bits == 16)
        memcpy(row + 2 * i, &value, 2);
    else if (bits == 8)
        row[i] = (uint8_t)value;
    else
        row[i * (uint32_t)bits / 8] |=
            (uint8_t)(value << (8 - bits - (int)(i * (uint32_t)bits % 8)));
}

static void write_tile_or_row(TIFF *tiff, const struct raw_tiff *raw, int page, uint32_t y0,
                              uint32_t x0, uint16_t plane) {
    uint8_t buffer[65536] = {0};
    bool planes = raw->planar == PLANARCONFIG_SEPARATE;
    uint32_t w = raw->tile ? raw->tile : raw->width, h = raw->tile ? raw->tile : 1;
    uint32_t step = planes ? 1 : raw->samples;
    size_t row_bytes = (w * step * raw->bits + 7) / 8;
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++)
            for (uint32_t s = 0; s < step; s++)
                put_sample(buffer + y * row_bytes, x * step + s, raw->bits,
                           value_at(page, y0 + y, x0 + x, planes ? plane : s, raw->bits));
    if (raw->tile)
        assert_true(TIFFWriteTile(tiff, buffer, x0, y0, 0, plane) > 0);
    else
        assert_true(TIFFWriteScanline(tiff, buffer, y0, plane) > 0);
}

static void write_page(TIFF *tiff, const struct raw_tiff *raw, int page) {
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, raw->width);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, raw->height);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, raw->bits);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, raw->samples);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, raw->photometric);
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, raw->planar);
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, raw->format);
    TIFFSetField(tiff, TIFFTAG_COMPRESSION, raw->compression);
    TIFFSetField(tiff, TIFFTAG_SUBFILETYPE, raw->subfile);
    if (raw->extra) {
        uint16_t kind = (uint16_t)(raw->extra - 1);
        TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, 1, &kind);
    }
    if (raw->photometric == PHOTOMETRIC_PALETTE) {
        uint16_t map[3][256] = {{0}};
        for (int i = 0; i < 256; i++) {
            map[0][i] = (uint16_t)(i * 257);
            map[1][i] = (uint16_t)(1000 + i);
        }
        TIFFSetField(tiff, TIFFTAG_COLORMAP, map[0], map[1], map[2]);
    }
    if (raw->tile) {
        TIFFSetField(tiff, TIFFTAG_TILEWIDTH, raw->tile);
        TIFFSetField(tiff, TIFFTAG_TILELENGTH, raw->tile);
    } else {
        TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, raw->rows_per_strip);
    }
    uint16_t n_planes = raw->planar == PLANARCONFIG_SEPARATE ? raw->samples : 1;
    uint32_t step = raw->tile ? raw->tile : 1, across = raw->tile ? raw->tile : raw->width;
    for (uint16_t plane = 0; plane < n_planes; plane++)
        for (uint32_t y = 0; y < raw->height; y += step)
            for (uint32_t x = 0; x < raw->width; x += across)
                write_tile_or_row(tiff, raw, page, y, x, plane);
    assert_true(TIFFWriteDirectory(tiff));
}

static const char *write_tiff(const char *name, const struct raw_tiff *raw, int n_pages,
                              const char *mode) {
    const char *path = scratch_path("%s", name);
    TIFF *tiff = TIFFOpen(path, mode);
    assert_non_null(tiff);
    for (int page = 0; page < n_pages; page++)
        write_page(tiff, raw, page);
    TIFFClose(tiff);
    return path;
}

static void expect_page(const struct image *image, const struct raw_tiff *raw, int page,
                        int channels) {
    assert_int_equal(image->width, raw->width);
    assert_int_equal(image->height, raw->height);
    assert_int_equal(image->channels, channels);
    assert_int_equal(image->bits, raw->bits == 16 ? 16 : 8);
    unsigned scale = raw->bits < 8 ? 255u / ((1u << raw->bits) - 1u) : 1u;
    size_t i = 0;
    for (uint32_t y = 0; y < raw->height; y++)
        for (uint32_t x = 0; x < raw->width; x++)
            for (uint32_t c = 0; c < (uint32_t)channels; c++, i++)
                assert_int_equal(image->pixels[i], value_at(page, y, x, c, raw->bits) * scale);
}

static void check_tiff(const struct raw_tiff *raw, int channels) {
    struct image image = load(write_tiff("check.tif", raw, 1, "w"), IMAGE_PICTURE);
    expect_page(&image, raw, 0, channels);
    image_free(&image);
}

static void test_tiff_kinds(void **state) {
    (void)state;
    static const uint16_t compressions[] = {COMPRESSION_NONE, COMPRESSION_LZW,
                                            COMPRESSION_ADOBE_DEFLATE, COMPRESSION_PACKBITS};
    static const uint16_t depths[] = {1, 2, 4, 8, 16};
    for (size_t c = 0; c < ARRAY_LEN(compressions); c++)
        for (size_t b = 0; b < ARRAY_LEN(depths); b++)
            for (uint32_t tile = 0; tile <= 16; tile += 16) {
                struct raw_tiff raw = grey_tiff;
                raw.compression = compressions[c];
                raw.bits = depths[b];
                raw.tile = tile;
                check_tiff(&raw, 1);
            }
}

static void test_tiff_rgb(void **state) {
    (void)state;
    for (int variant = 0; variant < 8; variant++) {
        struct raw_tiff raw = grey_tiff;
        raw.photometric = PHOTOMETRIC_RGB;
        raw.bits = variant & 1 ? 16 : 8;
        raw.planar = variant & 2 ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG;
        raw.samples = variant & 4 ? 4 : 3;
        raw.extra = variant & 4 ? EXTRASAMPLE_UNASSALPHA + 1 : 0;
        check_tiff(&raw, 3);
        raw.tile = 16;
        check_tiff(&raw, 3);
    }
}

static void test_tiff_byte_order(void **state) {
    (void)state;
    static const char *const modes[] = {"wl", "wb", "w8"};
    struct raw_tiff raw = grey_tiff;
    raw.bits = 16;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct image image = load(write_tiff("order.tif", &raw, 1, modes[i]), IMAGE_PICTURE);
        expect_page(&image, &raw, 0, 1);
        image_free(&image);
    }
}

static void test_tiff_white_is_zero(void **state) {
    (void)state;
    struct raw_tiff raw = grey_tiff;
    raw.photometric = PHOTOMETRIC_MINISWHITE;
    struct image image = load(write_tiff("white.tif", &raw, 1, "w"), IMAGE_PICTURE);
    assert_int_equal(image.pixels[1], 255 - value_at(0, 0, 1, 0, 8));
    image_free(&image);
}

static void test_tiff_palette(void **state) {
    (void)state;
    struct raw_tiff raw = grey_tiff;
    raw.photometric = PHOTOMETRIC_PALETTE;
    const char *path = write_tiff("palette.tif", &raw, 1, "w");
    struct image image = load(path, IMAGE_LABELS);
    expect_page(&image, &raw, 0, 1);
    image_free(&image);
    image = load(path, IMAGE_PICTURE);
    assert_int_equal(image.channels, 3);
    unsigned index = value_at(0, 0, 5, 0, 8);
    assert_int_equal(image.pixels[15], index);
    assert_int_equal(image.pixels[16], (1000 + index) >> 8);
    assert_int_equal(image.pixels[17], 0);
    image_free(&image);
}

static void test_tiff_stack(void **state) {
    (void)state;
    const char *path = write_tiff("stack.tif", &grey_tiff, 12, "w");
    struct raw_tiff copy = grey_tiff; /* reduced copies are no pages */
    copy.subfile = FILETYPE_REDUCEDIMAGE;
    TIFF *tiff = TIFFOpen(path, "a");
    write_page(tiff, &copy, 0);
    TIFFClose(tiff);
    struct image_file *file;
    struct err err = {0};
    assert_true(image_file_open(path, &file, &err));
    assert_int_equal(image_file_pages(file), 12);
    static const size_t order[] = {0, 1, 2, 2, 11, 5, 6, 0};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        struct image image;
        assert_true(image_file_read(file, order[i], IMAGE_PICTURE, &image, &err));
        expect_page(&image, &grey_tiff, (int)order[i], 1);
        image_free(&image);
    }
    struct image image;
    assert_false(image_file_read(file, 12, IMAGE_PICTURE, &image, &err));
    assert_int_equal(err.code, ERR_INPUT);
    image_file_close(file);
    expect_failure(path, ERR_INPUT, "12 pages");
}

static void test_tiff_refused(void **state) {
    (void)state;
    struct raw_tiff raw = grey_tiff;
    raw.bits = 16;
    raw.format = SAMPLEFORMAT_INT;
    expect_failure(write_tiff("signed.tif", &raw, 1, "w"), ERR_INPUT, "16-bit signed");
    raw = grey_tiff;
    raw.samples = 2;
    raw.extra = EXTRASAMPLE_UNSPECIFIED + 1;
    expect_failure(write_tiff("two.tif", &raw, 1, "w"), ERR_INPUT, "2 samples per pixel");
    raw = grey_tiff;
    raw.photometric = PHOTOMETRIC_CIELAB;
    raw.samples = 3;
    expect_failure(write_tiff("lab.tif", &raw, 1, "w"), ERR_INPUT, "colour model 8");

    const char *path = scratch_path("float.tif");
    float row[4] = {0, 0.25f, 0.5f, 1};
    TIFF *tiff = TIFFOpen(path, "w");
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, 4);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, 1);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, 32);
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_IEEEFP);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    TIFFWriteScanline(tiff, row, 0, 0);
    TIFFClose(tiff);
    expect_failure(path, ERR_INPUT, "32-bit floating-point");
}

/* ---------------------------------------------------------------- broken files */

static void test_not_images(void **state) {
    (void)state;
    struct err err = {0};
    static const struct {
        const char *name, *content;
        size_t size_bytes;
        const char *fragment;
    } cases[] = {{"empty.png", "", 0, "empty"},
                 {"text.png", "hello, this is no image", 23, "neither PNG nor TIFF"},
                 {"photo.png", "\xff\xd8\xff\xe0 etc", 8, "JPEG"},
                 {"short.tif", "II*\0", 4, "damaged TIFF"},
                 {"magic.png", "\x89PNG\r\n\x1a\n", 8, "damaged PNG"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *path = scratch_path("%s", cases[i].name);
        assert_true(file_write(path, cases[i].content, cases[i].size_bytes, &err));
        expect_failure(path, ERR_INPUT, cases[i].fragment);
    }
    expect_failure(scratch_path("missing.png"), ERR_IO, "cannot open");
    expect_failure(scratch_root, ERR_IO, "directory");
}

/* The format is told by content: names may lie. */
static void test_name_does_not_matter(void **state) {
    (void)state;
    struct image image = load(write_tiff("really-a-tiff.png", &grey_tiff, 1, "w"), IMAGE_PICTURE);
    expect_page(&image, &grey_tiff, 0, 1);
    image_free(&image);
}

/* Changes a PNG's header and makes its checksum right again. */
static void patch_png_size(uint8_t *data, uint32_t width, uint32_t height) {
    for (int i = 0; i < 4; i++) {
        data[16 + i] = (uint8_t)(width >> (24 - 8 * i));
        data[20 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    uint32_t crc = 0xffffffffu;
    for (int i = 12; i < 29; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++)
        data[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
}

static void test_hostile_size(void **state) {
    (void)state;
    struct image image = random_image(4, 4, 1, 8);
    struct err err = {0};
    uint8_t *data;
    size_t size_bytes;
    const char *path = scratch_path("huge.png");
    assert_true(image_write_png(path, &image, &err));
    assert_true(file_read(path, &data, &size_bytes, &err));
    patch_png_size(data, 0x7ffffff0u, 4);
    assert_true(file_write(path, data, size_bytes, &err));
    expect_failure(path, ERR_INPUT, "limit");
    patch_png_size(data, 1u << 17, 1u << 17); /* sides are fine, their product is not */
    assert_true(file_write(path, data, size_bytes, &err));
    expect_failure(path, ERR_INPUT, "limit");
    free(data);
    image_free(&image);
}

/* Reads all pages of a file held in memory; the outcome is the caller's to judge. */
static bool read_memory(uint8_t *data, size_t size_bytes) {
    struct err err = {0};
    struct image_file *file;
    FILE *stream = fmemopen(data, size_bytes, "rb");
    assert_non_null(stream);
    bool ok = image_file_open_stream(stream, "memory", &file, &err);
    for (size_t page = 0; ok && page < image_file_pages(file); page++) {
        struct image image;
        ok = image_file_read(file, page, (enum image_use)(page % 2), &image, &err);
        image_free(&image);
    }
    image_file_close(file);
    assert_true(ok || (err.code != ERR_NONE && err.text[0]));
    return ok;
}

static void damage(const char *path, bool cut_must_fail) {
    struct err err = {0};
    uint8_t *data;
    size_t size_bytes;
    assert_true(file_read(path, &data, &size_bytes, &err));
    assert_true(read_memory(data, size_bytes));
    size_t step = size_bytes / 400 + 1;
    for (size_t length = 1; length < size_bytes; length += step) {
        bool ok = read_memory(data, length);
        if (cut_must_fail && ok)
            fail_msg("%s cut to %zu of %zu bytes was read", path, length, size_bytes);
    }
    struct rng rng = rng_stream(7, (uint32_t)size_bytes, 0);
    for (int trial = 0; trial < 600; trial++) {
        size_t places[3];
        uint8_t kept[3];
        for (int i = 0; i < 3; i++) {
            places[i] = rng_below(&rng, (uint32_t)(i ? size_bytes : MIN(size_bytes, 400)));
            kept[i] = data[places[i]];
            data[places[i]] = (uint8_t)rng_u32(&rng);
        }
        read_memory(data, size_bytes);
        for (int i = 3; i-- > 0;)
            data[places[i]] = kept[i];
    }
    free(data);
}

static void test_damaged_png(void **state) {
    (void)state;
    struct err err = {0};
    struct image image = random_image(31, 17, 3, 16);
    const char *path = scratch_path("damage.png");
    assert_true(image_write_png(path, &image, &err));
    damage(path, true);
    image_free(&image);
}

static void test_damaged_tiff(void **state) {
    (void)state;
    struct raw_tiff raw = grey_tiff;
    raw.compression = COMPRESSION_LZW;
    damage(write_tiff("damage.tif", &raw, 3, "w"), true);
    raw.tile = 16;
    raw.bits = 16;
    damage(write_tiff("damage2.tif", &raw, 2, "w"), true);
    raw = grey_tiff;
    raw.photometric = PHOTOMETRIC_RGB;
    raw.samples = 3;
    raw.planar = PLANARCONFIG_SEPARATE;
    damage(write_tiff("damage3.tif", &raw, 2, "w"), true);
    raw = grey_tiff;
    raw.photometric = PHOTOMETRIC_PALETTE;
    /* The palette comes last in the file; libtiff reads an image that lost it as grey. */
    damage(write_tiff("damage4.tif", &raw, 1, "w"), false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_round_trip),       cmocka_unit_test(test_png_write_failure),
        cmocka_unit_test(test_png_low_bits),         cmocka_unit_test(test_png_palette),
        cmocka_unit_test(test_png_packed_palette),   cmocka_unit_test(test_png_alpha_and_interlace),
        cmocka_unit_test(test_tiff_kinds),           cmocka_unit_test(test_tiff_rgb),
        cmocka_unit_test(test_tiff_byte_order),      cmocka_unit_test(test_tiff_white_is_zero),
        cmocka_unit_test(test_tiff_palette),         cmocka_unit_test(test_tiff_stack),
        cmocka_unit_test(test_tiff_refused),         cmocka_unit_test(test_not_images),
        cmocka_unit_test(test_name_does_not_matter), cmocka_unit_test(test_hostile_size),
        cmocka_unit_test(test_damaged_png),          cmocka_unit_test(test_damaged_tiff),
    };
    return cmocka_run_group_tests_name("image", tests, scratch_open, scratch_close);
}
