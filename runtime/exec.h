/*
 * exec.h: what stands between a session and the machinery that executes dispatch records. A session
 * knows plans and host data; an executor knows devices. There are two: Vulkan (gpu/) and native
 * kernels (cpu/); another one for the same records needs only these two tables, and its place in
 * device.c.
 *
 * A program is prepared: exec.c walks its records, cuts them into batches of bounded work and hands
 * them to the executor; running a program replays what was prepared. How much work a batch may hold
 * is the executor's to say, and it may have a program prepared while it runs for the first time.
 */
#ifndef UNET_EXEC_H
#define UNET_EXEC_H

#include "common/plan_memory.h"
#include "runtime/runtime.h"

struct exec;

/* A part of a record's work groups: all of them, or a slab when the record alone is too long. */
struct exec_piece {
    uint32_t record; /* of the program */
    uint32_t first[3], groups[3];
    double cost;            /* its part of exec_cost */
    bool barrier;           /* everything before must be finished and visible */
    bool is_first, is_last; /* piece of its record */
    bool is_least;          /* it cannot be divided further */
};

struct exec_request {
    const struct plan *plan;
    struct plan_limits limits; /* what the plan was verified against: class and access path */
    const bool *programs;      /* plan->n_programs flags: which ones will run */
    const struct plan_chunks *chunks; /* what these need; outlives the executor */
    bool profile;
};

struct exec_ops {
    /* Bytes within one chunk of a block, as those of a tensor are. */
    bool (*upload)(struct exec *exec, enum plan_block block, uint64_t offset_bytes,
                   const void *data, uint64_t size_bytes, struct err *err);
    bool (*download)(struct exec *exec, enum plan_block block, uint64_t offset_bytes, void *data,
                     uint64_t size_bytes, struct err *err);

    /* Once for each program, when the executor is opened: what takes long, such as compiling.
       exec_prepare where nothing speaks against it. */
    bool (*load)(struct exec *exec, uint32_t program, struct err *err);
    /* Preparing a program (exec_prepare): begin, then pieces with cuts between batches, then end.
     */
    bool (*begin)(struct exec *exec, uint32_t program, struct err *err);
    bool (*dispatch)(struct exec *exec, const struct exec_piece *piece, struct err *err);
    bool (*cut)(struct exec *exec, struct err *err);
    bool (*end)(struct exec *exec, struct err *err);
    /* How much of a batch this cost of a record fills: 1 a whole one. Asked before each piece: a
       cut may change it. NULL: a batch holds everything. */
    double (*share)(const struct exec *exec, const struct plan_record *record, double cost);
    /* Whether the shader of a record asks how many groups there are: then a slab must leave the
       counts of the inner axes alone. */
    bool (*counts_groups)(const struct exec *exec, const struct plan_record *record);

    /* Runs a program and waits for its end. Allocates nothing when it replays what was prepared. */
    bool (*run)(struct exec *exec, uint32_t program, struct err *err);
    bool (*profile)(struct exec *exec, uint32_t program, struct unet_span *spans, struct err *err);
    /* Reading starts them anew. NULL: there are none. */
    void (*submissions)(struct exec *exec, struct unet_submissions *out);
    void (*memory)(const struct exec *exec, struct unet_memory_report *report);
    void (*close)(struct exec *exec);
};

/* The head of every executor's own struct. */
struct exec {
    const struct exec_ops *ops;
    const struct plan *plan;
    const struct plan_chunks *chunks; /* those with bytes are allocated, each by itself */
    enum plan_class class_;
};

/* The loops behind unet_device_measure_peak; peak.c repeats and times them. */
enum exec_peak_kind { EXEC_PEAK_MULTIPLY_ADD, EXEC_PEAK_COPY, EXEC_PEAK_COUNT };

struct exec_peak;

struct exec_peak_ops {
    /* Does the work of `passes` and waits for its end. */
    bool (*run)(struct exec_peak *peak, enum exec_peak_kind kind, uint32_t passes, struct err *err);
    void (*close)(struct exec_peak *peak);
};

/* The head of every backend's own struct. */
struct exec_peak {
    const struct exec_peak_ops *ops;
    uint64_t work[EXEC_PEAK_COUNT]; /* of one pass: operations; bytes read and written */
    uint64_t copy_bytes;            /* of each buffer */
};

struct exec_backend {
    const char *name; /* as in struct unet_device_info */
    /* Numbered from 0. Returns false with ERR_DEVICE when there is no driver. */
    bool (*list)(struct unet_device_info **devices_out, size_t *count_out, struct err *err);
    /* threads: of a device that has them; 0: as listed. */
    bool (*open_device)(const struct unet_device_info *info, uint32_t threads,
                        struct unet_device **out, struct err *err);
    void (*close_device)(struct unet_device *device);
    bool (*reopen_device)(struct unet_device *device, struct err *err); /* NULL: is never lost */
    uint32_t (*validation_count)(const struct unet_device *device);     /* NULL: always 0 */
    /* The limits for one plan: the access path may differ from the device's usual one. */
    struct plan_limits (*limits)(const struct unet_device *device, const struct plan *plan);
    /* As unet_plan_inspect, for a verified plan; NULL: no shader compiler. */
    bool (*inspect)(struct unet_device *device, const struct plan *plan, struct plan_limits limits,
                    unet_pipeline_report *report, void *user, struct err *err);
    bool (*open)(struct unet_device *device, const struct exec_request *request, struct exec **out,
                 struct err *err);
    bool (*open_peak)(struct unet_device *device, struct exec_peak **out, struct err *err);
};

/* The head of every backend's own device struct. */
struct unet_device {
    const struct exec_backend *backend;
    struct unet_device_info info;
    uint32_t disabled; /* bits of enum exec_disable that may not be used */
};

/* Fast paths by number, as in unet_fast_paths: first those that are methods of plans. */
enum exec_disable {
    EXEC_DISABLE_TUNE_FILE = PLAN_METHOD_KIND_COUNT,
    EXEC_DISABLE_DEFAULTS,
    EXEC_DISABLE_COUNT
};

/* Adds the bits of a list "name,name" (NULL: none). ERR_USAGE names the source and lists all
   names. */
bool fast_path_parse(const char *source, const char *list, uint32_t *bits, struct err *err);
/* Whether the switches of the environment have words that they know. ERR_USAGE: one has not. */
bool fast_path_check_words(struct err *err);
/* The value of UNET_DEVICE_WAIT, UNET_DEVICE_TIMEOUT or UNET_SUBMISSION, in its own unit; stays as
   it is where the variable is not set. ERR_USAGE when that is no such number. */
bool fast_path_number(const char *variable, double *value, struct err *err);

extern const struct exec_backend gpu_backend; /* unless built with -Dvulkan=disabled */
extern const struct exec_backend cpu_backend;

/* Ranks of devices (struct unet_device_info). From UNET_RANK_ON_REQUEST on they are never chosen
   unless asked for: software that pretends to be a GPU. */
enum {
    UNET_RANK_DISCRETE,
    UNET_RANK_INTEGRATED,
    UNET_RANK_VIRTUAL,
    UNET_RANK_NATIVE,
    UNET_RANK_ON_REQUEST,
    UNET_RANK_OTHER
};

/* What a record costs: floating-point operations plus EXEC_COST_PER_BYTE for each byte of its
   tensors, so that records that only move memory count too. */
#define EXEC_COST_PER_BYTE 8u
uint64_t exec_cost(const struct plan *plan, const struct plan_record *record);

/* Opens an executor for a verified plan and loads the programs flagged. */
bool exec_open(struct unet_device *device, const struct exec_request *request, struct exec **out,
               struct err *err);
/* Walks the records of a program and has the executor prepare them, in batches. */
bool exec_prepare(struct exec *exec, uint32_t program, struct err *err);

/* The place of bytes of a block: the number of the chunk that they all lie in, and where there.
 * ERR_INPUT when that is not so, or nothing of the chunk was allocated. */
struct exec_place {
    uint32_t chunk;
    uint64_t offset_bytes;
};
bool exec_find(const struct plan_chunks *chunks, enum plan_block block, uint64_t offset_bytes,
               uint64_t size_bytes, struct exec_place *place, struct err *err);
/* The same for a tensor of a verified plan that an opened program uses. */
struct exec_place exec_place_of(const struct plan_chunks *chunks, const struct plan_tensor *tensor);

/* "arena block", "arena block, chunk 2"; for messages. */
#define EXEC_CHUNK_TEXT 48
const char *exec_chunk_name(const struct plan_chunks *chunks, uint32_t chunk,
                            char text[EXEC_CHUNK_TEXT]);

#endif
