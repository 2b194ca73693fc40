/*
 * model_check.c: what must hold of the whole list of layers, once every field is read: one end, no
 * output thrown away, channels that fit.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/model_reader.h"

#define CHANNELS_MAX (1 << 20)

static void check_end(struct reader *reader) {
    const struct model *model = reader->model;
    const size_t last = model->layers.count - 1;
    for (size_t i = 1; i < last; i++)
        if (model->layers.items[i].kind == LAYER_CROSS_ENTROPY) {
            reader_error(reader, model->layers.items[i].pos,
                         "cross_entropy must be the last layer");
            reader_hint(reader,
                        "a model has one output: the class scores that cross_entropy takes");
        }
    if (model->layers.items[last].kind != LAYER_CROSS_ENTROPY) {
        reader_error(reader, model->layers.items[last].pos,
                     "the last layer must be cross_entropy, not %s",
                     layer_kind_name(model->layers.items[last].kind));
        reader_hint(reader, "it takes one channel per class; inference shows their softmax");
    }
}

static void check_softmax(struct reader *reader) {
    const struct model *model = reader->model;
    for (size_t i = 1; i + 1 < model->layers.count; i++) {
        const struct layer *layer = &model->layers.items[i], *next = layer + 1;
        if (layer->kind != LAYER_SOFTMAX)
            continue;
        if (next->kind == LAYER_CROSS_ENTROPY && next->inputs[0] == (int)i)
            continue;
        reader_error(reader, layer->pos, "softmax stands only right before cross_entropy");
        reader_hint(reader, "cross_entropy contains the softmax; this layer can be left out");
    }
}

static void check_used(struct reader *reader) {
    const struct model *model = reader->model;
    const size_t count = model->layers.count;
    bool *used = calloc(count, sizeof(*used));
    if (used == NULL)
        abort();
    for (size_t i = 1; i < count; i++)
        for (int j = 0; j < model->layers.items[i].n_inputs; j++)
            used[model->layers.items[i].inputs[j]] = true;
    for (size_t i = 0; i + 1 < count; i++) {
        const struct layer *layer = &model->layers.items[i];
        if (used[i])
            continue;
        if (i == 0) {
            reader_error(reader, model->layers.items[1].pos, "no layer takes the input");
        } else {
            reader_error(reader, layer->pos, "no layer takes the output of %s", layer->name);
            reader_hint(reader, "a layer takes the one before it unless it says from: or inputs:");
        }
    }
    free(used);
}

/* Channels that the inputs give to a layer; 0 after a report. */
static int input_channels(struct reader *reader, const struct layer *layer) {
    const struct layer *layers = reader->model->layers.items;
    int channels = layers[layer->inputs[0]].channels;
    for (int i = 1; i < layer->n_inputs; i++) {
        const struct layer *other = &layers[layer->inputs[i]];
        if (layer->kind == LAYER_CONCAT) {
            channels += other->channels;
        } else if (other->channels != channels) {
            reader_error(reader, layer->pos, "%s adds %d channels of %s to %d of %s", layer->name,
                         other->channels, other->name, channels, layers[layer->inputs[0]].name);
            reader_hint(reader, "a conv with kernel 1 changes the number of channels");
        }
    }
    if (channels <= CHANNELS_MAX)
        return channels;
    reader_error(reader, layer->pos, "%s has more than %d channels", layer->name, CHANNELS_MAX);
    return 0;
}

static bool fill_channels(struct reader *reader) {
    struct model *model = reader->model;
    for (size_t i = 1; i < model->layers.count; i++) {
        struct layer *layer = &model->layers.items[i];
        const int channels = input_channels(reader, layer);
        if (channels == 0)
            return false;
        if (layer->kind != LAYER_CONV && layer->kind != LAYER_UPCONV)
            layer->channels = channels;
    }
    return true;
}

/* The layer that set the number of channels here. */
static const struct layer *channels_from(const struct model *model, const struct layer *layer) {
    while (layer->kind != LAYER_CONV && layer->kind != LAYER_UPCONV && layer->kind != LAYER_INPUT &&
           layer->n_inputs == 1)
        layer = &model->layers.items[layer->inputs[0]];
    return layer;
}

static void check_classes(struct reader *reader) {
    const struct model *model = reader->model;
    const struct layer *last = &model->layers.items[model->layers.count - 1];
    if (last->channels == (int)model->settings.n_classes)
        return;
    const struct layer *source = channels_from(model, last);
    const struct diag_pos pos = source->pos.line > 0 ? source->pos : last->pos;
    const char *names = model->class_names[0];
    for (uint32_t i = 1; i < model->settings.n_classes && i < 8; i++)
        names = arena_printf(reader->arena, "%s, %s", names, model->class_names[i]);
    reader_error(reader, pos, "the net ends in %d channel%s, labels name %u classes (%s%s)",
                 last->channels, last->channels == 1 ? "" : "s", model->settings.n_classes, names,
                 model->settings.n_classes > 8 ? ", ..." : "");
    reader_hint(reader, "give %s %u channels", source->name, model->settings.n_classes);
}

static void check_weights(struct reader *reader) {
    const struct model *model = reader->model;
    for (size_t i = 0; i < model->layers.count; i++)
        if (model->layers.items[i].kind == LAYER_CONV ||
            model->layers.items[i].kind == LAYER_UPCONV)
            return;
    reader_error(reader, model->layers.items[1].pos, "the model has no conv: nothing to train");
}

/* ---- train: recompute ---- */

static struct layer *find_layer(struct model *model, const char *name) {
    for (size_t i = 1; i < model->layers.count; i++)
        if (strcmp(model->layers.items[i].name, name) == 0)
            return &model->layers.items[i];
    return NULL;
}

static bool is_convolution(const struct layer *layer) {
    return layer->kind == LAYER_CONV || layer->kind == LAYER_UPCONV;
}

static void hint_convolutions(struct reader *reader, const char *word) {
    const struct model *model = reader->model;
    const char **names = ARENA_ARRAY(reader->arena, const char *, model->layers.count);
    size_t count = 0;
    for (size_t i = 1; i < model->layers.count; i++)
        if (is_convolution(&model->layers.items[i]))
            names[count++] = model->layers.items[i].name;
    reader_hint_names(reader, word, names, count);
}

static void check_recompute(struct reader *reader) {
    struct model *model = reader->model;
    for (size_t i = 0; i < model->recompute.count; i++) {
        const struct layer_name *named = &model->recompute.items[i];
        struct layer *layer = find_layer(model, named->name);
        if (layer == NULL) {
            reader_error(reader, named->pos, "recompute: there is no layer \"%.60s\"", named->name);
            hint_convolutions(reader, named->name);
        } else if (!is_convolution(layer)) {
            reader_error(reader, named->pos, "recompute: %s is a %s, not a conv or upconv",
                         named->name, layer_kind_name(layer->kind));
            reader_hint(reader, "name the convolution before it: what is point-wise behind a "
                                "convolution is computed again with it");
        } else if (layer->recompute) {
            reader_error(reader, named->pos, "recompute names %s twice", named->name);
        } else {
            layer->recompute = true;
        }
    }
}

void layers_check(struct reader *reader, bool have_labels) {
    check_weights(reader);
    check_end(reader);
    check_softmax(reader);
    check_used(reader);
    check_recompute(reader);
    if (fill_channels(reader) && have_labels)
        check_classes(reader);
}
