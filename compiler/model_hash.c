/*
 * model_hash.c: a number that two models share when weights of one mean the same in the other. It
 * is the FNV-1a hash (64 bits) of a text: normalisation of the input, classes in order, and every
 * layer that weights pass through, with names. Not in it: tile and batch size, training settings,
 * dropout, values of label images, the model's own name.
 */
#include <stdio.h>
#include <stdlib.h>

#include "compiler/model_reader.h"

struct hash_text {
    uint64_t hash;
};

static void add(struct hash_text *text, const char *piece) {
    for (; *piece != '\0'; piece++)
        text->hash = (text->hash ^ (unsigned char)*piece) * 1099511628211u;
}

static void add_number(struct hash_text *text, const char *key, double value) {
    char number[64];
    snprintf(number, sizeof(number), " %s=%.9g", key, value);
    add(text, number);
}

/* The layer whose output this one has, without those that change nothing at inference. */
static int through_dropout(const struct model *model, int layer) {
    while (model->layers.items[layer].kind == LAYER_DROPOUT)
        layer = model->layers.items[layer].inputs[0];
    return layer;
}

static void add_layer(struct hash_text *text, const struct model *model, const struct layer *layer,
                      const int *numbers) {
    add(text, "\n");
    add(text, layer_kind_name(layer->kind));
    if (layer->kind == LAYER_CONV || layer->kind == LAYER_UPCONV) {
        add(text, " ");
        add(text, layer->name);
    }
    for (int i = 0; i < layer->n_inputs; i++)
        add_number(text, "in", numbers[through_dropout(model, layer->inputs[i])]);
    add_number(text, "channels", layer->channels);
    add_number(text, "kernel_h", layer->kernel_h);
    add_number(text, "kernel_w", layer->kernel_w);
    add_number(text, "same", layer->same);
    add_number(text, "dilation", layer->dilation);
    add_number(text, "stride", layer->stride);
    add_number(text, "bias", layer->bias);
    add_number(text, "slope", (double)layer->slope);
}

uint64_t model_hash(const struct model *model) {
    const struct plan_model *settings = &model->settings;
    struct hash_text text = {14695981039346656037u};
    int *numbers = calloc(model->layers.count, sizeof(*numbers)), count = 1;
    if (numbers == NULL)
        abort();
    add(&text, "input");
    add_number(&text, "channels", model->channels);
    add_number(&text, "normalise", settings->normalise);
    add_number(&text, "offset", (double)settings->input_offset);
    add_number(&text, "scale", (double)settings->input_scale);
    add(&text, "\nclasses");
    for (uint32_t i = 0; i < settings->n_classes; i++) {
        add(&text, " ");
        add(&text, model->class_names[i]);
    }
    for (size_t i = 1; i < model->layers.count; i++) {
        const struct layer *layer = &model->layers.items[i];
        if (layer->kind == LAYER_DROPOUT || layer->kind == LAYER_SOFTMAX ||
            layer->kind == LAYER_CROSS_ENTROPY)
            continue;
        numbers[i] = count++;
        add_layer(&text, model, layer, numbers);
    }
    free(numbers);
    return text.hash;
}
