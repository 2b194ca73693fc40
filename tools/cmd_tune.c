/*
 * cmd_tune.c: unetrun tune: times the methods of a plan's choices on a device, in runs of whole
 * programs, and writes the fastest of each shape into the file that sessions look into. Sessions
 * with all choices on their first method, on their second, and so on, are run in turn, twice, so
 * that a machine that slows down meanwhile does so for all; the least time of a method counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/vec.h"
#include "tools/cmd.h"

#define ROUNDS 2
#define LEAST_GAIN 0.02 /* by which a method must be faster than the first, to outlast noise */

struct tune_values {
    struct cli_common common;
    uint32_t repeat;
    const char *out;
    bool json;
};

static const struct cli_option tune_options[] = {
    {"repeat", 0, CLI_COUNT, "N", offsetof(struct tune_values, repeat), false, "3",
     "runs of each method in each of two rounds, after one to warm up"},
    {"out", 0, CLI_TEXT, "FILE", offsetof(struct tune_values, out), false, NULL,
     "file to write; without it UNET_TUNE in the environment, else tune.txt in the user's cache "
     "folder"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct tune_values, json), false, NULL,
     "print one JSON object"},
};

/* A shape: the choice where it occurs first. */
struct item {
    const struct plan_program *program;
    uint32_t choice;
    const char *shape;
    double seconds[PLAN_METHOD_KIND_COUNT]; /* of each method; 0: not allowed here */
    uint32_t best;
};

struct tuning {
    struct arena arena;
    const struct plan *plan;
    struct unet_device *device;
    struct plan_limits limits; /* under which the plan is run there */
    uint32_t repeat;
    VEC(struct item) items;
};

static const struct plan_choice *choice_of(const struct item *item) {
    return &item->program->choices[item->choice];
}

/* Whether a method is the first one under another name on this device: the same kernels on the same
   sizes, and, where the plan decides about tiles, the same tiles. */
static bool is_same_work(const struct tuning *tuning, const struct plan_program *program,
                         uint32_t choice, uint32_t method) {
    const struct unet_device_info *device = unet_device_get_info(tuning->device);
    const bool has_tiles = strcmp(device->backend, "cpu") != 0;
    uint32_t first, count, other, n_others;
    plan_method_records(program, choice, 0, &first, &count);
    plan_method_records(program, choice, method, &other, &n_others);
    bool same = count == n_others;
    for (uint32_t i = 0; same && i < count; i++) {
        const struct plan_record *a = &program->records[first + i];
        const struct plan_record *b = &program->records[other + i];
        const enum plan_class cls = tuning->limits.class_;
        same = a->kernel == b->kernel && memcmp(a->params, b->params, sizeof(a->params)) == 0 &&
               (!has_tiles ||
                memcmp(&a->dispatch[cls], &b->dispatch[cls], sizeof(a->dispatch[cls])) == 0);
    }
    return same;
}

static bool has_methods(const struct tuning *tuning, const struct plan_program *program,
                        uint32_t choice) {
    for (uint32_t m = 1; m < program->choices[choice].n_methods; m++)
        if (!is_same_work(tuning, program, choice, m))
            return true;
    return false;
}

static void list_items(struct tuning *tuning) {
    for (uint32_t p = 0; p < tuning->plan->n_programs; p++) {
        const struct plan_program *program = &tuning->plan->programs[p];
        for (uint32_t c = 0; c < program->n_choices; c++) {
            char text[PLAN_SHAPE_TEXT];
            bool known = !has_methods(tuning, program, c);
            plan_choice_shape(program, c, text);
            for (size_t i = 0; i < tuning->items.count; i++)
                known = known || strcmp(tuning->items.items[i].shape, text) == 0;
            const struct item item = {program, c, arena_strdup(&tuning->arena, text), {0}, 0};
            if (!known)
                vec_push(&tuning->items, item);
        }
    }
}

/* Numbers in all inputs: some devices take another time for zeros. */
static bool feed(struct tuning *tuning, struct unet_session *session,
                 const struct plan_program *program, struct err *err) {
    for (uint32_t i = 0; i < program->n_ports; i++) {
        const struct plan_port *port = &program->ports[i];
        const struct plan_tensor *tensor = &tuning->plan->tensors[port->tensor];
        if (port->direction != PLAN_IN)
            continue;
        struct rng rng = rng_stream(1, i, 0);
        uint32_t *words = calloc(1, tensor->size_bytes); /* labels: class 0 */
        if (words == NULL)
            return err_set(err, ERR_INPUT, "no memory for %s", port->name);
        for (uint64_t k = 0; tensor->type == PLAN_TYPE_F32 && k < tensor->size_bytes / 4; k++) {
            const float value = strcmp(port->name, "weights") == 0 ? 1.0f : (float)rng_normal(&rng);
            memcpy(&words[k], &value, sizeof(value));
        }
        const bool good =
            unet_session_write(session, program->name, port->name, words, tensor->size_bytes, err);
        free(words);
        if (!good)
            return false;
    }
    return true;
}

static void take_times(struct tuning *tuning, const struct plan_program *program,
                       const struct unet_session *session, const struct unet_span *spans) {
    const struct unet_choice *choices;
    const uint32_t count = unet_session_choices(session, &choices);
    for (size_t i = 0; i < tuning->items.count; i++) {
        struct item *item = &tuning->items.items[i];
        if (item->program != program)
            continue;
        uint32_t first = 0, method = 0;
        for (uint32_t p = 0; &tuning->plan->programs[p] != program; p++)
            first += tuning->plan->programs[p].n_choices;
        if (first + item->choice < count)
            method = choices[first + item->choice].method;
        uint32_t record, n_records;
        uint64_t time_ns = 0;
        plan_method_records(program, item->choice, method, &record, &n_records);
        for (uint32_t r = record; r < record + n_records; r++)
            time_ns += spans[r].end_ns - spans[r].begin_ns;
        const double seconds = (double)MAX(time_ns, 1u) * 1e-9;
        if (item->seconds[method] == 0 || seconds < item->seconds[method])
            item->seconds[method] = seconds;
    }
}

static bool run_session(struct tuning *tuning, const struct plan_program *program,
                        struct unet_session *session, struct err *err) {
    struct unet_span *spans = calloc(program->n_records, sizeof(*spans));
    bool good = spans != NULL || err_set(err, ERR_INPUT, "no memory for times");
    good =
        good && unet_session_init_weights(session, 1, err) && feed(tuning, session, program, err);
    for (uint32_t i = 0; good && i <= tuning->repeat; i++) {
        good = unet_session_set_step(session, 1, i, tuning->repeat + 1, 0, err) &&
               unet_session_run(session, program->name, err) &&
               unet_session_profile(session, program->name, spans, err);
        if (good && i > 0)
            take_times(tuning, program, session, spans);
    }
    free(spans);
    return good;
}

/* With the method of that number wherever there is one that may be used here. */
static bool run_method(struct tuning *tuning, const struct plan_program *program, uint32_t number,
                       struct err *err) {
    VEC(uint32_t) methods = {0};
    for (uint32_t p = 0; p < tuning->plan->n_programs; p++) {
        const struct plan_program *each = &tuning->plan->programs[p];
        for (uint32_t c = 0; c < each->n_choices; c++) {
            const bool usable =
                number < each->choices[c].n_methods &&
                (number == 0 || !is_same_work(tuning, each, c, number)) &&
                plan_method_fits(tuning->plan, each, c, number, &tuning->limits, NULL);
            vec_push(&methods, usable ? number : PLAN_NONE);
        }
    }
    const struct unet_session_options options = {
        .programs = &program->name, .n_programs = 1, .profile = true, .methods = methods.items};
    struct unet_session *session = NULL;
    const bool good = unet_session_open(tuning->device, tuning->plan, &options, &session, err) &&
                      run_session(tuning, program, session, err);
    unet_session_close(session);
    vec_free(&methods);
    return good;
}

static bool measure_program(struct tuning *tuning, const struct plan_program *program,
                            struct err *err) {
    uint32_t most = 0;
    for (size_t i = 0; i < tuning->items.count; i++)
        if (tuning->items.items[i].program == program)
            most = MAX(most, choice_of(&tuning->items.items[i])->n_methods);
    for (uint32_t round = 0; most > 0 && round < ROUNDS; round++) {
        for (uint32_t method = 0; method < most; method++) {
            log_print(LOG_INFO, "%s, round %u of %u, method %u of %u", program->name, round + 1,
                      ROUNDS, method + 1, most);
            if (!run_method(tuning, program, method, err))
                return false;
        }
    }
    return true;
}

static void find_best(struct tuning *tuning) {
    for (size_t i = 0; i < tuning->items.count; i++) {
        struct item *item = &tuning->items.items[i];
        for (uint32_t m = 0; m < choice_of(item)->n_methods; m++) {
            const double least_gain = item->best == 0 ? 1 - LEAST_GAIN : 1;
            if (item->seconds[m] > 0 && (item->seconds[item->best] == 0 ||
                                         item->seconds[m] < least_gain * item->seconds[item->best]))
                item->best = m;
        }
    }
}

static const char *method_name(const struct item *item, uint32_t method) {
    return plan_method_name(choice_of(item)->methods[method].kind);
}

static const char *times_text(struct tuning *tuning, const struct item *item) {
    const char *text = "";
    for (uint32_t m = 0; m < choice_of(item)->n_methods; m++)
        if (item->seconds[m] > 0)
            text = arena_printf(&tuning->arena, "%s%s%s %.3f ms", text, m > 0 ? ", " : "",
                                method_name(item, m), item->seconds[m] * 1e3);
    return text;
}

static bool print_json(struct tuning *tuning, const char *path, struct err *err) {
    json_t *list = json_array();
    for (size_t i = 0; i < tuning->items.count; i++) {
        const struct item *item = &tuning->items.items[i];
        json_t *seconds = json_object();
        for (uint32_t m = 0; m < choice_of(item)->n_methods; m++)
            if (item->seconds[m] > 0)
                json_object_set_new(seconds, method_name(item, m), json_real(item->seconds[m]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:s}", "program",
                                              item->program->name, "name", choice_of(item)->name,
                                              "shape", item->shape, "seconds", seconds, "chosen",
                                              method_name(item, item->best)));
    }
    const struct unet_device_info *device = unet_device_get_info(tuning->device);
    return cmd_print_json(json_pack("{s:s, s:s, s:s, s:o}", "device", device->name, "driver",
                                    device->driver, "file", path, "shapes", list),
                          err);
}

static void print_table(struct tuning *tuning, const char *path) {
    printf("%-12s %-40s %-10s %s\n", "program", "layer", "fastest", "times");
    for (size_t i = 0; i < tuning->items.count; i++) {
        const struct item *item = &tuning->items.items[i];
        printf("%-12s %-40s %-10s %s\n", item->program->name, choice_of(item)->name,
               method_name(item, item->best), times_text(tuning, item));
    }
    printf("written to %s\n", path);
}

static bool save(struct tuning *tuning, const char *path, struct err *err) {
    VEC(struct unet_tuned) tuned = {0};
    for (size_t i = 0; i < tuning->items.count; i++) {
        const struct item *item = &tuning->items.items[i];
        const struct unet_tuned line = {item->shape, choice_of(item)->methods[item->best].kind,
                                        times_text(tuning, item)};
        vec_push(&tuned, line);
    }
    const bool good =
        unet_tune_save(tuning->device, tuning->plan, path, tuned.items, tuned.count, err);
    vec_free(&tuned);
    return good;
}

static bool tune(struct tuning *tuning, const struct tune_values *values, const char *path,
                 struct err *err) {
    list_items(tuning);
    if (tuning->items.count == 0)
        return err_set(
            err, ERR_INPUT, "%s: nothing in this plan can be computed in several ways on %s",
            values->common.operands.items[0], unet_device_get_info(tuning->device)->name);
    if (path == NULL) {
        err_set(err, ERR_USAGE, "there is no folder for the measurements");
        return err_hint(err, "name a file with --out");
    }
    for (uint32_t p = 0; p < tuning->plan->n_programs; p++)
        if (!measure_program(tuning, &tuning->plan->programs[p], err))
            return false;
    find_best(tuning);
    if (!save(tuning, path, err))
        return false;
    if (values->json)
        return print_json(tuning, path, err);
    print_table(tuning, path);
    return true;
}

static bool run_tune(const void *data, struct err *err) {
    const struct tune_values *values = data;
    struct tuning tuning = {.repeat = values->repeat};
    struct plan *plan = NULL;
    char *usual = values->out == NULL ? unet_tune_path() : NULL;
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                plan_verify(plan, NULL, err) &&
                cmd_device_open(&values->common, &tuning.device, err);
    tuning.plan = plan;
    if (good)
        tuning.limits = unet_device_plan_limits(tuning.device, plan);
    good = good && tune(&tuning, values, values->out != NULL ? values->out : usual, err);
    unet_device_close(tuning.device);
    plan_free(plan);
    vec_free(&tuning.items);
    arena_free(&tuning.arena);
    free(usual);
    return good;
}

const struct cli_command cmd_tune = {
    .name = "tune",
    .summary = "Times the methods a plan has for its layers, and keeps the fastest for later runs.",
    .details =
        "A plan may hold several ways to compute a layer. Each distinct shape is timed once, "
        "with random\ninput, in runs of whole programs; the fastest is written to a text "
        "file, from which every command\ntakes it for this device and driver version. "
        "docs/runtime.md tells what else decides.",
    .operands = "FILE.plan",
    .options = tune_options,
    .n_options = ARRAY_LEN(tune_options),
    .values_bytes = sizeof(struct tune_values),
    .run = run_tune,
};
