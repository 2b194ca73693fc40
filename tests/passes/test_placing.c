/*
 * test_placing.c: the strategies of compiler/memory.c on training graphs made at random: every plan
 * is accepted by the verifier and none is below the bound; the heuristics together are as good as
 * the best of them, and the search never loses; two stacks reach the bound wherever lifetimes split
 * into two nested families; no chunk is larger than the limit.
 *
 *     test_placing             checks
 *     test_placing --table     prints what each strategy is worth as a Markdown table
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan_memory.h"
#include "compiler/compiler.h"
#include "compiler/emit.h"
#include "compiler/passes.h"
#include "tests/passes/random_graph.h"

#define N_GRAPHS 200

/* Passes that a graph goes through: few leave lifetimes that cross, all of them hardly any. */
enum depth { PLAIN, FUSED, ALL_PASSES, DEPTH_COUNT };
static const char *const depth_names[] = {"no passes", "mask, index, fuse", "all passes"};

static struct plan *place(uint64_t seed, enum depth depth, const struct memory_options *options) {
    struct arena arena = {0};
    struct graph graph;
    struct err err = {0};
    struct model model = {.momentum = 0.9f};
    VEC(const struct param *) params = {0};
    random_graph_build(&graph, &arena, seed);
    graph.name = "train_step";
    random_graph_train(&graph, &model, false);
    random_graph_pass *const passes[] = {mask_run,  pool_index_run, fuse_run,
                                         order_run, skip_run,       inplace_run};
    for (size_t i = 0; i < (depth == PLAIN ? 0 : depth == FUSED ? 3 : ARRAY_LEN(passes)); i++)
        passes[i](&graph);
    for (size_t i = 0; i < graph.values.count; i++)
        if (graph.values.items[i]->kind == VALUE_PARAM)
            vec_push(&params, graph.values.items[i]->param);
    const struct graph *graphs = &graph;
    struct plan *plan =
        emit_plan(&graphs, 1, params.items, params.count, PLAN_OPTIMISER_SGD, options);
    plan->model.name = plan->model.source = plan->model.overrides = "random";
    if (!plan_verify(plan, NULL, &err))
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    vec_free(&params);
    graph_free(&graph);
    arena_free(&arena);
    return plan;
}

static uint64_t arena_of(uint64_t seed, enum depth depth, uint32_t strategies,
                         uint64_t max_chunk_bytes, uint64_t *bound_out) {
    const struct memory_options options = {.strategies = strategies,
                                           .max_chunk_bytes = max_chunk_bytes};
    struct plan *plan = place(seed, depth, &options);
    const uint64_t arena_bytes = plan->programs[0].arena_bytes;
    *bound_out = plan->programs[0].lower_bound_bytes;
    assert_true(arena_bytes >= *bound_out && *bound_out > 0);
    plan_free(plan);
    return arena_bytes;
}

/* ---- the best of them, and the search ---- */

static void together_as_good_as_the_best(void **state) {
    (void)state;
    uint64_t bound;
    uint32_t searched = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        uint64_t best = UINT64_MAX;
        for (uint32_t bit = 1; bit < MEMORY_SEARCH; bit <<= 1)
            best = MIN(best, arena_of(seed, PLAIN, bit, 0, &bound));
        const uint64_t together =
            arena_of(seed, PLAIN, MEMORY_ALL & ~(uint32_t)MEMORY_SEARCH, 0, &bound);
        const uint64_t all = arena_of(seed, PLAIN, MEMORY_ALL, 0, &bound);
        assert_true(together == best);
        assert_true(all <= best);
        searched += all < best;
    }
    assert_true(searched > 0); /* there was something to search for */
}

/* Byte by byte; frees both. */
static void assert_same_plan(struct plan *a, struct plan *b) {
    uint8_t *x, *y;
    size_t x_bytes, y_bytes;
    plan_serialise(a, &x, &x_bytes);
    plan_serialise(b, &y, &y_bytes);
    assert_true(x_bytes == y_bytes && memcmp(x, y, x_bytes) == 0);
    free(x);
    free(y);
    plan_free(a);
    plan_free(b);
}

static void same_every_time(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        const struct memory_options options = {.strategies = MEMORY_ALL,
                                               .max_chunk_bytes = seed % 2 ? 8192 : 0};
        assert_same_plan(place(seed, PLAIN, &options), place(seed, PLAIN, &options));
    }
}

/* ---- two stacks ---- */

static bool cross(const struct plan_lifetime *a, const struct plan_lifetime *b) {
    return (a->first < b->first && b->first <= a->last && a->last < b->last) ||
           (b->first < a->first && a->first <= b->last && b->last < a->last);
}

/* Gives a tensor a family, and those it crosses the other one; false when one has both. */
static bool colour(const struct plan_lifetimes *lifetimes, size_t index, int family,
                   int *families) {
    if (families[index] != 0)
        return families[index] == family;
    families[index] = family;
    for (size_t i = 0; i < lifetimes->tensors.count; i++)
        if (cross(&lifetimes->tensors.items[index], &lifetimes->tensors.items[i]) &&
            !colour(lifetimes, i, -family, families))
            return false;
    return true;
}

static bool two_families(const struct plan *plan, const struct plan_program *program) {
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, program, &lifetimes);
    int *families = calloc(lifetimes.tensors.count + 1, sizeof(int));
    bool good = true;
    for (size_t i = 0; good && i < lifetimes.tensors.count; i++)
        good = families[i] != 0 || colour(&lifetimes, i, 1, families);
    free(families);
    plan_lifetimes_free(&lifetimes);
    return good;
}

struct tally {
    uint32_t two, more;
};

static void check_stacks(const struct plan *plan, const char *what, struct tally *tally) {
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        const bool two = two_families(plan, program);
        if (two && program->arena_bytes != program->lower_bound_bytes)
            fail_msg("%s, %s: %llu bytes, bound %llu", what, program->name,
                     (unsigned long long)program->arena_bytes,
                     (unsigned long long)program->lower_bound_bytes);
        tally->two += two;
        tally->more += !two;
    }
}

static struct plan *compile(const char *model, const char *disable) {
    static const char *const set[] = {"width=4"};
    const char *root = getenv("UNET_TEST_ROOT");
    const struct unet_compile_options options = {
        .set = set, .n_set = 1, .disable = disable, .place = "stacks", .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s.yaml", root ? root : ".", model);
    if (!unet_compile_file(path, &options, &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static void two_stacks_are_optimal(void **state) {
    (void)state;
    static const char *const models[] = {"demo", "fcn8", "sliding-window", "unet-2015-release",
                                         "unet"};
    static const char *const disable[] = {NULL, "skip,inplace", "mask,index,fuse,skip,inplace"};
    struct tally tally = {0, 0};
    for (size_t i = 0; i < ARRAY_LEN(models) * ARRAY_LEN(disable); i++) {
        const char *model = models[i % ARRAY_LEN(models)];
        struct plan *plan = compile(model, disable[i / ARRAY_LEN(models)]);
        check_stacks(plan, model, &tally);
        plan_free(plan);
    }
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        const struct memory_options options = {.strategies = MEMORY_STACKS, .max_chunk_bytes = 0};
        struct plan *plan = place(seed, (enum depth)(seed % DEPTH_COUNT), &options);
        check_stacks(plan, "random graph", &tally);
        plan_free(plan);
    }
    print_message("%u of two families, %u of more\n", tally.two, tally.more);
    assert_true(tally.two >= 10 && tally.more >= 10);
}

/* ---- chunks ---- */

static void check_chunks(const struct plan *plan, uint64_t max_bytes, uint32_t *n_chunks) {
    struct plan_chunks chunks;
    uint64_t sum[PLAN_BLOCK_COUNT] = {0};
    plan_chunks_derive(plan, NULL, &chunks);
    for (size_t i = 0; i < chunks.items.count; i++) {
        const struct plan_chunk *chunk = &chunks.items.items[i];
        assert_true(chunk->size_bytes <= max_bytes);
        assert_true(chunk->size_bytes > 0 || plan->block_bytes[chunk->block] == 0);
        sum[chunk->block] += chunk->size_bytes;
        *n_chunks += 1;
    }
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++)
        assert_true(sum[block] == plan->block_bytes[block]);
    assert_true(sum[PLAN_BLOCK_ARENA] == plan->programs[0].arena_bytes);
    plan_chunks_free(&chunks);
}

static void chunks_are_within_the_limit(void **state) {
    (void)state;
    uint32_t n_chunks = 0, n_blocks = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        struct plan *whole = place(seed, (enum depth)(seed % DEPTH_COUNT), NULL);
        uint64_t max_bytes = 0;
        for (uint32_t i = 0; i < whole->n_tensors; i++)
            max_bytes = MAX(max_bytes, align_up(whole->tensors[i].size_bytes, PLAN_ALIGNMENT));
        max_bytes += PLAN_ALIGNMENT * (seed % 7);
        const uint32_t strategies = seed % 3 ? 1u << seed % 6 : MEMORY_ALL;
        const struct memory_options options = {.strategies = strategies,
                                               .max_chunk_bytes = max_bytes};
        struct plan *plan = place(seed, (enum depth)(seed % DEPTH_COUNT), &options);
        check_chunks(plan, max_bytes, &n_chunks);
        n_blocks += PLAN_BLOCK_COUNT;
        assert_true(plan->programs[0].lower_bound_bytes == whole->programs[0].lower_bound_bytes);
        plan_free(plan);
        plan_free(whole);
    }
    assert_true(n_chunks > n_blocks + N_GRAPHS);
}

/* A limit that no block exceeds changes nothing. */
static void wide_limit_changes_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        const struct memory_options options = {.strategies = MEMORY_ALL,
                                               .max_chunk_bytes = (uint64_t)1 << 30};
        assert_same_plan(place(seed, PLAIN, NULL), place(seed, PLAIN, &options));
    }
}

/* ---- the table ---- */

static const char *const strategy_names[] = {"size",  "breadth",  "duration",
                                             "start", "best-fit", "stacks"};

struct row {
    double gap_sum;
    uint32_t n_optimal, n_alone_best; /* alone_best: better than each of the others */
    double without_sum;               /* gap of all others and the search from them */
    uint32_t n_worse_without;
};

static void print_table(enum depth depth, uint64_t divisor) {
    struct row rows[ARRAY_LEN(strategy_names)] = {{0}};
    double all_sum = 0;
    uint32_t n_all_optimal = 0, n = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        uint64_t alone[ARRAY_LEN(strategy_names)], bound, max_bytes = 0;
        if (divisor > 0) {
            struct plan *plan = place(seed, depth, NULL);
            for (uint32_t i = 0; i < plan->n_tensors; i++)
                max_bytes = MAX(max_bytes, align_up(plan->tensors[i].size_bytes, PLAN_ALIGNMENT));
            max_bytes =
                MAX(max_bytes, align_up(plan->programs[0].arena_bytes / divisor, PLAN_ALIGNMENT));
            plan_free(plan);
        }
        const uint64_t all = arena_of(seed, depth, MEMORY_ALL, max_bytes, &bound);
        for (size_t i = 0; i < ARRAY_LEN(strategy_names); i++)
            alone[i] = arena_of(seed, depth, 1u << i, max_bytes, &bound);
        for (size_t i = 0; i < ARRAY_LEN(strategy_names); i++) {
            uint64_t others = UINT64_MAX;
            for (size_t j = 0; j < ARRAY_LEN(strategy_names); j++)
                others = j != i ? MIN(others, alone[j]) : others;
            const uint64_t without =
                arena_of(seed, depth, MEMORY_ALL & ~(1u << i), max_bytes, &bound);
            rows[i].gap_sum += (double)alone[i] / (double)bound - 1;
            rows[i].without_sum += (double)without / (double)bound - 1;
            rows[i].n_optimal += alone[i] == bound;
            rows[i].n_alone_best += alone[i] < others;
            rows[i].n_worse_without += without > all;
        }
        all_sum += (double)all / (double)bound - 1;
        n_all_optimal += all == bound;
        n++;
    }
    for (size_t i = 0; i < ARRAY_LEN(strategy_names); i++)
        printf("| %s%s | %s | %.2f %% | %u | %u | %.3f %% | %u |\n", depth_names[depth],
               divisor > 0 ? ", four chunks" : "", strategy_names[i], 100 * rows[i].gap_sum / n,
               rows[i].n_optimal, rows[i].n_alone_best, 100 * rows[i].without_sum / n,
               rows[i].n_worse_without);
    printf("| %s%s | all, and the search | %.3f %% | %u | | | |\n", depth_names[depth],
           divisor > 0 ? ", four chunks" : "", 100 * all_sum / n, n_all_optimal);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_as_good_as_the_best),
        cmocka_unit_test(same_every_time),
        cmocka_unit_test(two_stacks_are_optimal),
        cmocka_unit_test(chunks_are_within_the_limit),
        cmocka_unit_test(wide_limit_changes_nothing),
    };
    if (argc < 2 || strcmp(argv[1], "--table") != 0)
        return cmocka_run_group_tests(tests, NULL, NULL);
    printf(
        "| %d random graphs | strategy | mean gap alone | optimal | better than every other | "
        "mean gap of all others and the search | worse without it |\n|---|---|---|---|---|---|---"
        "|\n",
        N_GRAPHS);
    for (int depth = 0; depth < DEPTH_COUNT; depth++)
        print_table((enum depth)depth, 0);
    print_table(PLAIN, 4);
    print_table(ALL_PASSES, 4);
    return 0;
}
