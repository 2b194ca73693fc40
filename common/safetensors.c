/*
 * safetensors.c: reading and writing checkpoints. A file is an 8-byte little-endian header length,
 * a JSON object {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__":
 * {"key": "value"}}, spaces up to a multiple of 8, then the data. Offsets count from the end of the
 * header.
 */
#include "common/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/base.h"
#include "common/file.h"

#define MAX_HEADER_BYTES ((uint64_t)100 * 1024 * 1024) /* the format's own limit */

static const struct {
    const char *name;
    size_t size_bytes;
} types[] = {
    [SAFETENSORS_F32] = {"F32", 4}, [SAFETENSORS_U32] = {"U32", 4}, [SAFETENSORS_I64] = {"I64", 8}};

static void *resize(void *memory, size_t count, size_t item_bytes) {
    void *resized = realloc(memory, (count > 0 ? count : 1) * item_bytes);
    if (resized == NULL) {
        fprintf(stderr, "error: out of memory (%zu bytes wanted)\n", count * item_bytes);
        exit(4);
    }
    return resized;
}

static char *copy_text(const char *text) {
    size_t size_bytes = strlen(text) + 1;
    return memcpy(resize(NULL, size_bytes, 1), text, size_bytes);
}

/* A new zeroed entry at the end. */
static struct safetensors_entry *append_entry(struct safetensors *file, const char *name) {
    file->entries = resize(file->entries, file->n_entries + 1, sizeof(*file->entries));
    struct safetensors_entry *entry = &file->entries[file->n_entries++];
    memset(entry, 0, sizeof(*entry));
    entry->name = copy_text(name);
    return entry;
}

void safetensors_add_metadata(struct safetensors *file, const char *key, const char *value) {
    file->keys = resize(file->keys, file->n_metadata + 1, sizeof(*file->keys));
    file->values = resize(file->values, file->n_metadata + 1, sizeof(*file->values));
    file->keys[file->n_metadata] = copy_text(key);
    file->values[file->n_metadata] = copy_text(value);
    file->n_metadata++;
}

void safetensors_free(struct safetensors *file) {
    for (size_t i = 0; i < file->n_entries; i++)
        free(file->entries[i].name);
    for (size_t i = 0; i < file->n_metadata; i++) {
        free(file->keys[i]);
        free(file->values[i]);
    }
    free(file->entries);
    free(file->keys);
    free(file->values);
    free(file->file);
    memset(file, 0, sizeof(*file));
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name) {
    for (size_t i = 0; i < file->n_entries; i++) {
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    }
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    for (size_t i = 0; i < file->n_metadata; i++) {
        if (strcmp(file->keys[i], key) == 0)
            return file->values[i];
    }
    return NULL;
}

/* --- reading --- */

static bool read_metadata(json_t *object, struct safetensors *out, struct err *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return err_set(err, ERR_INPUT, "safetensors: __metadata__ is not an object");
    json_object_foreach(object, key, value) {
        if (!json_is_string(value))
            return err_set(err, ERR_INPUT, "safetensors: metadata '%s' is not a string", key);
        safetensors_add_metadata(out, key, json_string_value(value));
    }
    return true;
}

static bool read_type(const json_t *value, struct safetensors_entry *entry, struct err *err) {
    const char *name = json_string_value(value);
    if (name == NULL)
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: dtype is not a string",
                       entry->name);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            entry->type = (enum safetensors_type)i;
            return true;
        }
    }
    err_set(err, ERR_INPUT, "safetensors: tensor %s: type %s is not supported", entry->name, name);
    return err_hint(err, "F32, U32 and I64 are: convert the file to 32-bit floats");
}

static bool read_shape(const json_t *value, struct safetensors_entry *entry, struct err *err) {
    if (!json_is_array(value))
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: shape is not a list", entry->name);
    if (json_array_size(value) > SAFETENSORS_MAX_RANK)
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: %zu dimensions, at most %d",
                       entry->name, json_array_size(value), SAFETENSORS_MAX_RANK);
    entry->rank = (uint32_t)json_array_size(value);
    uint64_t size_bytes = types[entry->type].size_bytes;
    bool empty = false, wide = false;
    for (uint32_t i = 0; i < entry->rank; i++) {
        const json_t *dim = json_array_get(value, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_set(err, ERR_INPUT, "safetensors: tensor %s: dimension %u is no size",
                           entry->name, i);
        entry->dims[i] = (uint64_t)json_integer_value(dim);
        if (entry->dims[i] == 0)
            empty = true;
        else if (size_bytes > (SIZE_MAX >> 1) / entry->dims[i])
            wide = true;
        else
            size_bytes *= entry->dims[i];
    }
    if (wide && !empty)
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: its shape is too large",
                       entry->name);
    entry->size_bytes = empty ? 0 : (size_t)size_bytes;
    return true;
}

static bool read_offsets(const json_t *value, const uint8_t *data, size_t data_bytes,
                         struct safetensors_entry *entry, struct err *err) {
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: data_offsets are no range",
                       entry->name);
    const uint64_t from = (uint64_t)json_integer_value(begin);
    const uint64_t to = (uint64_t)json_integer_value(end);
    if (to > data_bytes) {
        err_set(err, ERR_INPUT,
                "safetensors: tensor %s: its data end at byte %" PRIu64 ", the file's at %zu",
                entry->name, to, data_bytes);
        return err_hint(err, "the file is cut off: copy or write it again");
    }
    if (to - from != entry->size_bytes)
        return err_set(err, ERR_INPUT,
                       "safetensors: tensor %s: its shape needs %zu bytes, its range has %" PRIu64,
                       entry->name, entry->size_bytes, to - from);
    if (from % types[entry->type].size_bytes != 0)
        return err_set(err, ERR_INPUT, "safetensors: tensor %s: its data are not aligned",
                       entry->name);
    entry->data = data + from;
    return true;
}

static bool read_entry(const char *name, json_t *object, const uint8_t *data, size_t data_bytes,
                       struct safetensors *out, struct err *err) {
    static const char *const wanted[] = {"dtype", "shape", "data_offsets"};
    if (!json_is_object(object))
        return err_set(err, ERR_INPUT, "safetensors: tensor %s is not an object", name);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (json_object_get(object, wanted[i]) == NULL)
            return err_set(err, ERR_INPUT, "safetensors: tensor %s has no %s", name, wanted[i]);
    }
    struct safetensors_entry *entry = append_entry(out, name);
    return read_type(json_object_get(object, "dtype"), entry, err) &&
           read_shape(json_object_get(object, "shape"), entry, err) &&
           read_offsets(json_object_get(object, "data_offsets"), data, data_bytes, entry, err);
}

static int compare_places(const void *a, const void *b) {
    const struct safetensors_entry *const *x = a, *const *y = b;
    const uintptr_t at_x = (uintptr_t)(*x)->data, at_y = (uintptr_t)(*y)->data;
    if (at_x != at_y)
        return at_x < at_y ? -1 : 1;
    return ((*x)->size_bytes > (*y)->size_bytes) - ((*x)->size_bytes < (*y)->size_bytes);
}

/* The data of all tensors, side by side, are the whole of the file's data. */
static bool check_cover(const struct safetensors *file, const uint8_t *data, size_t data_bytes,
                        struct err *err) {
    const struct safetensors_entry **order = resize(NULL, file->n_entries, sizeof(*order));
    for (size_t i = 0; i < file->n_entries; i++)
        order[i] = &file->entries[i];
    qsort(order, file->n_entries, sizeof(*order), compare_places);
    size_t at = 0;
    bool good = true;
    for (size_t i = 0; i < file->n_entries && good; i++) {
        const size_t begin = (size_t)((const uint8_t *)order[i]->data - data);
        if (begin < at)
            good = err_set(err, ERR_INPUT, "safetensors: the data of tensors %s and %s overlap",
                           order[i - 1]->name, order[i]->name);
        else if (begin > at)
            good = err_set(err, ERR_INPUT,
                           "safetensors: %zu bytes before tensor %s belong to no tensor",
                           begin - at, order[i]->name);
        at = begin + order[i]->size_bytes;
    }
    if (good && at != data_bytes)
        good = err_set(err, ERR_INPUT, "safetensors: the last %zu bytes belong to no tensor",
                       data_bytes - at);
    free(order);
    return good;
}

static bool read_header(json_t *root, const uint8_t *data, size_t data_bytes,
                        struct safetensors *out, struct err *err) {
    const char *name;
    json_t *value;
    if (!json_is_object(root))
        return err_set(err, ERR_INPUT, "safetensors: the header is not a JSON object");
    json_object_foreach(root, name, value) {
        const bool good = strcmp(name, "__metadata__") == 0
                              ? read_metadata(value, out, err)
                              : read_entry(name, value, data, data_bytes, out, err);
        if (!good)
            return false;
    }
    return check_cover(out, data, data_bytes, err);
}

static bool parse_content(uint8_t *file, size_t size_bytes, struct safetensors *out,
                          struct err *err) {
    if (size_bytes < 8)
        return err_set(err, ERR_INPUT, "safetensors: %zu bytes are too few for a header",
                       size_bytes);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | file[i];
    if (length > MAX_HEADER_BYTES)
        return err_set(err, ERR_INPUT,
                       "safetensors: a header of %" PRIu64 " bytes: not a safetensors file",
                       length);
    if (length > size_bytes - 8)
        return err_set(err, ERR_INPUT,
                       "safetensors: truncated: the header has %" PRIu64 " bytes, the file %zu",
                       length, size_bytes);
    json_error_t cause;
    json_t *root =
        json_loadb((const char *)file + 8, (size_t)length, JSON_REJECT_DUPLICATES, &cause);
    if (root == NULL)
        return err_set(err, ERR_INPUT, "safetensors: the header is not JSON: %s (byte %d)",
                       cause.text, cause.position);
    /* A header that is no multiple of 8 long leaves the data unaligned; it is no longer needed. */
    uint8_t *data = file + 8 + length / 8 * 8;
    const size_t data_bytes = size_bytes - 8 - (size_t)length;
    memmove(data, file + 8 + length, data_bytes);
    const bool good = read_header(root, data, data_bytes, out, err);
    json_decref(root);
    return good;
}

bool safetensors_parse(uint8_t *data_taken, size_t size_bytes, struct safetensors *out,
                       struct err *err) {
    memset(out, 0, sizeof(*out));
    out->file = data_taken;
    if (parse_content(data_taken, size_bytes, out, err))
        return true;
    safetensors_free(out);
    return false;
}

bool safetensors_load(const char *path, struct safetensors *out, struct err *err) {
    uint8_t *data;
    size_t size_bytes;
    memset(out, 0, sizeof(*out));
    if (!file_read(path, &data, &size_bytes, err))
        return false;
    return safetensors_parse(data, size_bytes, out, err) || err_prefix(err, "%s", path);
}

/* --- writing --- */

void safetensors_add(struct safetensors *file, const char *name, enum safetensors_type type,
                     uint32_t rank, const uint64_t *dims, const void *data) {
    struct safetensors_entry *entry = append_entry(file, name);
    entry->type = type;
    entry->rank = rank < SAFETENSORS_MAX_RANK ? rank : SAFETENSORS_MAX_RANK;
    entry->size_bytes = types[type].size_bytes;
    for (uint32_t i = 0; i < entry->rank; i++) {
        entry->dims[i] = dims[i];
        entry->size_bytes *= (size_t)dims[i];
    }
    entry->data = data;
}

/*
 * Data lie in the order in which tensors were added, 8-byte entries first: then every tensor is
 * aligned to its element, and nothing lies between tensors, as the format wants.
 */
static bool lies_first(const struct safetensors_entry *entry) {
    return types[entry->type].size_bytes == 8;
}

static json_t *entry_json(const struct safetensors_entry *entry, uint64_t offset) {
    json_t *shape = json_array();
    for (uint32_t i = 0; i < entry->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)entry->dims[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[entry->type].name, "shape", shape,
                     "data_offsets", (json_int_t)offset, (json_int_t)(offset + entry->size_bytes));
}

/* NULL when a name occurs twice or is not UTF-8. */
static json_t *header_json(const struct safetensors *file) {
    json_t *root = json_object();
    size_t stored = 0;
    if (file->n_metadata > 0) {
        json_t *metadata = json_object();
        for (size_t i = 0; i < file->n_metadata; i++)
            json_object_set_new(metadata, file->keys[i], json_string(file->values[i]));
        stored += json_object_size(metadata);
        json_object_set_new(root, "__metadata__", metadata);
    }
    uint64_t offset = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < file->n_entries; i++) {
            const struct safetensors_entry *entry = &file->entries[i];
            if (lies_first(entry) != (pass == 0))
                continue;
            json_object_set_new(root, entry->name, entry_json(entry, offset));
            offset += entry->size_bytes;
        }
    }
    stored += json_object_size(root) - (file->n_metadata > 0);
    if (stored != file->n_entries + file->n_metadata) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static void write_content(const struct safetensors *file, const char *header, FILE *stream) {
    const uint64_t length = strlen(header), padded = align_up(length, 8);
    for (int i = 0; i < 8; i++)
        fputc((int)(padded >> (8 * i) & 0xff), stream);
    fputs(header, stream);
    for (uint64_t i = length; i < padded; i++)
        fputc(' ', stream);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < file->n_entries; i++) {
            const struct safetensors_entry *entry = &file->entries[i];
            if (lies_first(entry) == (pass == 0) && entry->size_bytes > 0)
                fwrite(entry->data, 1, entry->size_bytes, stream);
        }
    }
}

bool safetensors_save(const struct safetensors *file, const char *path, struct err *err) {
    json_t *root = header_json(file);
    if (root == NULL)
        return err_set(err, ERR_INPUT, "%s: a name occurs twice, or a text is not UTF-8", path);
    char *header = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (header == NULL)
        return err_set(err, ERR_INPUT, "%s: the header cannot be written as JSON", path);
    struct file_writer writer;
    bool good = file_writer_open(&writer, path, err);
    if (good) {
        write_content(file, header, writer.stream);
        good = file_writer_commit(&writer, err);
    }
    free(header);
    return good;
}
