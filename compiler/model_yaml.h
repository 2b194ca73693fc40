/*
 * model_yaml.h: the text of a model file as a tree of lists, maps and scalars, every one with its
 * position. Nothing here knows what the keys mean. Private to the model_*.c files.
 */
#ifndef UNET_MODEL_YAML_H
#define UNET_MODEL_YAML_H

#include "common/arena.h"
#include "common/diag.h"

#define YAML_TEXT_MAX (1 << 20) /* bytes of a model file */
#define YAML_DEPTH_MAX 64       /* lists and maps inside each other */

enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP };

struct tree {
    enum tree_kind kind;
    struct diag_pos pos;
    const char *text; /* scalars; "" where nothing is written */
    bool quoted;
    size_t count;        /* items of a list, pairs of a map */
    struct tree **keys;  /* of a map: scalars, all different */
    struct tree **items; /* of a list, or the values of a map */
};

/* Reads the one document of a model file into *out (memory of the arena). Mistakes go to diag;
 * false when there was any. */
bool yaml_read(struct arena *arena, const char *text, struct tree **out, struct diag *diag);

/* The value of a key, or NULL. */
const struct tree *tree_get(const struct tree *map, const char *key);
/* "a list", "a map", "text": for messages. */
const char *tree_kind_name(const struct tree *tree);
/* True for a scalar with nothing in it: "relu:". */
bool tree_is_empty(const struct tree *tree);

#endif
