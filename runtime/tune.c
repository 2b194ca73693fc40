/*
 * tune.c: see tune.h.
 */
#include "runtime/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/log.h"
#include "runtime/cachedir.h"

#define HEAD                                                                                       \
    "# unetrun tune: [device | driver | kind of device], then \"shape: fastest method # "          \
    "times\".\n"

const char *tune_key(const struct unet_device *device, enum plan_device kind,
                     char text[TUNE_KEY_TEXT]) {
    snprintf(text, TUNE_KEY_TEXT, "%s | %s | %s", device->info.name, device->info.driver,
             plan_device_name(kind));
    return text;
}

char *unet_tune_path(void) {
    const char *path = getenv("UNET_TUNE");
    if (path != NULL && path[0] != '\0' && strcmp(path, "off") != 0)
        return strdup(path);
    return cachedir_path("UNET_TUNE", "tune.txt");
}

/* ---- reading ---- */

/* The name of a kernel, then words NAME=VALUE. */
static bool is_shape(const char *text) {
    char name[64];
    size_t length = strcspn(text, " ");
    if (length >= sizeof(name))
        return false;
    memcpy(name, text, length);
    name[length] = '\0';
    if (kernel_find(name) < 0)
        return false;
    while (text[length] == ' ') {
        text += length + 1;
        length = strcspn(text, " ");
        const char *equal = memchr(text, '=', length);
        if (equal == NULL || equal == text || equal + 1 == text + length)
            return false;
    }
    return true;
}

/* "SHAPE: METHOD # NOTE"; NULL, or what is wrong with the line, which is taken apart. */
static const char *parse_line(struct tune *tune, const char *device, char *line) {
    struct tune_line out = {.device = device, .note = ""};
    char *note = strchr(line, '#'), *colon = strchr(line, ':');
    if (note != NULL) {
        *note++ = '\0';
        out.note = note + strspn(note, " ");
    }
    if (colon == NULL || (note != NULL && colon > note))
        return "no \"shape: method\"";
    *colon = '\0';
    const char *method = colon + 1 + strspn(colon + 1, " ");
    if (device == NULL)
        return "no device above it";
    if (!is_shape(line))
        return "no shape of a kernel";
    if (!plan_method_find(method, strcspn(method, " "), &out.kind))
        return "no such method";
    out.shape = line;
    vec_push(&tune->lines, out);
    return NULL;
}

static void parse(struct tune *tune, const char *path, char *text) {
    const char *device = NULL;
    uint32_t number = 1;
    for (char *line = text, *next; line != NULL; line = next, number++) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        const size_t length = strlen(line);
        if (line[0] == '#' || length == 0)
            continue;
        const char *wrong = NULL;
        if (line[0] == '[') {
            const bool closed = line[length - 1] == ']';
            wrong = closed ? NULL : "an unfinished device";
            line[length - closed] = '\0';
            device = closed ? line + 1 : NULL;
        } else {
            wrong = parse_line(tune, device, line);
        }
        if (wrong != NULL)
            log_print(LOG_WARNING, "%s:%u: %s: ignored", path, number, wrong);
    }
}

void tune_load(struct tune *tune, const char *path) {
    char *usual = path == NULL ? unet_tune_path() : NULL;
    uint8_t *data = NULL;
    size_t size_bytes = 0;
    struct err err = {0};
    *tune = (struct tune){.lines = {0}};
    if (path == NULL)
        path = usual;
    if (path != NULL && file_exists(path)) {
        if (file_read(path, &data, &size_bytes, &err)) {
            char *text = arena_alloc(&tune->arena, size_bytes + 1);
            memcpy(text, data, size_bytes);
            text[size_bytes] = '\0';
            parse(tune, path, text);
        } else {
            log_print(LOG_WARNING, "%s: ignored", err.text);
        }
    }
    free(data);
    free(usual);
}

void tune_free(struct tune *tune) {
    vec_free(&tune->lines);
    arena_free(&tune->arena);
}

const struct tune_line *tune_find(const struct tune *tune, const char *device, const char *shape) {
    for (size_t i = tune->lines.count; i-- > 0;) { /* of several the last */
        const struct tune_line *line = &tune->lines.items[i];
        if (strcmp(line->device, device) == 0 && strcmp(line->shape, shape) == 0)
            return line;
    }
    return NULL;
}

/* ---- writing ---- */

static void replace(struct tune *tune, const struct tune_line *line) {
    const struct tune_line *old = tune_find(tune, line->device, line->shape);
    if (old != NULL)
        tune->lines.items[old - tune->lines.items] = *line;
    else
        vec_push(&tune->lines, *line);
}

/* Devices in the order of their first line, each once. */
static void print(const struct tune *tune, FILE *stream) {
    fputs(HEAD, stream);
    for (size_t i = 0; i < tune->lines.count; i++) {
        const char *device = tune->lines.items[i].device;
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen = seen || strcmp(tune->lines.items[j].device, device) == 0;
        if (seen)
            continue;
        fprintf(stream, "\n[%s]\n", device);
        for (size_t j = i; j < tune->lines.count; j++) {
            const struct tune_line *line = &tune->lines.items[j];
            if (strcmp(line->device, device) == 0)
                fprintf(stream, "%s: %s%s%s\n", line->shape, plan_method_name(line->kind),
                        line->note[0] != '\0' ? " # " : "", line->note);
        }
    }
}

bool unet_tune_save(const struct unet_device *device, const struct plan *plan, const char *path,
                    const struct unet_tuned *tuned, size_t count, struct err *err) {
    const struct plan_limits limits = device->backend->limits(device, plan);
    char key[TUNE_KEY_TEXT];
    char *text = NULL;
    size_t length = 0;
    struct tune tune;
    tune_key(device, exec_device_kind(device, &limits), key);
    tune_load(&tune, path);
    for (size_t i = 0; i < count; i++) {
        const struct tune_line line = {key, tuned[i].shape, tuned[i].kind, tuned[i].note};
        replace(&tune, &line);
    }
    FILE *stream = open_memstream(&text, &length);
    bool good = stream != NULL || err_set(err, ERR_IO, "%s: out of memory", path);
    if (good) {
        print(&tune, stream);
        fclose(stream);
        good = file_write(path, text, length, err);
    }
    free(text);
    tune_free(&tune);
    return good;
}
