/*
 * model_samples.c: the sections augment: and weights: of a model file: how training samples vary,
 * and how much their pixels count in the loss. What the numbers do is the runtime's part
 * (runtime/data/augment.h, weightmap.h).
 */
#include <string.h>

#include "compiler/model_reader.h"

/* A part of augment: is a map, or a lone number that stands for its main field. */
struct part {
    struct reader *reader;
    const struct variable *scope;
    const char *name, *main;
    const struct tree *tree;
};

static const struct tree *part_field(const struct part *part, const char *key) {
    if (part->tree->kind == TREE_MAP)
        return tree_get(part->tree, key);
    return part->main != NULL && strcmp(part->main, key) == 0 ? part->tree : NULL;
}

static const char *field_label(const struct part *part, const char *key) {
    return arena_printf(part->reader->arena, "%s of %s", key, part->name);
}

/* False: not there, or reported. */
static bool part_float(const struct part *part, const char *key, double min, double max,
                       float *out) {
    const struct tree *field = part_field(part, key);
    return field != NULL &&
           field_float(part->reader, field, part->scope, field_label(part, key), min, max, out);
}

/* Opens a part and checks its keys; false when it is not there or is no map of them. */
static bool part_open(struct part *part, const struct tree *section, const char *const *keys,
                      size_t n_keys) {
    part->tree = tree_get(section, part->name);
    if (part->tree == NULL)
        return false;
    if (part->main != NULL && part->tree->kind != TREE_MAP)
        return true;
    return field_check(part->reader, part->tree, part->name, keys, n_keys);
}

static void read_elastic(struct part part, const struct tree *section, struct plan_augment *out) {
    static const char *const keys[] = {"grid", "sigma", "probability"};
    int grid = 3;
    part.name = "elastic";
    part.main = "sigma";
    if (!part_open(&part, section, keys, ARRAY_LEN(keys)))
        return;
    const struct tree *field = part_field(&part, "grid");
    if (field != NULL)
        field_int(part.reader, field, part.scope, "grid of elastic", 2, (int)PLAN_MAX_ELASTIC_GRID,
                  &grid);
    out->elastic_sigma = 10;
    out->elastic_probability = 1;
    part_float(&part, "sigma", 0, 1000, &out->elastic_sigma);
    part_float(&part, "probability", 0, 1, &out->elastic_probability);
    const bool off = out->elastic_sigma == 0 || out->elastic_probability == 0;
    out->elastic_grid = off ? 0 : (uint32_t)grid;
}

static void read_rotate(struct part part, const struct tree *section, struct plan_augment *out) {
    static const char *const keys[] = {"degrees", "step", "probability"};
    part.name = "rotate";
    part.main = "degrees";
    if (!part_open(&part, section, keys, ARRAY_LEN(keys)))
        return;
    out->rotate_degrees = 180;
    out->rotate_probability = 1;
    const struct tree *degrees = part_field(&part, "degrees");
    if (degrees != NULL && !part_float(&part, "degrees", 0, 180, &out->rotate_degrees))
        reader_hint(part.reader, "the angle goes as far to both sides: 180 is the full circle");
    part_float(&part, "step", 0, 180, &out->rotate_step);
    part_float(&part, "probability", 0, 1, &out->rotate_probability);
    if (out->rotate_degrees > 0 && out->rotate_step > out->rotate_degrees) {
        reader_error(part.reader, part_field(&part, "step")->pos,
                     "a step of %g degrees within %g to each side: nothing would turn",
                     (double)out->rotate_step, (double)out->rotate_degrees);
        reader_hint(part.reader, "quarter turns are {degrees: 180, step: 90}");
    }
}

static void read_scale(struct part part, const struct tree *section, struct plan_augment *out) {
    static const char *const keys[] = {"from", "to", "probability"};
    part.name = "scale";
    if (!part_open(&part, section, keys, ARRAY_LEN(keys)))
        return;
    out->scale_probability = 1;
    part_float(&part, "from", 0.1, 10, &out->scale_min);
    part_float(&part, "to", 0.1, 10, &out->scale_max);
    part_float(&part, "probability", 0, 1, &out->scale_probability);
    if (out->scale_min > out->scale_max)
        reader_error(part.reader, part.tree->pos, "scale goes from %g down to %g",
                     (double)out->scale_min, (double)out->scale_max);
}

/* "slope: 0.2" is 0.8 to 1.2. */
static void read_slope(const struct part *grey, struct plan_augment *out) {
    static const char *const keys[] = {"from", "to"};
    const struct tree *slope = part_field(grey, "slope");
    struct part part = *grey;
    float width = 0;
    if (slope == NULL)
        return;
    if (slope->kind != TREE_MAP) {
        if (part_float(grey, "slope", 0, 0.99, &width)) {
            out->grey_slope_min = 1 - width;
            out->grey_slope_max = 1 + width;
        }
        return;
    }
    part.name = "slope";
    if (!part_open(&part, grey->tree, keys, ARRAY_LEN(keys)))
        return;
    part_float(&part, "from", 0.01, 1.99, &out->grey_slope_min);
    part_float(&part, "to", 0.01, 1.99, &out->grey_slope_max);
    if (out->grey_slope_min > out->grey_slope_max)
        reader_error(part.reader, slope->pos, "slope goes from %g down to %g",
                     (double)out->grey_slope_min, (double)out->grey_slope_max);
}

static void read_grey(struct part part, const struct tree *section, struct plan_augment *out) {
    static const char *const keys[] = {"black", "white", "slope", "probability"};
    part.name = "grey";
    if (!part_open(&part, section, keys, ARRAY_LEN(keys)))
        return;
    out->grey_probability = 1;
    part_float(&part, "black", 0, 0.49, &out->grey_black);
    part_float(&part, "white", 0, 0.49, &out->grey_white);
    part_float(&part, "probability", 0, 1, &out->grey_probability);
    read_slope(&part, out);
}

static bool is_word(struct reader *reader, const struct tree *tree, const struct variable *scope,
                    const char *word) {
    if (tree->kind != TREE_SCALAR)
        return false;
    const struct model_value value = expr_value(reader, tree, scope);
    return value.kind == MODEL_TEXT && strcmp(value.text, word) == 0;
}

void settings_read_augment(struct reader *reader, const struct tree *tree,
                           const struct variable *scope) {
    static const char *const keys[] = {"elastic", "rotate", "mirror",       "scale",
                                       "shift",   "grey",   "interpolation"};
    static const char *const interpolations[] = {"linear", "cubic"};
    struct plan_augment *out = &reader->model->settings.augment;
    const struct part part = {.reader = reader, .scope = scope};
    if (is_word(reader, tree, scope, "none"))
        return;
    if (!field_check(reader, tree, "augment", keys, ARRAY_LEN(keys)))
        return;
    read_elastic(part, tree, out);
    read_rotate(part, tree, out);
    read_scale(part, tree, out);
    read_grey(part, tree, out);
    const struct tree *field = tree_get(tree, "mirror");
    if (field != NULL)
        field_float(reader, field, scope, "mirror", 0, 1, &out->mirror_probability);
    field = tree_get(tree, "shift");
    if (field != NULL)
        field_bool(reader, field, scope, "shift", &out->shift);
    field = tree_get(tree, "interpolation");
    int choice = out->cubic;
    if (field != NULL)
        field_choice(reader, field, scope, "interpolation", interpolations,
                     ARRAY_LEN(interpolations), &choice);
    out->cubic = choice != 0;
}

void settings_read_weights(struct reader *reader, const struct tree *map,
                           const struct variable *scope) {
    static const char *const keys[] = {"balance", "border", "sigma"};
    struct plan_model *settings = &reader->model->settings;
    struct plan_weights *out = &settings->weights;
    bool instances = settings->n_labels == 0; /* labels: broken, reported already */
    if (!field_check(reader, map, "weights", keys, ARRAY_LEN(keys)))
        return;
    const struct tree *field = tree_get(map, "balance");
    if (field != NULL)
        field_float(reader, field, scope, "balance", 0, 1, &out->balance);
    field = tree_get(map, "sigma");
    if (field != NULL)
        field_float(reader, field, scope, "sigma", 0.1, 1000, &out->sigma);
    field = tree_get(map, "border");
    if (field == NULL || !field_float(reader, field, scope, "border", 0, 1e4, &out->border))
        return;
    for (uint32_t i = 0; i < settings->n_labels; i++)
        instances = instances || settings->labels[i].instances;
    if (out->border > 0 && !instances) {
        reader_error(reader, field->pos,
                     "border weights the gaps between objects, but no row of labels has instances");
        reader_hint(reader, "where every label value is an object of its own, write "
                            "{value: other, class: cell, instances: true}; else border: 0");
    }
}
