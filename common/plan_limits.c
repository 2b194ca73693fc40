/*
 * plan_limits.c: the table of limits, the least that plans are made for, limits as text, and how a
 * plan is run within them.
 */
#include "common/plan_limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_words[] = {"gpu", "cpu", NULL};
static const char *const access_words[] = {"descriptor", "address", NULL};
static const char *const bool_words[] = {"no", "yes", NULL};

_Static_assert(offsetof(struct plan_limits, matrix_k) ==
                   offsetof(struct plan_limits, matrix_m) + 2 * sizeof(uint32_t),
               "M, N and K follow one another");

#define FIELD(name, count, member, ...)                                                            \
    {                                                                                              \
        name, count, sizeof(((struct plan_limits *)0)->member) / count,                            \
            offsetof(struct plan_limits, member), __VA_ARGS__                                      \
    }

static const struct plan_limits_field fields[] = {
    FIELD("tilings", 1, class_, class_words, 0, false,
          "gpu, or cpu for drivers that compute there"),
    FIELD("access", 1, access, access_words, 0, false, "how shaders reach tensors"),
    FIELD("addresses", 1, has_addresses, bool_words, 0, false,
          "yes: reach tensors longer than binding_bytes"),
    FIELD("binding_bytes", 1, max_binding_bytes, NULL, 4, true,
          "one storage buffer, by descriptor"),
    FIELD("allocation_bytes", 1, max_allocation_bytes, NULL, PLAN_ALIGNMENT, true,
          "one allocation"),
    FIELD("shared_bytes", 1, max_shared_bytes, NULL, 0, true, "shared memory of a workgroup"),
    FIELD("group_invocations", 1, max_group_invocations, NULL, 1, true,
          "invocations of a workgroup"),
    FIELD("groups", 3, max_groups, NULL, 1, true, "workgroups along x, y, z"),
    FIELD("group_size", 3, max_group_size, NULL, 1, true, "a workgroup along x, y, z"),
    FIELD("push_bytes", 1, max_push_bytes, NULL, 0, true, "push constants"),
    FIELD("subgroup", 1, subgroup_size, NULL, 0, false, "invocations of a subgroup; 0: unknown"),
    {"matrix", 3, sizeof(uint32_t), offsetof(struct plan_limits, matrix_m), NULL, 0, false,
     "matrix units: M, N, K of M x K times K x N in half precision; 0: none"},
};

struct plan_limits plan_limits_minimum(enum plan_class cls) {
    /*
     * What plans are made for that name no target. Groups, push constants and the range of a
     * storage buffer are what Vulkan 1.0 guarantees ("Required Limits"); an allocation of 1 GiB is
     * what Vulkan 1.1 guarantees. Shared memory and invocations are more than the guaranteed 16 KB
     * and 128: every desktop driver and both software drivers have 32 KB and 256 or more, and tiles
     * are sized for that. Devices with less run such plans with the tilings of CPUs
     * (plan_limits_choose), or their own plans (compiler/targets/small.yaml).
     */
    struct plan_limits limits = {
        .device = "any GPU",
        .class_ = cls,
        .access = PLAN_ACCESS_DESCRIPTOR,
        .max_binding_bytes = (uint64_t)128 << 20,
        .max_allocation_bytes = (uint64_t)1 << 30,
        .max_shared_bytes = 32768,
        .max_groups = {PLAN_MAX_GROUPS, PLAN_MAX_GROUPS, PLAN_MAX_GROUPS},
        .max_group_size = {256, 128, 64},
        .max_group_invocations = 256,
        .max_push_bytes = 128,
    };
    if (cls == PLAN_CLASS_CPU) {
        /* Mesa's lavapipe 22.3 allocates 2 GiB, SwiftShader 1 GiB: the lesser stands. Both reach
           tensors through addresses, where no range of a binding applies. */
        limits.device = "any CPU device";
        limits.access = PLAN_ACCESS_ADDRESS;
    }
    return limits;
}

/* ---- fields ---- */

size_t plan_limits_fields(const struct plan_limits_field **fields_out) {
    *fields_out = fields;
    return ARRAY_LEN(fields);
}

const struct plan_limits_field *plan_limits_find(const char *name, size_t length) {
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (strlen(fields[i].name) == length && strncmp(fields[i].name, name, length) == 0)
            return &fields[i];
    }
    return NULL;
}

uint64_t plan_limits_get(const struct plan_limits *limits, const struct plan_limits_field *field,
                         uint32_t index) {
    const char *at = (const char *)limits + field->offset + (size_t)index * field->size_bytes;
    uint8_t byte;
    uint32_t word;
    uint64_t value;
    switch (field->size_bytes) {
    case sizeof(byte):
        memcpy(&byte, at, sizeof(byte));
        return byte;
    case sizeof(word):
        memcpy(&word, at, sizeof(word));
        return word;
    default:
        memcpy(&value, at, sizeof(value));
        return value;
    }
}

void plan_limits_set(struct plan_limits *limits, const struct plan_limits_field *field,
                     uint32_t index, uint64_t value) {
    char *at = (char *)limits + field->offset + (size_t)index * field->size_bytes;
    const uint8_t byte = (uint8_t)value;
    const uint32_t word = (uint32_t)value;
    if (field->size_bytes == sizeof(byte))
        memcpy(at, &byte, sizeof(byte));
    else if (field->size_bytes == sizeof(word))
        memcpy(at, &word, sizeof(word));
    else
        memcpy(at, &value, sizeof(value));
}

static uint64_t most(const struct plan_limits_field *field) {
    return field->size_bytes == 8 ? UINT64_MAX : UINT32_MAX;
}

bool plan_limits_allows(const struct plan_limits_field *field, uint64_t value) {
    uint64_t n_words = 0;
    while (field->words != NULL && field->words[n_words] != NULL)
        n_words++;
    return n_words > 0 ? value < n_words : value >= field->least && value <= most(field);
}

bool plan_limits_value(const struct plan_limits_field *field, const char *text,
                       uint64_t *value_out) {
    for (uint64_t i = 0; field->words != NULL && field->words[i] != NULL; i++) {
        if (strcmp(field->words[i], text) == 0) {
            *value_out = i;
            return true;
        }
    }
    if (field->words != NULL || text[0] == '\0' || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    *value_out = strtoull(text, NULL, 10);
    return errno == 0 && plan_limits_allows(field, *value_out);
}

const char *plan_limits_describe(const struct plan_limits_field *field, char *text,
                                 size_t size_bytes) {
    if (field->words != NULL)
        snprintf(text, size_bytes, "%s or %s", field->words[0], field->words[1]);
    else
        snprintf(text, size_bytes, "a whole number from %" PRIu64 " to %" PRIu64, field->least,
                 most(field));
    return text;
}

/* ---- text ---- */

/* Quoted, since names of devices hold anything. */
static void print_name(const char *name, FILE *stream) {
    fprintf(stream, PLAN_LIMITS_NAME ": \"");
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\')
            fputc('\\', stream);
        fputc((unsigned char)*name < ' ' ? ' ' : *name, stream);
    }
    fprintf(stream, "\"\n");
}

static void print_value(const struct plan_limits_field *field, uint64_t value, FILE *stream) {
    if (field->words != NULL)
        fprintf(stream, "%s", field->words[value]);
    else
        fprintf(stream, "%" PRIu64, value);
}

void plan_limits_print(const struct plan_limits *limits, const char *const *remarks, FILE *stream) {
    for (size_t i = 0; remarks[i] != NULL; i++)
        fprintf(stream, "# %s\n", remarks[i]);
    print_name(limits->device, stream);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct plan_limits_field *field = &fields[i];
        fprintf(stream, "%s: %s", field->name, field->count > 1 ? "[" : "");
        for (uint32_t j = 0; j < field->count; j++) {
            fprintf(stream, "%s", j > 0 ? ", " : "");
            print_value(field, plan_limits_get(limits, field, j), stream);
        }
        fprintf(stream, "%s # %s\n", field->count > 1 ? "]" : "", field->what);
    }
}

static bool fail_bound(const char *source, const char *item, size_t length, struct err *err) {
    char names[256] = "";
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const size_t used = strlen(names);
        if (fields[i].is_bound)
            snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "",
                     fields[i].name);
    }
    err_set(err, ERR_USAGE, "%s: \"%.*s\" is no limit", source, (int)length, item);
    return err_hint(err, "NAME=NUMBER,NAME=NUMBER with names of %s", names);
}

bool plan_limits_lower(const char *source, const char *list, struct plan_limits *limits,
                       struct err *err) {
    while (list != NULL && *list != '\0') {
        const size_t length = strcspn(list, ","), name = strcspn(list, "=");
        const struct plan_limits_field *field = plan_limits_find(list, MIN(name, length));
        char number[24] = "";
        uint64_t value;
        if (name < length && length - name - 1 < sizeof(number))
            memcpy(number, list + name + 1, length - name - 1);
        if (field == NULL || !field->is_bound || !plan_limits_value(field, number, &value))
            return fail_bound(source, list, length, err);
        for (uint32_t i = 0; i < field->count; i++)
            plan_limits_set(limits, field, i, MIN(value, plan_limits_get(limits, field, i)));
        list += length + (list[length] == ',');
    }
    return true;
}

/* ---- a plan within limits ---- */

static uint64_t largest_binding(const struct plan *plan) {
    uint64_t largest = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        for (uint32_t j = 0; j < plan->programs[i].n_records; j++) {
            const struct plan_record *record = &plan->programs[i].records[j];
            for (uint32_t k = 0; k < kernel_table[record->kernel].n_bindings; k++)
                largest = MAX(largest, plan->tensors[record->tensors[k]].size_bytes);
        }
    }
    return largest;
}

struct plan_limits plan_limits_choose(const struct plan *plan, struct plan_limits limits) {
    struct plan_limits trial = limits;
    if (limits.access == PLAN_ACCESS_DESCRIPTOR && limits.has_addresses &&
        largest_binding(plan) > limits.max_binding_bytes)
        limits.access = PLAN_ACCESS_ADDRESS;
    trial.access = limits.access;
    trial.max_allocation_bytes = UINT64_MAX; /* tilings change nothing about it */
    if (limits.class_ == PLAN_CLASS_GPU && !plan_fits(plan, &trial, NULL)) {
        trial.class_ = PLAN_CLASS_CPU;
        if (plan_fits(plan, &trial, NULL))
            limits.class_ = PLAN_CLASS_CPU;
    }
    return limits;
}

/* ---- the target that a plan was compiled for ---- */

bool plan_target_check(const struct plan *plan, struct err *err) {
    if (plan->target.device == NULL)
        return true;
    const struct plan_limits limits = plan_limits_choose(plan, plan->target);
    if (plan_fits(plan, &limits, err))
        return true;
    if (err != NULL) {
        err->code = ERR_INPUT; /* no device at hand is at fault */
        err->hint[0] = '\0';
    }
    return err_prefix(err, "plan: compiled for target %s, but", plan->target.device);
}

/* By addresses there is no range of a binding. */
static bool concerns(const struct plan_limits_field *field, const struct plan_limits *device) {
    return field->is_bound && (device->access == PLAN_ACCESS_DESCRIPTOR ||
                               field->offset != offsetof(struct plan_limits, max_binding_bytes));
}

const char *plan_target_excess(const struct plan *plan, const struct plan_limits *device,
                               char text[PLAN_TARGET_TEXT]) {
    size_t used = 0;
    for (size_t i = 0; plan->target.device != NULL && i < ARRAY_LEN(fields); i++) {
        for (uint32_t j = 0; concerns(&fields[i], device) && j < fields[i].count; j++) {
            const uint64_t wanted = plan_limits_get(&plan->target, &fields[i], j);
            const uint64_t here = plan_limits_get(device, &fields[i], j);
            if (here >= wanted || used >= PLAN_TARGET_TEXT)
                continue;
            used += (size_t)snprintf(text + used, PLAN_TARGET_TEXT - used,
                                     "%s%s %" PRIu64 ", here %" PRIu64, used > 0 ? "; " : "",
                                     fields[i].name, wanted, here);
        }
    }
    return used > 0 ? text : NULL;
}
