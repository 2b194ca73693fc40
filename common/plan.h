/*
 * plan.h: a compiled model: programs of dispatch records over tensors with fixed places in a few
 * memory blocks. The file format is docs/plan.md. A plan is self-contained: whoever executes it
 * needs no model file, no shader compiler and no knowledge of layers.
 */
#ifndef UNET_PLAN_H
#define UNET_PLAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/err.h"
#include "common/kernel.h"

#define PLAN_VERSION 6u
#define PLAN_ALIGNMENT                                                                             \
    256u /* of every tensor in its block, bytes; the largest that Vulkan lets a device ask for */
#define PLAN_MAX_GROUPS 65535u
#define PLAN_NONE UINT32_MAX

/* Classes of device a record has a tiling for. */
enum plan_class { PLAN_CLASS_GPU, PLAN_CLASS_CPU, PLAN_CLASS_COUNT };

/* How a shader reaches its tensors. */
enum plan_access { PLAN_ACCESS_DESCRIPTOR, PLAN_ACCESS_ADDRESS, PLAN_ACCESS_COUNT };

/* Memory blocks, each of one or more chunks; a chunk is one allocation. */
enum plan_block {
    PLAN_BLOCK_WEIGHTS, /* parameters; persistent */
    PLAN_BLOCK_STATE,   /* optimiser state, accumulators; persistent, for training only */
    PLAN_BLOCK_ARENA,   /* activations, gradients, scratch; undefined at the start of a program */
    PLAN_BLOCK_IO,      /* inputs written and outputs read by the host */
    PLAN_BLOCK_CONTROL, /* CONTROL_WORDS words, written by the host before each run */
    PLAN_BLOCK_COUNT
};
extern const char *const plan_block_names[PLAN_BLOCK_COUNT]; /* "weights" and so on */

enum plan_layout {
    PLAN_LAYOUT_PLANES,  /* n, c, h, w as in kernel_contract.h */
    PLAN_LAYOUT_WEIGHTS, /* [in][tap][out4] */
    PLAN_LAYOUT_FLAT     /* n*c*h*w words in a row (biases, partial sums, loss, control) */
};

enum plan_type { PLAN_TYPE_F32, PLAN_TYPE_U32 };

struct plan_tensor {
    const char *name;
    enum plan_block block;
    enum plan_layout layout;
    enum plan_type type;
    struct shape shape; /* logical. WEIGHTS: n = out, c = in, h = kh, w = kw */
    uint32_t stride_n;  /* PLANES: elements from one image to the next; else 0 */
    uint32_t base; /* the tensor whose memory this is a part of; itself for a tensor of its own */
    uint64_t offset_bytes; /* in the block, a multiple of PLAN_ALIGNMENT */
    uint64_t size_bytes;   /* from offset to the end of its last element */
};

/* One executable form of a kernel: SPIR-V for both access paths. */
struct plan_shader {
    const char *variant; /* "conv_fwd_reg" */
    const uint32_t *code[PLAN_ACCESS_COUNT];
    uint32_t n_words[PLAN_ACCESS_COUNT];
};

/* A shader VARIANT may have another one beside it whose name ends in this: the form that drivers
   take which load fastest at addresses that all invocations share (docs/shaders.md), on the
   descriptor path. No record names it; it is dispatched as VARIANT is. */
#define PLAN_SHARED_SUFFIX "_shared"

/* How a record is dispatched on one class of device. */
struct plan_dispatch {
    uint32_t shader; /* index into shaders */
    uint32_t n_spec;
    uint32_t spec[KERNEL_MAX_SPEC];
    uint32_t groups[3];
    uint32_t shared_bytes;
};

struct plan_record {
    const char *label; /* "enc1/conv1 forward": layer and role, for people */
    uint32_t choice; /* of the program: the record is part of a method of it; PLAN_NONE: of none */
    uint32_t method; /* of the choice, from 0; 0 without a choice */
    enum kernel_id kernel;
    uint32_t tensors[KERNEL_MAX_BINDINGS]; /* one per binding of the kernel */
    uint32_t params[KERNEL_MAX_PARAMS];    /* the kernel's parameter words */
    bool barrier; /* wait for, and make visible, all earlier writes first */
    uint64_t flops;
    struct plan_dispatch dispatch[PLAN_CLASS_COUNT];
};

/* Ways to compute the same result. Their names are what --disable takes. */
enum plan_method_kind {
    PLAN_METHOD_DIRECT,    /* sums as the kernel's definition has them */
    PLAN_METHOD_WINOGRAD,  /* Winograd's minimal filtering, tiles of 4 x 4: fewer multiplications */
    PLAN_METHOD_NARROW,    /* direct, with tiles of fewer output channels */
    PLAN_METHOD_SPLIT,     /* direct weight gradients in more parts, added up afterwards */
    PLAN_METHOD_MATRIX,    /* on matrix units: factors in half precision, sums in single */
    PLAN_METHOD_WINOGRAD2, /* Winograd's, tiles of 2 x 2, in one kernel without scratch: for GPUs */
    PLAN_METHOD_KIND_COUNT
};

/* What a device is for the preferences of a plan. */
enum plan_device {
    PLAN_DEVICE_GPU,
    PLAN_DEVICE_CPU_DESCRIPTOR, /* a Vulkan driver that computes on the CPU, through descriptors */
    PLAN_DEVICE_CPU_ADDRESS,    /* the same, through addresses */
    PLAN_DEVICE_NATIVE,         /* native kernels, without a driver */
    PLAN_DEVICE_COUNT
};

struct plan_method {
    enum plan_method_kind kind;
    int32_t preference[PLAN_DEVICE_COUNT]; /* the largest of a choice is taken, the first of equals,
                                              where nothing else decides (docs/runtime.md) */
};

/*
 * Consecutive records of a program of which a part runs: those of exactly one method. The barriers
 * of the others are executed all the same, so that it does not depend on the choice what is
 * ordered.
 */
struct plan_choice {
    const char *name;   /* "enc1/conv2 forward" */
    uint32_t n_methods; /* 2 to PLAN_METHOD_KIND_COUNT, each kind once */
    struct plan_method methods[PLAN_METHOD_KIND_COUNT];
};

enum plan_direction { PLAN_IN, PLAN_OUT };

/* A tensor of the IO block that the host writes before, or reads after, a run: "image", "labels",
   "weights", "probs", "loss". */
struct plan_port {
    const char *name;
    enum plan_direction direction;
    uint32_t tensor;
};

struct plan_program {
    const char *name; /* "train_step", "accumulate", "evaluate", "infer" */
    uint32_t n_records;
    struct plan_record *records;
    uint32_t n_choices;
    struct plan_choice *choices; /* in the order of their records */
    uint32_t n_ports;
    struct plan_port *ports;
    uint64_t arena_bytes;       /* what this program uses of the arena's chunks, added up */
    uint64_t naive_arena_bytes; /* if nothing shared memory */
    uint64_t lower_bound_bytes; /* largest sum of bytes live at once */
};

enum plan_init { PLAN_INIT_ZERO, PLAN_INIT_NORMAL, PLAN_INIT_UNIFORM };

#define PLAN_MAX_STATES 2

struct plan_param {
    const char *name; /* "enc1/conv1.weight": the name in checkpoints */
    uint32_t tensor;
    uint32_t n_states;
    uint32_t states[PLAN_MAX_STATES]; /* tensors of the STATE block: momentum, or first and second
                                         moment */
    const char *state_names[PLAN_MAX_STATES]; /* "momentum"; "exp_avg", "exp_avg_sq" */
    uint32_t accumulator; /* tensor of the STATE block: gradients of earlier batches of an update;
                             PLAN_NONE: every batch is an update */
    uint32_t rank;        /* 4 for weights, 1 for biases */
    uint32_t dims[4];     /* the shape in checkpoints (PyTorch's), outermost first */
    bool transposed;      /* upconv: dims are in, out, kh, kw; else out, in, kh, kw */
    enum plan_init init;
    float init_scale; /* standard deviation, or half width of the uniform range */
};

enum plan_normalise { PLAN_NORMALISE_NONE, PLAN_NORMALISE_UNIT, PLAN_NORMALISE_STANDARD };
enum plan_schedule {
    PLAN_SCHEDULE_CONSTANT,
    PLAN_SCHEDULE_STEP,
    PLAN_SCHEDULE_POLY,
    PLAN_SCHEDULE_COSINE
};
enum plan_optimiser { PLAN_OPTIMISER_SGD, PLAN_OPTIMISER_ADAM };

#define PLAN_MAX_ELASTIC_GRID 64u
#define PLAN_LABEL_OTHER UINT32_MAX /* as a value: every value that has no row of its own */

struct plan_label {
    uint32_t value;      /* in label images: the first of a range, or PLAN_LABEL_OTHER */
    uint32_t last_value; /* of the range; value itself when it is the only one, or OTHER */
    uint32_t class_;     /* 0 .. n_classes - 1 */
    const char *name;
    float weight;   /* of this class in the loss, a factor */
    bool instances; /* each value is an object of its own, told from the others of its class */
};

/*
 * How training samples vary (runtime/data/augment.h has the exact meaning). A probability is that
 * of the variation being applied to a sample at all.
 */
struct plan_augment {
    uint32_t elastic_grid; /* nodes along each axis of the image, at least 2; 0: off */
    float elastic_sigma;   /* standard deviation of each component of a node's displacement, px */
    float elastic_probability;
    float rotate_degrees; /* uniform between -+ this; 0: off */
    float rotate_step;    /* to the nearest multiple of so many degrees; 0: any angle */
    float rotate_probability;
    float scale_min, scale_max; /* magnification, log-uniform between these; 1 and 1: off */
    float scale_probability;
    float mirror_probability;     /* of each axis */
    bool shift;                   /* the window lies anywhere in the image; else in its middle */
    bool cubic;                   /* image values by cubic convolution; else bilinear */
    float grey_black, grey_white; /* half width of the change of the darkest and the
                                     brightest value, as part of the range of values */
    float grey_slope_min, grey_slope_max; /* slope of the grey curve in its middle */
    float grey_probability;
};

/* How much pixels count in the loss (runtime/data/weightmap.h). */
struct plan_weights {
    float balance; /* class weight (pixels / (classes * pixels of the class)) ^ balance */
    float border;  /* w0 of the term for background between instances; 0: off */
    float sigma;   /* of that term, px */
};

/* What the host side of training and inference needs to know about the model. */
struct plan_model {
    const char *name;      /* of the model */
    const char *source;    /* the model file's name */
    const char *overrides; /* "width=16 tile=380" as given with --set */
    uint64_t hash;         /* of the expanded model; written to checkpoints */
    uint32_t batch, channels, n_classes;
    uint32_t in_h, in_w, out_h, out_w;
    uint32_t margin_top,
        margin_left;         /* input pixels around the output that inference discards or mirrors */
    uint32_t core_h, core_w; /* output pixels of a tile that are exact: the part inference keeps */
    uint32_t stride_h,
        stride_w; /* least step that keeps pooling grids aligned (product of pool strides) */
    enum plan_normalise normalise;
    float input_offset, input_scale; /* after normalisation: x = (x - offset) * scale */
    uint32_t n_labels;
    struct plan_label *labels;
    bool has_ignore;
    uint32_t ignore_value; /* or PLAN_LABEL_OTHER */
    enum plan_optimiser optimiser;
    float learning_rate, momentum, beta1, beta2;
    enum plan_schedule schedule;
    float schedule_gamma; /* STEP: factor; POLY: power */
    uint32_t
        schedule_steps; /* STEP: every so many; POLY, COSINE: the end; 0 = the run's own --steps */
    uint32_t warmup_steps;  /* the rate rises linearly over these first steps */
    uint32_t default_steps; /* of a training run without --steps */
    uint32_t accumulate;    /* batches whose gradients are averaged for one update; at least 1 */
    float sample_balance;   /* share of samples centred on a pixel of a class drawn evenly */
    struct plan_augment augment;
    struct plan_weights weights;
};

/* What a device allows; plan_verify checks against it. */
struct plan_limits {
    const char *device; /* for messages */
    enum plan_class class_;
    enum plan_access access;
    uint64_t max_binding_bytes;    /* descriptor path only: maxStorageBufferRange */
    uint64_t max_allocation_bytes; /* of one chunk */
    uint32_t max_shared_bytes;
    uint32_t max_groups[3];
    uint32_t max_group_size[3];
    uint32_t max_group_invocations;
    uint32_t max_push_bytes;
    /* Matrix units: M x K times K x N in half precision, added up in single; 0: none. */
    uint32_t matrix_m, matrix_n, matrix_k;
    uint32_t subgroup_size; /* 0: unknown */
    bool has_addresses;     /* buffer addresses are there for tensors that no descriptor covers */
};

struct plan {
    struct arena arena; /* owns everything below */
    struct plan_model model;
    struct plan_limits target; /* that it was compiled for; without a name: any device */
    uint64_t block_bytes[PLAN_BLOCK_COUNT];
    /* Chunks of a block: splits are the offsets, ascending multiples of PLAN_ALIGNMENT, where all
       but the first start. No tensor crosses from one chunk to the next. */
    uint32_t n_splits[PLAN_BLOCK_COUNT];
    uint64_t *splits[PLAN_BLOCK_COUNT];
    uint32_t n_tensors;
    struct plan_tensor *tensors;
    uint32_t n_shaders;
    struct plan_shader *shaders;
    uint32_t n_params;
    struct plan_param *params;
    uint32_t n_programs;
    struct plan_program *programs;
    uint64_t hash; /* of the file's content */
};

/* Constants of shaders for matrix units, whose names end in PLAN_MATRIX_SUFFIX, that depend on the
   device: the workgroup's size, which a plan states for subgroups of PLAN_MATRIX_SUBGROUP, the
   sizes of matrices, which it states as PLAN_MATRIX_SIZE, and the part of a tile that a subgroup
   computes. Changes them in spec where the shader is one; shared memory stays what the plan states
   or less. */
#define PLAN_MATRIX_SUFFIX "_matrix"
#define PLAN_MATRIX_SUBGROUP 32u
#define PLAN_MATRIX_SIZE 16u
#define PLAN_MATRIX_SIZES 4u /* the number of the first of M, N, K */
#define PLAN_MATRIX_PART 9u  /* of the part's rows; its columns follow */
void plan_matrix_constants(const char *variant, const struct plan_limits *limits, uint32_t *spec);

/* What a device of a class offers that plans without a target are made for; the values are
   explained in plan_limits.c, and limits as text in plan_limits.h. */
struct plan_limits plan_limits_minimum(enum plan_class cls);

/*
 * How a verified plan is run on a device: as limits say, but by addresses where a tensor is longer
 * than a descriptor may be and the device has them, and with the tilings of CPUs, which ask for
 * little, where those of GPUs are not within its limits and these are.
 */
struct plan_limits plan_limits_choose(const struct plan *plan, struct plan_limits limits);

/* Serialises a plan; *data_out is malloc'ed. Deterministic: the same plan gives the same bytes.
 * Sets plan->hash. */
void plan_serialise(struct plan *plan, uint8_t **data_out, size_t *size_out);

/* Reads a plan from memory or file. Structure, lengths and checksum are checked, meaning is not:
   call plan_verify. ERR_INPUT with a message of its own for each way to be broken. On failure *out
   is NULL. */
bool plan_parse(const uint8_t *data, size_t size_bytes, struct plan **out, struct err *err);
bool plan_load(const char *path, struct plan **out, struct err *err);
bool plan_save(struct plan *plan, const char *path, struct err *err);
void plan_free(struct plan *plan); /* NULL-safe */

/*
 * Checks a plan by reading nothing but the plan: indices, bounds of every tensor and binding,
 * extents of every kernel against its tensors, reads of undefined or overwritten bytes, hazards
 * (read after write, write after read, write after write over byte ranges) without a barrier,
 * outputs never written, group counts and the limits of a device (NULL: only what no device may
 * exceed). Names the program, the record and the tensor. ERR_INPUT, or ERR_DEVICE when only a
 * limit of the device in hand is exceeded: by a record of no choice, or by all methods of one.
 */
bool plan_verify(const struct plan *plan, const struct plan_limits *limits, struct err *err);

/* The last part of it alone: whether a verified plan is within the limits of a device. err may be
   NULL. */
bool plan_fits(const struct plan *plan, const struct plan_limits *limits, struct err *err);

/* Whether a method of a choice of a verified plan is within the limits of a device; err may be
   NULL. */
bool plan_method_fits(const struct plan *plan, const struct plan_program *program, uint32_t choice,
                      uint32_t method, const struct plan_limits *limits, struct err *err);

/* ---- choices (plan_choice.c) ---- */

const char *plan_method_name(enum plan_method_kind kind); /* "direct", "winograd", "narrow" */
bool plan_method_find(const char *name, size_t length, enum plan_method_kind *kind_out);
/* "GPU", "CPU driver, descriptors", "CPU driver, addresses", "native" */
const char *plan_device_name(enum plan_device device);

/* The number of the choice's method of a kind; PLAN_NONE: it has none. */
uint32_t plan_choice_find(const struct plan_choice *choice, enum plan_method_kind kind);
/* The method that a device of this kind prefers among those whose bits are set in allowed (bit 0:
   the first); PLAN_NONE: none is. */
uint32_t plan_choice_prefer(const struct plan_choice *choice, enum plan_device device,
                            uint32_t allowed);

/* The records of a method: [*first_out, *first_out + *count_out). */
void plan_method_records(const struct plan_program *program, uint32_t choice, uint32_t method,
                         uint32_t *first_out, uint32_t *count_out);

/* Whether a record is counted in totals of a program: those of a choice once, by its first
   method. */
static inline bool plan_record_counts(const struct plan_record *record) {
    return record->method == 0;
}

/* What a choice is about, in one line without spaces at its ends: the kernel with the most
   operations of its first method, and the parameters of that. Equal texts: equal work. Returns
   text. */
#define PLAN_SHAPE_TEXT 512
const char *plan_choice_shape(const struct plan_program *program, uint32_t choice,
                              char text[PLAN_SHAPE_TEXT]);

/* One line each for people: "elastic 3 x 3 nodes 10 px, rotation +-180 degrees, mirrors 0.5", or
   "none"; "balance 1, border 10 within 5 px", or "as in the label table". Returns text. */
const char *plan_describe_augment(const struct plan_augment *augment, char *text,
                                  size_t size_bytes);
const char *plan_describe_weights(const struct plan_weights *weights, char *text,
                                  size_t size_bytes);
/* "255 = cell (class 1, weight 1, instances)"; values as "1 to 999" or "other". */
const char *plan_describe_label(const struct plan_label *label, char *text, size_t size_bytes);
/* Loss scaling of a plan (kernel_contract.h): the tensor of the STATE block that is called
   PLAN_LOSS_SCALE, PLAN_NONE where there is none, and what its kernel was given. */
#define PLAN_LOSS_SCALE "loss_scale"
struct plan_scaling {
    uint32_t tensor;
    float initial;
    uint32_t interval; /* good updates until it is doubled; 0: it never changes */
};
uint32_t plan_loss_scale(const struct plan *plan);
/* The number of the form with PLAN_SHARED_SUFFIX of a shader; its own where there is none. */
uint32_t plan_shared_form(const struct plan *plan, uint32_t shader);
struct plan_scaling plan_scaling(const struct plan *plan);

/* Bytes of the STATE block that accumulated gradients take. */
uint64_t plan_accumulator_bytes(const struct plan *plan);

/* Readable listing of a plan: programs, records, tensors. */
void plan_print(const struct plan *plan, FILE *stream);

const struct plan_program *plan_program_find(const struct plan *plan, const char *name);
const struct plan_port *plan_port_find(const struct plan_program *program, const char *name);

#endif
