/*
 * choice.c: see choice.h. --disable and the limits of the device say what may be used. Of that
 * decide, in this order: what the session was opened with (a resumed training, a measurement),
 * UNET_PREFER in the environment, the file of unetrun tune, the table of drivers measured before,
 * the preferences in the plan (docs/runtime.md).
 */
#include "runtime/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/tune.h"

enum plan_device exec_device_kind(const struct unet_device *device,
                                  const struct plan_limits *limits) {
    if (strcmp(device->info.backend, "cpu") == 0)
        return PLAN_DEVICE_NATIVE;
    if (limits->class_ == PLAN_CLASS_GPU)
        return PLAN_DEVICE_GPU;
    return limits->access == PLAN_ACCESS_ADDRESS ? PLAN_DEVICE_CPU_ADDRESS
                                                 : PLAN_DEVICE_CPU_DESCRIPTOR;
}

struct picker {
    const struct unet_device *device;
    const struct plan *plan;
    const struct plan_limits *limits;
    enum plan_device kind;
    char key[TUNE_KEY_TEXT];
    struct tune tune; /* empty: no file, or not to be used */
    uint32_t given;   /* by the session; PLAN_NONE: nothing */
    bool is_preferring;
    enum plan_method_kind preferred;
    struct err *err;
};

static bool fail_empty(const struct picker *picker, const struct plan_program *program,
                       const struct plan_choice *choice) {
    char list[128] = "";
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                 plan_method_name(choice->methods[i].kind));
    }
    err_set(picker->err, ERR_USAGE, "%s, %s: no method is left of %s", program->name, choice->name,
            list);
    return err_hint(picker->err, "--disable, or UNET_DISABLE in the environment, names too many");
}

/* What UNET_PREFER in the environment names, wherever a plan has it. */
static bool read_preferred(struct picker *picker) {
    const char *name = getenv("UNET_PREFER");
    picker->is_preferring = name != NULL && name[0] != '\0';
    if (!picker->is_preferring || plan_method_find(name, strlen(name), &picker->preferred))
        return true;
    char list[128] = "";
    for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", kind > 0 ? ", " : "",
                 plan_method_name((enum plan_method_kind)kind));
    }
    err_set(picker->err, ERR_USAGE, "UNET_PREFER: there is no method \"%s\"", name);
    return err_hint(picker->err, "UNET_PREFER is one of %s, or not set", list);
}

static bool pick_preferred(const struct picker *picker, const struct plan_choice *choice,
                           uint32_t allowed, struct unet_choice *out) {
    const uint32_t method =
        picker->is_preferring ? plan_choice_find(choice, picker->preferred) : PLAN_NONE;
    if (method == PLAN_NONE || (allowed >> method & 1u) == 0)
        return false;
    out->method = method;
    out->reason = UNET_CHOICE_PREFERENCE;
    return true;
}

/* By measurements, if there are any for the device, driver and shape. */
static bool pick_tuned(const struct picker *picker, const struct plan_program *program,
                       uint32_t index, uint32_t allowed, struct unet_choice *out) {
    char shape[PLAN_SHAPE_TEXT];
    const struct tune_line *line =
        tune_find(&picker->tune, picker->key, plan_choice_shape(program, index, shape));
    const uint32_t method =
        line != NULL ? plan_choice_find(&program->choices[index], line->kind) : PLAN_NONE;
    if (method == PLAN_NONE || (allowed >> method & 1u) == 0)
        return false;
    out->method = method;
    out->reason = UNET_CHOICE_TUNED;
    return true;
}

/*
 * What measurements said about drivers: instead of one method another, where the choice has it.
 * docs/shaders.md has the figures.
 */
static const struct default_rule {
    const char *driver; /* a part of its name and version */
    enum plan_device kind;
    enum plan_method_kind instead_of, use;
} default_rules[] = {
    {"Mesa 26.1", PLAN_DEVICE_CPU_ADDRESS, PLAN_METHOD_DIRECT, PLAN_METHOD_NARROW},
};

static void apply_defaults(const struct picker *picker, const struct plan_choice *choice,
                           uint32_t allowed, struct unet_choice *out) {
    for (size_t i = 0; i < ARRAY_LEN(default_rules); i++) {
        const struct default_rule *rule = &default_rules[i];
        const uint32_t use = plan_choice_find(choice, rule->use);
        if (picker->kind != rule->kind || use == PLAN_NONE || (allowed >> use & 1u) == 0 ||
            choice->methods[out->method].kind != rule->instead_of ||
            strstr(picker->device->info.driver, rule->driver) == NULL)
            continue;
        out->method = use;
        out->reason = UNET_CHOICE_DEFAULT;
    }
}

/* Goes before what else decides, among what is allowed. */
static bool take_given(const struct picker *picker, const struct plan_choice *choice,
                       uint32_t allowed, struct unet_choice *out) {
    out->usual = out->method;
    if (picker->given == PLAN_NONE)
        return true;
    if (picker->given >= choice->n_methods)
        return err_set(picker->err, ERR_USAGE, "%s, %s: method %u of %u", out->program, out->name,
                       picker->given, choice->n_methods);
    if ((allowed >> picker->given & 1u) != 0) {
        out->method = picker->given;
        out->reason = UNET_CHOICE_GIVEN;
    }
    return true;
}

static bool pick(const struct picker *picker, const struct plan_program *program, uint32_t index,
                 struct unet_choice *out) {
    const struct plan_choice *choice = &program->choices[index];
    *out = (struct unet_choice){.program = program->name, .name = choice->name};
    uint32_t allowed = 0, n_allowed = 0;
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        if ((picker->device->disabled >> choice->methods[i].kind & 1u) == 0 &&
            plan_method_fits(picker->plan, program, index, i, picker->limits, NULL)) {
            allowed |= 1u << i;
            n_allowed++;
        }
    }
    if (n_allowed == 0)
        return fail_empty(picker, program, choice);
    if (n_allowed > 1 && (pick_preferred(picker, choice, allowed, out) ||
                          pick_tuned(picker, program, index, allowed, out)))
        return take_given(picker, choice, allowed, out);
    out->method = plan_choice_prefer(choice, picker->kind, allowed);
    out->reason = n_allowed == 1 ? UNET_CHOICE_ONLY : UNET_CHOICE_PREFERENCE;
    if (n_allowed > 1 && (picker->device->disabled >> EXEC_DISABLE_DEFAULTS & 1u) == 0)
        apply_defaults(picker, choice, allowed, out);
    return take_given(picker, choice, allowed, out);
}

static bool pick_all(struct chosen *chosen, struct picker *picker, const uint32_t *methods) {
    uint32_t count = 0;
    for (uint32_t p = 0; p < picker->plan->n_programs; p++) {
        const struct plan_program *program = &picker->plan->programs[p];
        for (uint32_t c = 0; c < program->n_choices; c++, count++) {
            struct unet_choice *choice = &chosen->choices[count];
            picker->given = methods != NULL ? methods[count] : PLAN_NONE;
            if (!pick(picker, program, c, choice))
                return false;
            choice->kind = program->choices[c].methods[choice->method].kind;
        }
    }
    chosen->n_choices = count;
    return true;
}

/* Barriers of records that do not run wait for the next one that does. */
static void keep_records(struct chosen *chosen, const struct plan *plan) {
    uint32_t at = 0, kept = 0, first_choice = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        const struct plan_program *from = &plan->programs[p];
        struct plan_program *to = &chosen->programs[p];
        bool barrier = false;
        *to = *from;
        to->records = &chosen->records[kept];
        to->n_records = 0;
        chosen->firsts[p] = at;
        for (uint32_t r = 0; r < from->n_records; r++, at++) {
            const struct plan_record *record = &from->records[r];
            barrier = barrier || record->barrier;
            chosen->places[at] = PLAN_NONE;
            if (record->choice != PLAN_NONE &&
                record->method != chosen->choices[first_choice + record->choice].method)
                continue;
            chosen->places[at] = to->n_records;
            to->records[to->n_records] = *record;
            to->records[to->n_records++].barrier = barrier;
            barrier = false;
        }
        kept += to->n_records;
        first_choice += from->n_choices;
    }
    chosen->plan = *plan;
    chosen->plan.programs = chosen->programs;
}

bool chosen_open(struct chosen *chosen, const struct unet_device *device, const struct plan *plan,
                 const struct plan_limits *limits, const uint32_t *methods, struct err *err) {
    size_t n_records = 1, n_choices = 1;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        n_records += plan->programs[p].n_records;
        n_choices += plan->programs[p].n_choices;
    }
    *chosen = (struct chosen){0};
    chosen->programs = calloc(MAX(plan->n_programs, 1u), sizeof(*chosen->programs));
    chosen->records = calloc(n_records, sizeof(*chosen->records));
    chosen->places = calloc(n_records, sizeof(*chosen->places));
    chosen->firsts = calloc(MAX(plan->n_programs, 1u), sizeof(*chosen->firsts));
    chosen->choices = calloc(n_choices, sizeof(*chosen->choices));
    if (chosen->programs == NULL || chosen->records == NULL || chosen->places == NULL ||
        chosen->firsts == NULL || chosen->choices == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    struct picker picker = {.device = device,
                            .plan = plan,
                            .limits = limits,
                            .kind = exec_device_kind(device, limits),
                            .err = err};
    tune_key(device, picker.kind, picker.key);
    if (n_choices > 1 && (device->disabled >> EXEC_DISABLE_TUNE_FILE & 1u) == 0)
        tune_load(&picker.tune, NULL);
    const bool good = read_preferred(&picker) && pick_all(chosen, &picker, methods);
    tune_free(&picker.tune);
    if (!good)
        return false;
    keep_records(chosen, plan);
    return true;
}

void chosen_close(struct chosen *chosen) {
    free(chosen->programs);
    free(chosen->records);
    free(chosen->places);
    free(chosen->firsts);
    free(chosen->choices);
    *chosen = (struct chosen){0};
}

uint32_t chosen_place(const struct chosen *chosen, uint32_t program, uint32_t record) {
    return chosen->places[chosen->firsts[program] + record];
}

/* ---- as text ---- */

char *chosen_text(const struct chosen *chosen) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL)
        return NULL;
    for (uint32_t i = 0, run; i < chosen->n_choices; i += run) {
        const struct unet_choice *choice = &chosen->choices[i];
        const bool same = i > 0 && strcmp(choice[-1].program, choice->program) == 0;
        for (run = 1; i + run < chosen->n_choices && choice[run].kind == choice->kind &&
                      strcmp(choice[run].program, choice->program) == 0;)
            run++;
        if (!same)
            fprintf(stream, "%s%s: ", i > 0 ? "; " : "", choice->program);
        fprintf(stream, "%s%s %u", same ? ", " : "", plan_method_name(choice->kind), run);
    }
    fclose(stream);
    return text;
}

/* "narrow 3, direct 11" for the choices of a program; returns where it ends, NULL: it does not fit.
 */
static const char *parse_runs(const struct plan_program *program, const char *text,
                              uint32_t *methods) {
    uint32_t done = 0;
    while (done < program->n_choices) {
        enum plan_method_kind kind;
        const size_t length = strcspn(text, " ");
        char *end = NULL;
        if (!plan_method_find(text, length, &kind) || text[length] != ' ')
            return NULL;
        const unsigned long run = strtoul(text + length + 1, &end, 10);
        if (run == 0 || run > program->n_choices - done)
            return NULL;
        for (unsigned long i = 0; i < run; i++, done++) {
            methods[done] = plan_choice_find(&program->choices[done], kind);
            if (methods[done] == PLAN_NONE)
                return NULL;
        }
        text = end;
        if (done < program->n_choices) {
            if (strncmp(text, ", ", 2) != 0)
                return NULL;
            text += 2;
        }
    }
    return text;
}

uint32_t *unet_choices_parse(const struct plan *plan, const char *text) {
    size_t count = 1;
    for (uint32_t p = 0; p < plan->n_programs; p++)
        count += plan->programs[p].n_choices;
    uint32_t *methods = calloc(count, sizeof(*methods));
    uint32_t at = 0;
    for (uint32_t p = 0; methods != NULL && text != NULL && p < plan->n_programs; p++) {
        const struct plan_program *program = &plan->programs[p];
        const size_t length = strlen(program->name);
        if (program->n_choices == 0)
            continue;
        if (at > 0)
            text = strncmp(text, "; ", 2) == 0 ? text + 2 : "";
        if (strncmp(text, program->name, length) != 0 || strncmp(text + length, ": ", 2) != 0)
            text = NULL;
        else
            text = parse_runs(program, text + length + 2, &methods[at]);
        at += program->n_choices;
    }
    if (text != NULL && *text == '\0')
        return methods;
    free(methods);
    return NULL;
}
