/*
 * model.h: a model file after reading: blocks expanded, variables evaluated, every layer explicit,
 * every name resolved. docs/model.md is the language. model_read.c and its neighbours fill it from
 * libyaml events; build.c turns it into graphs.
 */
#ifndef UNET_MODEL_H
#define UNET_MODEL_H

#include "compiler/ir.h"

enum layer_kind {
    LAYER_INPUT, /* layer 0 of every model */
    LAYER_CONV,
    LAYER_RELU,
    LAYER_LEAKY_RELU,
    LAYER_MAXPOOL,
    LAYER_UPCONV,
    LAYER_CONCAT,
    LAYER_ADD,
    LAYER_DROPOUT,
    LAYER_SOFTMAX,
    LAYER_CROSS_ENTROPY
};
#define LAYER_KINDS (LAYER_CROSS_ENTROPY + 1)

#define LAYER_MAX_INPUTS 8

/* How weights start (biases: zero). Fan-in is c_in * kh * kw of a conv; of an up-conv, whose output
   pixels each see one input pixel, c_in. */
enum layer_init_kind {
    LAYER_INIT_HE, /* normal, variance gain / fan-in: 2 for conv; up-conv 2 before an activation,
                      else 1 */
    LAYER_INIT_XAVIER,  /* uniform within sqrt(6 / (fan-in + fan-out)) */
    LAYER_INIT_NORMAL,  /* standard deviation scale */
    LAYER_INIT_UNIFORM, /* within scale */
    LAYER_INIT_ZERO
};

struct layer_init {
    enum layer_init_kind kind;
    float scale;
};

struct layer {
    enum layer_kind kind;
    const char *name; /* unique; "enc1/conv1" inside block enc1 */
    struct diag_pos pos;
    int n_inputs;
    int inputs[LAYER_MAX_INPUTS]; /* indices of earlier layers */
    int kernel_h, kernel_w;       /* conv, maxpool, upconv (square for the last two) */
    bool same;                    /* conv: zero padding that keeps the size; else valid */
    int dilation, stride;         /* stride: maxpool only */
    int channels;                 /* of the output */
    bool bias;
    float slope;     /* leaky_relu */
    float rate;      /* dropout */
    bool weight_map; /* cross_entropy: weights of labels: and weights: count (else all are 1) */
    bool recompute;  /* conv, upconv: named in train: recompute */
    struct layer_init init;
};

/* A layer named somewhere else than where it stands. */
struct layer_name {
    const char *name;
    struct diag_pos pos;
};

struct model {
    struct arena arena; /* owns everything; also the graphs built from the model may use it */
    const char *file, *text;
    const char *name;
    const char *overrides;
    uint64_t hash;
    VEC(struct layer) layers;
    int channels, tile_h, tile_w;
    const char **class_names; /* settings.n_classes of them */
    struct diag_pos tile_pos;
    bool is_mixed;       /* "precision: mixed": half precision where the device is faster with it */
    float scale_initial; /* of the loss, when it is; a power of two */
    int scale_interval;  /* good updates until it is doubled; 0: it never changes */
    int margin; /* of models with zero padding: output pixels that inference discards on each side;
                -1: chosen */
    float momentum, beta1, beta2, epsilon, weight_decay;
    VEC(struct layer_name) recompute; /* train: recompute */
    struct plan_model settings;       /* labels, normalisation, training; sizes are filled by
                                         model_sizes.c */
    bool params_made;                 /* by model_params, in params */
    VEC(const struct param *) params;
};

struct model_override {
    const char *name, *value;
};

/*
 * Reads and expands a model. Mistakes go to diag (up to DIAG_MAX shown); false when there was any.
 * Mistakes of overrides (an unknown variable) have no position. *out is set in both cases: diag
 * points into the model's text, so print the mistakes before model_free.
 */
bool model_load(const char *path, const struct model_override *overrides, size_t n_overrides,
                struct model **out, struct diag *diag);
bool model_parse(const char *file_name, const char *text, const struct model_override *overrides,
                 size_t n_overrides, struct model **out, struct diag *diag);
void model_free(struct model *model); /* NULL-safe */

enum model_program { MODEL_TRAIN, MODEL_EVALUATE, MODEL_INFER, MODEL_ACCUMULATE };

/*
 * model_sizes.c and build.c. Checks all sizes first (model_check_sizes: fills model->settings'
 * in/out sizes, margins, core, strides; a pool that sees an odd size is reported with the layer,
 * the size it sees, and the nearest legal tile sizes), then builds. Programs: TRAIN, ACCUMULATE
 * (the same before its gradients are used) and EVALUATE end in SOFTMAX_LOSS (ports "image",
 * "labels", "weights", "loss", EVALUATE also "probs"), INFER in SOFTMAX (ports "image", "probs").
 * Dropout only in TRAIN and ACCUMULATE. All work on settings.batch images. Graphs share model's
 * params (struct param objects, same pointers).
 */
bool model_check_sizes(struct model *model, struct diag *diag);
/* Whether a square tile of this size would pass, of a model that has passed with its own; that maps
   may have too many elements is not looked at. */
bool model_tile_is_legal(const struct model *model, uint32_t tile);
bool build_graph(struct model *model, enum model_program program, struct graph *graph,
                 struct err *err);

/* Parameters in order of layers, made once per model (weight then bias of each layer). */
size_t model_params(struct model *model, const struct param *const **out);

/* Human name of a layer kind as written in model files: "conv". */
const char *layer_kind_name(enum layer_kind kind);

#endif
