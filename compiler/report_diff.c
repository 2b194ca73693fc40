/*
 * report_diff.c: two plans side by side. Lists of named things, records in order or tensors by
 * first use, are matched by name; what is in both has moved when it is not part of the longest
 * common order (records) or lies at another offset (tensors).
 */
#include "compiler/report_diff.h"

#include <inttypes.h>
#include <string.h>

#include "common/plan_memory.h"
#include "compiler/report_memory.h"

#define NOWHERE SIZE_MAX

/* A record, or a tensor of the arena or of a block. */
struct item {
    const char *name;
    size_t partner; /* in the other list; NOWHERE: none */
    bool in_order;  /* part of the longest common order */
    uint64_t size_bytes, offset_bytes;
    const struct plan_record *record;
};

typedef VEC(struct item) item_list;

struct diff {
    const struct plan *a, *b;
    FILE *stream;
    size_t count; /* differences so far */
};

/* ---- lists ---- */

static item_list list_records(const struct plan_program *program) {
    item_list list = {0};
    for (uint32_t i = 0; program != NULL && i < program->n_records; i++)
        vec_push(&list, ((struct item){.name = program->records[i].label,
                                       .partner = NOWHERE,
                                       .record = &program->records[i]}));
    return list;
}

static item_list list_tensors(const struct plan *plan, const struct plan_program *program) {
    item_list list = {0};
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, program, &lifetimes);
    for (size_t i = 0; i < lifetimes.tensors.count; i++) {
        const struct plan_lifetime *l = &lifetimes.tensors.items[i];
        vec_push(&list, ((struct item){.name = plan->tensors[l->tensor].name,
                                       .partner = NOWHERE,
                                       .size_bytes = plan->tensors[l->tensor].size_bytes,
                                       .offset_bytes = l->offset_bytes}));
    }
    plan_lifetimes_free(&lifetimes);
    return list;
}

static item_list list_block_tensors(const struct plan *plan) {
    item_list list = {0};
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *t = &plan->tensors[i];
        if (t->block != PLAN_BLOCK_ARENA && t->base == i)
            vec_push(&list, ((struct item){.name = t->name,
                                           .partner = NOWHERE,
                                           .size_bytes = t->size_bytes,
                                           .offset_bytes = t->offset_bytes}));
    }
    return list;
}

/* The first free item of a name is the partner: so the k-th of a name meets the k-th. */
static void match(item_list *a, item_list *b) {
    for (size_t i = 0; i < a->count; i++)
        for (size_t j = 0; j < b->count; j++)
            if (b->items[j].partner == NOWHERE && strcmp(a->items[i].name, b->items[j].name) == 0) {
                a->items[i].partner = j;
                b->items[j].partner = i;
                break;
            }
}

/* Longest increasing sequence of partners, by the plain quadratic method: what stays in place. */
static void find_order(item_list *a) {
    VEC(size_t) length = {0};
    VEC(size_t) before = {0};
    size_t best = NOWHERE;
    for (size_t i = 0; i < a->count; i++) {
        size_t longest = 0, from = NOWHERE;
        for (size_t k = 0; a->items[i].partner != NOWHERE && k < i; k++)
            if (a->items[k].partner != NOWHERE && a->items[k].partner < a->items[i].partner &&
                length.items[k] > longest) {
                longest = length.items[k];
                from = k;
            }
        vec_push(&length, a->items[i].partner == NOWHERE ? (size_t)0 : longest + 1);
        vec_push(&before, from);
        if (length.items[i] > 0 && (best == NOWHERE || length.items[i] > length.items[best]))
            best = i;
    }
    for (size_t i = best; i != NOWHERE; i = before.items[i])
        a->items[i].in_order = true;
    vec_free(&length);
    vec_free(&before);
}

/* ---- figures ---- */

static void print_figure(struct diff *diff, const char *title, uint64_t a, uint64_t b,
                         bool is_bytes) {
    char from[32], to[32];
    if (a == b)
        return;
    diff->count++;
    snprintf(from, sizeof(from), "%" PRIu64, a);
    snprintf(to, sizeof(to), "%" PRIu64, b);
    if (is_bytes) {
        report_bytes(a, from, sizeof(from));
        report_bytes(b, to, sizeof(to));
    }
    fprintf(diff->stream, "  %-20s %12s -> %-12s", title, from, to);
    if (is_bytes && strcmp(from, to) == 0)
        fprintf(diff->stream, " %+" PRId64 " bytes", (int64_t)(b - a));
    else if (a > 0)
        fprintf(diff->stream, " %+.2f %%", 100.0 * ((double)b / (double)a - 1));
    fputc('\n', diff->stream);
}

static void print_flops(struct diff *diff, uint64_t a, uint64_t b) {
    if (a == b)
        return;
    diff->count++;
    fprintf(diff->stream, "  %-20s %12.3f -> %-12.3f %+.2f %%\n", "GFLOP", (double)a / 1e9,
            (double)b / 1e9, a > 0 ? 100.0 * ((double)b / (double)a - 1) : 0.0);
}

/* ---- records ---- */

/* What differs between two records of a name; NULL: nothing that is theirs alone. */
static const char *compare_records(const struct plan *a, const struct plan_record *x,
                                   const struct plan *b, const struct plan_record *y) {
    if (x->kernel != y->kernel)
        return "another kernel";
    if (memcmp(x->params, y->params, sizeof(x->params)) != 0)
        return "other parameters";
    for (int c = 0; c < PLAN_CLASS_COUNT; c++) {
        const struct plan_dispatch *d = &x->dispatch[c], *e = &y->dispatch[c];
        if (strcmp(a->shaders[d->shader].variant, b->shaders[e->shader].variant) != 0)
            return "another shader";
        if (d->n_spec != e->n_spec || memcmp(d->spec, e->spec, sizeof(d->spec)) != 0 ||
            memcmp(d->groups, e->groups, sizeof(d->groups)) != 0)
            return "another tiling";
    }
    return x->barrier == y->barrier ? NULL : y->barrier ? "a barrier before it" : "no barrier";
}

static void print_record(struct diff *diff, char mark, size_t index, const struct item *item) {
    diff->count++;
    fprintf(diff->stream, "  %c record %zu  %s (%s)\n", mark, index, item->name,
            kernel_table[item->record->kernel].name);
}

static void diff_records(struct diff *diff, const struct plan_program *x,
                         const struct plan_program *y) {
    item_list a = list_records(x), b = list_records(y);
    match(&a, &b);
    find_order(&a);
    for (size_t i = 0; i < a.count; i++)
        if (a.items[i].partner == NOWHERE)
            print_record(diff, '-', i, &a.items[i]);
    for (size_t i = 0; i < b.count; i++)
        if (b.items[i].partner == NOWHERE)
            print_record(diff, '+', i, &b.items[i]);
    for (size_t i = 0; i < a.count; i++) {
        if (a.items[i].partner == NOWHERE)
            continue;
        const struct item *other = &b.items[a.items[i].partner];
        const char *what = compare_records(diff->a, a.items[i].record, diff->b, other->record);
        diff->count += !a.items[i].in_order + (what != NULL);
        if (!a.items[i].in_order)
            fprintf(diff->stream, "  > record %zu  %s: now record %zu\n", i, a.items[i].name,
                    a.items[i].partner);
        if (what != NULL)
            fprintf(diff->stream, "  ~ record %zu  %s: %s\n", i, a.items[i].name, what);
    }
    vec_free(&a);
    vec_free(&b);
}

/* ---- tensors ---- */

static void print_tensor(struct diff *diff, char mark, const struct item *item) {
    char text[32];
    diff->count++;
    fprintf(diff->stream, "  %c tensor %s  %s at %" PRIu64 "\n", mark, item->name,
            report_bytes(item->size_bytes, text, sizeof(text)), item->offset_bytes);
}

static void print_common_tensor(struct diff *diff, const struct item *x, const struct item *y) {
    char from[32], to[32];
    if (x->size_bytes != y->size_bytes) {
        diff->count++;
        report_bytes(x->size_bytes, from, sizeof(from));
        report_bytes(y->size_bytes, to, sizeof(to));
        if (strcmp(from, to) == 0)
            fprintf(diff->stream, "  ~ tensor %s  %" PRIu64 " -> %" PRIu64 " bytes\n", x->name,
                    x->size_bytes, y->size_bytes);
        else
            fprintf(diff->stream, "  ~ tensor %s  %s -> %s\n", x->name, from, to);
    } else if (x->offset_bytes != y->offset_bytes) {
        diff->count++;
        fprintf(diff->stream, "  > tensor %s  at %" PRIu64 " -> %" PRIu64 "\n", x->name,
                x->offset_bytes, y->offset_bytes);
    }
}

static void diff_tensors(struct diff *diff, item_list *a, item_list *b) {
    match(a, b);
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].partner == NOWHERE)
            print_tensor(diff, '-', &a->items[i]);
    for (size_t i = 0; i < b->count; i++)
        if (b->items[i].partner == NOWHERE)
            print_tensor(diff, '+', &b->items[i]);
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].partner != NOWHERE)
            print_common_tensor(diff, &a->items[i], &b->items[a->items[i].partner]);
    vec_free(a);
    vec_free(b);
}

/* ---- plans ---- */

static void diff_program(struct diff *diff, const struct plan_program *x,
                         const struct plan_program *y) {
    const struct plan_work p = plan_program_work(x), q = plan_program_work(y);
    const size_t before = diff->count;
    fprintf(diff->stream, "%s\n", x->name);
    print_figure(diff, "dispatches", p.dispatches, q.dispatches, false);
    print_figure(diff, "barriers", p.barriers, q.barriers, false);
    print_flops(diff, p.flops, q.flops);
    print_figure(diff, "read and written", p.moved_bytes, q.moved_bytes, true);
    print_figure(diff, "arena", x->arena_bytes, y->arena_bytes, true);
    print_figure(diff, "lower bound", x->lower_bound_bytes, y->lower_bound_bytes, true);
    print_figure(diff, "if unshared", x->naive_arena_bytes, y->naive_arena_bytes, true);
    diff_records(diff, x, y);
    item_list a = list_tensors(diff->a, x), b = list_tensors(diff->b, y);
    diff_tensors(diff, &a, &b);
    if (diff->count == before)
        fprintf(diff->stream, "  no difference\n");
}

static void diff_blocks(struct diff *diff) {
    const size_t before = diff->count;
    uint64_t a[PLAN_BLOCK_COUNT], b[PLAN_BLOCK_COUNT];
    fprintf(diff->stream, "device memory\n");
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++)
        print_figure(diff, plan_block_title((enum plan_block)i), diff->a->block_bytes[i],
                     diff->b->block_bytes[i], true);
    print_figure(diff, "training", plan_device_bytes(diff->a, PLAN_FOR_TRAINING, a),
                 plan_device_bytes(diff->b, PLAN_FOR_TRAINING, b), true);
    print_figure(diff, "inference", plan_device_bytes(diff->a, PLAN_FOR_INFERENCE, a),
                 plan_device_bytes(diff->b, PLAN_FOR_INFERENCE, b), true);
    item_list x = list_block_tensors(diff->a), y = list_block_tensors(diff->b);
    diff_tensors(diff, &x, &y);
    if (diff->count == before)
        fprintf(diff->stream, "  no difference\n");
}

static void print_plan(const struct plan *plan, const char *name, const char *mark, FILE *stream) {
    fprintf(stream, "%s %s: model %s from %s%s%s, model hash %016" PRIx64 "\n", mark, name,
            plan->model.name, plan->model.source, plan->model.overrides[0] != '\0' ? ", with " : "",
            plan->model.overrides, plan->model.hash);
}

void report_diff(const struct plan *a, const char *a_name, const struct plan *b, const char *b_name,
                 FILE *stream) {
    struct diff diff = {.a = a, .b = b, .stream = stream};
    print_plan(a, a_name, "---", stream);
    print_plan(b, b_name, "+++", stream);
    diff_blocks(&diff);
    for (uint32_t i = 0; i < a->n_programs; i++) {
        const struct plan_program *other = plan_program_find(b, a->programs[i].name);
        if (other != NULL)
            diff_program(&diff, &a->programs[i], other);
        else
            fprintf(stream, "- program %s\n", a->programs[i].name);
    }
    for (uint32_t i = 0; i < b->n_programs; i++)
        if (plan_program_find(a, b->programs[i].name) == NULL)
            fprintf(stream, "+ program %s\n", b->programs[i].name);
}
