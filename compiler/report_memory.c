/*
 * report_memory.c: programs and memory of a plan, for people.
 */
#include "compiler/report_memory.h"

#include <stdlib.h>

#include "common/plan_memory.h"

#define TEXT_BYTES 32

const char *report_bytes(uint64_t size_bytes, char *text, size_t room) {
    if (size_bytes < 1024)
        snprintf(text, room, "%u bytes", (unsigned)size_bytes);
    else if (size_bytes < 1024 * 1024)
        snprintf(text, room, "%.1f KiB", (double)size_bytes / 1024);
    else if (size_bytes < (uint64_t)10240 * 1024 * 1024)
        snprintf(text, room, "%.1f MiB", (double)size_bytes / (1024 * 1024));
    else
        snprintf(text, room, "%.1f GiB", (double)size_bytes / (1024.0 * 1024 * 1024));
    return text;
}

/* ---- one program ---- */

static int by_size(const void *a, const void *b) {
    const struct plan_lifetime *x = a, *y = b;
    if (x->size_bytes != y->size_bytes)
        return x->size_bytes < y->size_bytes ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* What is alive at the record that forces the bound, the largest first. */
static void print_forcing(const struct plan *plan, const struct plan_lifetimes *lifetimes,
                          FILE *stream) {
    VEC(struct plan_lifetime) alive = {0};
    char text[TEXT_BYTES];
    for (size_t i = 0; i < lifetimes->tensors.count; i++)
        if (plan_lifetime_contains(&lifetimes->tensors.items[i], lifetimes->bound_record))
            vec_push(&alive, lifetimes->tensors.items[i]);
    qsort(alive.items, alive.count, sizeof(*alive.items), by_size);
    for (size_t i = 0; i < alive.count; i++) {
        const struct plan_lifetime *l = &alive.items[i];
        fprintf(stream, "      %12s  %-40s records %u to %u\n",
                report_bytes(l->size_bytes, text, sizeof(text)), plan->tensors[l->tensor].name,
                l->first, l->last);
    }
    vec_free(&alive);
}

/* What the program takes of each chunk of an arena that has several. */
static void print_chunks(const struct plan *plan, const struct plan_program *program,
                         FILE *stream) {
    VEC(bool) flags = {0};
    struct plan_chunks chunks;
    char text[TEXT_BYTES];
    for (uint32_t i = 0; i < plan->n_programs; i++)
        vec_push(&flags, &plan->programs[i] == program);
    plan_chunks_derive(plan, flags.items, &chunks);
    vec_free(&flags);
    bool first = true;
    for (size_t i = 0; plan->n_splits[PLAN_BLOCK_ARENA] > 0 && i < chunks.items.count; i++) {
        const struct plan_chunk *chunk = &chunks.items.items[i];
        if (chunk->block != PLAN_BLOCK_ARENA || chunk->size_bytes == 0)
            continue;
        fprintf(stream, "%s%s", first ? "    in chunks of " : ", ",
                report_bytes(chunk->size_bytes, text, sizeof(text)));
        first = false;
    }
    if (!first)
        fputc('\n', stream);
    plan_chunks_free(&chunks);
}

/* "optimal" is said only of an arena that equals the bound. */
static void print_certificate(const struct plan *plan, const struct plan_program *program,
                              FILE *stream) {
    char arena[TEXT_BYTES], bound[TEXT_BYTES];
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, program, &lifetimes);
    report_bytes(program->arena_bytes, arena, sizeof(arena));
    report_bytes(lifetimes.bound_bytes, bound, sizeof(bound));
    if (lifetimes.tensors.count == 0)
        fprintf(stream, "    arena: none\n");
    else if (program->arena_bytes == lifetimes.bound_bytes)
        fprintf(stream, "    arena %s = lower bound, gap 0 %%: optimal for this order of records\n",
                arena);
    else
        fprintf(stream, "    arena %s, lower bound %s, gap %.2f %%\n", arena, bound,
                100.0 * ((double)program->arena_bytes / (double)lifetimes.bound_bytes - 1));
    print_chunks(plan, program, stream);
    if (lifetimes.tensors.count > 0) {
        fprintf(stream, "    without sharing memory %s, %.1f times as much\n",
                report_bytes(program->naive_arena_bytes, arena, sizeof(arena)),
                (double)program->naive_arena_bytes / (double)program->arena_bytes);
        fprintf(stream, "    the bound is what is alive at record %u, \"%s\":\n",
                lifetimes.bound_record, program->records[lifetimes.bound_record].label);
        print_forcing(plan, &lifetimes, stream);
    }
    plan_lifetimes_free(&lifetimes);
}

/* Tensors that are kept in half precision for a while (half.c). */
static void print_halves(const struct plan *plan, const struct plan_program *program,
                         FILE *stream) {
    uint64_t bytes = 0, half_bytes = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *record = &program->records[i];
        if (record->kernel == KERNEL_ID_half_store) {
            const struct shape s = plan->tensors[record->tensors[0]].shape;
            bytes += shape_elements(s) * 4;
            half_bytes += plan->tensors[record->tensors[1]].size_bytes;
            count++;
        }
    }
    if (count == 0)
        return;
    char text[TEXT_BYTES], half_text[TEXT_BYTES];
    fprintf(stream, "    in half precision while they wait: %u tensor%s, %s instead of %s:", count,
            count == 1 ? "" : "s", report_bytes(half_bytes, half_text, sizeof(half_text)),
            report_bytes(bytes, text, sizeof(text)));
    count = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *record = &program->records[i];
        if (record->kernel == KERNEL_ID_half_store) {
            const char *gap = count == 0 ? "\n      " : count % 6 == 0 ? ",\n      " : ", ";
            fprintf(stream, "%s%s", gap, plan->tensors[record->tensors[0]].name);
            count++;
        }
    }
    fputc('\n', stream);
}

void report_programs(const struct plan *plan, FILE *stream) {
    fprintf(stream, "\nprograms\n");
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        const struct plan_work work = plan_program_work(program);
        char text[TEXT_BYTES];
        fprintf(stream, "  %s: %u dispatches, %u barriers, %.3f GFLOP, %s read and written\n",
                program->name, work.dispatches, work.barriers, (double)work.flops / 1e9,
                report_bytes(work.moved_bytes, text, sizeof(text)));
        print_certificate(plan, program, stream);
        print_halves(plan, program, stream);
    }
}

/* ---- device memory ---- */

static void print_row(const char *title, uint64_t training_bytes, uint64_t inference_bytes,
                      FILE *stream) {
    char a[TEXT_BYTES], b[TEXT_BYTES];
    fprintf(stream, "  %-28s %14s %14s\n", title,
            training_bytes ? report_bytes(training_bytes, a, sizeof(a)) : "-",
            inference_bytes ? report_bytes(inference_bytes, b, sizeof(b)) : "-");
}

/* Bytes alive when a program needs most; all zero without the program. */
static void fullest_moment(const struct plan *plan, const char *name,
                           uint64_t content_bytes[PLAN_CONTENT_COUNT]) {
    static const struct plan_program none;
    const struct plan_program *program = plan_program_find(plan, name);
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, program != NULL ? program : &none, &lifetimes);
    plan_live_bytes(&lifetimes, lifetimes.bound_record, content_bytes);
    plan_lifetimes_free(&lifetimes);
}

static void print_contents(const struct plan *plan, FILE *stream) {
    uint64_t training[PLAN_CONTENT_COUNT], inference[PLAN_CONTENT_COUNT];
    fullest_moment(plan, "train_step", training);
    fullest_moment(plan, "infer", inference);
    for (int i = 0; i < PLAN_CONTENT_COUNT; i++) {
        char title[48];
        snprintf(title, sizeof(title), "  fullest moment: %s",
                 plan_content_title((enum plan_content)i));
        print_row(title, training[i], inference[i], stream);
    }
}

void report_device_memory(const struct plan *plan, FILE *stream) {
    uint64_t training[PLAN_BLOCK_COUNT], inference[PLAN_BLOCK_COUNT];
    const uint64_t training_bytes = plan_device_bytes(plan, PLAN_FOR_TRAINING, training);
    const uint64_t inference_bytes = plan_device_bytes(plan, PLAN_FOR_INFERENCE, inference);
    const uint64_t accumulator_bytes = plan_accumulator_bytes(plan);
    fprintf(stream, "\n%-30s %14s %14s\n", "device memory", "training", "inference");
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        const bool is_state = block == PLAN_BLOCK_STATE;
        print_row(plan_block_title((enum plan_block)block),
                  training[block] - (is_state ? accumulator_bytes : 0), inference[block], stream);
        if (is_state && accumulator_bytes > 0)
            print_row("accumulated gradients", accumulator_bytes, 0, stream);
        if (block == PLAN_BLOCK_ARENA)
            print_contents(plan, stream);
    }
    print_row("total", training_bytes, inference_bytes, stream);
}
