/*
 * tiff.c: TIFF stacks through libtiff: strips or tiles, any compression libtiff decodes, samples of
 * 1 to 16 bits, grey, palette or RGB, interleaved or plane by plane. libtiff's messages are caught
 * per file and end up in struct err; nothing is printed.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

#include "common/vec.h"
#include "runtime/data/image_format.h"

#define MAX_BUFFER_BYTES ((tmsize_t)1 << 32)

struct reader {
    FILE *stream;
    TIFF *tiff;
    VEC(tdir_t) directories; /* of the pages; reduced copies and masks left out */
    char message[256];       /* libtiff's last error */
};

/* Layout of the page being read. */
struct page {
    uint32_t width, height;
    uint16_t bits, samples, photometric, planar;
    bool tiled;
    uint32_t chunk_w, chunk_h; /* a tile, or a strip as wide as the page */
    int channels;              /* delivered */
    bool lookup;               /* samples are palette indices to be looked up */
    const uint16_t *palette[3];
};

static bool recognise(const uint8_t *head, size_t n_bytes) {
    static const uint8_t magic[4][4] = {{'I', 'I', 42, 0},
                                        {'M', 'M', 0, 42},
                                        {'I', 'I', 43, 0}, /* BigTIFF */
                                        {'M', 'M', 0, 43}};
    for (int i = 0; i < 4; i++)
        if (n_bytes >= 4 && memcmp(head, magic[i], 4) == 0)
            return true;
    return false;
}

/* ---------------------------------------------------------------- libtiff's view of a stream */

static tmsize_t on_read(thandle_t handle, void *data, tmsize_t n_bytes) {
    struct reader *reader = handle;
    return (tmsize_t)fread(data, 1, (size_t)n_bytes, reader->stream);
}

static tmsize_t on_write(thandle_t handle, void *data, tmsize_t n_bytes) {
    (void)handle;
    (void)data;
    (void)n_bytes;
    return 0;
}

static toff_t on_seek(thandle_t handle, toff_t offset, int whence) {
    struct reader *reader = handle;
    if (offset > INT64_MAX || fseeko(reader->stream, (off_t)offset, whence) != 0)
        return (toff_t)-1;
    return (toff_t)ftello(reader->stream);
}

static int on_close(thandle_t handle) {
    (void)handle;
    return 0;
}

static toff_t on_size(thandle_t handle) {
    struct reader *reader = handle;
    off_t here = ftello(reader->stream);
    if (here < 0 || fseeko(reader->stream, 0, SEEK_END) != 0)
        return 0;
    off_t size = ftello(reader->stream);
    fseeko(reader->stream, here, SEEK_SET);
    return size < 0 ? 0 : (toff_t)size;
}

__attribute__((format(printf, 4, 0))) static int
on_error(TIFF *tiff, void *user_data, const char *module, const char *format, va_list arguments) {
    (void)tiff;
    (void)module;
    struct reader *reader = user_data;
    if (!reader->message[0]) /* the first is the cause, later ones follow from it */
        vsnprintf(reader->message, sizeof reader->message, format, arguments);
    return 1;
}

__attribute__((format(printf, 4, 0))) static int
on_warning(TIFF *tiff, void *user_data, const char *module, const char *format, va_list arguments) {
    (void)tiff;
    (void)user_data;
    (void)module;
    (void)format;
    (void)arguments;
    return 1;
}

/* ---------------------------------------------------------------- opening */

static bool damaged(const struct reader *reader, struct err *err) {
    return err_set(err, ERR_INPUT, "damaged TIFF: %s",
                   reader->message[0] ? reader->message : "its structure makes no sense");
}

static void close_file(void *state) {
    struct reader *reader = state;
    if (reader->tiff)
        TIFFClose(reader->tiff);
    vec_free(&reader->directories);
    free(reader);
}

static bool list_pages(struct reader *reader, struct err *err) {
    do {
        uint32_t kind = 0;
        TIFFGetFieldDefaulted(reader->tiff, TIFFTAG_SUBFILETYPE, &kind);
        if (!(kind & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK)))
            vec_push(&reader->directories, TIFFCurrentDirectory(reader->tiff));
    } while (TIFFReadDirectory(reader->tiff));
    if (reader->message[0])
        return damaged(reader, err);
    if (reader->directories.count == 0)
        return err_set(err, ERR_INPUT, "the TIFF holds no full-resolution page");
    return true;
}

static bool open_file(FILE *stream, void **state_out, size_t *n_pages_out, struct err *err) {
    struct reader *reader = calloc(1, sizeof *reader);
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!reader || !options) {
        free(reader);
        if (options)
            TIFFOpenOptionsFree(options);
        return err_set(err, ERR_IO, "out of memory");
    }
    reader->stream = stream;
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, reader);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, NULL);
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, MAX_BUFFER_BYTES);
    reader->tiff = TIFFClientOpenExt("", "rm", reader, on_read, on_write, on_seek, on_close,
                                     on_size, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    *state_out = reader; /* closed by the caller from here on */
    if (!reader->tiff)
        return damaged(reader, err);
    if (!list_pages(reader, err))
        return false;
    *n_pages_out = reader->directories.count;
    return true;
}

/* ---------------------------------------------------------------- the layout of a page */

static bool check_samples(TIFF *tiff, struct page *page, struct err *err) {
    uint16_t format = SAMPLEFORMAT_UINT;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &format);
    if (format != SAMPLEFORMAT_UINT && format != SAMPLEFORMAT_VOID) {
        err_set(err, ERR_INPUT, "%u-bit %s samples are not supported", page->bits,
                format == SAMPLEFORMAT_IEEEFP ? "floating-point"
                : format == SAMPLEFORMAT_INT  ? "signed"
                                              : "complex");
        return err_hint(err, "convert to 8- or 16-bit unsigned grey or RGB");
    }
    if (page->bits != 1 && page->bits != 2 && page->bits != 4 && page->bits != 8 &&
        page->bits != 16) {
        err_set(err, ERR_INPUT, "%u-bit samples are not supported", page->bits);
        return err_hint(err, "convert to 8- or 16-bit unsigned grey or RGB");
    }
    return true;
}

static bool palette_is_grey(const struct page *page) {
    size_t bytes = sizeof(uint16_t) << page->bits;
    return memcmp(page->palette[0], page->palette[1], bytes) == 0 &&
           memcmp(page->palette[0], page->palette[2], bytes) == 0;
}

static bool choose_palette(TIFF *tiff, struct page *page, enum image_use use, struct err *err) {
    uint16_t *red, *green, *blue;
    if (page->bits > 8 || page->samples != 1 ||
        !TIFFGetField(tiff, TIFFTAG_COLORMAP, &red, &green, &blue))
        return err_set(err, ERR_INPUT, "damaged TIFF: a palette image without its palette");
    page->palette[0] = red;
    page->palette[1] = green;
    page->palette[2] = blue;
    bool grey = palette_is_grey(page);
    page->lookup = grey || use == IMAGE_PICTURE;
    page->channels = grey || use == IMAGE_LABELS ? 1 : 3;
    return true;
}

static bool choose_channels(TIFF *tiff, struct page *page, enum image_use use, struct err *err) {
    uint16_t n_extra = 0, *extra = NULL;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &n_extra, &extra);
    switch (page->photometric) {
    case PHOTOMETRIC_PALETTE:
        return choose_palette(tiff, page, use, err);
    case PHOTOMETRIC_MINISBLACK:
    case PHOTOMETRIC_MINISWHITE:
        page->channels = 1;
        if (page->samples == 1 ||
            (page->samples == 2 && n_extra == 1 && extra[0] != EXTRASAMPLE_UNSPECIFIED))
            return true;
        err_set(err, ERR_INPUT, "%u samples per pixel: grey has 1, RGB has 3", page->samples);
        return err_hint(err, "write the channels as separate images");
    case PHOTOMETRIC_YCBCR: /* only inside JPEG, which converts */
    case PHOTOMETRIC_RGB:
        page->channels = 3;
        if (page->samples >= 3 && page->bits >= 8)
            return true;
        return err_set(err, ERR_INPUT, "RGB with %u samples of %u bits per pixel", page->samples,
                       page->bits);
    default:
        err_set(err, ERR_INPUT, "colour model %u is not supported", page->photometric);
        return err_hint(err, "convert to 8- or 16-bit unsigned grey or RGB");
    }
}

static bool choose_chunks(TIFF *tiff, struct page *page, struct err *err) {
    page->tiled = TIFFIsTiled(tiff) != 0;
    if (page->tiled) {
        TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &page->chunk_w);
        TIFFGetField(tiff, TIFFTAG_TILELENGTH, &page->chunk_h);
    } else {
        page->chunk_w = page->width;
        TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &page->chunk_h);
        if (page->chunk_h > page->height)
            page->chunk_h = page->height;
    }
    if (page->chunk_w == 0 || page->chunk_h == 0 ||
        (uint64_t)page->chunk_w * page->chunk_h > 4 * IMAGE_MAX_PIXELS)
        return err_set(err, ERR_INPUT, "damaged TIFF: strips or tiles of %ux%u pixels",
                       page->chunk_w, page->chunk_h);
    return true;
}

static bool read_layout(TIFF *tiff, struct page *page, enum image_use use, struct err *err) {
    memset(page, 0, sizeof *page);
    TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &page->width);
    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &page->height);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &page->bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &page->samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &page->planar);
    if (!TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &page->photometric))
        page->photometric = page->samples >= 3 ? PHOTOMETRIC_RGB : PHOTOMETRIC_MINISBLACK;
    uint16_t compression = COMPRESSION_NONE;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_COMPRESSION, &compression);
    if (!TIFFIsCODECConfigured(compression))
        return err_set(err, ERR_INPUT, "TIFF compression %u cannot be decoded here", compression);
    if (page->photometric == PHOTOMETRIC_YCBCR) {
        if (compression != COMPRESSION_JPEG)
            return err_set(err, ERR_INPUT, "colour model YCbCr is not supported");
        TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    }
    return check_samples(tiff, page, err) && choose_channels(tiff, page, use, err) &&
           choose_chunks(tiff, page, err);
}

/* ---------------------------------------------------------------- pixels */

static unsigned sample_at(const uint8_t *row, size_t i, unsigned bits) {
    if (bits == 16) {
        uint16_t value; /* libtiff has put it into the host's order; rows may be at odd addresses */
        memcpy(&value, row + 2 * i, sizeof value);
        return value;
    }
    if (bits == 8)
        return row[i];
    size_t bit = i * bits;
    return row[bit / 8] >> (8 - bits - bit % 8) & ((1u << bits) - 1u);
}

/* The value delivered for a stored sample of a grey or palette page. */
static uint16_t convert(const struct page *page, unsigned value, int channel) {
    if (page->photometric == PHOTOMETRIC_PALETTE)
        return (uint16_t)(page->lookup ? page->palette[channel][value] >> 8 : value);
    unsigned top = (1u << page->bits) - 1u;
    if (page->photometric == PHOTOMETRIC_MINISWHITE)
        value = top - value;
    return (uint16_t)(page->bits < 8 ? value * (255u / top) : value);
}

struct chunk {
    const uint8_t *data;
    size_t row_bytes;
    uint32_t x, y, w, h; /* the part of the page it covers */
    unsigned plane;      /* of a page stored plane by plane */
};

static void unpack(const struct page *page, const struct chunk *chunk, struct image *out) {
    bool planes = page->planar == PLANARCONFIG_SEPARATE && page->samples > 1;
    size_t step = planes ? 1 : page->samples;
    int first = planes ? (int)chunk->plane : 0, last = planes ? first + 1 : out->channels;
    for (uint32_t y = 0; y < chunk->h; y++) {
        const uint8_t *row = chunk->data + y * chunk->row_bytes;
        uint16_t *to =
            out->pixels + ((size_t)(chunk->y + y) * page->width + chunk->x) * (size_t)out->channels;
        for (uint32_t x = 0; x < chunk->w; x++, to += out->channels)
            for (int c = first; c < last; c++) {
                size_t i = x * step + (planes || page->lookup ? 0 : (size_t)c);
                to[c] = convert(page, sample_at(row, i, page->bits), c);
            }
    }
}

static bool read_chunk(struct reader *reader, const struct page *page, struct chunk *chunk,
                       uint8_t *buffer, size_t buffer_bytes, struct err *err) {
    TIFF *tiff = reader->tiff;
    uint16_t plane = (uint16_t)chunk->plane;
    tmsize_t got =
        page->tiled ? TIFFReadEncodedTile(tiff, TIFFComputeTile(tiff, chunk->x, chunk->y, 0, plane),
                                          buffer, (tmsize_t)buffer_bytes)
                    : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, chunk->y, plane), buffer,
                                           (tmsize_t)buffer_bytes);
    if (got < 0 || (size_t)got < chunk->row_bytes * chunk->h)
        return damaged(reader, err);
    return true;
}

static bool read_chunks(struct reader *reader, const struct page *page, struct image *out,
                        struct err *err) {
    TIFF *tiff = reader->tiff;
    uint64_t row_bytes = page->tiled ? TIFFTileRowSize64(tiff) : TIFFScanlineSize64(tiff);
    uint64_t n_samples =
        page->planar == PLANARCONFIG_SEPARATE || page->lookup ? 1 : (uint64_t)page->samples;
    uint64_t least = ((uint64_t)page->chunk_w * n_samples * page->bits + 7) / 8;
    if (row_bytes < least || row_bytes * page->chunk_h > (uint64_t)MAX_BUFFER_BYTES)
        return damaged(reader, err);
    size_t buffer_bytes = (size_t)(row_bytes * page->chunk_h);
    uint8_t *buffer = calloc(1, buffer_bytes);
    if (!buffer)
        return err_set(err, ERR_IO, "no memory for %zu bytes", buffer_bytes);
    bool ok = true;
    unsigned n_planes =
        page->planar == PLANARCONFIG_SEPARATE && page->samples > 1 ? (unsigned)page->channels : 1;
    for (unsigned plane = 0; ok && plane < n_planes; plane++)
        for (uint32_t y = 0; ok && y < page->height; y += page->chunk_h)
            for (uint32_t x = 0; ok && x < page->width; x += page->chunk_w) {
                uint32_t w = page->width - x, h = page->height - y;
                struct chunk chunk = {buffer,
                                      (size_t)row_bytes,
                                      x,
                                      y,
                                      w < page->chunk_w ? w : page->chunk_w,
                                      h < page->chunk_h ? h : page->chunk_h,
                                      plane};
                ok = read_chunk(reader, page, &chunk, buffer, buffer_bytes, err);
                if (ok)
                    unpack(page, &chunk, out);
            }
    free(buffer);
    return ok;
}

/* The next page is read where the last one ended: seeking walks the whole chain from the start. */
static bool go_to(TIFF *tiff, tdir_t directory) {
    tdir_t here = TIFFCurrentDirectory(tiff);
    if (here == directory)
        return true;
    return here + 1 == directory ? TIFFReadDirectory(tiff) : TIFFSetDirectory(tiff, directory);
}

static bool read_page(void *state, size_t index, enum image_use use, struct image *out,
                      struct err *err) {
    struct reader *reader = state;
    struct page page;
    reader->message[0] = 0;
    if (!go_to(reader->tiff, reader->directories.items[index]))
        return damaged(reader, err);
    if (!read_layout(reader->tiff, &page, use, err) ||
        !image_allocate(page.width, page.height, page.channels, page.bits == 16 ? 16 : 8, out, err))
        return false;
    return read_chunks(reader, &page, out, err);
}

const struct image_format image_format_tiff = {"TIFF", recognise, open_file, read_page, close_file};
