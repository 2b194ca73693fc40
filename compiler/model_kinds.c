/*
 * model_kinds.c: the kinds of layers as they are written in a model file: words, fields, defaults,
 * and what values the fields take. A new kind or field is a row here and a line in docs/model.md.
 */
#include <string.h>

#include "compiler/model_reader.h"

#define CHANNELS_MAX 65536

/* What a kind of layer may say, "name" and "from" first; main is the field that a lone value
 * stands for. */
struct kind_info {
    const char *name;
    const char *main;
    const char *keys[8];
};

static const struct kind_info kinds[] = {
    [LAYER_INPUT] = {"input", NULL, {NULL}},
    [LAYER_CONV] = {"conv",
                    "channels",
                    {"name", "from", "channels", "kernel", "padding", "dilation", "bias", "init"}},
    [LAYER_RELU] = {"relu", NULL, {"name", "from"}},
    [LAYER_LEAKY_RELU] = {"leaky_relu", "slope", {"name", "from", "slope"}},
    [LAYER_MAXPOOL] = {"maxpool", "size", {"name", "from", "size", "stride", "dilation"}},
    [LAYER_UPCONV] = {"upconv", "channels", {"name", "from", "channels", "kernel", "bias", "init"}},
    [LAYER_CONCAT] = {"concat", "inputs", {"name", "inputs"}},
    [LAYER_ADD] = {"add", "inputs", {"name", "inputs"}},
    [LAYER_DROPOUT] = {"dropout", "rate", {"name", "from", "rate"}},
    [LAYER_SOFTMAX] = {"softmax", NULL, {"name", "from"}},
    [LAYER_CROSS_ENTROPY] = {"cross_entropy", "weight_map", {"name", "from", "weight_map"}},
};

const char *layer_kind_name(enum layer_kind kind) {
    return kinds[kind].name;
}

int kind_find(const char *word) {
    for (int i = LAYER_INPUT + 1; i < (int)ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].name, word) == 0)
            return i;
    return -1;
}

const char *kind_name(size_t i) {
    return i + 1 < ARRAY_LEN(kinds) ? kinds[i + 1].name : NULL;
}

const struct tree *kind_field(const struct entry *entry, enum layer_kind kind, const char *key) {
    const char *main = kinds[kind].main;
    if (entry->fields == NULL)
        return NULL;
    if (entry->fields->kind == TREE_MAP)
        return tree_get(entry->fields, key);
    return main != NULL && strcmp(main, key) == 0 ? entry->fields : NULL;
}

struct layer kind_defaults(enum layer_kind kind, struct layer_init init) {
    struct layer layer = {.kind = kind, .n_inputs = 1, .dilation = 1, .stride = 1};
    layer.kernel_h = layer.kernel_w = 1;
    layer.bias = layer.weight_map = true;
    layer.slope = kind == LAYER_LEAKY_RELU ? 0.1f : 0;
    layer.rate = 0.5f;
    layer.init = init;
    return layer;
}

static void check_keys(struct reader *reader, const struct entry *entry,
                       const struct kind_info *info) {
    if (entry->fields == NULL)
        return;
    if (entry->fields->kind != TREE_MAP) {
        if (info->main == NULL) {
            reader_error(reader, entry->fields->pos, "%s takes no value", info->name);
            reader_hint(reader, "write \"- %s\", or \"- %s: {name: NAME}\"", info->name,
                        info->name);
        }
        return;
    }
    size_t count = 0;
    while (count < ARRAY_LEN(info->keys) && info->keys[count] != NULL)
        count++;
    field_check(reader, entry->fields, info->name, info->keys, count);
}

static void read_channels(struct reader *reader, const struct entry *entry, struct layer *layer) {
    const struct tree *field = kind_field(entry, layer->kind, "channels");
    if (field != NULL) {
        field_int(reader, field, entry->scope, "channels", 1, CHANNELS_MAX, &layer->channels);
    } else {
        reader_error(reader, entry->pos, "%s has no channels", layer_kind_name(layer->kind));
        reader_hint(reader, "for example \"%s: {channels: 64, kernel: %d}\"",
                    layer_kind_name(layer->kind), layer->kind == LAYER_UPCONV ? 2 : 3);
    }
    field = kind_field(entry, layer->kind, "bias");
    if (field != NULL)
        field_bool(reader, field, entry->scope, "bias", &layer->bias);
    field = kind_field(entry, layer->kind, "init");
    if (field != NULL)
        settings_read_init(reader, field, entry->scope, &layer->init);
}

static void read_conv(struct reader *reader, const struct entry *entry, struct layer *layer) {
    static const char *const paddings[] = {"valid", "same"};
    int kernel[2] = {3, 3}, padding = 0;
    read_channels(reader, entry, layer);
    const struct tree *field = kind_field(entry, layer->kind, "kernel");
    if (field != NULL)
        field_pair(reader, field, entry->scope, "kernel", 1, 255, kernel);
    layer->kernel_h = kernel[0];
    layer->kernel_w = kernel[1];
    field = kind_field(entry, layer->kind, "dilation");
    if (field != NULL)
        field_int(reader, field, entry->scope, "dilation", 1, 1024, &layer->dilation);
    field = kind_field(entry, layer->kind, "padding");
    if (field != NULL)
        field_choice(reader, field, entry->scope, "padding", paddings, ARRAY_LEN(paddings),
                     &padding);
    layer->same = padding == 1;
    const int reach_h = layer->dilation * (kernel[0] - 1);
    const int reach_w = layer->dilation * (kernel[1] - 1);
    if (layer->same && (reach_h % 2 != 0 || reach_w % 2 != 0)) {
        reader_error(reader, field->pos, "same padding needs an odd kernel, not %dx%d", kernel[0],
                     kernel[1]);
        reader_hint(reader, "an even kernel has no middle; use padding: valid or a kernel of %dx%d",
                    kernel[0] | 1, kernel[1] | 1);
    }
}

static void read_upconv(struct reader *reader, const struct entry *entry, struct layer *layer) {
    int kernel = 2;
    read_channels(reader, entry, layer);
    const struct tree *field = kind_field(entry, layer->kind, "kernel");
    if (field != NULL)
        field_int(reader, field, entry->scope, "kernel", 2, 64, &kernel);
    layer->kernel_h = layer->kernel_w = kernel;
}

static void read_maxpool(struct reader *reader, const struct entry *entry, struct layer *layer) {
    int size = 2;
    const struct tree *field = kind_field(entry, layer->kind, "size");
    if (field != NULL)
        field_int(reader, field, entry->scope, "size", 1, 64, &size);
    layer->kernel_h = layer->kernel_w = layer->stride = size;
    field = kind_field(entry, layer->kind, "stride");
    if (field != NULL)
        field_int(reader, field, entry->scope, "stride", 1, 64, &layer->stride);
    field = kind_field(entry, layer->kind, "dilation");
    if (field != NULL)
        field_int(reader, field, entry->scope, "dilation", 1, 1024, &layer->dilation);
}

void kind_read_fields(struct reader *reader, const struct entry *entry, struct layer *layer) {
    const struct tree *field;
    check_keys(reader, entry, &kinds[layer->kind]);
    switch (layer->kind) {
    case LAYER_CONV:
        read_conv(reader, entry, layer);
        break;
    case LAYER_UPCONV:
        read_upconv(reader, entry, layer);
        break;
    case LAYER_MAXPOOL:
        read_maxpool(reader, entry, layer);
        break;
    case LAYER_LEAKY_RELU:
        field = kind_field(entry, layer->kind, "slope");
        if (field != NULL)
            field_float(reader, field, entry->scope, "slope", 0, 1, &layer->slope);
        break;
    case LAYER_DROPOUT:
        field = kind_field(entry, layer->kind, "rate");
        if (field != NULL)
            field_float(reader, field, entry->scope, "rate", 0, 0.999, &layer->rate);
        break;
    case LAYER_CROSS_ENTROPY:
        field = kind_field(entry, layer->kind, "weight_map");
        if (field != NULL)
            field_bool(reader, field, entry->scope, "weight_map", &layer->weight_map);
        break;
    default:
        break;
    }
}
