/*
 * model_settings.c: the sections input:, labels: and train: of a model file. augment: and weights:
 * are in model_samples.c.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiler/model_reader.h"

#define LABEL_ROWS_MAX 1024
#define CLASSES_MAX 256
#define LABEL_VALUE_MAX 65535 /* label images have at most 16 bits */

void settings_read_input(struct reader *reader, const struct tree *map,
                         const struct variable *scope) {
    static const char *const keys[] = {"channels", "tile",  "normalise",
                                       "offset",   "scale", "margin"};
    static const char *const normalise[] = {"none", "unit", "standard"};
    struct model *model = reader->model;
    struct plan_model *settings = &model->settings;
    if (!field_check(reader, map, "input", keys, ARRAY_LEN(keys)))
        return;
    const struct tree *field = tree_get(map, "channels");
    if (field != NULL)
        field_int(reader, field, scope, "channels", 1, 1024, &model->channels);
    field = tree_get(map, "tile");
    int tile[2];
    if (field == NULL) {
        reader_error(reader, map->pos, "input has no tile");
        reader_hint(reader, "\"tile: 572\" is the size of the image pieces the model works on");
    } else if (field_pair(reader, field, scope, "tile", 1, 32768, tile)) {
        model->tile_h = tile[0];
        model->tile_w = tile[1];
        model->tile_pos = field->pos;
    }
    int choice = PLAN_NORMALISE_UNIT;
    field = tree_get(map, "normalise");
    if (field != NULL)
        field_choice(reader, field, scope, "normalise", normalise, ARRAY_LEN(normalise), &choice);
    settings->normalise = (enum plan_normalise)choice;
    field = tree_get(map, "offset");
    if (field != NULL)
        field_float(reader, field, scope, "offset", -1e6, 1e6, &settings->input_offset);
    field = tree_get(map, "scale");
    if (field != NULL)
        field_float(reader, field, scope, "scale", 1e-6, 1e6, &settings->input_scale);
    field = tree_get(map, "margin");
    if (field != NULL)
        field_int(reader, field, scope, "margin", 0, 16384, &model->margin);
}

/* labels: */
struct label_reading {
    struct reader *reader;
    const struct variable *scope;
    VEC(struct plan_label) rows;
    VEC(const char *) classes;
    bool weighted[CLASSES_MAX]; /* a row has given this class a weight */
    float weights[CLASSES_MAX];
    struct diag_pos ignore_pos;
};

/* "255", "1 to 999" or "other". */
static const char *label_value_text(struct reader *reader, uint32_t first, uint32_t last) {
    if (first == PLAN_LABEL_OTHER)
        return "other";
    return first == last ? arena_printf(reader->arena, "%u", first)
                         : arena_printf(reader->arena, "%u to %u", first, last);
}

static bool values_listed(const struct label_reading *labels, uint32_t first, uint32_t last) {
    const struct plan_model *settings = &labels->reader->model->settings;
    for (size_t i = 0; i < labels->rows.count; i++)
        if (labels->rows.items[i].value <= last && first <= labels->rows.items[i].last_value)
            return true;
    return settings->has_ignore && first <= settings->ignore_value &&
           settings->ignore_value <= last;
}

static bool read_single_value(struct label_reading *labels, const struct tree *tree,
                              uint32_t *out) {
    struct reader *reader = labels->reader;
    int number;
    const struct model_value value = tree->kind == TREE_SCALAR
                                         ? expr_value(reader, tree, labels->scope)
                                         : (struct model_value){.kind = MODEL_NUMBER};
    if (value.kind == MODEL_BROKEN)
        return false;
    if (value.kind == MODEL_TEXT && strcmp(value.text, "other") == 0) {
        *out = PLAN_LABEL_OTHER;
        return true;
    }
    if (value.kind == MODEL_TEXT) {
        reader_error(reader, tree->pos, "value must be a number or \"other\", not \"%.60s\"",
                     value.text);
        return false;
    }
    if (!field_int(reader, tree, labels->scope, "value", 0, LABEL_VALUE_MAX, &number))
        return false;
    *out = (uint32_t)number;
    return true;
}

/* "values: [1, 999]", ends included. */
static bool read_value_range(struct label_reading *labels, const struct tree *tree,
                             struct plan_label *row) {
    struct reader *reader = labels->reader;
    int first, last;
    if (tree->kind != TREE_LIST || tree->count != 2) {
        reader_error(reader, tree->pos, "values must be a list of the first and the last value");
        reader_hint(reader, "for example \"values: [1, 999]\"; one value alone is \"value: 1\"");
        return false;
    }
    if (!field_int(reader, tree->items[0], labels->scope, "the first value", 0, LABEL_VALUE_MAX,
                   &first) ||
        !field_int(reader, tree->items[1], labels->scope, "the last value", 0, LABEL_VALUE_MAX,
                   &last))
        return false;
    if (last < first) {
        reader_error(reader, tree->pos, "the values go from %d down to %d", first, last);
        return false;
    }
    row->value = (uint32_t)first;
    row->last_value = (uint32_t)last;
    return true;
}

/* value: or values: of a row. */
static bool read_label_values(struct label_reading *labels, const struct tree *value,
                              const struct tree *values, struct plan_label *row) {
    struct reader *reader = labels->reader;
    const struct tree *tree = value != NULL ? value : values;
    if (tree == values && !read_value_range(labels, tree, row))
        return false;
    if (tree == value) {
        if (!read_single_value(labels, tree, &row->value))
            return false;
        row->last_value = row->value;
    }
    if (!values_listed(labels, row->value, row->last_value))
        return true;
    reader_error(reader, tree->pos,
                 row->value == row->last_value ? "the label value %s is here twice"
                                               : "of the label values %s, some are here twice",
                 label_value_text(reader, row->value, row->last_value));
    return false;
}

static void read_ignore(struct label_reading *labels, struct diag_pos pos,
                        const struct plan_label *row) {
    struct plan_model *settings = &labels->reader->model->settings;
    if (settings->has_ignore || row->value != row->last_value) {
        if (settings->has_ignore)
            reader_error(labels->reader, pos, "a second ignored value; the first is in line %d",
                         labels->ignore_pos.line);
        else
            reader_error(labels->reader, pos, "only one value can be ignored, not %s",
                         label_value_text(labels->reader, row->value, row->last_value));
        reader_hint(labels->reader, "\"value: other\" ignores every value that is not listed");
        return;
    }
    settings->has_ignore = true;
    settings->ignore_value = row->value;
    labels->ignore_pos = pos;
}

/* The number of a class, made at its first row. -1: too many. */
static int class_number(struct label_reading *labels, const char *name, struct diag_pos pos) {
    for (size_t i = 0; i < labels->classes.count; i++)
        if (strcmp(labels->classes.items[i], name) == 0)
            return (int)i;
    if (labels->classes.count == CLASSES_MAX) {
        reader_error(labels->reader, pos, "more than %d classes", CLASSES_MAX);
        return -1;
    }
    labels->weights[labels->classes.count] = 1;
    vec_push(&labels->classes, name);
    return (int)labels->classes.count - 1;
}

static void read_class_weight(struct label_reading *labels, const struct tree *tree, int class_) {
    float weight;
    if (!field_float(labels->reader, tree, labels->scope, "weight", 0, 1e6, &weight))
        return;
    if (labels->weighted[class_] && labels->weights[class_] != weight)
        reader_error(labels->reader, tree->pos, "class %s has the weight %.6g already",
                     labels->classes.items[class_], (double)labels->weights[class_]);
    labels->weighted[class_] = true;
    labels->weights[class_] = weight;
}

/* Whether values of this class are objects: the same for all its rows. */
static bool read_instances(struct label_reading *labels, const struct tree *row,
                           const struct tree *tree, uint32_t class_) {
    struct reader *reader = labels->reader;
    bool instances = false;
    if (tree != NULL && !field_bool(reader, tree, labels->scope, "instances", &instances))
        return false;
    for (size_t i = 0; i < labels->rows.count; i++) {
        const struct plan_label *other = &labels->rows.items[i];
        if (other->class_ != class_ || other->instances == instances)
            continue;
        reader_error(reader, tree != NULL ? tree->pos : row->pos,
                     "class %s has rows with and without instances", labels->classes.items[class_]);
        reader_hint(reader, "either every value of a class is an object of its own, or none");
        break;
    }
    return instances;
}

/* A row of ignored values: nothing else can be said of them. */
static void check_ignored(struct label_reading *labels, const struct tree *weight,
                          const struct tree *instances) {
    if (weight != NULL)
        reader_error(labels->reader, weight->pos, "ignored pixels have no weight");
    if (instances != NULL)
        reader_error(labels->reader, instances->pos, "ignored pixels are no objects");
}

static void read_label(struct label_reading *labels, const struct tree *row) {
    static const char *const keys[] = {"value", "values", "class", "weight", "instances"};
    struct reader *reader = labels->reader;
    if (!field_check(reader, row, "a row of labels", keys, ARRAY_LEN(keys)))
        return;
    const struct tree *value = tree_get(row, "value"), *values = tree_get(row, "values");
    const struct tree *name = tree_get(row, "class"), *weight = tree_get(row, "weight");
    const struct tree *instances = tree_get(row, "instances");
    const bool valued = value != NULL || values != NULL;
    struct plan_label label = {0};
    if (!valued || name == NULL) {
        reader_error(reader, row->pos, "this row of labels has no %s", valued ? "class" : "value");
        reader_hint(reader, "a row reads {value: 255, class: cell}");
    }
    if (value != NULL && values != NULL)
        reader_error(reader, values->pos, "this row of labels has both a value and values");
    const bool have_value = valued && read_label_values(labels, value, values, &label);
    const char *class_name = name != NULL ? field_name(reader, name, labels->scope, "class") : NULL;
    if (class_name == NULL)
        return;
    if (strcmp(class_name, "ignore") == 0) {
        if (have_value)
            read_ignore(labels, row->pos, &label);
        check_ignored(labels, weight, instances);
        return;
    }
    const int class_ = class_number(labels, class_name, name->pos);
    if (class_ < 0)
        return;
    if (weight != NULL)
        read_class_weight(labels, weight, class_);
    label.class_ = (uint32_t)class_;
    label.instances = read_instances(labels, row, instances, label.class_);
    if (have_value)
        vec_push(&labels->rows, label);
}

/*
 * Written images need a value for every class. One known only as "other" gets 255, or the greatest
 * value below that has no row: to the reader of label images it means what it meant before, an
 * object of its own where the class has instances.
 */
static void give_other_a_value(struct label_reading *labels) {
    const size_t n = labels->rows.count;
    for (size_t i = 0; i < n; i++) {
        if (labels->rows.items[i].value != PLAN_LABEL_OTHER)
            continue;
        struct plan_label row = labels->rows.items[i];
        for (size_t j = 0; j < n; j++)
            if (j != i && labels->rows.items[j].class_ == row.class_)
                return;
        uint32_t value = 255;
        while (value > 0 && values_listed(labels, value, value))
            value--;
        if (values_listed(labels, value, value))
            return;
        row.value = row.last_value = value;
        vec_push(&labels->rows, labels->rows.items[i]);
        labels->rows.items[i] = row;
        return;
    }
}

static void store_labels(struct label_reading *labels) {
    struct model *model = labels->reader->model;
    struct plan_model *settings = &model->settings;
    settings->n_classes = (uint32_t)labels->classes.count;
    model->class_names = ARENA_ARRAY(labels->reader->arena, const char *, labels->classes.count);
    for (size_t i = 0; i < labels->classes.count; i++)
        model->class_names[i] = labels->classes.items[i];
    settings->n_labels = (uint32_t)labels->rows.count;
    settings->labels = ARENA_ARRAY(labels->reader->arena, struct plan_label, labels->rows.count);
    for (size_t i = 0; i < labels->rows.count; i++) {
        struct plan_label *row = &labels->rows.items[i];
        row->name = model->class_names[row->class_];
        row->weight = labels->weights[row->class_];
        settings->labels[i] = *row;
    }
}

/* What must hold of all rows together. */
static void check_label_table(const struct label_reading *labels, const struct tree *list) {
    struct reader *reader = labels->reader;
    bool is_background[CLASSES_MAX] = {false};
    size_t n_background = 0;
    float heaviest = 0;
    for (size_t i = 0; i < labels->classes.count; i++)
        heaviest = fmaxf(heaviest, labels->weights[i]);
    for (size_t i = 0; i < labels->rows.count; i++)
        is_background[labels->rows.items[i].class_] = !labels->rows.items[i].instances;
    for (size_t i = 0; i < labels->classes.count; i++)
        n_background += is_background[i];
    if (labels->classes.count < 2) {
        reader_error(reader, list->pos, "labels must name at least two classes, not %zu",
                     labels->classes.count);
    } else if (heaviest == 0) {
        reader_error(reader, list->pos, "every class has the weight 0: there is nothing to learn");
    } else if (n_background == 0) {
        reader_error(reader, list->pos, "every class has instances: there is no background");
        reader_hint(reader, "objects that touch are told apart by lines of a class without "
                            "instances between them");
    }
}

void settings_read_labels(struct reader *reader, const struct tree *list,
                          const struct variable *scope) {
    struct label_reading labels = {.reader = reader, .scope = scope};
    const size_t before = reader->diag->count;
    if (list->kind != TREE_LIST) {
        reader_error(reader, list->pos, "labels must be a list of rows, not %s",
                     tree_kind_name(list));
        reader_hint(reader, "a row reads \"- {value: 255, class: cell}\"");
        return;
    }
    if (list->count > LABEL_ROWS_MAX) {
        reader_error(reader, list->pos, "more than %d rows of labels", LABEL_ROWS_MAX);
        return;
    }
    for (size_t i = 0; i < list->count; i++)
        read_label(&labels, list->items[i]);
    if (reader->diag->count == before)
        check_label_table(&labels, list);
    give_other_a_value(&labels);
    store_labels(&labels);
    vec_free(&labels.rows);
    vec_free(&labels.classes);
}

/* train: */
bool settings_read_init(struct reader *reader, const struct tree *tree,
                        const struct variable *scope, struct layer_init *out) {
    static const char *const names[] = {"he", "xavier", "normal", "uniform", "zero"};
    int kind;
    if (tree->kind != TREE_MAP) {
        if (!field_choice(reader, tree, scope, "init", names, ARRAY_LEN(names), &kind))
            return false;
        if (kind == LAYER_INIT_NORMAL || kind == LAYER_INIT_UNIFORM) {
            reader_error(reader, tree->pos, "init %s needs its width", names[kind]);
            reader_hint(reader, "for example {%s: 0.01}", names[kind]);
            return false;
        }
        *out = (struct layer_init){(enum layer_init_kind)kind, 0};
        return true;
    }
    static const char *const keys[] = {"normal", "uniform"};
    field_check(reader, tree, "init", keys, ARRAY_LEN(keys));
    if (tree->count != 1) {
        reader_error(reader, tree->pos, "init takes one kind");
        reader_hint(reader, "for example {normal: 0.01}");
        return false;
    }
    const struct tree *normal = tree_get(tree, "normal"), *uniform = tree_get(tree, "uniform");
    const struct tree *width = normal != NULL ? normal : uniform;
    out->kind = normal != NULL ? LAYER_INIT_NORMAL : LAYER_INIT_UNIFORM;
    return width != NULL &&
           field_float(reader, width, scope, tree->keys[0]->text, 0, 1e3, &out->scale);
}

static void read_schedule_fields(struct reader *reader, const struct tree *map,
                                 const struct variable *scope, enum plan_schedule schedule) {
    struct plan_model *settings = &reader->model->settings;
    const bool step = schedule == PLAN_SCHEDULE_STEP;
    const struct tree *steps = tree_get(map, step ? "every" : "steps");
    const struct tree *gamma = tree_get(map, step ? "factor" : "power");
    int count = 0;
    if (steps != NULL &&
        field_int(reader, steps, scope, step ? "every" : "steps", step, 1000000000, &count))
        settings->schedule_steps = (uint32_t)count;
    if (step && steps == NULL)
        reader_error(reader, map->pos,
                     "the schedule \"step\" needs \"every\": steps between drops");
    if (gamma != NULL)
        field_float(reader, gamma, scope, step ? "factor" : "power", step ? 1e-6 : 0.01,
                    step ? 1 : 100, &settings->schedule_gamma);
}

static void read_schedule(struct reader *reader, const struct tree *tree,
                          const struct variable *scope) {
    static const char *const names[] = {"constant", "step", "poly", "cosine"};
    static const char *const keys[][3] = {{"kind", NULL, NULL},
                                          {"kind", "every", "factor"},
                                          {"kind", "steps", "power"},
                                          {"kind", "steps", NULL}};
    static const size_t n_keys[] = {1, 3, 3, 2};
    struct plan_model *settings = &reader->model->settings;
    const struct tree *kind = tree->kind == TREE_MAP ? tree_get(tree, "kind") : tree;
    int choice;
    if (kind == NULL) {
        reader_error(reader, tree->pos, "the schedule has no kind");
        reader_hint_names(reader, "", names, ARRAY_LEN(names));
        return;
    }
    if (!field_choice(reader, kind, scope, "schedule", names, ARRAY_LEN(names), &choice))
        return;
    settings->schedule = (enum plan_schedule)choice;
    settings->schedule_gamma = choice == PLAN_SCHEDULE_STEP ? 0.1f : 0.9f;
    const char *what = arena_printf(reader->arena, "the schedule \"%s\"", names[choice]);
    if (tree->kind == TREE_MAP)
        field_check(reader, tree, what, keys[choice], n_keys[choice]);
    read_schedule_fields(reader, tree, scope, settings->schedule);
}

struct number_field {
    const char *key;
    double min, max;
    float *out;
};

static void read_numbers(struct reader *reader, const struct tree *map,
                         const struct variable *scope) {
    struct model *model = reader->model;
    struct plan_model *settings = &model->settings;
    const struct number_field fields[] = {
        {"learning_rate", 1e-12, 1e3, &settings->learning_rate},
        {"momentum", 0, 0.999999, &model->momentum},
        {"beta1", 0, 0.999999, &model->beta1},
        {"beta2", 0, 0.9999999, &model->beta2},
        {"epsilon", 1e-15, 1, &model->epsilon},
        {"weight_decay", 0, 1, &model->weight_decay},
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct tree *field = tree_get(map, fields[i].key);
        if (field != NULL)
            field_float(reader, field, scope, fields[i].key, fields[i].min, fields[i].max,
                        fields[i].out);
    }
    const struct {
        const char *key;
        int min, max;
        uint32_t *out;
    } counts[] = {
        {"batch", 1, 4096, &settings->batch},
        {"steps", 1, 1000000000, &settings->default_steps},
        {"warmup", 0, 1000000000, &settings->warmup_steps},
        {"accumulate", 1, 4096, &settings->accumulate},
    };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        const struct tree *field = tree_get(map, counts[i].key);
        int value = 0;
        if (field != NULL &&
            field_int(reader, field, scope, counts[i].key, counts[i].min, counts[i].max, &value))
            *counts[i].out = (uint32_t)value;
    }
}

/* "uniform", "balanced", or a share between the two. */
static void read_sampling(struct reader *reader, const struct tree *tree,
                          const struct variable *scope) {
    static const char *const names[] = {"uniform", "balanced"};
    float *const share = &reader->model->settings.sample_balance;
    const struct model_value value = tree->kind == TREE_SCALAR && !tree_is_empty(tree)
                                         ? expr_value(reader, tree, scope)
                                         : (struct model_value){.kind = MODEL_NUMBER};
    int choice;
    if (value.kind == MODEL_NUMBER)
        field_float(reader, tree, scope, "sampling", 0, 1, share);
    else if (value.kind == MODEL_TEXT &&
             field_choice(reader, tree, scope, "sampling", names, ARRAY_LEN(names), &choice))
        *share = (float)choice;
}

/* Names between commas. */
static void read_recompute_names(struct reader *reader, const struct tree *tree,
                                 const struct variable *scope) {
    const char *text = field_text(reader, tree, scope, "recompute");
    if (text == NULL || strcmp(text, "none") == 0)
        return;
    for (const char *at = text;; at++) {
        at += strspn(at, " ");
        const size_t length = strcspn(at, ",");
        size_t end = length;
        while (end > 0 && at[end - 1] == ' ')
            end--;
        if (end == 0)
            reader_error(reader, tree->pos, "recompute has no layer between two commas");
        const struct layer_name name = {arena_printf(reader->arena, "%.*s", (int)end, at),
                                        tree->pos};
        if (end > 0)
            vec_push(&reader->model->recompute, name);
        at += length;
        if (*at == '\0')
            return;
    }
}

static void read_recompute(struct reader *reader, const struct tree *tree,
                           const struct variable *scope) {
    if (tree->kind == TREE_LIST)
        for (size_t i = 0; i < tree->count; i++)
            read_recompute_names(reader, tree->items[i], scope);
    else
        read_recompute_names(reader, tree, scope);
}

void settings_read_train(struct reader *reader, const struct tree *map,
                         const struct variable *scope, struct layer_init *init) {
    static const char *const keys[] = {"optimiser",    "learning_rate", "schedule", "warmup",
                                       "momentum",     "beta1",         "beta2",    "epsilon",
                                       "weight_decay", "batch",         "init",     "steps",
                                       "accumulate",   "sampling",      "recompute"};
    static const char *const optimisers[] = {"sgd", "adam"};
    struct plan_model *settings = &reader->model->settings;
    if (!field_check(reader, map, "train", keys, ARRAY_LEN(keys)))
        return;
    int choice = settings->optimiser;
    const struct tree *field = tree_get(map, "optimiser");
    if (field != NULL)
        field_choice(reader, field, scope, "optimiser", optimisers, ARRAY_LEN(optimisers), &choice);
    settings->optimiser = (enum plan_optimiser)choice;
    read_numbers(reader, map, scope);
    field = tree_get(map, "schedule");
    if (field != NULL)
        read_schedule(reader, field, scope);
    field = tree_get(map, "sampling");
    if (field != NULL)
        read_sampling(reader, field, scope);
    field = tree_get(map, "recompute");
    if (field != NULL)
        read_recompute(reader, field, scope);
    field = tree_get(map, "init");
    if (field != NULL)
        settings_read_init(reader, field, scope, init);
}
