/*
 * plan_choice.c: alternatives in a plan: names of methods and devices, what a device prefers, which
 * records belong to a method, and that part of the verifier that checks the bookkeeping: records of
 * a choice stand together, method after method.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/plan_check.h"

static const char *const method_names[PLAN_METHOD_KIND_COUNT] = {"direct", "winograd", "narrow",
                                                                 "split",  "matrix",   "winograd2"};

const char *plan_method_name(enum plan_method_kind kind) {
    return method_names[kind];
}

bool plan_method_find(const char *name, size_t length, enum plan_method_kind *kind_out) {
    for (int i = 0; i < PLAN_METHOD_KIND_COUNT; i++) {
        if (strlen(method_names[i]) == length && strncmp(method_names[i], name, length) == 0) {
            *kind_out = (enum plan_method_kind)i;
            return true;
        }
    }
    return false;
}

const char *plan_device_name(enum plan_device device) {
    static const char *const names[PLAN_DEVICE_COUNT] = {"GPU", "CPU driver, descriptors",
                                                         "CPU driver, addresses", "native"};
    return names[device];
}

uint32_t plan_choice_find(const struct plan_choice *choice, enum plan_method_kind kind) {
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        if (choice->methods[i].kind == kind)
            return i;
    }
    return PLAN_NONE;
}

/* Small subgroups share a tile among more of them, as long as each has as many matrices as the plan
   states: else an invocation has several times the code, for which Mesa's CPU driver (8 x 8 x 8,
   subgroups of 8) compiles several times as long. */
static void shrink_parts(const struct plan_limits *limits, uint32_t stated, uint32_t *spec) {
    uint32_t *part = &spec[PLAN_MATRIX_PART];
    const uint32_t sizes[2] = {limits->matrix_m, limits->matrix_n};
    const uint32_t matrices = part[0] / PLAN_MATRIX_SIZE * (part[1] / PLAN_MATRIX_SIZE);
    if (spec[0] == 0 || matrices == 0 || sizes[0] == 0 || sizes[1] == 0)
        return; /* a damaged plan, or no matrix units: for others to refuse */
    while (spec[0] * 2 <= stated && part[0] / sizes[0] * (part[1] / sizes[1]) >= 2 * matrices) {
        const int side = part[0] / sizes[0] >= part[1] / sizes[1] ? 0 : 1;
        part[side] /= 2;
        spec[0] *= 2;
    }
}

void plan_matrix_constants(const char *variant, const struct plan_limits *limits, uint32_t *spec) {
    const size_t length = strlen(variant), suffix = strlen(PLAN_MATRIX_SUFFIX);
    if (length < suffix || strcmp(variant + length - suffix, PLAN_MATRIX_SUFFIX) != 0)
        return;
    const uint32_t stated = spec[0];
    spec[0] = stated / PLAN_MATRIX_SUBGROUP * limits->subgroup_size;
    shrink_parts(limits, stated, spec);
    spec[PLAN_MATRIX_SIZES] = limits->matrix_m;
    spec[PLAN_MATRIX_SIZES + 1] = limits->matrix_n;
    spec[PLAN_MATRIX_SIZES + 2] = limits->matrix_k;
}

uint32_t plan_choice_prefer(const struct plan_choice *choice, enum plan_device device,
                            uint32_t allowed) {
    uint32_t found = PLAN_NONE;
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        if ((allowed >> i & 1u) != 0 &&
            (found == PLAN_NONE ||
             choice->methods[i].preference[device] > choice->methods[found].preference[device]))
            found = i;
    }
    return found;
}

void plan_method_records(const struct plan_program *program, uint32_t choice, uint32_t method,
                         uint32_t *first_out, uint32_t *count_out) {
    *first_out = *count_out = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        if (program->records[i].choice != choice || program->records[i].method != method)
            continue;
        if (*count_out == 0)
            *first_out = i;
        (*count_out)++;
    }
}

const char *plan_choice_shape(const struct plan_program *program, uint32_t choice,
                              char text[PLAN_SHAPE_TEXT]) {
    uint32_t first, count;
    plan_method_records(program, choice, 0, &first, &count);
    const struct plan_record *most = &program->records[first];
    for (uint32_t i = 1; i < count; i++) {
        if (program->records[first + i].flops > most->flops)
            most = &program->records[first + i];
    }
    const struct kernel_info *info = &kernel_table[most->kernel];
    int used = snprintf(text, PLAN_SHAPE_TEXT, "%s", info->name);
    for (uint32_t i = 0; i < info->n_params && used < PLAN_SHAPE_TEXT; i++) {
        float value;
        memcpy(&value, &most->params[i], sizeof(value));
        const size_t room = PLAN_SHAPE_TEXT - (size_t)used;
        if (info->params[i].is_float)
            used += snprintf(text + used, room, " %s=%.9g", info->params[i].name, (double)value);
        else
            used +=
                snprintf(text + used, room, " %s=%" PRIu32, info->params[i].name, most->params[i]);
    }
    return text;
}

/* --- the verifier's part --- */

#define REJECT(check, ...) err_set((check)->err, ERR_INPUT, __VA_ARGS__)

static bool check_methods(const struct plan_check *check, const struct plan_program *program,
                          uint32_t index) {
    const struct plan_choice *choice = &program->choices[index];
    if (choice->name == NULL || choice->name[0] == '\0')
        return REJECT(check, "plan: program %s: choice %u has no name", program->name, index);
    if (choice->n_methods < 2 || choice->n_methods > PLAN_METHOD_KIND_COUNT)
        return REJECT(check, "plan: program %s: choice %s has %u methods, must be 2 to %d",
                      program->name, choice->name, choice->n_methods, PLAN_METHOD_KIND_COUNT);
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        if ((unsigned)choice->methods[i].kind >= PLAN_METHOD_KIND_COUNT)
            return REJECT(check, "plan: program %s: choice %s: method %u is of no known kind",
                          program->name, choice->name, i);
        if (plan_choice_find(choice, choice->methods[i].kind) != i)
            return REJECT(check, "plan: program %s: choice %s has two methods %s", program->name,
                          choice->name, plan_method_name(choice->methods[i].kind));
    }
    return true;
}

/* Whether a record may follow one of another choice or method. Choices come in their order, each
   from its first method to its last. */
static bool follows(const struct plan_program *program, const struct plan_record *before,
                    const struct plan_record *record) {
    if (record->choice == before->choice)
        return record->method == before->method ||
               (record->choice != PLAN_NONE && record->method == before->method + 1);
    return (before->choice == PLAN_NONE ||
            before->method + 1 == program->choices[before->choice].n_methods) &&
           record->method == 0;
}

bool plan_check_choices(const struct plan_check *check, const struct plan_program *program) {
    for (uint32_t i = 0; i < program->n_choices; i++) {
        if (!check_methods(check, program, i))
            return false;
    }
    const struct plan_record outside = {.choice = PLAN_NONE};
    uint32_t n_begun = 0;
    for (uint32_t i = 0; i <= program->n_records; i++) {
        const struct plan_record *before = i > 0 ? &program->records[i - 1] : &outside;
        const struct plan_record *record = i < program->n_records ? &program->records[i] : &outside;
        const bool begins = record->choice != PLAN_NONE && record->choice != before->choice;
        if ((begins && record->choice != n_begun) ||
            (record->choice != PLAN_NONE && record->choice >= program->n_choices) ||
            !follows(program, before, record))
            return i < program->n_records
                       ? REJECT(check,
                                "plan: program %s: record %u (%s) is not where choice %u, method "
                                "%u can be",
                                program->name, i, record->label, record->choice, record->method)
                       : REJECT(check, "plan: program %s: its last choice lacks a method",
                                program->name);
        n_begun += begins;
    }
    return n_begun == program->n_choices ||
           REJECT(check, "plan: program %s: choice %s has no records", program->name,
                  program->choices[n_begun].name);
}
