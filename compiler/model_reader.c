/*
 * model_reader.c: reporting mistakes of a model, and typed access to the fields of its maps. Every
 * message names the field, what was found and what is possible.
 */
#include "compiler/model_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static uint64_t hash_text(const char *text) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a, 64 bits */
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

static bool already_reported(struct reader *reader, struct diag_pos pos, uint64_t hash) {
    for (size_t i = 0; i < reader->reported.count; i++) {
        const struct reported *old = &reader->reported.items[i];
        if (old->pos.line == pos.line && old->pos.column == pos.column && old->hash == hash)
            return true;
    }
    vec_push(&reader->reported, ((struct reported){pos, hash}));
    return false;
}

#define USES_SHOWN 4

/* "in block double, used in line 12, in block encoder, used in line 31" */
static void describe_uses(const struct block_use *use, char *text, size_t size) {
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; use != NULL && i < USES_SHOWN && length < size; i++, use = use->outer)
        length += (size_t)snprintf(text + length, size - length, "%sin block %s, used in line %d",
                                   i > 0 ? ", " : "", use->block, use->pos.line);
}

void reader_error(struct reader *reader, struct diag_pos pos, const char *format, ...) {
    char message[768], uses[640];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    reader->last_shown = !already_reported(reader, pos, hash_text(message));
    if (!reader->last_shown)
        return;
    if (reader->set != NULL) {
        diag_error(reader->diag, pos, "--set %.100s=%.100s: %s", reader->set->name,
                   reader->set->value, message);
        return;
    }
    describe_uses(reader->use, uses, sizeof(uses));
    if (uses[0] != '\0')
        diag_error(reader->diag, pos, "%s (%s)", message, uses);
    else
        diag_error(reader->diag, pos, "%s", message);
}

void reader_hint(struct reader *reader, const char *format, ...) {
    char message[1024];
    va_list args;
    if (!reader->last_shown)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    diag_hint(reader->diag, "%s", message);
}

#define HINT_LIST_MAX 400

void reader_hint_names(struct reader *reader, const char *word, const char *const *names,
                       size_t count) {
    char list[HINT_LIST_MAX + 160];
    size_t length = 0;
    if (count == 0 || !reader->last_shown || reader->diag->count > DIAG_MAX)
        return;
    const char *near = diag_did_you_mean(word, names, count);
    list[0] = '\0';
    size_t i = 0;
    for (; i < count && length < HINT_LIST_MAX; i++)
        length += (size_t)snprintf(list + length, sizeof(list) - length, "%s%.100s",
                                   i > 0 ? ", " : "", names[i]);
    const char *rest = i < count ? ", ..." : "";
    if (near != NULL)
        reader_hint(reader, "did you mean \"%s\"? (known: %s%s)", near, list, rest);
    else
        reader_hint(reader, "known: %s%s", list, rest);
}

bool field_check(struct reader *reader, const struct tree *map, const char *what,
                 const char *const *names, size_t count) {
    if (map->kind != TREE_MAP) {
        reader_error(reader, map->pos, "%s must be a map of \"key: value\", not %s", what,
                     tree_kind_name(map));
        reader_hint_names(reader, "", names, count);
        return false;
    }
    for (size_t i = 0; i < map->count; i++) {
        bool known = false;
        for (size_t j = 0; j < count && !known; j++)
            known = strcmp(map->keys[i]->text, names[j]) == 0;
        if (known)
            continue;
        reader_error(reader, map->keys[i]->pos, "%s has no \"%.60s\"", what, map->keys[i]->text);
        reader_hint_names(reader, map->keys[i]->text, names, count);
    }
    return true;
}

/* The value of a scalar field. False: reported, or broken earlier. */
static bool scalar_value(struct reader *reader, const struct tree *tree,
                         const struct variable *scope, const char *what, const char *wanted,
                         struct model_value *out) {
    if (tree->kind != TREE_SCALAR || tree_is_empty(tree)) {
        reader_error(reader, tree->pos, "%s must be %s, not %s", what, wanted,
                     tree_kind_name(tree));
        return false;
    }
    *out = expr_value(reader, tree, scope);
    return out->kind != MODEL_BROKEN;
}

bool field_number(struct reader *reader, const struct tree *tree, const struct variable *scope,
                  const char *what, double min, double max, double *out) {
    struct model_value value;
    if (!scalar_value(reader, tree, scope, what, "a number", &value))
        return false;
    if (value.kind != MODEL_NUMBER) {
        reader_error(reader, tree->pos, "%s must be a number, not \"%.60s\"", what, value.text);
        if (expr_is_name(value.text) || strpbrk(value.text, "*+-/(") != NULL)
            reader_hint(reader, "variables and arithmetic stand in ${...}");
        return false;
    }
    if (value.number < min || value.number > max) {
        reader_error(reader, tree->pos, "%s is %s, outside %.10g to %.10g", what,
                     expr_text(reader->arena, value), min, max);
        return false;
    }
    *out = value.number;
    return true;
}

bool field_float(struct reader *reader, const struct tree *tree, const struct variable *scope,
                 const char *what, double min, double max, float *out) {
    double number;
    if (!field_number(reader, tree, scope, what, min, max, &number))
        return false;
    *out = (float)number;
    return true;
}

bool field_int(struct reader *reader, const struct tree *tree, const struct variable *scope,
               const char *what, int min, int max, int *out) {
    double number;
    if (!field_number(reader, tree, scope, what, -MODEL_NUMBER_MAX, MODEL_NUMBER_MAX, &number))
        return false;
    const struct model_value value = {.kind = MODEL_NUMBER, .number = number};
    if (number != floor(number)) {
        reader_error(reader, tree->pos, "%s must be a whole number, not %s", what,
                     expr_text(reader->arena, value));
        reader_hint(reader, "floor(x), ceil(x) and round(x) make one inside ${...}");
        return false;
    }
    if (number < min || number > max) {
        reader_error(reader, tree->pos, "%s is %s, outside %d to %d", what,
                     expr_text(reader->arena, value), min, max);
        return false;
    }
    *out = (int)number;
    return true;
}

bool field_pair(struct reader *reader, const struct tree *tree, const struct variable *scope,
                const char *what, int min, int max, int out[2]) {
    int pair[2];
    if (tree->kind != TREE_LIST) {
        if (!field_int(reader, tree, scope, what, min, max, &pair[0]))
            return false;
        out[0] = out[1] = pair[0];
        return true;
    }
    if (tree->count != 2) {
        reader_error(reader, tree->pos, "%s must be one number or [height, width], not %zu numbers",
                     what, tree->count);
        return false;
    }
    if (!field_int(reader, tree->items[0], scope, what, min, max, &pair[0]) ||
        !field_int(reader, tree->items[1], scope, what, min, max, &pair[1]))
        return false;
    out[0] = pair[0];
    out[1] = pair[1];
    return true;
}

bool field_bool(struct reader *reader, const struct tree *tree, const struct variable *scope,
                const char *what, bool *out) {
    struct model_value value;
    if (!scalar_value(reader, tree, scope, what, "true or false", &value))
        return false;
    if (value.kind == MODEL_NUMBER && (value.number == 0 || value.number == 1)) {
        *out = value.number != 0;
        return true;
    }
    const char *text = expr_text(reader->arena, value);
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        *out = text[0] == 't';
        return true;
    }
    reader_error(reader, tree->pos, "%s must be true or false, not \"%.60s\"", what, text);
    return false;
}

const char *field_text(struct reader *reader, const struct tree *tree, const struct variable *scope,
                       const char *what) {
    struct model_value value;
    if (!scalar_value(reader, tree, scope, what, "text", &value))
        return NULL;
    const char *text = expr_text(reader->arena, value);
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ') {
            reader_error(reader, tree->pos, "%s must be one line of text", what);
            return NULL;
        }
    if (text[0] == '\0') {
        reader_error(reader, tree->pos, "%s is empty", what);
        return NULL;
    }
    return text;
}

bool field_choice(struct reader *reader, const struct tree *tree, const struct variable *scope,
                  const char *what, const char *const *names, size_t count, int *out) {
    const char *text = field_text(reader, tree, scope, what);
    if (text == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (int)i;
            return true;
        }
    reader_error(reader, tree->pos, "%s cannot be \"%.60s\"", what, text);
    reader_hint_names(reader, text, names, count);
    return false;
}

const char *field_name(struct reader *reader, const struct tree *tree, const struct variable *scope,
                       const char *what) {
    const char *text = field_text(reader, tree, scope, what);
    if (text == NULL)
        return NULL;
    const size_t good = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789_-.");
    if (text[good] != '\0' || strlen(text) > 64) {
        reader_error(reader, tree->pos, "%s \"%.64s\" is not a name", what, text);
        reader_hint(reader, "up to 64 letters, digits, \"_\", \"-\" and \".\"");
        return NULL;
    }
    return text;
}
