/*
 * model_reader.h: what the stages of reading a model share: where mistakes go, values and
 * variables, typed access to the fields of a map. Private to the model_*.c files.
 */
#ifndef UNET_MODEL_READER_H
#define UNET_MODEL_READER_H

#include "common/vec.h"
#include "compiler/model.h"
#include "compiler/model_yaml.h"

#define MODEL_LAYERS_MAX 4096
#define MODEL_TEXT_MAX 200    /* characters of a text value */
#define MODEL_NUMBER_MAX 1e15 /* whole numbers stay exact below it */

/* What an expression gives. BROKEN: a mistake already reported; whoever meets it stays silent. */
enum model_value_kind { MODEL_BROKEN, MODEL_NUMBER, MODEL_TEXT };

struct model_value {
    enum model_value_kind kind;
    double number;
    const char *text;
};

/* A variable; a scope is a chain of them, the innermost first. */
struct variable {
    const char *name;
    struct model_value value;
    struct diag_pos pos;
    const struct variable *next;
};

/* A block being expanded, for "(in block double, used in line 31)". */
struct block_use {
    const char *block;
    struct diag_pos pos;
    const struct block_use *outer;
};

struct reported {
    struct diag_pos pos;
    uint64_t hash; /* of the message without the uses */
};

struct reader {
    struct arena *arena;
    struct diag *diag;
    struct model *model;
    const struct block_use *use;      /* innermost; NULL outside blocks */
    const struct model_override *set; /* the override being evaluated; NULL: text of the file */
    const struct tree *let;           /* the whole let: map, for hints */
    VEC(struct reported) reported;
    bool last_shown; /* the last mistake was new: hints go to it */
};

/* model_reader.c. A mistake is reported once per place however often a block is expanded. */
void reader_error(struct reader *reader, struct diag_pos pos, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void reader_hint(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Hints at the nearest of the candidates, or lists them all after the words "known: ". */
void reader_hint_names(struct reader *reader, const char *word, const char *const *names,
                       size_t count);

/* model_expr.c. The value of a scalar: literal text or number with every ${...} replaced. */
struct model_value expr_value(struct reader *reader, const struct tree *scalar,
                              const struct variable *scope);
/* A value as text, the way ${...} shows it in the middle of a text. */
const char *expr_text(struct arena *arena, struct model_value value);
/* True when the word can be a variable's name. */
bool expr_is_name(const char *word);

/*
 * model_reader.c: fields. The field_* functions return false (or NULL) after reporting a mistake;
 * *out is then unchanged. What names the field in messages: "kernel".
 */
struct field_range {
    double min, max;
};

/* Every key of the map is one of the names; others are reported. what: "conv", "input:". False when
 * the tree is no map. */
bool field_check(struct reader *reader, const struct tree *map, const char *what,
                 const char *const *names, size_t count);
bool field_number(struct reader *reader, const struct tree *tree, const struct variable *scope,
                  const char *what, double min, double max, double *out);
bool field_float(struct reader *reader, const struct tree *tree, const struct variable *scope,
                 const char *what, double min, double max, float *out);
bool field_int(struct reader *reader, const struct tree *tree, const struct variable *scope,
               const char *what, int min, int max, int *out);
/* One whole number for both, or [h, w]. */
bool field_pair(struct reader *reader, const struct tree *tree, const struct variable *scope,
                const char *what, int min, int max, int out[2]);
bool field_bool(struct reader *reader, const struct tree *tree, const struct variable *scope,
                const char *what, bool *out);
const char *field_text(struct reader *reader, const struct tree *tree, const struct variable *scope,
                       const char *what);
bool field_choice(struct reader *reader, const struct tree *tree, const struct variable *scope,
                  const char *what, const char *const *names, size_t count, int *out);
/* A name of a layer or block: letters, digits, "_", "-", "."; NULL when it is not one. */
const char *field_name(struct reader *reader, const struct tree *tree, const struct variable *scope,
                       const char *what);

/* model_settings.c: the sections around the layers. They fill the model and its settings. */
void settings_read_input(struct reader *reader, const struct tree *map,
                         const struct variable *scope);
void settings_read_labels(struct reader *reader, const struct tree *list,
                          const struct variable *scope);
/* Before the layers: gives the default of their init:. */
void settings_read_train(struct reader *reader, const struct tree *map,
                         const struct variable *scope, struct layer_init *init);
/* model_samples.c: augment: and weights:, the latter after labels:. */
void settings_read_augment(struct reader *reader, const struct tree *tree,
                           const struct variable *scope);
void settings_read_weights(struct reader *reader, const struct tree *map,
                           const struct variable *scope);
bool settings_read_init(struct reader *reader, const struct tree *tree,
                        const struct variable *scope, struct layer_init *out);

/* One entry of a list of layers: "relu", "conv: {...}". */
struct entry {
    const char *word;
    struct diag_pos pos;
    const struct tree *fields; /* NULL: none given */
    const struct variable *scope;
    const struct place *place; /* model_layers.c: where its name is local */
    int *count;                /* of unnamed entries with this word in the place */
};

/*
 * model_kinds.c: the kinds of layers and their fields. kind_find: the kind a word names, or -1 (the
 * input is not written as a layer). kind_name(i): all of them, NULL behind the last.
 */
int kind_find(const char *word);
const char *kind_name(size_t i);
/* The field of an entry, or, when it has a lone value instead of a map, that value for the main
 * field. */
const struct tree *kind_field(const struct entry *entry, enum layer_kind kind, const char *key);
/* A layer with the defaults of its kind. */
struct layer kind_defaults(enum layer_kind kind, struct layer_init init);
/* Reads everything but the names of the layer and its inputs. */
void kind_read_fields(struct reader *reader, const struct entry *entry, struct layer *layer);

/* model_layers.c: expands blocks: and layers: into model->layers. */
void layers_read(struct reader *reader, const struct tree *blocks, const struct tree *layers,
                 const struct variable *scope, struct layer_init init);
/* model_check.c, after everything is read: one end, nothing unused, classes and logits agree. */
void layers_check(struct reader *reader, bool have_labels);

/* model_hash.c */
uint64_t model_hash(const struct model *model);

#endif
