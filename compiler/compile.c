/*
 * compile.c: the stages of a compilation, in order. Everything else is called from here.
 *
 *   model text -> model -> for each program: build, [autodiff, update], mask, index, fuse,
 *   recompute, order, [half], skip, inplace -> lower -> memory -> barriers -> tiles -> plan
 *   -> verify
 */
#include "compiler/compiler.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/emit.h"
#include "compiler/explain.h"
#include "compiler/fit.h"
#include "compiler/passes.h"
#include "compiler/recompute.h"
#include "compiler/report_picture.h"

static const char *const pass_names[] = {"build",   "autodiff",  "update", "mask", "index",
                                         "fuse",    "recompute", "order",  "half", "skip",
                                         "inplace", "plan",      NULL};

const char *const *unet_compile_passes(void) {
    return pass_names;
}

/* Of the last step: not a pass over a graph. */
#define METHODS "methods"
/* In graphs of mixed precision, and with a look at the passes after it. */
#define HALF "half"

/* Those that --disable can leave out. */
static const struct {
    const char *name;
    void (*run)(struct graph *graph);
    bool (*check)(const struct graph *graph, struct err *err); /* before run; NULL: none */
} rewrites[] = {{"mask", mask_run, NULL},   {"index", pool_index_run, NULL},
                {"fuse", fuse_run, NULL},   {"recompute", recompute_run, recompute_check},
                {"order", order_run, NULL}, {HALF, NULL, NULL},
                {"skip", skip_run, NULL},   {"inplace", inplace_run, NULL},
                {METHODS, NULL, NULL}};

#define N_PROGRAMS 4

struct compilation {
    const struct unet_compile_options *options;
    struct model *model;
    struct graph graphs[N_PROGRAMS];
    size_t n_graphs;
    struct plan *plan;
    struct memory_options memory;
};

static const char *const program_names[N_PROGRAMS] = {
    [MODEL_TRAIN] = "train_step",
    [MODEL_EVALUATE] = "evaluate",
    [MODEL_INFER] = "infer",
    [MODEL_ACCUMULATE] = "accumulate", /* only where an update takes several batches */
};

static bool wants_dump(const struct compilation *c, const char *pass) {
    const char *dump = c->options->dump_pass;
    return dump && c->options->dump_stream && (strcmp(dump, pass) == 0 || strcmp(dump, "all") == 0);
}

/* After each pass: invariants hold, and the graph is printed when asked for. */
static bool finish_pass(const struct compilation *c, const struct graph *graph, const char *pass,
                        struct err *err) {
    if (wants_dump(c, pass)) {
        fprintf(c->options->dump_stream, "== %s after %s\n", graph->name, pass);
        graph_print(graph, c->options->dump_stream);
    }
    return graph_check(graph, err) || err_prefix(err, "%s after pass %s", graph->name, pass);
}

static bool differentiate(const struct compilation *c, enum model_program kind, struct graph *graph,
                          struct err *err) {
    struct autodiff_result gradients = {0};
    bool ok = autodiff_run(graph, &gradients, err) && finish_pass(c, graph, "autodiff", err);
    if (ok) {
        loss_scale_run(graph, c->model);
        if (kind == MODEL_TRAIN) {
            update_run(graph, c->model, &gradients);
        } else {
            accumulate_run(graph, &gradients);
        }
        ok = finish_pass(c, graph, "update", err);
    }
    vec_free(&gradients.params);
    vec_free(&gradients.gradients);
    return ok;
}

/* Is name one of the words between the commas of a list? */
static bool is_listed(const char *list, const char *name) {
    const size_t length = strlen(name);
    while (list && *list) {
        const size_t word = strcspn(list, ",");
        if (word == length && strncmp(list, name, length) == 0) {
            return true;
        }
        list += word + (list[word] == ',');
    }
    return false;
}

/* A rewrite of a graph, and those to come after it. */
struct stage {
    const struct compilation *c;
    size_t index;
};

static void rewrite(struct stage stage, struct graph *graph);

/* What the arena of a graph comes to after the passes behind a stage. */
static uint64_t measure_arena(struct graph *graph, const void *context) {
    const struct stage *stage = context;
    const struct param *const *params;
    const size_t n_params = model_params(stage->c->model, &params);
    for (size_t i = stage->index + 1; rewrites[i].run; i++) {
        rewrite((struct stage){stage->c, i}, graph);
    }
    return emit_arena_bytes(graph, params, n_params, &stage->c->memory);
}

static void rewrite(struct stage stage, struct graph *graph) {
    if (is_listed(stage.c->options->disable, rewrites[stage.index].name)) {
        return;
    }
    if (rewrites[stage.index].run) {
        rewrites[stage.index].run(graph);
    } else if (graph->is_mixed) {
        half_run(graph, &(struct half_judge){measure_arena, &stage});
    }
}

static bool run_passes(const struct compilation *c, enum model_program kind, struct graph *graph,
                       struct err *err) {
    if (!build_graph(c->model, kind, graph, err) || !finish_pass(c, graph, "build", err)) {
        return false;
    }
    bool trains = kind == MODEL_TRAIN || kind == MODEL_ACCUMULATE;
    if (trains && !differentiate(c, kind, graph, err)) {
        return false;
    }
    for (size_t i = 0; strcmp(rewrites[i].name, METHODS) != 0; i++) {
        const bool checks = rewrites[i].check && !is_listed(c->options->disable, rewrites[i].name);
        if (checks && !rewrites[i].check(graph, err)) {
            return err_prefix(err, "%s", c->model->file);
        }
        rewrite((struct stage){c, i}, graph);
        if (!finish_pass(c, graph, rewrites[i].name, err)) {
            return false;
        }
    }
    return true;
}

/* The model's settings, with texts moved to the plan's memory. */
static void set_model(struct plan_model *out, const struct model *model, struct plan *plan) {
    *out = model->settings;
    out->name = arena_strdup(&plan->arena, model->name);
    out->source = arena_strdup(&plan->arena, model->settings.source);
    out->overrides = arena_strdup(&plan->arena, model->overrides ? model->overrides : "");
    out->hash = model->hash;
    out->labels = ARENA_ARRAY(&plan->arena, struct plan_label, out->n_labels);
    for (uint32_t i = 0; i < out->n_labels; i++) {
        out->labels[i] = model->settings.labels[i];
        out->labels[i].name = arena_strdup(&plan->arena, model->settings.labels[i].name);
    }
}

/* So that whoever runs the plan can tell what it counts on. */
static void set_target(struct plan *plan, const struct unet_target *target) {
    if (target) {
        plan->target = target->limits;
        plan->target.device = arena_strdup(&plan->arena, target->name);
    }
}

/* No tensor is larger than the chunk that it was to fit into. */
static bool check_chunks(const struct compilation *c, struct err *err) {
    const struct unet_target *target = c->options->target;
    for (uint32_t i = 0; c->memory.max_chunk_bytes > 0 && i < c->plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &c->plan->tensors[i];
        if (align_up(tensor->size_bytes, PLAN_ALIGNMENT) <= c->memory.max_chunk_bytes) {
            continue;
        }
        err_set(err, ERR_INPUT,
                "%s: tensor %s of %" PRIu64 " bytes is larger than an allocation of %" PRIu64
                " bytes%s%s",
                c->model->settings.source, tensor->name, tensor->size_bytes,
                c->memory.max_chunk_bytes, target ? ", for target " : "",
                target ? target->name : "");
        return err_hint(err, "a smaller tile, batch or width makes smaller tensors");
    }
    return true;
}

static bool check_memory(struct compilation *c, struct err *err) {
    const struct unet_target *target = c->options->target;
    uint64_t limit_bytes = c->options->max_allocation_bytes;
    if (target && (limit_bytes == 0 || target->limits.max_allocation_bytes < limit_bytes)) {
        limit_bytes = target->limits.max_allocation_bytes;
    }
    if (limit_bytes > 0 && limit_bytes < PLAN_ALIGNMENT) {
        return err_set(err, ERR_USAGE,
                       "--max-allocation %" PRIu64 ": an allocation has at least %u bytes",
                       limit_bytes, PLAN_ALIGNMENT);
    }
    c->memory.max_chunk_bytes = limit_bytes - limit_bytes % PLAN_ALIGNMENT;
    c->memory.target = target ? &target->limits : NULL;
    c->memory.plain = is_listed(c->options->disable, METHODS);
    return memory_parse_strategies(c->options->place, &c->memory.strategies, err);
}

static bool compile_model(struct compilation *c, struct err *err) {
    const struct graph *graphs[N_PROGRAMS];
    size_t n_graphs = c->model->settings.accumulate > 1 ? N_PROGRAMS : N_PROGRAMS - 1;
    for (size_t i = 0; i < n_graphs; i++) {
        graphs[i] = &c->graphs[i];
        graph_init(&c->graphs[i], &c->model->arena, program_names[i]);
        c->graphs[i].is_mixed = c->model->is_mixed;
        c->n_graphs = i + 1;
        if (!run_passes(c, (enum model_program)i, &c->graphs[i], err)) {
            return false;
        }
    }
    const struct param *const *params;
    size_t n_params = model_params(c->model, &params);
    c->plan =
        emit_plan(graphs, n_graphs, params, n_params, c->model->settings.optimiser, &c->memory);
    set_model(&c->plan->model, c->model, c->plan);
    if (wants_dump(c, "plan")) {
        plan_print(c->plan, c->options->dump_stream);
    }
    if (!plan_verify(c->plan, NULL, err)) {
        return err_prefix(err,
                          "the compiler made a plan its verifier rejects (please report this)");
    }
    if (!check_chunks(c, err)) {
        return false;
    }
    if (c->options->target && !unet_target_check(c->plan, c->options->target, NULL, err)) {
        return err_prefix(err, "%s", c->model->settings.source);
    }
    set_target(c->plan, c->options->target);
    if (c->options->explain) {
        explain_plan(c->plan, &c->graphs[MODEL_TRAIN], c->options->explain);
    }
    for (size_t i = 0; c->options->graph && i < c->n_graphs; i++) {
        if (strcmp(c->graphs[i].name, c->options->graph_program) == 0) {
            report_graph_dot(&c->graphs[i], c->options->graph);
        }
    }
    return true;
}

static void finish(struct compilation *c) {
    for (size_t i = 0; i < c->n_graphs; i++) {
        graph_free(&c->graphs[i]);
    }
    model_free(c->model);
}

static bool known_pass(const char *name) {
    for (size_t i = 0; pass_names[i]; i++) {
        if (strcmp(pass_names[i], name) == 0) {
            return true;
        }
    }
    return strcmp(name, "all") == 0;
}

static bool unknown_pass(const char *name, struct err *err) {
    char list[256] = "";
    for (size_t i = 0; pass_names[i]; i++) {
        size_t length = strlen(list);
        snprintf(list + length, sizeof(list) - length, " %s", pass_names[i]);
    }
    err_set(err, ERR_USAGE, "--dump %s: no such pass", name);
    return err_hint(err, "passes:%s, or all", list);
}

/* Every word of the list is a pass that may be left out. */
static bool check_disabled(const char *list, struct err *err) {
    while (list && *list) {
        const size_t word = strcspn(list, ",");
        bool known = false;
        char names[128] = "";
        for (size_t i = 0; i < ARRAY_LEN(rewrites); i++) {
            const size_t at = strlen(names);
            snprintf(names + at, sizeof(names) - at, " %s", rewrites[i].name);
            known |= strlen(rewrites[i].name) == word && strncmp(rewrites[i].name, list, word) == 0;
        }
        if (!known) {
            err_set(err, ERR_USAGE, "--disable %.*s: no pass that can be left out", (int)word,
                    list);
            return err_hint(err, "passes:%s", names);
        }
        list += word + (list[word] == ',');
    }
    return true;
}

static bool split_overrides(const struct unet_compile_options *options, struct arena *arena,
                            struct model_override *out, struct err *err) {
    for (size_t i = 0; i < options->n_set; i++) {
        char *copy = arena_strdup(arena, options->set[i]);
        char *equals = strchr(copy, '=');
        if (!equals || equals == copy) {
            return err_set(err, ERR_USAGE, "--set %s: expected NAME=VALUE", options->set[i]);
        }
        *equals = '\0';
        out[i] = (struct model_override){.name = copy, .value = equals + 1};
    }
    return true;
}

/* Mistakes of --set have no place in the file; when there are no others, the command line is wrong.
 */
static enum err_code mistakes_code(const struct diag *diag) {
    for (size_t i = 0; i < MIN(diag->count, DIAG_MAX); i++) {
        if (diag->items[i].pos.line > 0) {
            return ERR_INPUT;
        }
    }
    return ERR_USAGE;
}

bool compile_read_model(const char *file_name, const char *text,
                        const struct unet_compile_options *options, struct model **model,
                        struct err *err) {
    struct arena arena = {0};
    struct model_override *overrides =
        ARENA_ARRAY(&arena, struct model_override, options->n_set + 1);
    struct diag diag;
    diag_init(&diag, file_name, text);
    bool ok = split_overrides(options, &arena, overrides, err);
    if (ok && !(model_parse(file_name, text, overrides, options->n_set, model, &diag) &&
                model_check_sizes(*model, &diag))) {
        if (options->diagnostics) {
            diag_print(&diag, options->diagnostics);
        }
        ok = err_set(err, mistakes_code(&diag), "%s: %zu mistake%s", file_name, diag.count,
                     diag.count == 1 ? "" : "s");
    }
    diag_free(&diag);
    arena_free(&arena);
    return ok;
}

bool unet_compile_text(const char *file_name, const char *text,
                       const struct unet_compile_options *options, struct plan **plan_out,
                       struct err *err) {
    static const struct unet_compile_options none;
    struct compilation c = {.options = options ? options : &none};
    *plan_out = NULL;
    if (c.options->dump_pass && !known_pass(c.options->dump_pass)) {
        return unknown_pass(c.options->dump_pass, err);
    }
    if (!check_disabled(c.options->disable, err) || !check_memory(&c, err)) {
        return false;
    }
    bool ok =
        compile_read_model(file_name, text, c.options, &c.model, err) && compile_model(&c, err);
    finish(&c);
    if (ok) {
        *plan_out = c.plan;
    } else {
        plan_free(c.plan);
    }
    return ok;
}

/* A model's text, which has no zero bytes. */
static bool read_text(const char *path, char **text, struct err *err) {
    uint8_t *bytes;
    size_t size_bytes;
    *text = NULL;
    if (!file_read(path, &bytes, &size_bytes, err)) {
        return false;
    }
    if (memchr(bytes, 0, size_bytes)) {
        free(bytes);
        return err_set(err, ERR_INPUT, "%s: not a model: it holds a zero byte", path);
    }
    *text = (char *)bytes;
    return true;
}

bool unet_compile_file(const char *path, const struct unet_compile_options *options,
                       struct plan **plan_out, struct err *err) {
    char *text;
    *plan_out = NULL;
    bool ok = read_text(path, &text, err) && unet_compile_text(path, text, options, plan_out, err);
    free(text);
    return ok;
}

bool compile_recompute_sets(const char *path, const struct unet_compile_options *options,
                            struct recompute_sets *sets, struct err *err) {
    struct compilation c = {.options = options};
    char *text;
    *sets = (struct recompute_sets){0};
    bool ok = read_text(path, &text, err) && compile_read_model(path, text, options, &c.model, err);
    if (ok) {
        for (size_t i = 0; i < c.model->layers.count; i++) {
            c.model->layers.items[i].recompute = false;
        }
        graph_init(&c.graphs[MODEL_TRAIN], &c.model->arena, program_names[MODEL_TRAIN]);
        c.n_graphs = MODEL_TRAIN + 1;
        ok = run_passes(&c, MODEL_TRAIN, &c.graphs[MODEL_TRAIN], err);
    }
    if (ok) {
        recompute_list_sets(&c.graphs[MODEL_TRAIN], sets);
    }
    finish(&c);
    free(text);
    return ok;
}
