/*
 * model_layers.c: blocks:, repeat and layers: become one list of layers, every name resolved.
 *
 * A block is expanded where it is used, with its parameters (and the variables of let:, but not
 * those of its user) in scope; its layers are named "USE/LAYER". A layer is expanded even when one
 * of its fields is wrong, so that later layers find it and one mistake does not make ten.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/model_reader.h"

#define NESTING_MAX 32    /* of blocks and repeats */
#define STEPS_MAX 16384   /* entries visited during expansion */
#define PARAMETERS_MAX 32 /* of a block */

struct parameter {
    const char *name;
    const struct tree *initial; /* NULL: must be given */
};

struct block {
    const char *name;
    struct diag_pos pos;
    size_t n_parameters;
    struct parameter parameters[PARAMETERS_MAX];
    const struct tree *layers; /* NULL: the definition is broken, reported */
    bool active;               /* being expanded now */
};

/* A layer, or a block standing for its last layer. */
struct named {
    const char *name; /* full */
    int layer;
    struct diag_pos pos;
};

/* The inside of a block, or the top: where names are local. */
struct place {
    const char *prefix; /* "", or "dec1/" */
    const struct place *outer;
    int *counts; /* unnamed uses so far of each kind, then of each block */
};

struct expander {
    struct reader *reader;
    const struct variable *globals;
    struct layer_init init;
    VEC(struct block) blocks;
    VEC(struct named) names;
    int previous; /* the layer that the next one takes */
    int steps, nesting;
    bool stopped;
};

static struct block *find_block(struct expander *expander, const char *word) {
    for (size_t i = 0; i < expander->blocks.count; i++)
        if (strcmp(expander->blocks.items[i].name, word) == 0)
            return &expander->blocks.items[i];
    return NULL;
}

/* Names */

static const struct named *find_full(const struct expander *expander, const char *name) {
    for (size_t i = 0; i < expander->names.count; i++)
        if (strcmp(expander->names.items[i].name, name) == 0)
            return &expander->names.items[i];
    return NULL;
}

static void add_name(struct expander *expander, const char *full, int layer, struct diag_pos pos) {
    vec_push(&expander->names, ((struct named){full, layer, pos}));
}

/* The full name of an entry: its own under "name", else its word and the next free number. */
static const char *entry_name(struct expander *expander, const struct entry *entry) {
    struct reader *reader = expander->reader;
    const struct tree *field = entry->fields != NULL ? tree_get(entry->fields, "name") : NULL;
    if (field != NULL) {
        const char *name = field_name(reader, field, entry->scope, "name");
        const char *full =
            name != NULL ? arena_printf(reader->arena, "%s%s", entry->place->prefix, name) : NULL;
        const struct named *other = full != NULL ? find_full(expander, full) : NULL;
        if (full != NULL && other == NULL)
            return full;
        if (other != NULL && other->layer == 0)
            reader_error(reader, field->pos, "\"%s\" is the name of the input", full);
        else if (other != NULL)
            reader_error(reader, field->pos, "the name \"%s\" is taken by line %d", full,
                         other->pos.line);
    }
    for (;;) {
        const char *full = arena_printf(reader->arena, "%s%s%d", entry->place->prefix, entry->word,
                                        ++*entry->count);
        if (find_full(expander, full) == NULL)
            return full;
    }
}

#define NAMES_HINTED 64

static void unknown_layer(struct expander *expander, const struct tree *tree, const char *name) {
    const char *names[NAMES_HINTED];
    size_t count = 0;
    /* Latest first, without the insides of blocks: those are the likely ones. */
    for (size_t i = expander->names.count; i-- > 0 && count < NAMES_HINTED;)
        if (strchr(expander->names.items[i].name, '/') == NULL || strchr(name, '/') != NULL)
            names[count++] = expander->names.items[i].name;
    reader_error(expander->reader, tree->pos, "there is no layer \"%.80s\" before this one", name);
    reader_hint_names(expander->reader, name, names, count);
}

/* A layer by name, looked for in this block first, then in those around it. -1: reported. */
static int find_layer(struct expander *expander, const struct entry *entry,
                      const struct tree *tree) {
    struct reader *reader = expander->reader;
    const char *name = field_text(reader, tree, entry->scope, "the name of a layer");
    if (name == NULL)
        return -1;
    for (const struct place *place = entry->place; place != NULL; place = place->outer) {
        const char *full = arena_printf(reader->arena, "%s%s", place->prefix, name);
        const struct named *named = find_full(expander, full);
        if (named != NULL)
            return named->layer;
    }
    unknown_layer(expander, tree, name);
    return -1;
}

static void read_inputs(struct expander *expander, const struct entry *entry, struct layer *layer) {
    struct reader *reader = expander->reader;
    const char *word = layer_kind_name(layer->kind);
    const struct tree *list = kind_field(entry, layer->kind, "inputs");
    if (list == NULL && entry->fields != NULL && entry->fields->kind == TREE_LIST)
        list = entry->fields;
    layer->n_inputs = 1;
    if (list == NULL || list->kind != TREE_LIST || list->count < 2 ||
        list->count > LAYER_MAX_INPUTS) {
        reader_error(reader, list != NULL ? list->pos : entry->pos,
                     "%s takes a list of 2 to %d layers", word, LAYER_MAX_INPUTS);
        reader_hint(reader, "for example \"%s: [up, enc1]\"", word);
        return;
    }
    layer->n_inputs = (int)list->count;
    for (size_t i = 0; i < list->count; i++)
        layer->inputs[i] = MAX(0, find_layer(expander, entry, list->items[i]));
}

/* Expansion */

static void read_from(struct expander *expander, const struct entry *entry) {
    const struct tree *from = entry->fields != NULL ? tree_get(entry->fields, "from") : NULL;
    const int layer = from != NULL ? find_layer(expander, entry, from) : -1;
    if (layer >= 0)
        expander->previous = layer;
}

static void stop(struct expander *expander) {
    expander->stopped = true;
}

static void expand_layer(struct expander *expander, const struct entry *entry,
                         enum layer_kind kind) {
    struct model *model = expander->reader->model;
    if (model->layers.count >= MODEL_LAYERS_MAX) {
        reader_error(expander->reader, entry->pos, "the model has more than %d layers",
                     MODEL_LAYERS_MAX);
        stop(expander);
        return;
    }
    const bool joins = kind == LAYER_CONCAT || kind == LAYER_ADD;
    if (!joins)
        read_from(expander, entry);
    struct layer layer = kind_defaults(kind, expander->init);
    layer.pos = entry->pos;
    layer.inputs[0] = expander->previous;
    kind_read_fields(expander->reader, entry, &layer);
    if (joins)
        read_inputs(expander, entry, &layer);
    layer.name = entry_name(expander, entry);
    expander->previous = (int)model->layers.count;
    add_name(expander, layer.name, expander->previous, entry->pos);
    vec_push(&model->layers, layer);
}

static void expand_list(struct expander *expander, const struct tree *list,
                        const struct variable *scope, const struct place *place);

static struct place make_place(struct expander *expander, const char *prefix,
                               const struct place *outer) {
    int *counts = ARENA_ARRAY(expander->reader->arena, int, LAYER_KINDS + expander->blocks.count);
    return (struct place){prefix, outer, counts};
}

static bool parameter_known(const struct block *block, const char *key) {
    for (size_t i = 0; i < block->n_parameters; i++)
        if (strcmp(block->parameters[i].name, key) == 0)
            return true;
    return strcmp(key, "name") == 0 || strcmp(key, "from") == 0;
}

static void check_arguments(struct reader *reader, const struct block *block,
                            const struct entry *entry) {
    const char *names[PARAMETERS_MAX + 2];
    size_t count = 0;
    for (size_t i = 0; i < block->n_parameters; i++)
        names[count++] = block->parameters[i].name;
    names[count++] = "name";
    names[count++] = "from";
    for (size_t i = 0; i < entry->fields->count; i++) {
        const struct tree *key = entry->fields->keys[i];
        if (parameter_known(block, key->text))
            continue;
        reader_error(reader, key->pos, "the block %s has no parameter \"%.60s\"", block->name,
                     key->text);
        reader_hint_names(reader, key->text, names, count);
    }
}

/* The one parameter that must be given, for which a lone value stands; NULL: not exactly one. */
static const struct parameter *main_parameter(const struct block *block) {
    const struct parameter *found = NULL;
    for (size_t i = 0; i < block->n_parameters; i++) {
        if (block->parameters[i].initial == NULL && found != NULL)
            return NULL;
        if (block->parameters[i].initial == NULL)
            found = &block->parameters[i];
    }
    return found;
}

/* The value of a parameter for this use of the block. */
static struct model_value argument(struct expander *expander, const struct block *block,
                                   const struct parameter *parameter, const struct entry *entry,
                                   const struct variable *inner) {
    struct reader *reader = expander->reader;
    const struct tree *given = NULL;
    const struct variable *scope = entry->scope;
    if (entry->fields != NULL && entry->fields->kind == TREE_MAP)
        given = tree_get(entry->fields, parameter->name);
    else if (entry->fields != NULL && parameter == main_parameter(block))
        given = entry->fields;
    if (given == NULL && parameter->initial != NULL) {
        given = parameter->initial;
        scope = inner;
    }
    if (given == NULL) {
        reader_error(reader, entry->pos, "the block %s needs its parameter \"%s\"", block->name,
                     parameter->name);
        reader_hint(reader, "%s: {%s: ...}", block->name, parameter->name);
    } else if (given->kind != TREE_SCALAR || tree_is_empty(given)) {
        reader_error(reader, given->pos, "the parameter \"%s\" must be a number or text, not %s",
                     parameter->name, tree_kind_name(given));
    } else {
        return expr_value(reader, given, scope);
    }
    return (struct model_value){.kind = MODEL_BROKEN};
}

static const struct variable *add_variable(struct arena *arena, const char *name,
                                           struct model_value value, struct diag_pos pos,
                                           const struct variable *next) {
    struct variable *variable = ARENA_NEW(arena, struct variable);
    *variable = (struct variable){name, value, pos, next};
    return variable;
}

static const struct variable *bind_arguments(struct expander *expander, const struct block *block,
                                             const struct entry *entry) {
    struct reader *reader = expander->reader;
    const struct variable *scope = expander->globals;
    if (entry->fields != NULL && entry->fields->kind == TREE_MAP) {
        check_arguments(reader, block, entry);
    } else if (entry->fields != NULL && main_parameter(block) == NULL) {
        reader_error(reader, entry->fields->pos, "the block %s takes a map of its parameters",
                     block->name);
        return NULL;
    }
    for (size_t i = 0; i < block->n_parameters; i++) {
        const struct parameter *parameter = &block->parameters[i];
        const struct model_value value = argument(expander, block, parameter, entry, scope);
        scope = add_variable(reader->arena, parameter->name, value, entry->pos, scope);
    }
    return scope;
}

static bool enter(struct expander *expander, const struct entry *entry) {
    if (expander->nesting < NESTING_MAX) {
        expander->nesting++;
        return true;
    }
    reader_error(expander->reader, entry->pos, "blocks and repeats are nested more than %d deep",
                 NESTING_MAX);
    stop(expander);
    return false;
}

/* "a -> b -> a" for a block that came to use itself. */
static void report_recursion(struct expander *expander, const struct block *block,
                             const struct entry *entry) {
    struct reader *reader = expander->reader;
    const char *chain = block->name;
    for (const struct block_use *use = reader->use; use != NULL; use = use->outer) {
        chain = arena_printf(reader->arena, "%.60s -> %.300s", use->block, chain);
        if (strcmp(use->block, block->name) == 0)
            break;
    }
    reader_error(reader, entry->pos, "the block %s uses itself (%s)", block->name, chain);
    reader_hint(reader, "\"repeat\" expands layers several times");
}

static void expand_block(struct expander *expander, const struct entry *entry,
                         struct block *block) {
    struct reader *reader = expander->reader;
    if (block->active) {
        report_recursion(expander, block, entry);
        return;
    }
    const char *name = entry_name(expander, entry);
    read_from(expander, entry);
    const struct variable *scope = bind_arguments(expander, block, entry);
    if (block->layers == NULL || (scope == NULL && block->n_parameters > 0) ||
        !enter(expander, entry))
        return;
    const struct place place =
        make_place(expander, arena_printf(reader->arena, "%s/", name), entry->place);
    const struct block_use use = {block->name, entry->pos, reader->use};
    reader->use = &use;
    block->active = true;
    expand_list(expander, block->layers, scope, &place);
    block->active = false;
    reader->use = use.outer;
    expander->nesting--;
    add_name(expander, name, expander->previous, entry->pos);
}

static void expand_repeat(struct expander *expander, const struct entry *entry) {
    static const char *const keys[] = {"times", "as", "from", "step", "layers"};
    struct reader *reader = expander->reader;
    int times = 0, from = 1, step = 1;
    if (entry->fields == NULL) {
        reader_error(reader, entry->pos, "repeat needs times and layers");
        return;
    }
    if (!field_check(reader, entry->fields, "repeat", keys, ARRAY_LEN(keys)))
        return;
    const struct tree *times_field = tree_get(entry->fields, "times");
    const struct tree *layers = tree_get(entry->fields, "layers");
    const struct tree *as = tree_get(entry->fields, "as");
    if (times_field == NULL || layers == NULL)
        reader_error(reader, entry->pos, "repeat has no %s",
                     times_field == NULL ? "times" : "layers");
    else
        field_int(reader, times_field, entry->scope, "times", 0, MODEL_LAYERS_MAX, &times);
    const struct tree *field = tree_get(entry->fields, "from");
    if (field != NULL)
        field_int(reader, field, entry->scope, "from", -1000000, 1000000, &from);
    field = tree_get(entry->fields, "step");
    if (field != NULL)
        field_int(reader, field, entry->scope, "step", -1000000, 1000000, &step);
    if (as != NULL && (as->kind != TREE_SCALAR || !expr_is_name(as->text))) {
        reader_error(reader, as->pos, "\"as\" must be the name of a variable");
        as = NULL;
    }
    if (layers == NULL || !enter(expander, entry))
        return;
    for (int i = 0; i < times && !expander->stopped; i++) {
        const struct variable *scope = entry->scope;
        const double number = (double)from + (double)i * step;
        if (as != NULL)
            scope = add_variable(reader->arena, as->text,
                                 (struct model_value){.kind = MODEL_NUMBER, .number = number},
                                 as->pos, scope);
        expand_list(expander, layers, scope, entry->place);
    }
    expander->nesting--;
}

static void unknown_entry(struct expander *expander, const struct entry *entry) {
    const char **names =
        ARENA_ARRAY(expander->reader->arena, const char *, LAYER_KINDS + expander->blocks.count);
    size_t count = 0;
    for (size_t i = 0; i < expander->blocks.count; i++)
        names[count++] = expander->blocks.items[i].name;
    for (size_t i = 0; kind_name(i) != NULL; i++)
        names[count++] = kind_name(i);
    names[count++] = "repeat";
    reader_error(expander->reader, entry->pos, "there is no layer or block \"%.60s\"", entry->word);
    reader_hint_names(expander->reader, entry->word, names, count);
}

/* "- conv:" and below it, not indented, the fields: YAML takes them for keys beside conv. */
static void several_keys(struct reader *reader, const struct tree *item) {
    reader_error(reader, item->pos,
                 "a layer is one word with its fields after the colon, not %zu "
                 "keys",
                 item->count);
    if (item->count > 1 && tree_is_empty(item->items[0]))
        reader_hint(reader, "indent the fields further than \"%.40s:\"", item->keys[0]->text);
    else if (item->count > 1)
        reader_hint(reader,
                    "\"%.40s\" needs a line of its own that starts with \"- \", or belongs "
                    "inside {...}",
                    item->keys[1]->text);
}

static void expand_item(struct expander *expander, const struct tree *item,
                        const struct variable *scope, const struct place *place) {
    struct reader *reader = expander->reader;
    struct entry entry = {.pos = item->pos, .scope = scope, .place = place};
    const struct tree *word = item;
    if (item->kind == TREE_MAP && item->count == 1) {
        word = item->keys[0];
        entry.fields = tree_is_empty(item->items[0]) ? NULL : item->items[0];
    } else if (item->kind == TREE_MAP) {
        several_keys(reader, item);
        return;
    }
    if (word->kind != TREE_SCALAR || tree_is_empty(word)) {
        reader_error(reader, item->pos, "a layer is expected here, not %s", tree_kind_name(item));
        return;
    }
    entry.pos = word->pos;
    entry.word = field_text(reader, word, scope, "the kind of a layer");
    if (entry.word == NULL)
        return;
    const int kind = kind_find(entry.word);
    struct block *block = find_block(expander, entry.word);
    if (kind >= 0)
        entry.count = &place->counts[kind];
    else if (block != NULL)
        entry.count = &place->counts[LAYER_KINDS + (size_t)(block - expander->blocks.items)];
    if (kind >= 0)
        expand_layer(expander, &entry, (enum layer_kind)kind);
    else if (block != NULL)
        expand_block(expander, &entry, block);
    else if (strcmp(entry.word, "repeat") == 0)
        expand_repeat(expander, &entry);
    else
        unknown_entry(expander, &entry);
}

static void expand_list(struct expander *expander, const struct tree *list,
                        const struct variable *scope, const struct place *place) {
    struct reader *reader = expander->reader;
    if (list->kind != TREE_LIST || list->count == 0) {
        reader_error(reader, list->pos, "layers must be a list of layers, not %s",
                     list->kind == TREE_LIST ? "an empty one" : tree_kind_name(list));
        reader_hint(reader, "one layer a line, starting with \"- \"");
        return;
    }
    for (size_t i = 0; i < list->count && !expander->stopped; i++) {
        if (++expander->steps > STEPS_MAX) {
            reader_error(reader, list->items[i]->pos,
                         "blocks and repeats expand to more than %d entries", STEPS_MAX);
            stop(expander);
        } else {
            expand_item(expander, list->items[i], scope, place);
        }
    }
}

/* Definitions of blocks */

static bool read_parameter(struct reader *reader, const struct tree *tree, struct block *block) {
    struct parameter parameter = {NULL, NULL};
    struct diag_pos pos = tree->pos;
    if (tree->kind == TREE_SCALAR)
        parameter.name = tree->text;
    else if (tree->kind == TREE_MAP && tree->count == 1)
        parameter = (struct parameter){tree->keys[0]->text, tree->items[0]};
    if (parameter.name == NULL || !expr_is_name(parameter.name)) {
        reader_error(reader, pos, "a parameter is a name, or {name: default}");
        return false;
    }
    if (parameter_known(block, parameter.name)) {
        const bool own = strcmp(parameter.name, "name") == 0 || strcmp(parameter.name, "from") == 0;
        reader_error(reader, pos,
                     own ? "every block has \"%s\" already" : "the parameter \"%s\" is here twice",
                     parameter.name);
        return false;
    }
    if (block->n_parameters == PARAMETERS_MAX) {
        reader_error(reader, pos, "more than %d parameters", PARAMETERS_MAX);
        return false;
    }
    block->parameters[block->n_parameters++] = parameter;
    return true;
}

static void read_block(struct expander *expander, const struct tree *key,
                       const struct tree *definition) {
    static const char *const keys[] = {"parameters", "layers"};
    struct reader *reader = expander->reader;
    struct block block = {.name = key->text, .pos = key->pos};
    bool good = true;
    if (!expr_is_name(key->text)) {
        reader_error(reader, key->pos, "\"%.60s\" cannot be the name of a block", key->text);
        reader_hint(reader, "letters, digits and \"_\", not starting with a digit");
        return;
    }
    if (kind_find(key->text) >= 0 || strcmp(key->text, "repeat") == 0) {
        reader_error(reader, key->pos, "\"%s\" is a kind of layer, a block needs another name",
                     key->text);
        return;
    }
    if (field_check(reader, definition, "a block", keys, ARRAY_LEN(keys))) {
        const struct tree *parameters = tree_get(definition, "parameters");
        if (parameters != NULL && parameters->kind != TREE_LIST) {
            reader_error(reader, parameters->pos, "parameters must be a list of names, not %s",
                         tree_kind_name(parameters));
            good = false;
        }
        for (size_t i = 0; good && parameters != NULL && i < parameters->count; i++)
            good = read_parameter(reader, parameters->items[i], &block);
        block.layers = good ? tree_get(definition, "layers") : NULL;
        if (good && block.layers == NULL)
            reader_error(reader, key->pos, "the block %s has no layers", key->text);
    }
    vec_push(&expander->blocks, block);
}

void layers_read(struct reader *reader, const struct tree *blocks, const struct tree *layers,
                 const struct variable *scope, struct layer_init init) {
    struct expander expander = {.reader = reader, .globals = scope, .init = init};
    struct layer input = kind_defaults(LAYER_INPUT, init);
    input.name = "input";
    input.n_inputs = 0;
    input.channels = reader->model->channels;
    vec_push(&reader->model->layers, input);
    add_name(&expander, "input", 0, input.pos);
    if (blocks != NULL && blocks->kind != TREE_MAP) {
        reader_error(reader, blocks->pos, "blocks must be a map of \"name: {layers: ...}\", not %s",
                     tree_kind_name(blocks));
    } else if (blocks != NULL) {
        for (size_t i = 0; i < blocks->count; i++)
            read_block(&expander, blocks->keys[i], blocks->items[i]);
    }
    const struct place top = make_place(&expander, "", NULL);
    expand_list(&expander, layers, scope, &top);
    vec_free(&expander.blocks);
    vec_free(&expander.names);
}
