/*
 * executor.c: the native executor as runtime/exec.h wants it. A program becomes a list of steps,
 * one for each record: its kernel and the addresses of its tensors; and, for the pool, a list of
 * the phases of all of them.
 */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/vec.h"
#include "runtime/cpu/device.h"
#include "runtime/cpu/guard.h"
#include "runtime/cpu/memory.h"
#include "runtime/cpu/peak.h"
#include "runtime/cpu/rounding.h"

#define SCRATCH_ALIGNMENT 64u

struct cpu_step {
    const struct cpu_kernel *kernel;
    union kernel_params params;
    struct cpu_rounding rounding; /* is on: a phase of its own before the kernel's */
    void *bindings[KERNEL_MAX_BINDINGS];
    size_t binding_bytes[KERNEL_MAX_BINDINGS];
};

struct cpu_phase {
    uint32_t step, phase; /* of the program; of the step */
};

struct cpu_program {
    VEC(struct cpu_step) steps;
    VEC(struct cpu_phase) phases;
    VEC(uint32_t) units;     /* of each phase */
    struct unet_span *spans; /* of each step; NULL: not asked for */
    uint64_t start_ns;       /* when the run began */
    uint64_t mark_ns;        /* since then, when the last phase that is done ended */
    bool has_run;
};

struct cpu_exec {
    struct exec base; /* first: the runtime's view */
    struct cpu_device *device;
    uint8_t **chunks;             /* as base.chunks; NULL: not needed */
    struct cpu_program *programs; /* of the plan */
    struct cpu_program *current;  /* the one that is being prepared or run */
    bool profile;
    size_t shared_bytes, scratch_bytes; /* of a record; of a thread */
    uint8_t *shared, *scratch;
};

static struct cpu_exec *cpu_exec_of(struct exec *exec) {
    return (struct cpu_exec *)exec;
}

/* ---- memory ---- */

static bool cpu_upload(struct exec *exec, enum plan_block block, uint64_t offset_bytes,
                       const void *data, uint64_t size_bytes, struct err *err) {
    struct exec_place place;
    if (!exec_find(exec->chunks, block, offset_bytes, size_bytes, &place, err))
        return false;
    memcpy(cpu_exec_of(exec)->chunks[place.chunk] + place.offset_bytes, data, size_bytes);
    return true;
}

static bool cpu_download(struct exec *exec, enum plan_block block, uint64_t offset_bytes,
                         void *data, uint64_t size_bytes, struct err *err) {
    struct exec_place place;
    if (!exec_find(exec->chunks, block, offset_bytes, size_bytes, &place, err))
        return false;
    memcpy(data, cpu_exec_of(exec)->chunks[place.chunk] + place.offset_bytes, size_bytes);
    return true;
}

static bool allocate_chunk(struct cpu_exec *cpu, uint32_t index, uint64_t size_bytes,
                           struct err *err) {
    void *memory = cpu_memory_allocate(size_bytes);
    if (memory == NULL) {
        char name[EXEC_CHUNK_TEXT];
        err_set(err, ERR_DEVICE, "out of memory for the %s of %llu bytes",
                exec_chunk_name(cpu->base.chunks, index, name), (unsigned long long)size_bytes);
        return err_hint(err, "compile the model with a smaller batch, tile or width");
    }
    cpu->chunks[index] = memory;
    return true;
}

static bool allocate_chunks(struct cpu_exec *cpu, struct err *err) {
    const struct plan_chunks *chunks = cpu->base.chunks;
    const uint64_t there = cpu->device->base.info.memory_bytes;
    uint64_t total = 0;
    cpu->chunks = calloc(chunks->items.count, sizeof(*cpu->chunks));
    if (cpu->chunks == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    for (uint32_t i = 0; i < chunks->items.count; i++) {
        const uint64_t size_bytes = chunks->items.items[i].size_bytes;
        if (size_bytes > there - total) {
            char name[EXEC_CHUNK_TEXT];
            err_set(err, ERR_DEVICE,
                    "the %s needs %llu bytes, the machine has %llu, %llu of them taken by "
                    "other blocks",
                    exec_chunk_name(chunks, i, name), (unsigned long long)size_bytes,
                    (unsigned long long)there, (unsigned long long)total);
            return err_hint(err,
                            "unetc MODEL.yaml --memory %lluMiB -o FILE.plan makes a plan that "
                            "fits, with a smaller tile (--fit batch: a smaller batch; "
                            "--fit-program infer: for segmenting only)",
                            (unsigned long long)(there / 8 * 7 >> 20));
        }
        total += size_bytes;
        if (size_bytes > 0 && !allocate_chunk(cpu, i, size_bytes, err))
            return false;
    }
    return true;
}

static bool allocate_scratch(uint8_t **memory, size_t size_bytes, struct err *err) {
    free(*memory);
    *memory = size_bytes > 0 ? cpu_memory_allocate(size_bytes) : NULL;
    return size_bytes == 0 || *memory != NULL ||
           err_set(err, ERR_DEVICE, "out of memory for %zu bytes of scratch", size_bytes);
}

static void cpu_report(const struct exec *exec, struct unet_memory_report *report) {
    const struct cpu_exec *cpu = (const struct cpu_exec *)exec;
    *report = (struct unet_memory_report){
        .staging_bytes =
            cpu->shared_bytes + cpu->scratch_bytes * cpu_pool_threads(cpu->device->pool)};
    report->total_bytes = report->staging_bytes;
    for (uint32_t i = 0; i < exec->chunks->items.count; i++) {
        const struct plan_chunk *chunk = &exec->chunks->items.items[i];
        const uint64_t size_bytes = cpu->chunks[i] != NULL ? chunk->size_bytes : 0;
        report->block_bytes[chunk->block] += size_bytes;
        report->total_bytes += size_bytes;
    }
}

/* ---- preparing ---- */

static bool cpu_begin(struct exec *exec, uint32_t program, struct err *err) {
    struct cpu_exec *cpu = cpu_exec_of(exec);
    cpu->current = &cpu->programs[program];
    if (!cpu->profile)
        return true;
    cpu->current->spans =
        calloc(MAX(exec->plan->programs[program].n_records, 1u), sizeof(struct unet_span));
    return cpu->current->spans != NULL || err_set(err, ERR_DEVICE, "out of memory for times");
}

static void bind_tensors(const struct cpu_exec *cpu, const struct plan_record *record,
                         struct cpu_step *step) {
    for (uint32_t i = 0; i < kernel_table[record->kernel].n_bindings; i++) {
        const struct plan_tensor *tensor = &cpu->base.plan->tensors[record->tensors[i]];
        const struct exec_place place = exec_place_of(cpu->base.chunks, tensor);
        step->bindings[i] = cpu->chunks[place.chunk] + place.offset_bytes;
        step->binding_bytes[i] = tensor->size_bytes;
    }
}

static bool uses_matrix(const struct plan_program *program, const struct plan_record *record) {
    return record->choice != PLAN_NONE &&
           program->choices[record->choice].methods[record->method].kind == PLAN_METHOD_MATRIX;
}

static void add_phase(struct cpu_program *program, uint32_t phase, uint32_t units) {
    vec_push(&program->phases, ((struct cpu_phase){(uint32_t)program->steps.count, phase}));
    vec_push(&program->units, units);
}

static void add_step(struct cpu_exec *cpu, struct cpu_program *program,
                     const struct cpu_step *step) {
    const struct cpu_kernel *kernel = step->kernel;
    size_t shared_bytes = cpu_rounding_bytes(&step->rounding);
    const uint32_t before = cpu_rounding_is_on(&step->rounding) ? 1 : 0;
    if (before > 0)
        add_phase(program, 0, cpu_rounding_units(&step->rounding));
    for (uint32_t i = 0; i < kernel->n_phases; i++)
        add_phase(program, before + i, kernel->units(&step->params, i));
    if (kernel->shared_bytes != NULL)
        shared_bytes += kernel->shared_bytes(&step->params);
    const size_t scratch_bytes =
        kernel->scratch_bytes != NULL ? kernel->scratch_bytes(&step->params) : 0;
    cpu->shared_bytes = MAX(cpu->shared_bytes, shared_bytes);
    cpu->scratch_bytes =
        MAX(cpu->scratch_bytes, (size_t)align_up(scratch_bytes, SCRATCH_ALIGNMENT));
    vec_push(&program->steps, *step);
}

/* Pieces are whole records: there is no batch that one could exceed. */
static bool cpu_dispatch(struct exec *exec, const struct exec_piece *piece, struct err *err) {
    struct cpu_exec *cpu = cpu_exec_of(exec);
    struct cpu_program *program = cpu->current;
    const struct plan_record *record =
        &exec->plan->programs[program - cpu->programs].records[piece->record];
    struct cpu_step step = {.kernel = NULL};
    memcpy(step.params.words, record->params, sizeof(step.params.words));
    bind_tensors(cpu, record, &step);
    const bool is_matrix = uses_matrix(&exec->plan->programs[program - cpu->programs], record);
    if (is_matrix)
        step.rounding = cpu_rounding_of(record->kernel, step.binding_bytes);
    const bool no_winograd = (cpu->device->base.disabled >> PLAN_METHOD_WINOGRAD & 1u) != 0;
    const enum cpu_conv conv = is_matrix || no_winograd ? CPU_CONV_DIRECT : cpu->device->conv;
    step.kernel = cpu_kernel_find(cpu->device->isa, conv, record->kernel, &step.params);
    if (step.kernel == NULL)
        return err_set(err, ERR_DEVICE, "%s has no kernel %s", cpu->device->base.info.name,
                       kernel_table[record->kernel].name);
    add_step(cpu, program, &step);
    return true;
}

static bool cpu_cut(struct exec *exec, struct err *err) {
    (void)exec, (void)err;
    return true;
}

static bool cpu_end(struct exec *exec, struct err *err) {
    struct cpu_exec *cpu = cpu_exec_of(exec);
    return allocate_scratch(&cpu->shared, cpu->shared_bytes, err) &&
           allocate_scratch(&cpu->scratch, cpu->scratch_bytes * cpu_pool_threads(cpu->device->pool),
                            err);
}

static bool cpu_counts_groups(const struct exec *exec, const struct plan_record *record) {
    (void)exec, (void)record;
    return false;
}

/* ---- running ---- */

static void run_unit(void *context, uint32_t thread, uint32_t phase, uint32_t unit) {
    const struct cpu_exec *cpu = context;
    const struct cpu_phase *at = &cpu->current->phases.items[phase];
    const struct cpu_step *step = &cpu->current->steps.items[at->step];
    struct cpu_call call = {.params = &step->params, .shared = cpu->shared};
    memcpy(call.bindings, step->bindings, sizeof(call.bindings));
    if (cpu->scratch != NULL)
        call.scratch = cpu->scratch + thread * cpu->scratch_bytes;
    if (!cpu_rounding_is_on(&step->rounding)) {
        step->kernel->run(&call, at->phase, unit);
    } else if (at->phase == 0) {
        cpu_rounding_run(&step->rounding, cpu->device->isa, &call, unit);
    } else {
        cpu_rounding_apply(&step->rounding, &call);
        step->kernel->run(&call, at->phase - 1, unit);
    }
}

static void add_time(struct cpu_program *program, const struct cpu_phase *at) {
    struct unet_span *span = &program->spans[at->step];
    if (at->phase == 0)
        span->begin_ns = program->mark_ns;
    span->end_ns = program->mark_ns = clock_now_ns() - program->start_ns;
}

static void open_chunks(const struct cpu_exec *cpu) {
    for (size_t i = 0; i < cpu->base.chunks->items.count; i++)
        cpu_guard_open(cpu->chunks[i], cpu->base.chunks->items.items[i].size_bytes);
}

/* Before the phase: only the tensors of its step may be touched. */
static void guard_phase(const struct cpu_exec *cpu, size_t phase) {
    const struct cpu_program *program = cpu->current;
    if (!CPU_GUARD || phase >= program->phases.count)
        return;
    const struct cpu_step *step = &program->steps.items[program->phases.items[phase].step];
    for (size_t i = 0; i < cpu->base.chunks->items.count; i++)
        cpu_guard_close(cpu->chunks[i], cpu->base.chunks->items.items[i].size_bytes);
    for (int i = 0; i < KERNEL_MAX_BINDINGS; i++)
        cpu_guard_open(step->bindings[i], step->binding_bytes[i]);
}

static void finish_phase(void *context, uint32_t phase) {
    const struct cpu_exec *cpu = context;
    if (cpu->profile)
        add_time(cpu->current, &cpu->current->phases.items[phase]);
    guard_phase(cpu, (size_t)phase + 1);
}

static bool cpu_run(struct exec *exec, uint32_t program, struct err *err) {
    (void)err;
    struct cpu_exec *cpu = cpu_exec_of(exec);
    struct cpu_program *prepared = &cpu->programs[program];
    const struct cpu_pool_work work = {.units = prepared->units.items,
                                       .n_phases = (uint32_t)prepared->units.count,
                                       .run = run_unit,
                                       .finished = cpu->profile || CPU_GUARD ? finish_phase : NULL,
                                       .context = cpu};
    cpu->current = prepared;
    prepared->mark_ns = 0;
    prepared->start_ns = clock_now_ns();
    guard_phase(cpu, 0);
    cpu_pool_run(cpu->device->pool, &work);
    open_chunks(cpu);
    prepared->has_run = true;
    return true;
}

static bool cpu_profile(struct exec *exec, uint32_t program, struct unet_span *spans,
                        struct err *err) {
    const struct cpu_program *prepared = &cpu_exec_of(exec)->programs[program];
    if (!prepared->has_run)
        return err_set(err, ERR_USAGE, "the program has not run yet, so there are no times");
    memcpy(spans, prepared->spans, prepared->steps.count * sizeof(spans[0]));
    return true;
}

/* ---- opening and closing ---- */

static void cpu_close(struct exec *exec) {
    struct cpu_exec *cpu = cpu_exec_of(exec);
    for (uint32_t i = 0; cpu->programs != NULL && i < exec->plan->n_programs; i++) {
        vec_free(&cpu->programs[i].steps);
        vec_free(&cpu->programs[i].phases);
        vec_free(&cpu->programs[i].units);
        free(cpu->programs[i].spans);
    }
    free(cpu->programs);
    for (size_t i = 0; cpu->chunks != NULL && i < exec->chunks->items.count; i++)
        free(cpu->chunks[i]);
    free(cpu->chunks);
    free(cpu->shared);
    free(cpu->scratch);
    free(cpu);
}

static const struct exec_ops cpu_ops = {.upload = cpu_upload,
                                        .download = cpu_download,
                                        .load = exec_prepare,
                                        .begin = cpu_begin,
                                        .dispatch = cpu_dispatch,
                                        .cut = cpu_cut,
                                        .end = cpu_end,
                                        .counts_groups = cpu_counts_groups,
                                        .run = cpu_run,
                                        .profile = cpu_profile,
                                        .memory = cpu_report,
                                        .close = cpu_close};

static bool cpu_open(struct unet_device *device, const struct exec_request *request,
                     struct exec **out, struct err *err) {
    struct cpu_exec *cpu = calloc(1, sizeof(*cpu));
    if (cpu == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    cpu->base = (struct exec){.ops = &cpu_ops,
                              .plan = request->plan,
                              .chunks = request->chunks,
                              .class_ = request->limits.class_};
    cpu->device = (struct cpu_device *)device;
    cpu->profile = request->profile;
    cpu->programs = calloc(MAX(request->plan->n_programs, 1u), sizeof(*cpu->programs));
    if (cpu->programs == NULL)
        err_set(err, ERR_DEVICE, "out of memory for %u programs", request->plan->n_programs);
    if (cpu->programs == NULL || !allocate_chunks(cpu, err)) {
        cpu_close(&cpu->base);
        return false;
    }
    *out = &cpu->base;
    return true;
}

const struct exec_backend cpu_backend = {.name = "cpu",
                                         .list = cpu_device_list,
                                         .open_device = cpu_device_open,
                                         .close_device = cpu_device_close,
                                         .limits = cpu_device_limits,
                                         .open = cpu_open,
                                         .open_peak = cpu_peak_open};
