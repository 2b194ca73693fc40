/*
 * runtime.h: the public C API of the runtime library: open a device, load a plan (common/plan.h),
 * run its programs, read and write tensors, train, infer. Functions return false and fill struct
 * err (common/err.h): ERR_INPUT for data and plans, ERR_DEVICE for the device or its driver, ERR_IO
 * for files. Objects are used by one thread at a time.
 */
#ifndef UNET_RUNTIME_H
#define UNET_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"

/* ---- devices ---- */

struct unet_device;

/* A line of the contract (docs/porting.md): what a Vulkan device must offer, or may. */
struct unet_contract_line {
    bool is_required;
    bool good;          /* required: enough of it is there; optional: it will be used */
    const char *name;   /* "push constants" */
    const char *brings; /* why it is required, or what it brings; may be empty */
    char required[32];  /* "128 bytes"; empty for optional lines */
    char here[48];      /* what the device offers: "256 bytes" */
    char use[200];      /* optional: how it will be used, or why not */
};
#define UNET_CONTRACT_LINES 24

struct unet_device_info {
    uint32_t index;
    uint32_t rank;             /* lower is preferred: discrete, integrated, virtual GPU, native CPU;
                                  software Vulkan drivers and others only when asked for */
    const char *backend;       /* "vulkan", or "cpu": native kernels, no driver */
    char name[256];            /* of the CPU: "CPU (avx512, 2 threads)" */
    char driver[256];          /* "llvmpipe, Mesa 22.3.6 (LLVM 15.0.6)" */
    char api_version[32];      /* of Vulkan; empty for the CPU */
    bool usable;               /* meets all requirements */
    char missing[512];         /* what is missing when it is not */
    char choice[512];          /* class, access path, and why */
    char uuid[40];             /* of a Vulkan device, 32 hexadecimal digits; empty for the CPU */
    char known_bad[512];       /* fast paths that are off because they fail on such devices, why,
                                  and who reported it; empty: none */
    struct plan_limits limits; /* class_ and access as most plans will be run: see
                                  unet_device_plan_limits */
    uint64_t memory_bytes;     /* of the largest device-local heap */
    float timestamp_period_ns; /* 0: no timestamps */
    size_t n_contract;         /* 0 for the CPU, of which nothing is required */
    struct unet_contract_line contract[UNET_CONTRACT_LINES];
};

/* All devices present, also those that cannot be used: Vulkan devices, then the CPU itself, which
   is always there. *devices_out is freed by the caller. ERR_USAGE for an environment variable that
   makes no sense (docs/runtime.md). */
bool unet_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err);

struct unet_device_options {
    const char *select;  /* an index; "cpu" or "vulkan" (the best Vulkan device); a device's uuid,
                            or its first 8 digits or more; or a part of a name in any case. NULL:
                            what UNET_DEVICE in the environment says; else  the best GPU, or the CPU
                            where there is none */
    uint32_t threads;    /* of the CPU; 0: what UNET_THREADS says, else one for each core that the
                            process may use. Results do not depend on it */
    const char *disable; /* fast paths not to use on it, "winograd,narrow", besides those that
                            UNET_DISABLE in the environment names; NULL: none */
};

/* What --disable and UNET_DISABLE take. */
struct unet_fast_path {
    const char *name, *what; /* "winograd"; for people */
};
size_t unet_fast_paths(const struct unet_fast_path **paths_out);
/* Whether the path of that number is switched off on an open device. */
bool unet_fast_path_is_off(const struct unet_device *device, size_t number);

/* options: NULL for the defaults. */
bool unet_device_open(const struct unet_device_options *options, struct unet_device **out,
                      struct err *err);
void unet_device_close(struct unet_device *device); /* NULL-safe */
/*
 * After a device was lost (struct err: device_lost): closes it and opens it again behind the same
 * handle; sessions on it must have been closed. If that device is not there any more, another one
 * of its name and driver is taken, on which results are the same to the bit. ERR_DEVICE when there
 * is none, or the driver is another now; then the handle can only be closed or tried again. It is
 * not waited for. One that gave no answer (device_hangs) is not opened again.
 */
bool unet_device_reopen(struct unet_device *device, struct err *err);
const struct unet_device_info *unet_device_get_info(const struct unet_device *device);
/* The limits under which a verified plan is run on the device: its own, with class_ and access as
   this plan needs them. */
struct plan_limits unet_device_plan_limits(const struct unet_device *device,
                                           const struct plan *plan);

/* Warnings and errors of the Vulkan validation layer so far; the layer is on, with synchronisation
   checks, when the environment holds UNET_VALIDATION=1. Closing the device prints the sum. The CPU
   has none. */
uint32_t unet_device_validation_count(const struct unet_device *device);

/* A device's own ceilings, measured with loops that do nothing else: fp32 multiply-adds in many
   independent chains of registers (one counts as two operations), and a copy between buffers far
   larger than caches (bytes read plus bytes written). Best and median of many runs of some ten
   milliseconds; on the CPU with all threads of the device. */
struct unet_peak {
    double multiply_add_gflops, multiply_add_gflops_median;
    double copy_gbytes_per_s, copy_gbytes_per_s_median;
    uint64_t copy_bytes; /* of each of the two buffers */
    uint32_t repeat;     /* runs that best and median are of */
};

/* Takes about half a second, and memory for two buffers meanwhile. */
bool unet_device_measure_peak(struct unet_device *device, struct unet_peak *peak_out,
                              struct err *err);

/* ---- what a driver's compiler makes of a plan's shaders ---- */

#define UNET_PIPELINE_STATISTICS 64
#define UNET_PIPELINE_LISTINGS 8

struct unet_pipeline_statistic {
    char name[128]; /* the driver's words: "VGPRs", "Spilled SGPRs", "Occupancy" */
    double value;
};

struct unet_pipeline_listing {
    char name[128]; /* the driver's words: "Assembly" */
    const char *text;
};

/* A shader with specialisation constants, as the driver compiled it. Valid during the call. */
struct unet_pipeline_part {
    const char *variant;         /* the shader */
    const char *program, *label; /* of the first record that uses it */
    uint32_t n_spec;
    const uint32_t *spec;  /* specialisation constants; the first three: the workgroup's size */
    uint32_t shared_bytes; /* of a workgroup, by the plan */
    uint32_t n_records;    /* that use it, in all programs */
    uint64_t flops;        /* of these */
    uint32_t subgroup_size;
    uint32_t n_statistics, n_listings;
    struct unet_pipeline_statistic statistics[UNET_PIPELINE_STATISTICS];
    struct unet_pipeline_listing listings[UNET_PIPELINE_LISTINGS];
};

typedef void unet_pipeline_report(const struct unet_pipeline_part *part, void *user);

/* Compiles every pipeline of a plan that could be used on the device, once, without running or
   allocating anything, and calls back with what the driver tells about it. ERR_DEVICE when it tells nothing
   (VK_KHR_pipeline_executable_properties), or the device has no shader compiler: the CPU. */
bool unet_plan_inspect(struct unet_device *device, const struct plan *plan,
                       unet_pipeline_report *report, void *user, struct err *err);

/* ---- sessions: a plan on a device ---- */

struct unet_session;

/* Why a method was taken. */
enum unet_choice_reason {
    UNET_CHOICE_GIVEN,      /* the session was opened with it */
    UNET_CHOICE_ONLY,       /* the others are disabled, or exceed a limit of the device */
    UNET_CHOICE_TUNED,      /* the file of unetrun tune has the shape for this device and driver */
    UNET_CHOICE_DEFAULT,    /* the driver's fastest, measured before and built in */
    UNET_CHOICE_PREFERENCE, /* the plan prefers it for this kind of device */
    UNET_CHOICE_REASON_COUNT
};

/* A choice of the plan (struct plan_choice) as it was made for a session. */
struct unet_choice {
    const char *program, *name; /* "train_step", "enc1/conv2 forward" */
    uint32_t method;            /* its number in the choice */
    uint32_t usual;             /* what it would be if the session had not been opened with one */
    enum plan_method_kind kind;
    enum unet_choice_reason reason;
};

struct unet_session_options {
    const char *const *programs; /* names of the programs that will run; NULL: all. Memory is
                                    allocated for these only. */
    size_t n_programs;
    bool profile; /* time stamps around every dispatch; not together with stepped */
    bool stepped; /* records can be run one by one: slower, to find where numbers go wrong */
    const uint32_t *methods; /* for all choices of the plan, program after program: the method's
                                number, or PLAN_NONE where it is chosen as usual; NULL: as usual
                                everywhere. A method that is disabled or exceeds a limit of the
                                device is passed over. */
};

/* Verifies the plan against the device, allocates the blocks, makes pipelines (through a cache on
   disk), records command buffers. The plan stays the caller's and outlives the session. Weights are
   undefined until initialised or loaded. */
bool unet_session_open(struct unet_device *device, const struct plan *plan,
                       const struct unet_session_options *options, struct unet_session **out,
                       struct err *err);
void unet_session_close(struct unet_session *session); /* NULL-safe */
const struct plan *unet_session_plan(const struct unet_session *session);
struct unet_device *unet_session_device(const struct unet_session *session);
/* The choices made, for all programs of the plan in order, those that are not open too; valid as
   long as the session. Results are bit-reproducible for equal choices. */
uint32_t unet_session_choices(const struct unet_session *session,
                              const struct unet_choice **choices_out);
/* The choices in a line: "train_step: narrow 3, direct 11; infer: direct 8", runs of equal methods
   in the plan's order; "" without choices. Freed by the caller. */
char *unet_session_choices_text(const struct unet_session *session);
/* The numbers of methods that such a line names for a plan, for struct unet_session_options; NULL
   when it does not fit the plan. Freed by the caller. */
uint32_t *unet_choices_parse(const struct plan *plan, const char *text);
/* Whether a record of a program is executed: it is part of no choice or of the method chosen. */
bool unet_session_runs_record(const struct unet_session *session, const char *program,
                              uint32_t record);
/* Whether optimiser state is there: a program opened uses it. */
bool unet_session_has_state(const struct unet_session *session);

/* Weights from the plan's initialisers, a pure function of seed; optimiser state and what is known
   of the loss's scale to zero. */
bool unet_session_init_weights(struct unet_session *session, uint64_t seed, struct err *err);

/* What changes from run to run: written to the control block. learning_rate <= 0: from the plan's
   schedule (total_steps: the length of the run, for schedules that need it). */
bool unet_session_set_step(struct unet_session *session, uint64_t seed, uint32_t step,
                           uint32_t total_steps, float learning_rate, struct err *err);
/* The same before batch number `batch` (from 0) of an update that averages plan->model.accumulate
   batches: all but the last run "accumulate", the last runs "train_step", which takes the mean of
   the gradients of batches 0 .. batch. So an update may also be made of fewer batches; set_step is
   batch 0. Every batch has random numbers of its own. ERR_USAGE: no such batch. */
bool unet_session_set_batch(struct unet_session *session, uint64_t seed, uint32_t step,
                            uint32_t batch, uint32_t total_steps, float learning_rate,
                            struct err *err);

/* Dense data of a port: image n*c*h*w floats, labels n*h*w uint32_t, weights n*h*w floats, probs
   n*k*h*w floats, loss LOSS_WORDS floats. size_bytes must be exact. */
bool unet_session_write(struct unet_session *session, const char *program, const char *port,
                        const void *data, size_t size_bytes, struct err *err);
bool unet_session_read(struct unet_session *session, const char *program, const char *port,
                       void *data, size_t size_bytes, struct err *err);

/* Runs a program to its end, in several submissions when the work is long. The first run records
 * them and is slower; later ones replay what was recorded. */
bool unet_session_run(struct unet_session *session, const char *program, struct err *err);

/* Runs one record of a program and waits for its end; nothing is done for a record of a method that
   was not chosen. ERR_USAGE without the stepped option. The
   records of a program, run in order, do what unet_session_run does, to the bit. */
bool unet_session_run_record(struct unet_session *session, const char *program, uint32_t record,
                             struct err *err);

/* Parameter number index of plan->params, dense in the shape of checkpoints (PyTorch's). state -1:
   the parameter, 0 or 1: its optimiser state. */
bool unet_session_read_param(struct unet_session *session, uint32_t index, int state, float *data,
                             struct err *err);
bool unet_session_write_param(struct unet_session *session, uint32_t index, int state,
                              const float *data, struct err *err);

/* Bytes of device memory in use by purpose (blocks as allocated, staging). */
struct unet_memory_report {
    uint64_t block_bytes[PLAN_BLOCK_COUNT];
    uint64_t staging_bytes, total_bytes;
};
void unet_session_memory(const struct unet_session *session, struct unet_memory_report *report);

/* What was given to a device at once. Display drivers and some kernels end work of a second or two,
   so the longest should stay below the target (docs/runtime.md, "Long work"). */
struct unet_submissions {
    uint64_t count;
    double longest_seconds;
    double target_seconds; /* 0: the device takes records one by one (the CPU) */
};
/* Since the session was opened, or this was called last. */
void unet_session_submissions(struct unet_session *session, struct unet_submissions *out);

/* When a record ran: on the device's clock, from the start of the program's first record. */
struct unet_span {
    uint64_t begin_ns, end_ns;
};

/* The time of each record of the last run of a program, in their order and without overlap; none
   for records of methods that were not chosen;
   ERR_USAGE without the profile option, ERR_DEVICE without time stamps. spans has room for
   program->n_records. */
bool unet_session_profile(struct unet_session *session, const char *program,
                          struct unet_span *spans, struct err *err);

/* Any tensor of the plan as it lies in device memory, size_bytes of it; for tests and debugging. */
bool unet_session_read_tensor(struct unet_session *session, uint32_t tensor, void *data,
                              struct err *err);
bool unet_session_write_tensor(struct unet_session *session, uint32_t tensor, const void *data,
                               struct err *err);

/* ---- measured choices ---- */

/* Where measurements of methods are kept: $UNET_TUNE, or tune.txt in the user's cache folder; freed
   by the caller. NULL: nowhere (UNET_TUNE=off, or there is no such folder). */
char *unet_tune_path(void);

struct unet_tuned {
    const char *shape; /* plan_choice_shape */
    enum plan_method_kind kind;
    const char *note; /* one line for people, such as the times; "": none */
};

/* Writes measurements for the device with its driver into a file, in place of older ones of the
   same shapes; sessions find them there. plan: what was measured (the way to reach its tensors is
   part of what the device is). */
bool unet_tune_save(const struct unet_device *device, const struct plan *plan, const char *path,
                    const struct unet_tuned *tuned, size_t count, struct err *err);

/* ---- scores of validation ---- */

/* What held-out frames are scored by during training; docs/data.md has the definitions. */
enum unet_score {
    UNET_SCORE_LOSS,        /* weighted cross-entropy; lower is better, as for pixel_error */
    UNET_SCORE_PIXEL_ERROR, /* 1 - largest F1 of the last class over all thresholds */
    UNET_SCORE_IOU,         /* of the last class */
    UNET_SCORE_MEAN_IOU,    /* of the classes that occur */
    UNET_SCORE_DICE,        /* of the last class */
    UNET_SCORE_SEG,         /* of objects; of models without instance labels only when chosen */
    UNET_SCORE_V_RAND,      /* after border thinning; costs time, computed only when chosen */
    UNET_SCORE_COUNT
};

const char *unet_score_name(enum unet_score score); /* "loss", "pixel_error", "iou", ... */
/* The score of a name; ERR_USAGE lists the names. */
bool unet_score_find(const char *name, enum unet_score *score_out, struct err *err);
/* False where either is not a number, but a number is better than an infinite best. */
bool unet_score_is_better(enum unet_score score, double value, double best);

/* ---- checkpoints (safetensors, PyTorch shapes) ---- */

struct unet_checkpoint_info {
    uint64_t seed;
    uint32_t step, total_steps; /* step: the next one to run */
    enum unet_score best_by;    /* what best_score is a value of */
    double best_score;          /* the best so far; infinite when none */
    uint32_t best_step;         /* steps done when it was reached; 0: none */
    uint32_t idle_validations;  /* validations since then */
    bool owes_validation;       /* the run was stopped when its last step was to be validated */
};

/* The choices that a checkpoint was written with (unet_session_choices_text), or NULL: it does not
   say, or it was written on another device or with another driver. Freed by the caller. */
bool unet_checkpoint_choices(const struct unet_device *device, const char *path, char **text_out,
                             struct err *err);

bool unet_checkpoint_save(struct unet_session *session, const char *path,
                          const struct unet_checkpoint_info *info, struct err *err);
/* with_state: also optimiser state; then it must be there. A missing, surplus or misshapen tensor
 * is named. info may be NULL. */
bool unet_checkpoint_load(struct unet_session *session, const char *path, bool with_state,
                          struct unet_checkpoint_info *info, struct err *err);
/*
 * Weights alone, to start another training from: of a checkpoint or of any file with tensors of
 * these names, such as PyTorch's. Optimiser state in the file is passed over. Where the file has
 * another number of classes, the layer that scores the classes (the model's last) keeps the weights
 * it has in the session, so initialise them first; *fresh_layer_out, when not NULL, is its name,
 * freed by the caller, or NULL when everything was loaded. Any other difference is an error that
 * names the tensors; then nothing has changed.
 */
bool unet_checkpoint_load_weights(struct unet_session *session, const char *path,
                                  char **fresh_layer_out, struct err *err);

/* ---- training ---- */

struct unet_train_progress {
    uint32_t step, total_steps;
    double loss, accuracy, learning_rate;
    double seconds; /* since the start of this run */
    /* Plans in mixed precision (docs/training.md): what the loss was multiplied by in this step, 0
       in other plans; updates left out so far; whether this one was. */
    double loss_scale;
    uint32_t skipped;
    bool was_skipped;
    bool has_validation;
    double scores[UNET_SCORE_COUNT]; /* with validation; NaN: undefined or not computed */
    bool is_owed; /* only the validation of a step that was done before this run (owes_validation);
                     loss, accuracy, learning_rate and what tells of mixed precision are 0 */
};

enum unet_train_end {
    UNET_TRAIN_COMPLETE,    /* all steps are done */
    UNET_TRAIN_INTERRUPTED, /* by unet_train_stop */
    UNET_TRAIN_EARLY        /* patience ran out */
};

struct unet_train_result {
    enum unet_train_end end;
    struct unet_checkpoint_info info; /* of last.safetensors, if steps_done > 0 */
    uint32_t steps_done;              /* by this run; 0 with a validation that was owed, too */
};

struct unet_train_options {
    const char *data_dir, *out_dir;
    const char *frames; /* only these of data_dir, held out ones included; NULL: all */
    /* What is held out for validation: one of the three, or nothing. */
    const char *val_dir;    /* another directory, laid out like data_dir; or NULL */
    const char *val_frames; /* frames of data_dir (dataset_select); or NULL */
    uint32_t folds, fold;   /* block number fold, from 1, of so many equal contiguous blocks of
                               data_dir's frames, in the order of their names; 0 and 0: none */
    uint32_t steps;         /* 0: the model's default; with resume that of the checkpoint */
    uint64_t seed;          /* with resume, 0: that of the checkpoint */
    /* Where to begin: at most one; both NULL: with new weights. */
    const char *resume;        /* checkpoint of a run to continue; or NULL */
    const char *init_from;     /* weights to start a new run from: unet_checkpoint_load_weights */
    uint32_t validate_every;   /* steps; 0: about 10 times in the run */
    uint32_t checkpoint_every; /* steps; 0: with each validation, and at the end */
    uint32_t restore_every;    /* steps after which weights and optimiser state are kept in host
                                  memory, to go on from when the device is lost; 0: 10, or as many
                                  as make that cost less than a hundredth of the time */
    uint32_t loader_threads;   /* that prepare samples; 0: chosen. No result depends on it. */
    const char *best;          /* name of the score that chooses best.safetensors; NULL: that of
                                  the checkpoint with resume, else "loss" */
    uint32_t patience;         /* ends after so many validations without a better one; 0: never */
    void (*progress)(const struct unet_train_progress *progress,
                     void *user); /* after each step; may be NULL */
    void *user;
};

/*
 * Trains; writes out_dir/metrics.csv, last.safetensors and, with validation data, best.safetensors;
 * docs/training.md describes them and the messages on stderr. A run interrupted by SIGINT or
 * SIGTERM (the tools set unet_train_stop) finishes its step, saves last.safetensors and returns
 * true, as does one that runs out of patience. When the device fails, it is opened again
 * (unet_device_reopen, waiting as long as UNET_DEVICE_WAIT says) and the steps since the state was
 * kept are repeated, to the same bits; progress is told of them again. When that cannot be, the
 * state is written to last.safetensors, with metrics.csv ending at its step, and the error is
 * ERR_DEVICE. Numbers that are not finite are an error: steps since the last time everything was
 * finite are repeated to name the step and the layer where that began. result_out may be NULL; it
 * is filled when true is returned.
 */
bool unet_train(struct unet_device *device, const struct plan *plan,
                const struct unet_train_options *options, struct unet_train_result *result_out,
                struct err *err);
extern volatile int unet_train_stop;

/* ---- inference ---- */

/* Class probabilities of an image of any size by overlapping tiles with mirrored borders: image is
   channels planes of height x width floats, already normalised (unet_normalise); probs n_classes
   planes of the same size. tta: 1, 4 (mirrors) or 8 (mirrors and quarter turns): averaged
   probabilities. The session must hold "infer". */
bool unet_infer(struct unet_session *session, const float *image, uint32_t height, uint32_t width,
                int tta, float *probs, struct err *err);

/* Applies the plan's normalisation in place; max_value: 255 or 65535 (the range of the image's
 * type). */
void unet_normalise(const struct plan *plan, float *image, uint32_t channels, size_t pixels,
                    float max_value);

#endif
