/*
 * model_read.c: a model file becomes a struct model. The order: YAML (model_yaml.c), let: with the
 * overrides of --set, input: labels: train: (model_settings.c), augment: weights:
 * (model_samples.c), blocks: and layers: (model_layers.c), checks of the whole (model_check.c), the
 * hash (model_hash.c).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/model_reader.h"

static struct model *make_model(const char *file_name, const char *text) {
    struct model *model = calloc(1, sizeof(*model));
    if (model == NULL)
        abort();
    model->file = arena_strdup(&model->arena, file_name);
    model->text = arena_strdup(&model->arena, text);
    model->channels = 1;
    model->margin = -1;
    model->momentum = 0.9f;
    model->beta1 = 0.9f;
    model->beta2 = 0.999f;
    model->epsilon = 1e-8f;
    model->scale_initial = 65536;
    model->scale_interval = 2000;
    struct plan_model *settings = &model->settings;
    settings->normalise = PLAN_NORMALISE_UNIT;
    settings->input_scale = 1;
    settings->optimiser = PLAN_OPTIMISER_ADAM;
    settings->learning_rate = 1e-3f;
    settings->schedule = PLAN_SCHEDULE_CONSTANT;
    settings->batch = 1;
    settings->default_steps = 1000;
    settings->accumulate = 1;
    settings->augment = (struct plan_augment){.scale_min = 1,
                                              .scale_max = 1,
                                              .shift = true,
                                              .cubic = true,
                                              .grey_slope_min = 1,
                                              .grey_slope_max = 1};
    settings->weights = (struct plan_weights){.sigma = 5};
    return model;
}

void model_free(struct model *model) {
    if (model == NULL)
        return;
    vec_free(&model->layers);
    vec_free(&model->params);
    vec_free(&model->recompute);
    arena_free(&model->arena);
    free(model);
}

/* let: */

static const struct model_override *find_override(const struct model_override *overrides,
                                                  size_t count, const char *name) {
    const struct model_override *found = NULL; /* the last one counts */
    for (size_t i = 0; i < count; i++)
        if (strcmp(overrides[i].name, name) == 0)
            found = &overrides[i];
    return found;
}

static struct model_value override_value(struct reader *reader,
                                         const struct model_override *override,
                                         struct model_value original,
                                         const struct variable *scope) {
    struct tree scalar = {.kind = TREE_SCALAR, .text = override->value};
    const struct model_value broken = {.kind = MODEL_BROKEN};
    reader->set = override;
    struct model_value value = broken;
    if (override->value[0] == '\0')
        reader_error(reader, scalar.pos, "the value is empty");
    else
        value = expr_value(reader, &scalar, scope);
    if (original.kind == MODEL_NUMBER && value.kind == MODEL_TEXT) {
        reader_error(reader, scalar.pos, "%s is a number in this model (%s), \"%.60s\" is not",
                     override->name, expr_text(reader->arena, original), value.text);
        value = broken;
    }
    reader->set = NULL;
    return value;
}

static const struct variable *read_variable(struct reader *reader, const struct tree *key,
                                            const struct tree *tree,
                                            const struct model_override *override,
                                            const struct variable *scope) {
    struct variable *variable = ARENA_NEW(reader->arena, struct variable);
    *variable = (struct variable){.name = key->text, .pos = key->pos, .next = scope};
    if (!expr_is_name(key->text) || strcmp(key->text, "true") == 0 ||
        strcmp(key->text, "false") == 0) {
        reader_error(reader, key->pos, "\"%.60s\" cannot be the name of a variable", key->text);
        reader_hint(reader, "letters, digits and \"_\", not starting with a digit");
        return scope;
    }
    if (tree->kind != TREE_SCALAR || tree_is_empty(tree))
        reader_error(reader, tree->pos, "the variable %s must be a number or text, not %s",
                     key->text, tree_kind_name(tree));
    else
        variable->value = expr_value(reader, tree, scope);
    if (override != NULL)
        variable->value = override_value(reader, override, variable->value, scope);
    return variable;
}

/* An override must name a variable of let:. */
static void check_override(struct reader *reader, const struct model_override *override) {
    const struct tree *let = reader->let;
    if (tree_get(let, override->name) != NULL)
        return;
    const size_t count = let != NULL && let->kind == TREE_MAP ? let->count : 0;
    const char **names = ARENA_ARRAY(reader->arena, const char *, count + 1);
    for (size_t i = 0; i < count; i++)
        names[i] = let->keys[i]->text;
    reader->set = override;
    reader_error(reader, (struct diag_pos){0, 0}, "the model has no variable \"%.60s\"",
                 override->name);
    if (count > 0)
        reader_hint_names(reader, override->name, names, count);
    else
        reader_hint(reader, "only variables under let: can be set, and this model has none");
    reader->set = NULL;
}

static const struct variable *read_let(struct reader *reader,
                                       const struct model_override *overrides, size_t n_overrides) {
    const struct tree *let = reader->let;
    const struct variable *scope = NULL;
    if (let != NULL && let->kind != TREE_MAP && !tree_is_empty(let))
        reader_error(reader, let->pos, "let must be a map of \"name: value\", not %s",
                     tree_kind_name(let));
    for (size_t i = 0; i < n_overrides; i++)
        check_override(reader, &overrides[i]);
    for (size_t i = 0; let != NULL && let->kind == TREE_MAP && i < let->count; i++)
        scope = read_variable(reader, let->keys[i], let->items[i],
                              find_override(overrides, n_overrides, let->keys[i]->text), scope);
    return scope;
}

/* "width=16 tile=380", as given. */
static const char *override_list(struct arena *arena, const struct model_override *overrides,
                                 size_t count) {
    const char *list = "";
    for (size_t i = 0; i < count; i++)
        list = arena_printf(arena, "%s%s%s=%s", list, i > 0 ? " " : "", overrides[i].name,
                            overrides[i].value);
    return list;
}

static void read_name(struct reader *reader, const struct tree *tree,
                      const struct variable *scope) {
    struct model *model = reader->model;
    const char *name = tree != NULL ? field_text(reader, tree, scope, "model") : NULL;
    const char *slash = strrchr(model->file, '/');
    const char *base = slash != NULL ? slash + 1 : model->file;
    if (tree == NULL) /* the file's name without folder and ending */
        name = arena_printf(&model->arena, "%.*s", (int)strcspn(base, "."), base);
    model->name = name != NULL ? name : "model";
    model->settings.name = model->name;
    model->settings.source = base;
    model->settings.overrides = model->overrides;
}

/* A section that a model cannot be without. */
static const struct tree *required(struct reader *reader, const struct tree *root, const char *key,
                                   const char *example) {
    const struct tree *section = tree_get(root, key);
    if (section != NULL && !tree_is_empty(section))
        return section;
    reader_error(reader, section != NULL ? section->pos : root->pos, "the model has no %s:", key);
    reader_hint(reader, "for example %s", example);
    return NULL;
}

static void read_precision(struct reader *reader, const struct tree *field,
                           const struct variable *scope) {
    static const char *const names[] = {"single", "mixed"};
    int choice = 0;
    if (field != NULL)
        field_choice(reader, field, scope, "precision", names, ARRAY_LEN(names), &choice);
    reader->model->is_mixed = choice == 1;
}

#define SCALE_MIN 0x1p-24 /* of the loss, to begin with */
#define SCALE_MAX 0x1p40

/* Numbers in mixed precision; without effect in single. */
static void read_loss_scaling(struct reader *reader, const struct tree *map,
                              const struct variable *scope) {
    static const char *const keys[] = {"initial", "interval"};
    struct model *model = reader->model;
    if (!field_check(reader, map, "loss_scaling", keys, ARRAY_LEN(keys)))
        return;
    const struct tree *field = tree_get(map, "initial");
    int exponent;
    if (field != NULL &&
        field_float(reader, field, scope, "initial", SCALE_MIN, SCALE_MAX, &model->scale_initial) &&
        frexpf(model->scale_initial, &exponent) != 0.5f) {
        reader_error(reader, field->pos, "initial is %.9g, must be a power of two",
                     (double)model->scale_initial);
        reader_hint(reader, "the nearest below is %.9g", ldexp(1, exponent - 1));
    }
    field = tree_get(map, "interval");
    if (field != NULL)
        field_int(reader, field, scope, "interval", 0, (int)LOSS_SCALE_MOST,
                  &model->scale_interval);
}

static void read_sections(struct reader *reader, const struct tree *root,
                          const struct variable *scope) {
    struct layer_init init = {LAYER_INIT_HE, 0};
    read_name(reader, tree_get(root, "model"), scope);
    read_precision(reader, tree_get(root, "precision"), scope);
    const struct tree *scaling = tree_get(root, "loss_scaling");
    if (scaling != NULL && !tree_is_empty(scaling))
        read_loss_scaling(reader, scaling, scope);
    const struct tree *input = required(reader, root, "input", "\"input: {tile: 572}\"");
    if (input != NULL)
        settings_read_input(reader, input, scope);
    const struct tree *labels =
        required(reader, root, "labels", "\"labels: [{value: 0, class: membrane}, ...]\"");
    if (labels != NULL)
        settings_read_labels(reader, labels, scope);
    const struct tree *augment = tree_get(root, "augment");
    if (augment != NULL && !tree_is_empty(augment))
        settings_read_augment(reader, augment, scope);
    const struct tree *weights = tree_get(root, "weights");
    if (weights != NULL && !tree_is_empty(weights))
        settings_read_weights(reader, weights, scope);
    const struct tree *train = tree_get(root, "train");
    if (train != NULL && !tree_is_empty(train))
        settings_read_train(reader, train, scope, &init);
    const struct tree *layers =
        required(reader, root, "layers", "\"layers: [{conv: 16}, relu, ...]\"");
    const struct tree *blocks = tree_get(root, "blocks");
    if (blocks != NULL && tree_is_empty(blocks))
        blocks = NULL;
    const size_t before = reader->diag->count;
    if (layers == NULL)
        return;
    layers_read(reader, blocks, layers, scope, init);
    if (reader->diag->count == before && reader->model->layers.count > 1)
        layers_check(reader, reader->model->settings.n_classes >= 2);
    else if (reader->diag->count == before)
        reader_error(reader, layers->pos, "the layers expand to none");
}

/* Settings that depend on the layers. */
static void finish(struct model *model) {
    struct plan_model *settings = &model->settings;
    const struct layer *last = &model->layers.items[model->layers.count - 1];
    settings->channels = (uint32_t)model->channels;
    settings->momentum = model->momentum;
    settings->beta1 = model->beta1;
    settings->beta2 = model->beta2;
    if (!last->weight_map) {
        settings->weights = (struct plan_weights){.sigma = settings->weights.sigma};
        for (uint32_t i = 0; i < settings->n_labels; i++)
            settings->labels[i].weight = 1;
    }
    model->hash = settings->hash = model_hash(model);
}

bool model_parse(const char *file_name, const char *text, const struct model_override *overrides,
                 size_t n_overrides, struct model **out, struct diag *diag) {
    static const char *const sections[] = {"model",   "let",       "input",       "labels",
                                           "augment", "weights",   "train",       "blocks",
                                           "layers",  "precision", "loss_scaling"};
    struct model *model = make_model(file_name, text);
    struct tree *root;
    const size_t before = diag->count;
    *out = model;
    diag->file = model->file;
    diag->text = model->text;
    if (!yaml_read(&model->arena, model->text, &root, diag))
        return false;
    struct reader reader = {.arena = &model->arena, .diag = diag, .model = model};
    model->overrides = override_list(&model->arena, overrides, n_overrides);
    if (field_check(&reader, root, "the model", sections, ARRAY_LEN(sections))) {
        reader.let = tree_get(root, "let");
        const struct variable *scope = read_let(&reader, overrides, n_overrides);
        read_sections(&reader, root, scope);
    }
    vec_free(&reader.reported);
    if (diag->count != before)
        return false;
    finish(model);
    return true;
}

bool model_load(const char *path, const struct model_override *overrides, size_t n_overrides,
                struct model **out, struct diag *diag) {
    uint8_t *data;
    size_t size;
    struct err err = {0};
    *out = NULL;
    if (!file_read(path, &data, &size, &err)) {
        diag_error(diag, (struct diag_pos){0, 0}, "%s", err.text);
        return false;
    }
    const uint8_t *zero = memchr(data, 0, size);
    bool ok = false;
    if (zero != NULL) {
        int line = 1;
        for (const uint8_t *c = data; c < zero; c++)
            line += *c == '\n';
        diag->file = path;
        diag_error(diag, (struct diag_pos){line, 0}, "a zero byte: this is not a text file");
    } else {
        ok = model_parse(path, (const char *)data, overrides, n_overrides, out, diag);
    }
    free(data);
    return ok;
}
