/*
 * session.c: a plan on a device, for host code: ports, parameters, the control block, runs. Knows
 * plans and layouts of host data; how records are executed is behind exec.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/plan_limits.h"
#include "common/plan_memory.h"
#include "runtime/choice.h"
#include "runtime/exec.h"
#include "runtime/param.h"
#include "runtime/train/schedule.h"
#include "runtime/tune.h"

struct skipped {
    uint32_t state;         /* the scale's tensor; PLAN_NONE: nothing is left out */
    uint32_t program, loss; /* that counts, and the tensor that it writes; PLAN_NONE: none */
    uint32_t count;         /* so far */
    bool is_known;
};

struct unet_session {
    struct unet_device *device;
    const struct plan *plan;
    struct exec *exec;
    bool *programs; /* plan->n_programs: which ones are open */
    bool profile;
    struct chosen chosen;                   /* what the executor sees of the plan */
    struct unet_span *spans;                /* room for those of any program; with profile */
    struct stepped *stepped;                /* NULL: programs run as a whole */
    struct plan_chunks chunks;              /* that the programs need */
    uint64_t block_bytes[PLAN_BLOCK_COUNT]; /* the sums of them */
    float *packed; /* room for the largest parameter in the kernels' layout */
    struct skipped skipped;
};

/* ---- one record at a time ---- */

/*
 * The plan as an executor sees it in a stepped session: every record is a program of its own, and
 * waits for all before. The tensors are the plan's. It was verified as the whole it is a copy of.
 */
struct stepped {
    struct plan plan;
    struct plan_program *programs;
    struct plan_record *records;
    bool *flags;
    uint32_t *first; /* plan->n_programs: the place of each one's first record in programs */
};

static void stepped_free(struct stepped *stepped) {
    if (stepped == NULL)
        return;
    free(stepped->programs);
    free(stepped->records);
    free(stepped->flags);
    free(stepped->first);
    free(stepped);
}

static void stepped_fill(struct stepped *stepped, const struct plan *plan, const bool *open) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        stepped->first[i] = count;
        for (uint32_t k = 0; k < plan->programs[i].n_records; k++, count++) {
            stepped->records[count] = plan->programs[i].records[k];
            stepped->records[count].barrier = true;
            stepped->programs[count] = plan->programs[i];
            stepped->programs[count].n_records = 1;
            stepped->programs[count].records = &stepped->records[count];
            stepped->flags[count] = open[i];
        }
    }
    stepped->plan = *plan;
    stepped->plan.n_programs = count;
    stepped->plan.programs = stepped->programs;
}

static struct stepped *stepped_new(const struct plan *plan, const bool *open) {
    size_t count = 1;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        count += plan->programs[i].n_records;
    struct stepped *stepped = calloc(1, sizeof(*stepped));
    if (stepped == NULL)
        return NULL;
    stepped->programs = calloc(count, sizeof(*stepped->programs));
    stepped->records = calloc(count, sizeof(*stepped->records));
    stepped->flags = calloc(count, sizeof(*stepped->flags));
    stepped->first = calloc(MAX(plan->n_programs, 1u), sizeof(*stepped->first));
    if (stepped->programs != NULL && stepped->records != NULL && stepped->flags != NULL &&
        stepped->first != NULL) {
        stepped_fill(stepped, plan, open);
        return stepped;
    }
    stepped_free(stepped);
    return NULL;
}

/* ---- updates that were left out: Adam's corrections count only those that were made ---- */

/* Of plans with Adam and scaled gradients. The program that updates also writes the count into its
   loss, where the host reads it without a copy. */
static void open_skipped(struct unet_session *session) {
    const struct plan *plan = session->plan;
    struct skipped *skipped = &session->skipped;
    *skipped = (struct skipped){.state = PLAN_NONE, .program = PLAN_NONE};
    if (plan->model.optimiser != PLAN_OPTIMISER_ADAM || !unet_session_has_state(session))
        return;
    skipped->state = plan_loss_scale(plan);
    for (uint32_t p = 0; p < plan->n_programs && session->stepped == NULL; p++) {
        const struct plan_program *program = &plan->programs[p];
        const struct plan_port *loss = plan_port_find(program, "loss");
        for (uint32_t i = 0; loss != NULL && i < program->n_records; i++) {
            if (program->records[i].kernel != KERNEL_ID_loss_scale ||
                program->records[i].tensors[2] != loss->tensor)
                continue;
            skipped->program = p;
            skipped->loss = loss->tensor;
        }
    }
}

static bool read_skipped(struct unet_session *session, uint32_t tensor, uint32_t word,
                         struct err *err) {
    float words[MAX(LOSS_SCALE_WORDS, LOSS_WORDS)];
    if (!unet_session_read_tensor(session, tensor, words, err))
        return false;
    session->skipped.count = (uint32_t)words[word];
    session->skipped.is_known = session->stepped == NULL;
    return true;
}

/* The state on a device may be out of the host's sight: it is read only when it is not known. */
static bool count_skipped(struct unet_session *session, uint32_t *skipped_out, struct err *err) {
    const struct skipped *skipped = &session->skipped;
    if (skipped->state != PLAN_NONE && !skipped->is_known &&
        !read_skipped(session, skipped->state, LOSS_SCALE_SKIPPED, err))
        return false;
    *skipped_out = skipped->count;
    return true;
}

/* ---- opening ---- */

static bool flag_programs(struct unet_session *session, const struct unet_session_options *options,
                          struct err *err) {
    const struct plan *plan = session->plan;
    session->programs = calloc(MAX(plan->n_programs, 1u), sizeof(bool));
    if (session->programs == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    if (options == NULL || options->programs == NULL) {
        memset(session->programs, true, plan->n_programs);
        return true;
    }
    for (size_t i = 0; i < options->n_programs; i++) {
        const struct plan_program *program = plan_program_find(plan, options->programs[i]);
        if (program == NULL)
            return err_set(err, ERR_INPUT, "the plan of model %s has no program \"%s\"",
                           plan->model.name, options->programs[i]);
        session->programs[program - plan->programs] = true;
    }
    return true;
}

static bool open_params(struct unet_session *session, struct err *err) {
    const struct plan *plan = session->plan;
    uint64_t most_bytes = 0;
    for (uint32_t i = 0; i < plan->n_params; i++) {
        most_bytes = MAX(most_bytes, plan->tensors[plan->params[i].tensor].size_bytes);
        for (uint32_t j = 0; j < plan->params[i].n_states; j++)
            most_bytes = MAX(most_bytes, plan->tensors[plan->params[i].states[j]].size_bytes);
    }
    session->packed = malloc(MAX(most_bytes, 4u));
    return session->packed != NULL ||
           err_set(err, ERR_DEVICE, "out of memory for a parameter of %llu bytes",
                   (unsigned long long)most_bytes);
}

static bool open_spans(struct unet_session *session, struct err *err) {
    uint32_t most = 1;
    for (uint32_t i = 0; i < session->plan->n_programs; i++)
        most = MAX(most, session->plan->programs[i].n_records);
    session->spans = session->profile ? calloc(most, sizeof(*session->spans)) : NULL;
    return !session->profile || session->spans != NULL ||
           err_set(err, ERR_DEVICE, "out of memory for times");
}

/* What is to be known of how a plan is run here. */
static void report_limits(const struct unet_session *session, const struct plan_limits *limits) {
    const struct plan *plan = session->plan;
    const struct plan_limits *own = &unet_device_get_info(session->device)->limits;
    char text[PLAN_TARGET_TEXT];
    const bool is_native = exec_device_kind(session->device, limits) == PLAN_DEVICE_NATIVE;
    const char *excess = is_native ? NULL : plan_target_excess(plan, limits, text);
    if (limits->access != own->access)
        log_print(LOG_INFO,
                  "plan of %s: a tensor is longer than a descriptor of %s may be, so "
                  "buffer addresses are used",
                  plan->model.name, limits->device);
    if (excess != NULL)
        log_print(LOG_INFO, "plan of %s: compiled for target %s, which allows more than %s (%s)%s",
                  plan->model.name, plan->target.device, limits->device, excess,
                  limits->class_ == own->class_ ? "; it keeps to what both allow" : "");
    if (limits->class_ != own->class_)
        log_print(LOG_INFO,
                  "plan of %s: its tilings for GPUs ask for more than %s allows, so those for CPUs "
                  "are used, which are slower; unetrun devices --target FILE, then unetc --target "
                  "FILE makes a plan for it",
                  plan->model.name, limits->device);
}

/* Whether the device can run it. A plan for another one says so. */
static bool check_fit(const struct unet_session *session, const struct plan_limits *limits,
                      struct err *err) {
    const struct plan *plan = session->plan;
    char text[PLAN_TARGET_TEXT];
    if (plan_fits(plan, limits, err))
        return true;
    if (plan_target_excess(plan, limits, text) != NULL)
        err_prefix(err, "plan of %s, compiled for target %s, which allows more than %s (%s)",
                   plan->model.name, plan->target.device, limits->device, text);
    return false;
}

static bool open_session(struct unet_session *session, const struct unet_session_options *options,
                         struct err *err) {
    const struct plan *plan = session->plan;
    if (!plan_verify(plan, NULL, err)) /* what follows counts on it */
        return false;
    struct exec_request request = {
        .plan = plan, .limits = session->device->backend->limits(session->device, plan)};
    /* the plan states blocks for all its programs; what is opened may need less, and the executor
       checks that against the device */
    struct plan_limits limits = request.limits;
    limits.max_allocation_bytes = UINT64_MAX;
    if (!check_fit(session, &limits, err) || !flag_programs(session, options, err) ||
        !open_params(session, err))
        return false;
    plan_chunks_derive(plan, session->programs, &session->chunks);
    plan_block_bytes(plan, session->programs, session->block_bytes);
    report_limits(session, &limits);
    session->profile = options != NULL && options->profile && !options->stepped;
    request.programs = session->programs;
    if (!chosen_open(&session->chosen, session->device, plan, &limits,
                     options != NULL ? options->methods : NULL, err) ||
        !open_spans(session, err))
        return false;
    request.plan = &session->chosen.plan;
    if (options != NULL && options->stepped) {
        session->stepped = stepped_new(&session->chosen.plan, session->programs);
        if (session->stepped == NULL)
            return err_set(err, ERR_DEVICE, "out of memory for a session");
        request.plan = &session->stepped->plan;
        request.programs = session->stepped->flags;
    }
    open_skipped(session);
    request.profile = session->profile;
    request.chunks = &session->chunks;
    return exec_open(session->device, &request, &session->exec, err);
}

bool unet_session_open(struct unet_device *device, const struct plan *plan,
                       const struct unet_session_options *options, struct unet_session **out,
                       struct err *err) {
    *out = NULL;
    struct unet_session *session = calloc(1, sizeof(*session));
    if (session == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    session->device = device;
    session->plan = plan;
    if (!open_session(session, options, err)) {
        unet_session_close(session);
        return false;
    }
    *out = session;
    return true;
}

void unet_session_close(struct unet_session *session) {
    if (session == NULL)
        return;
    if (session->exec != NULL)
        session->exec->ops->close(session->exec);
    stepped_free(session->stepped);
    chosen_close(&session->chosen);
    free(session->spans);
    plan_chunks_free(&session->chunks);
    free(session->packed);
    free(session->programs);
    free(session);
}

const struct plan *unet_session_plan(const struct unet_session *session) {
    return session->plan;
}

struct unet_device *unet_session_device(const struct unet_session *session) {
    return session->device;
}

uint32_t unet_session_choices(const struct unet_session *session,
                              const struct unet_choice **choices_out) {
    *choices_out = session->chosen.choices;
    return session->chosen.n_choices;
}

char *unet_session_choices_text(const struct unet_session *session) {
    return chosen_text(&session->chosen);
}

bool unet_session_has_state(const struct unet_session *session) {
    return session->block_bytes[PLAN_BLOCK_STATE] > 0;
}

/* ---- running ---- */

static bool find_program(const struct unet_session *session, const char *name, uint32_t *index_out,
                         struct err *err) {
    const struct plan_program *program = plan_program_find(session->plan, name);
    if (program == NULL)
        return err_set(err, ERR_INPUT, "the plan of model %s has no program \"%s\"",
                       session->plan->model.name, name);
    *index_out = (uint32_t)(program - session->plan->programs);
    return session->programs[*index_out] ||
           err_set(err, ERR_USAGE, "program %s was not opened with the session", name);
}

static uint32_t float_bits(double value) {
    const float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof(bits));
    return bits;
}

/* 1 - beta^(step + 1), exact where beta is near one and the step is small. */
static double adam_bias(float beta, uint32_t step) {
    return beta > 0.0f ? -expm1(((double)step + 1.0) * log((double)beta)) : 1.0;
}

bool unet_session_set_batch(struct unet_session *session, uint64_t seed, uint32_t step,
                            uint32_t batch, uint32_t total_steps, float learning_rate,
                            struct err *err) {
    const struct plan_model *model = &session->plan->model;
    const uint32_t batches = MAX(model->accumulate, 1u); /* 0: a plan of bare kernels */
    uint32_t words[CONTROL_WORDS] = {0}, skipped;
    if (batch >= batches)
        return err_set(err, ERR_USAGE, "batch %u of an update that takes %u", batch, batches);
    if (session->block_bytes[PLAN_BLOCK_CONTROL] < sizeof(words))
        return session->block_bytes[PLAN_BLOCK_CONTROL] == 0 ||
               err_set(err, ERR_INPUT, "the plan's control block holds %llu bytes, %zu are needed",
                       (unsigned long long)session->block_bytes[PLAN_BLOCK_CONTROL], sizeof(words));
    if (!(learning_rate > 0.0f))
        learning_rate = schedule_learning_rate(model, step, total_steps);
    if (!count_skipped(session, &skipped, err))
        return false;
    const uint32_t updates = step - MIN(skipped, step);
    words[CONTROL_SEED_LO] = (uint32_t)seed;
    words[CONTROL_SEED_HI] = (uint32_t)(seed >> 32);
    words[CONTROL_STEP] = step * batches + batch;
    words[CONTROL_ACCUMULATED] = batch;
    words[CONTROL_LEARNING_RATE] = float_bits((double)learning_rate);
    words[CONTROL_ADAM_BIAS1] = float_bits(adam_bias(model->beta1, updates));
    words[CONTROL_ADAM_BIAS2] = float_bits(adam_bias(model->beta2, updates));
    return session->exec->ops->upload(session->exec, PLAN_BLOCK_CONTROL, 0, words, sizeof(words),
                                      err);
}

bool unet_session_set_step(struct unet_session *session, uint64_t seed, uint32_t step,
                           uint32_t total_steps, float learning_rate, struct err *err) {
    return unet_session_set_batch(session, seed, step, 0, total_steps, learning_rate, err);
}

bool unet_session_runs_record(const struct unet_session *session, const char *program,
                              uint32_t record) {
    struct err ignored = {0};
    uint32_t index = 0;
    return find_program(session, program, &index, &ignored) &&
           record < session->plan->programs[index].n_records &&
           chosen_place(&session->chosen, index, record) != PLAN_NONE;
}

static bool run_record(struct unet_session *session, uint32_t program, uint32_t record,
                       struct err *err) {
    const uint32_t place = chosen_place(&session->chosen, program, record);
    return place == PLAN_NONE ||
           session->exec->ops->run(session->exec, session->stepped->first[program] + place, err);
}

bool unet_session_run(struct unet_session *session, const char *program, struct err *err) {
    uint32_t index = 0;
    if (!find_program(session, program, &index, err))
        return false;
    if (index == session->skipped.program)
        session->skipped.is_known = false;
    if (session->stepped == NULL)
        return session->exec->ops->run(session->exec, index, err) &&
               (index != session->skipped.program ||
                read_skipped(session, session->skipped.loss, LOSS_WORD_SKIPPED, err));
    for (uint32_t i = 0; i < session->plan->programs[index].n_records; i++)
        if (!run_record(session, index, i, err))
            return false;
    return true;
}

bool unet_session_run_record(struct unet_session *session, const char *program, uint32_t record,
                             struct err *err) {
    uint32_t index = 0;
    if (!find_program(session, program, &index, err))
        return false;
    if (session->stepped == NULL)
        return err_set(err, ERR_USAGE, "the session was not opened to run single records");
    const uint32_t count = session->plan->programs[index].n_records;
    if (record >= count)
        return err_set(err, ERR_USAGE, "record %u: program %s has %u", record, program, count);
    return run_record(session, index, record, err);
}

bool unet_session_profile(struct unet_session *session, const char *program,
                          struct unet_span *spans, struct err *err) {
    uint32_t index = 0;
    if (!find_program(session, program, &index, err))
        return false;
    if (!session->profile)
        return err_set(err, ERR_USAGE, "the session was opened without profiling");
    if (!session->exec->ops->profile(session->exec, index, session->spans, err))
        return false;
    uint64_t end_ns = 0; /* of the record before: where one that does not run begins and ends */
    for (uint32_t i = 0; i < session->plan->programs[index].n_records; i++) {
        const uint32_t place = chosen_place(&session->chosen, index, i);
        spans[i] = place == PLAN_NONE ? (struct unet_span){end_ns, end_ns} : session->spans[place];
        end_ns = spans[i].end_ns;
    }
    return true;
}

void unet_session_submissions(struct unet_session *session, struct unet_submissions *out) {
    *out = (struct unet_submissions){0};
    if (session->exec->ops->submissions != NULL)
        session->exec->ops->submissions(session->exec, out);
}

void unet_session_memory(const struct unet_session *session, struct unet_memory_report *report) {
    session->exec->ops->memory(session->exec, report);
}

/* ---- tensors and ports ---- */

static bool check_tensor(const struct unet_session *session, uint32_t index, struct err *err) {
    return index < session->plan->n_tensors ||
           err_set(err, ERR_USAGE, "tensor %u: the plan has %u", index, session->plan->n_tensors);
}

bool unet_session_read_tensor(struct unet_session *session, uint32_t index, void *data,
                              struct err *err) {
    if (!check_tensor(session, index, err))
        return false;
    const struct plan_tensor *tensor = &session->plan->tensors[index];
    return session->exec->ops->download(session->exec, tensor->block, tensor->offset_bytes, data,
                                        tensor->size_bytes, err);
}

bool unet_session_write_tensor(struct unet_session *session, uint32_t index, const void *data,
                               struct err *err) {
    if (!check_tensor(session, index, err))
        return false;
    const struct plan_tensor *tensor = &session->plan->tensors[index];
    if (index == session->skipped.state)
        session->skipped.is_known = false;
    return session->exec->ops->upload(session->exec, tensor->block, tensor->offset_bytes, data,
                                      tensor->size_bytes, err);
}

static bool find_port(const struct unet_session *session, const char *program, const char *name,
                      size_t size_bytes, const struct plan_tensor **out, struct err *err) {
    uint32_t index = 0;
    if (!find_program(session, program, &index, err))
        return false;
    const struct plan_port *port = plan_port_find(&session->plan->programs[index], name);
    if (port == NULL)
        return err_set(err, ERR_INPUT, "program %s has no port \"%s\"", program, name);
    *out = &session->plan->tensors[port->tensor];
    return size_bytes == (*out)->size_bytes || /* ports are dense: plan_verify */
           err_set(err, ERR_INPUT, "port %s of %s: %zu bytes given, it holds %llu", name, program,
                   size_bytes, (unsigned long long)(*out)->size_bytes);
}

bool unet_session_write(struct unet_session *session, const char *program, const char *port,
                        const void *data, size_t size_bytes, struct err *err) {
    const struct plan_tensor *tensor = NULL;
    return find_port(session, program, port, size_bytes, &tensor, err) &&
           session->exec->ops->upload(session->exec, tensor->block, tensor->offset_bytes, data,
                                      size_bytes, err);
}

bool unet_session_read(struct unet_session *session, const char *program, const char *port,
                       void *data, size_t size_bytes, struct err *err) {
    const struct plan_tensor *tensor = NULL;
    return find_port(session, program, port, size_bytes, &tensor, err) &&
           session->exec->ops->download(session->exec, tensor->block, tensor->offset_bytes, data,
                                        size_bytes, err);
}

/* ---- parameters ---- */

static bool find_param(const struct unet_session *session, uint32_t index, int state,
                       const struct plan_param **param_out, uint32_t *tensor_out, struct err *err) {
    const struct plan *plan = session->plan;
    if (index >= plan->n_params)
        return err_set(err, ERR_USAGE, "parameter %u: the plan has %u", index, plan->n_params);
    const struct plan_param *param = &plan->params[index];
    if (state < -1 || state >= (int)param->n_states)
        return err_set(err, ERR_USAGE, "parameter %s has no optimiser state %d", param->name,
                       state);
    *param_out = param;
    *tensor_out = state < 0 ? param->tensor : param->states[state];
    return true;
}

bool unet_session_read_param(struct unet_session *session, uint32_t index, int state, float *data,
                             struct err *err) {
    const struct plan_param *param = NULL;
    uint32_t tensor = 0;
    if (!find_param(session, index, state, &param, &tensor, err) ||
        !unet_session_read_tensor(session, tensor, session->packed, err))
        return false;
    param_unpack(param, &session->plan->tensors[tensor], session->packed, data);
    return true;
}

bool unet_session_write_param(struct unet_session *session, uint32_t index, int state,
                              const float *data, struct err *err) {
    const struct plan_param *param = NULL;
    uint32_t tensor = 0;
    if (!find_param(session, index, state, &param, &tensor, err))
        return false;
    param_pack(param, &session->plan->tensors[tensor], data, session->packed);
    return unet_session_write_tensor(session, tensor, session->packed, err);
}

static bool clear_states(struct unet_session *session, uint32_t index, struct err *err) {
    const struct plan_param *param = &session->plan->params[index];
    for (uint32_t i = 0; unet_session_has_state(session) && i < param->n_states; i++) {
        memset(session->packed, 0, session->plan->tensors[param->states[i]].size_bytes);
        if (!unet_session_write_tensor(session, param->states[i], session->packed, err))
            return false;
    }
    return true;
}

bool unet_session_init_weights(struct unet_session *session, uint64_t seed, struct err *err) {
    const struct plan *plan = session->plan;
    uint64_t most = 1;
    for (uint32_t i = 0; i < plan->n_params; i++)
        most = MAX(most, param_elements(&plan->params[i]));
    float *dense = malloc(most * sizeof(float));
    bool done = dense != NULL || err_set(err, ERR_DEVICE, "out of memory for initial weights");
    for (uint32_t i = 0; done && i < plan->n_params; i++) {
        param_init(&plan->params[i], seed, i, dense);
        done =
            unet_session_write_param(session, i, -1, dense, err) && clear_states(session, i, err);
    }
    free(dense);
    const uint32_t scale = plan_loss_scale(plan);
    const float unused[LOSS_SCALE_WORDS] = {0};
    return done && (scale == PLAN_NONE || !unet_session_has_state(session) ||
                    unet_session_write_tensor(session, scale, unused, err));
}
