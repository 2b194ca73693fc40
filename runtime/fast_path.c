/*
 * fast_path.c: what can be switched off by name: the methods of plans, which native kernels follow
 * too, and what chooses among them; and that the variables of the environment are understood.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/exec.h"

static const struct unet_fast_path paths[] = {
    {"direct", "convolutions as sums over taps and channels, the plain way"},
    {"winograd", "convolutions with fewer multiplications: Vulkan devices and native kernels"},
    {"narrow", "direct convolutions with tiles of fewer output channels: Vulkan devices"},
    {"split", "weight gradients in more parts, for devices with many processors: Vulkan devices"},
    {"matrix", "matrix units, for models with \"precision: mixed\": Vulkan devices that have them"},
    {"winograd2", "convolutions with fewer multiplications in one kernel: GPUs, where unetrun tune "
                  "finds it faster"},
    {"tune-file", "what unetrun tune measured here"},
    {"defaults", "what was measured for known drivers before"},
};

_Static_assert(ARRAY_LEN(paths) == EXEC_DISABLE_COUNT, "a row for each");

size_t unet_fast_paths(const struct unet_fast_path **paths_out) {
    *paths_out = paths;
    return ARRAY_LEN(paths);
}

bool unet_fast_path_is_off(const struct unet_device *device, size_t number) {
    return (device->disabled >> number & 1u) != 0;
}

static bool fail_name(const char *source, const char *name, size_t length, struct err *err) {
    char list[160] = "";
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        strcat(list, i > 0 ? ", " : "");
        strcat(list, paths[i].name);
    }
    err_set(err, ERR_USAGE, "%s: there is no fast path \"%.*s\"", source, (int)length, name);
    return err_hint(err, "names: %s", list);
}

bool fast_path_parse(const char *source, const char *list, uint32_t *bits, struct err *err) {
    while (list != NULL && *list != '\0') {
        const size_t length = strcspn(list, ",");
        bool found = false;
        for (uint32_t i = 0; i < ARRAY_LEN(paths); i++) {
            if (strlen(paths[i].name) != length || strncmp(paths[i].name, list, length) != 0)
                continue;
            *bits |= 1u << i;
            found = true;
        }
        if (!found)
            return fail_name(source, list, length, err);
        list += length + (list[length] == ',');
    }
    return true;
}

static const struct number {
    const char *variable, *unit;
    double least, most;
} numbers[] = {
    {"UNET_DEVICE_WAIT", "seconds", 0, 1e6},
    {"UNET_DEVICE_TIMEOUT", "seconds", 1, 1e6},
    {"UNET_SUBMISSION", "milliseconds", 1, 1e4},
};

static bool read_number(const struct number *number, double *value, struct err *err) {
    const char *text = getenv(number->variable);
    if (text == NULL || text[0] == '\0')
        return true;
    char *end;
    const double given = strtod(text, &end);
    if (end == text || *end != '\0' || !(given >= number->least && given <= number->most)) {
        err_set(err, ERR_USAGE, "%s=%s: %s are wanted, %.0f to %.0f", number->variable, text,
                number->unit, number->least, number->most);
        return err_hint(err, "%s is a number of %s, or not set", number->variable, number->unit);
    }
    *value = given;
    return true;
}

bool fast_path_number(const char *variable, double *value, struct err *err) {
    size_t i = 0;
    while (strcmp(numbers[i].variable, variable) != 0)
        i++;
    return read_number(&numbers[i], value, err);
}

/* Variables that are read where no error can be told, or only by some devices or only when one is
   lost: a mistake in one would go unnoticed. */
bool fast_path_check_words(struct err *err) {
    static const struct {
        const char *variable, *words[2];
    } switches[] = {
        {"UNET_STAGING", {"0", "1"}},
        {"UNET_KNOWN_BAD", {"on", "off"}},
        {"UNET_PIPELINE_CACHE", {"on", "off"}},
        {"UNET_WEIGHT_CACHE", {"on", "off"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(switches); i++) {
        const char *value = getenv(switches[i].variable);
        const char *const *words = switches[i].words;
        if (value == NULL || value[0] == '\0' || strcmp(value, words[0]) == 0 ||
            strcmp(value, words[1]) == 0)
            continue;
        err_set(err, ERR_USAGE, "%s=%s: no such setting", switches[i].variable, value);
        return err_hint(err, "%s is %s or %s, or not set", switches[i].variable, words[0],
                        words[1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        double value;
        if (!read_number(&numbers[i], &value, err))
            return false;
    }
    return true;
}
