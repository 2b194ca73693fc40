/*
 * target.c: the device that a plan is compiled for: limits files (docs/targets.md) as "unetrun
 * devices --target" writes them, and those that are built in, which are such files
 * (compiler/targets/).
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/diag.h"
#include "common/file.h"
#include "common/plan_limits.h"
#include "compiler/compiler.h"
#include "compiler/model_yaml.h"

#define BUILT_IN(number) extern const char unet_target_##number[], unet_target_##number##_end[]
BUILT_IN(0);
BUILT_IN(1);
BUILT_IN(2);
BUILT_IN(3);
BUILT_IN(4);
BUILT_IN(5);

/* In the order of compiler/meson.build. */
static const struct {
    const char *name, *begin, *end;
} built_in[] = {
    {"generic", unet_target_0, unet_target_0_end}, {"lavapipe", unet_target_1, unet_target_1_end},
    {"amd", unet_target_2, unet_target_2_end},     {"nvidia", unet_target_3, unet_target_3_end},
    {"intel", unet_target_4, unet_target_4_end},   {"small", unet_target_5, unet_target_5_end},
};

const char *const *unet_target_names(void) {
    static const char *names[ARRAY_LEN(built_in) + 1];
    for (size_t i = 0; i < ARRAY_LEN(built_in); i++) {
        names[i] = built_in[i].name;
    }
    return names;
}

/* ---- one file ---- */

struct reading {
    struct unet_target *target;
    struct diag *diag;
};

static void read_number(struct reading *reading, const struct plan_limits_field *field,
                        uint32_t index, const struct tree *tree) {
    char takes[80];
    uint64_t value;
    if (tree->kind == TREE_SCALAR && plan_limits_value(field, tree->text, &value)) {
        plan_limits_set(&reading->target->limits, field, index, value);
        return;
    }
    diag_error(reading->diag, tree->pos, "%s is %s", field->name,
               plan_limits_describe(field, takes, sizeof(takes)));
}

/* Terminals obey control characters, and names are printed. */
static bool is_printable(const char *text) {
    for (; *text != '\0'; text++) {
        if (iscntrl((unsigned char)*text)) {
            return false;
        }
    }
    return true;
}

static void read_name(struct reading *reading, const struct tree *tree) {
    if (tree->kind != TREE_SCALAR || tree_is_empty(tree) || !is_printable(tree->text)) {
        diag_error(reading->diag, tree->pos, "name is the device's, of characters that print");
        return;
    }
    snprintf(reading->target->name, sizeof(reading->target->name), "%s", tree->text);
}

static void refuse_key(struct reading *reading, const struct tree *key) {
    const struct plan_limits_field *fields;
    const char *names[32] = {PLAN_LIMITS_NAME};
    size_t n_names = 1 + plan_limits_fields(&fields);
    for (size_t i = 1; i < n_names; i++) {
        names[i] = fields[i - 1].name;
    }
    diag_error(reading->diag, key->pos, "there is no limit \"%s\"", key->text);
    const char *meant = diag_did_you_mean(key->text, names, n_names);
    if (meant) {
        diag_hint(reading->diag, "did you mean %s?", meant);
    } else {
        diag_hint(reading->diag, "docs/targets.md lists them");
    }
}

static void read_pair(struct reading *reading, const struct tree *key, const struct tree *value) {
    const struct plan_limits_field *field = plan_limits_find(key->text, strlen(key->text));
    if (strcmp(key->text, PLAN_LIMITS_NAME) == 0) {
        read_name(reading, value);
    } else if (!field) {
        refuse_key(reading, key);
    } else if (field->count == 1) {
        read_number(reading, field, 0, value);
    } else if (value->kind != TREE_LIST || value->count != field->count) {
        diag_error(reading->diag, value->pos, "%s is a list of %u numbers: [x, y, z]", field->name,
                   field->count);
    } else {
        for (uint32_t i = 0; i < field->count; i++) {
            read_number(reading, field, i, value->items[i]);
        }
    }
}

/* Nothing but remarks and blanks. */
static bool is_empty(const char *text) {
    while (*text != '\0') {
        text += strspn(text, " \t\r\n");
        if (*text != '#') {
            return *text == '\0';
        }
        text += strcspn(text, "\n");
    }
    return true;
}

static void read_text(struct reading *reading, struct arena *arena, const char *text) {
    const struct diag_pos start = {1, 1};
    struct tree *tree = NULL;
    if (is_empty(text)) {
        diag_error(reading->diag, (struct diag_pos){0, 0}, "there is no limit in it");
        return;
    }
    if (!yaml_read(arena, text, &tree, reading->diag)) {
        return;
    }
    if (tree->kind != TREE_MAP) {
        diag_error(reading->diag, start, "a limits file is a list of lines \"name: value\"");
        return;
    }
    for (size_t i = 0; i < tree->count; i++) {
        read_pair(reading, tree->keys[i], tree->items[i]);
    }
}

/* What the text leaves out is as plans without a target have it. */
static bool parse(const char *file, const char *text, FILE *diagnostics, struct unet_target *target,
                  struct err *err) {
    struct arena arena = {0};
    struct diag diag;
    diag_init(&diag, file, text);
    snprintf(target->name, sizeof(target->name), "%s", file);
    target->limits = plan_limits_minimum(PLAN_CLASS_GPU);
    target->limits.device = NULL; /* of a target that may move */
    struct reading reading = {target, &diag};
    read_text(&reading, &arena, text);
    const size_t count = diag.count;
    if (count > 0) {
        if (diagnostics) {
            diag_print(&diag, diagnostics);
        }
        err_set(err, ERR_INPUT, "%s: %zu mistake%s in the limits of a device", file, count,
                count == 1 ? "" : "s");
        err_hint(err, "unetrun devices --target FILE writes such a file");
    }
    diag_free(&diag);
    arena_free(&arena);
    return count == 0;
}

static bool parse_built_in(size_t number, struct unet_target *target, struct err *err) {
    const size_t length = (size_t)(built_in[number].end - built_in[number].begin);
    char *text = malloc(length + 1);
    if (!text) {
        return err_set(err, ERR_IO, "out of memory");
    }
    memcpy(text, built_in[number].begin, length);
    text[length] = '\0';
    const bool good = parse(built_in[number].name, text, NULL, target, err);
    free(text);
    return good;
}

static bool hint_names(struct err *err) {
    char names[160] = "";
    for (size_t i = 0; i < ARRAY_LEN(built_in); i++) {
        strcat(names, i > 0 ? ", " : "");
        strcat(names, built_in[i].name);
    }
    return err_hint(err, "a target is a limits file, or one of %s", names);
}

static bool parse_file(const char *path, FILE *diagnostics, struct unet_target *target,
                       struct err *err) {
    uint8_t *bytes;
    size_t size_bytes;
    if (!strpbrk(path, "./") && !file_exists(path)) {
        err_set(err, ERR_USAGE, "--target %s: there is no target of that name", path);
        return hint_names(err);
    }
    if (!file_read(path, &bytes, &size_bytes, err)) {
        return hint_names(err);
    }
    const bool good =
        memchr(bytes, 0, size_bytes)
            ? err_set(err, ERR_INPUT, "%s: not a limits file: it holds a zero byte", path)
            : parse(path, (const char *)bytes, diagnostics, target, err);
    free(bytes);
    return good;
}

bool unet_target_find(const char *name_or_file, FILE *diagnostics, struct unet_target *target,
                      struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(built_in); i++) {
        if (strcmp(built_in[i].name, name_or_file) == 0) {
            return parse_built_in(i, target, err);
        }
    }
    return parse_file(name_or_file, diagnostics, target, err);
}

/* ---- a plan for a target ---- */

bool unet_target_check(const struct plan *plan, const struct unet_target *target,
                       struct plan_limits *used_out, struct err *err) {
    struct plan_limits limits = target->limits;
    limits.device = target->name;
    limits = plan_limits_choose(plan, limits);
    if (used_out) {
        *used_out = limits;
    }
    if (plan_fits(plan, &limits, err)) {
        return true;
    }
    if (err) {
        err->code = ERR_INPUT; /* there is no device here that could be at fault */
        err->hint[0] = '\0';
    }
    return err_hint(err, "a smaller tile, batch or width makes smaller tensors");
}
