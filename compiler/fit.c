/*
 * fit.c: sizes that fit. Legal tiles come from the rules of model_sizes.c; the bytes of one from
 * compiling it, so that no estimate can be wrong. Needs grow with the size: the largest that fits
 * is found by doubling the distance from the smallest, then halving. Sets of layers to recompute
 * come from recompute_sets.c, whose bytes are a guess: sets that cannot be enough by it are passed
 * over, the first that may be is compiled, and what is still missing then leads to the next.
 */
#include "compiler/fit.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/recompute.h"
#include "compiler/report_memory.h"

#define MAX_TILE 16384
#define MAX_BATCH 4096
#define TABLE_RATIO 1.25 /* from one tile of the table to the next, at least */
#define TABLE_BATCHES 64
#define TABLE_SAVING 0.98 /* memory of one set of layers in the table to the next, at most */
#define GUESS_PERCENT 1   /* of the memory: how wrong the bytes of a set may be */

struct search {
    const char *path;
    const struct unet_compile_options *options;
    const struct fit_request *request;
    VEC(uint32_t) sizes; /* legal, ascending */
    uint32_t own_size;   /* the model's */
    bool sets_size;      /* the request's variable is a size */
    bool chooses_layers; /* the variable recompute may be set */
    bool own_layers;     /* the model recomputes layers by itself */
};

/* ---- one size ---- */

struct need {
    bool possible; /* false: more than the kernels can count */
    uint64_t training_bytes, inference_bytes;
    uint64_t arena_bytes; /* of train_step */
    uint64_t step_flops, infer_flops;
    uint64_t pixels; /* of the output that are kept, of all images of a batch */
};

static uint64_t program_flops(const struct plan *plan, const char *name) {
    const struct plan_program *program = plan_program_find(plan, name);
    return program != NULL ? plan_program_work(program).flops : 0;
}

static bool check_effect(const struct search *search, const struct plan *plan, uint32_t size,
                         struct err *err) {
    const struct plan_model *model = &plan->model;
    const bool is_tile = strcmp(search->request->variable, "tile") == 0;
    if (is_tile ? model->in_h == size && model->in_w == size : model->batch == size)
        return true;
    err_set(err, ERR_USAGE, "%s: its variable %s does not set the %s of the model", search->path,
            search->request->variable, search->request->variable);
    return err_hint(err, "write %s",
                    is_tile ? "input: {tile: \"${tile}\"}" : "batch: ${batch} in train:");
}

/* The options of a trial: those given, a size and layers (NULL: as the model says). */
struct trial_options {
    struct unet_compile_options options;
    const char **set;
    char size[64], layers[FIT_LAYERS_BYTES + 16];
};

static bool make_options(const struct search *search, uint32_t size, const char *layers,
                         struct trial_options *out, struct err *err) {
    size_t n_set = search->options->n_set;
    out->set = malloc((n_set + 2) * sizeof(*out->set));
    if (out->set == NULL)
        return err_set(err, ERR_IO, "out of memory");
    if (n_set > 0)
        memcpy(out->set, search->options->set, n_set * sizeof(*out->set));
    snprintf(out->size, sizeof(out->size), "%s=%u", search->request->variable, size);
    snprintf(out->layers, sizeof(out->layers), "recompute=%s", layers != NULL ? layers : "");
    if (search->sets_size)
        out->set[n_set++] = out->size;
    if (layers != NULL)
        out->set[n_set++] = out->layers;
    out->options = *search->options; /* but silently */
    out->options.set = out->set;
    out->options.n_set = n_set;
    out->options.dump_pass = NULL;
    out->options.diagnostics = out->options.explain = out->options.graph = NULL;
    return true;
}

static void read_need(const struct plan *plan, struct need *need) {
    const struct plan_model *model = &plan->model;
    uint64_t blocks[PLAN_BLOCK_COUNT];
    *need = (struct need){
        .possible = true,
        .training_bytes = plan_device_bytes(plan, PLAN_FOR_TRAINING, blocks),
        .inference_bytes = plan_device_bytes(plan, PLAN_FOR_INFERENCE, blocks),
        .arena_bytes = plan_program_find(plan, "train_step")->arena_bytes,
        .step_flops = program_flops(plan, "train_step"),
        .infer_flops = program_flops(plan, "infer"),
        .pixels = (uint64_t)model->batch * model->core_h * model->core_w,
    };
}

/* Compiles a trial, silently. A size that the model rejects is too large: all others were sorted
   out before. */
static bool measure(const struct search *search, uint32_t size, const char *layers,
                    struct need *need, struct err *err) {
    struct trial_options trial;
    struct err reason = {0};
    struct plan *plan;
    if (!make_options(search, size, layers, &trial, err))
        return false;
    *need = (struct need){.possible = false};
    bool good = unet_compile_file(search->path, &trial.options, &plan, &reason);
    free(trial.set);
    if (!good) {
        if (reason.code == ERR_INPUT)
            return true;
        if (reason.code != ERR_USAGE) {
            *err = reason;
            return false;
        }
        err_set(err, ERR_USAGE, "%s: %s cannot be set", search->path, trial.size);
        return err_hint(err, "declare the variable %s in the model's let: block",
                        search->request->variable);
    }
    read_need(plan, need);
    good = !search->sets_size || check_effect(search, plan, size, err);
    plan_free(plan);
    return good;
}

static uint64_t needed_bytes(const struct search *search, const struct need *need) {
    if (!need->possible)
        return UINT64_MAX;
    return search->request->use_case == PLAN_FOR_INFERENCE ? need->inference_bytes
                                                           : need->training_bytes;
}

/* ---- one size with the layers it needs ---- */

struct found {
    bool fits, recomputes;
    uint64_t bytes; /* the fewest, when nothing fits */
    uint64_t plain_bytes, plain_flops, flops;
    char layers[FIT_LAYERS_BYTES]; /* to set; "": as the model says */
};

static bool list_sets(const struct search *search, uint32_t size, struct recompute_sets *sets,
                      struct err *err) {
    struct trial_options trial;
    if (!make_options(search, size, NULL, &trial, err))
        return false;
    const bool good = compile_recompute_sets(search->path, &trial.options, sets, err);
    free(trial.set);
    for (size_t i = good ? sets->count : 0; i-- > 0;)
        if (strlen(sets->items[i].layers) >= FIT_LAYERS_BYTES)
            sets->count = i;
    return good;
}

static bool try_sets(const struct search *search, uint32_t size, struct found *found,
                     struct err *err) {
    const uint64_t memory_bytes = search->request->memory_bytes;
    struct recompute_sets sets;
    if (!list_sets(search, size, &sets, err))
        return false;
    uint64_t peak_bytes = sets.items[0].peak_bytes; /* of the last that was compiled */
    bool good = true;
    for (size_t i = 1; good && !found->fits && i < sets.count; i++) {
        const struct recompute_set *set = &sets.items[i];
        const uint64_t guess_bytes =
            peak_bytes - set->peak_bytes + memory_bytes / 100 * GUESS_PERCENT;
        struct need need;
        if (i + 1 < sets.count && guess_bytes < found->bytes - memory_bytes)
            continue;
        good = measure(search, size, set->layers, &need, err);
        if (!good || needed_bytes(search, &need) >= found->bytes)
            continue;
        peak_bytes = set->peak_bytes;
        found->bytes = needed_bytes(search, &need);
        found->fits = found->bytes <= memory_bytes;
        found->flops = need.step_flops;
        found->recomputes = true;
        snprintf(found->layers, sizeof(found->layers), "%s", set->layers);
    }
    recompute_free_sets(&sets);
    return good;
}

static bool try_size(const struct search *search, size_t index, struct found *found,
                     struct err *err) {
    const uint32_t size = search->sizes.items[index];
    const char *plain = search->chooses_layers && search->own_layers ? "none" : NULL;
    struct need need;
    if (!measure(search, size, plain, &need, err))
        return false;
    const uint64_t bytes = needed_bytes(search, &need);
    *found = (struct found){.fits = bytes <= search->request->memory_bytes,
                            .bytes = bytes,
                            .plain_bytes = bytes,
                            .plain_flops = need.step_flops,
                            .flops = need.step_flops};
    snprintf(found->layers, sizeof(found->layers), "%s", plain != NULL ? plain : "");
    const bool enough = found->fits || !need.possible || !search->chooses_layers;
    return enough || try_sets(search, size, found, err);
}

/* ---- legal sizes ---- */

static bool is_set(const struct search *search, const char *name) {
    const size_t length = strlen(name);
    for (size_t i = 0; i < search->options->n_set; i++)
        if (strncmp(search->options->set[i], name, length) == 0 &&
            search->options->set[i][length] == '=')
            return true;
    return false;
}

static void list_sizes(struct search *search, const struct model *model) {
    const bool is_tile = strcmp(search->request->variable, "tile") == 0;
    search->own_size = is_tile ? (uint32_t)model->tile_h : model->settings.batch;
    if (!search->sets_size)
        vec_push(&search->sizes, search->own_size);
    for (uint32_t size = 1; search->sets_size && size <= (is_tile ? MAX_TILE : MAX_BATCH); size++)
        if (!is_tile || model_tile_is_legal(model, size))
            vec_push(&search->sizes, size);
}

/* Whether a variable recompute marks what it names, and nothing else. */
static bool has_effect(const struct search *search, const char *text, const struct model *model) {
    const size_t count = model->layers.count;
    size_t first = 1, marked = 0;
    while (first < count && model->layers.items[first].kind != LAYER_CONV)
        first++;
    if (first == count || strlen(model->layers.items[first].name) >= FIT_LAYERS_BYTES)
        return false;
    struct search as_is = *search;
    struct trial_options trial;
    struct model *changed = NULL;
    struct err err = {0};
    as_is.sets_size = false;
    if (!make_options(&as_is, 0, model->layers.items[first].name, &trial, &err))
        return false;
    bool good = compile_read_model(search->path, text, &trial.options, &changed, &err) &&
                changed->layers.count == count && changed->layers.items[first].recompute;
    for (size_t i = 0; good && i < count; i++)
        marked += changed->layers.items[i].recompute;
    model_free(changed);
    free(trial.set);
    return good && marked == 1;
}

static void find_layers(struct search *search, const char *text, const struct model *model) {
    search->own_layers = model->recompute.count > 0;
    search->chooses_layers = search->request->use_case == PLAN_FOR_TRAINING &&
                             !is_set(search, "recompute") && has_effect(search, text, model);
}

static bool open_search(struct search *search, struct err *err) {
    struct model *model = NULL;
    uint8_t *text;
    size_t size_bytes;
    search->sets_size = strcmp(search->request->variable, "recompute") != 0;
    if (!file_read(search->path, &text, &size_bytes, err))
        return false;
    bool good = memchr(text, 0, size_bytes) == NULL ||
                err_set(err, ERR_INPUT, "%s: not a model: it holds a zero byte", search->path);
    good =
        good && compile_read_model(search->path, (const char *)text, search->options, &model, err);
    if (good) {
        list_sizes(search, model);
        find_layers(search, (const char *)text, model);
    }
    model_free(model);
    free(text);
    if (good && search->sizes.count == 0)
        return err_set(err, ERR_INPUT, "%s: no tile up to %d pixels is legal", search->path,
                       MAX_TILE);
    if (good && !search->sets_size && search->request->use_case == PLAN_FOR_INFERENCE)
        return err_set(err, ERR_USAGE, "inference keeps no maps: nothing can be recomputed for it");
    if (good && !search->sets_size && is_set(search, "recompute"))
        return err_set(err, ERR_USAGE, "--fit recompute lists choices: leave out --set recompute");
    if (good && !search->sets_size && !search->chooses_layers) {
        err_set(err, ERR_USAGE, "%s: it has no variable that says what is recomputed",
                search->path);
        return err_hint(err, "write recompute: none in let: and recompute: ${recompute} in train:");
    }
    return good;
}

/* ---- choosing ---- */

static bool nothing_fits(const struct search *search, const struct found *least, struct err *err) {
    const struct fit_request *request = search->request;
    const char *use = request->use_case == PLAN_FOR_INFERENCE ? "inference" : "training";
    char bytes[32], given[32], layers[FIT_LAYERS_BYTES + 16] = "";
    if (least->bytes == UINT64_MAX)
        return err_set(err, ERR_INPUT, "%s: cannot be compiled with %s=%u", search->path,
                       request->variable, search->sizes.items[0]);
    report_bytes(request->memory_bytes, given, sizeof(given));
    report_bytes(least->bytes, bytes, sizeof(bytes));
    if (least->recomputes)
        snprintf(layers, sizeof(layers), ", recomputing %s", least->layers);
    if (!search->sets_size) {
        err_set(err, ERR_INPUT, "%s: nothing fits into %s: training needs at least %s%s",
                search->path, given, bytes, layers);
        return err_hint(err, "a smaller tile, batch or width needs less memory");
    }
    err_set(err, ERR_INPUT, "%s: nothing fits into %s: the smallest %s, %u, needs %s for %s%s",
            search->path, given, request->variable, search->sizes.items[0], bytes, use, layers);
    return err_hint(err, "fewer channels need less memory: a smaller width");
}

static void set_choice(const struct search *search, size_t index, const struct found *found,
                       struct fit_choice *choice) {
    *choice = (struct fit_choice){.size = search->sets_size ? search->sizes.items[index] : 0,
                                  .needed_bytes = found->bytes,
                                  .plain_bytes = found->plain_bytes,
                                  .recomputes = found->recomputes};
    snprintf(choice->recompute, sizeof(choice->recompute), "%s", found->layers);
    choice->more_percent = 100 * ((double)found->flops / (double)MAX(found->plain_flops, 1u) - 1);
}

static bool choose(const struct search *search, struct fit_choice *choice, struct err *err) {
    size_t low = 0, high = search->sizes.count; /* low fits, high does not (or is the end) */
    struct found found, best, over = {.bytes = UINT64_MAX};
    if (!try_size(search, 0, &best, err))
        return false;
    if (!best.fits)
        return nothing_fits(search, &best, err);
    bool doubling = true;
    for (size_t distance = 1; high - low > 1;) {
        const size_t middle = doubling ? MIN(low + distance, high - 1) : low + (high - low) / 2;
        if (!try_size(search, middle, &found, err))
            return false;
        if (found.fits) {
            low = middle;
            best = found;
            distance *= 2;
        } else {
            high = middle;
            over = found;
            doubling = false;
        }
    }
    set_choice(search, low, &best, choice);
    if (high < search->sizes.count && over.bytes != UINT64_MAX) {
        choice->next_size = search->sizes.items[high];
        choice->next_bytes = over.bytes;
    }
    return true;
}

bool fit_choose(const char *path, const struct unet_compile_options *options,
                const struct fit_request *request, struct fit_choice *choice, struct err *err) {
    struct search search = {.path = path, .options = options, .request = request};
    if (is_set(&search, request->variable))
        return err_set(err, ERR_USAGE, "--memory chooses %s: leave out --set %s", request->variable,
                       request->variable);
    const bool good = open_search(&search, err) && choose(&search, choice, err);
    vec_free(&search.sizes);
    return good;
}

/* ---- the table ---- */

/* Whether the table goes on from one row to a size. */
static bool is_row(const struct search *search, uint32_t previous, uint32_t size) {
    if (size == search->own_size || previous == 0)
        return true;
    if (strcmp(search->request->variable, "batch") == 0)
        return size == 2 * previous;
    return size >= TABLE_RATIO * previous;
}

static void print_row(const struct search *search, uint32_t size, const struct need *need,
                      FILE *stream) {
    char training[32], inference[32];
    const char *mark = size == search->own_size ? "the model's" : "";
    if (search->request->memory_bytes > 0)
        mark = needed_bytes(search, need) <= search->request->memory_bytes ? "fits" : "";
    const double pixels = (double)MAX(need->pixels, 1u);
    fprintf(stream, "  %8u %12s %12s %12.2f %12.2f %12.4f %12.4f%s%s\n", size,
            report_bytes(need->training_bytes, training, sizeof(training)),
            report_bytes(need->inference_bytes, inference, sizeof(inference)),
            (double)need->step_flops / 1e9, (double)need->infer_flops / 1e9,
            (double)need->step_flops / 1e6 / pixels, (double)need->infer_flops / 1e6 / pixels,
            *mark ? "  " : "", mark);
}

static bool print_table(const struct search *search, FILE *stream, struct err *err) {
    const bool is_tile = strcmp(search->request->variable, "tile") == 0;
    const uint32_t end = is_tile ? 2 * search->own_size : MAX(search->own_size, TABLE_BATCHES);
    uint32_t previous = 0;
    fprintf(stream, "\ndevice memory and work by %s\n  %8s %25s %25s %25s\n  %8s",
            search->request->variable, "", "device memory", "GFLOP of a run",
            "MFLOP of an output pixel", search->request->variable);
    for (int i = 0; i < 3; i++)
        fprintf(stream, " %12s %12s", "training", "inference");
    fputc('\n', stream);
    for (size_t i = 0; i < search->sizes.count && search->sizes.items[i] <= end; i++) {
        const uint32_t size = search->sizes.items[i];
        struct need need;
        if (!is_row(search, previous, size))
            continue;
        if (!measure(search, size, NULL, &need, err))
            return false;
        if (!need.possible)
            break;
        print_row(search, size, &need, stream);
        previous = size;
    }
    return true;
}

/* ---- the table of sets of layers ---- */

static void print_set(const struct search *search, const struct need *need,
                      const struct need *plain, const char *layers, FILE *stream) {
    char training[32], arena[32];
    const uint64_t limit = search->request->memory_bytes;
    fprintf(stream, "  %12s %12s %12.2f %+11.2f %%  %s%s\n",
            report_bytes(need->training_bytes, training, sizeof(training)),
            report_bytes(need->arena_bytes, arena, sizeof(arena)), (double)need->step_flops / 1e9,
            100 * ((double)need->step_flops / (double)MAX(plain->step_flops, 1u) - 1), layers,
            limit > 0 && need->training_bytes <= limit ? "  fits" : "");
}

/* Rows: nothing recomputed, then sets that each need clearly less than the row before, and the last
   of all. */
static bool print_sets(const struct search *search, FILE *stream, struct err *err) {
    struct search as_is = *search;
    struct recompute_sets sets;
    struct need plain = {0}, need;
    uint64_t row_bytes = UINT64_MAX;
    bool good;
    as_is.sets_size = false;
    if (!list_sets(&as_is, 0, &sets, err))
        return false;
    good = measure(&as_is, 0, "none", &plain, err);
    if (good && plain.possible) {
        fprintf(stream, "\ntraining by layers recomputed, at the model's own size\n");
        fprintf(stream, "  %12s %12s %12s %13s  %s\n", "device", "arena", "GFLOP", "more",
                "layers");
    }
    for (size_t i = 0; good && plain.possible && i < sets.count; i++) {
        const double most = TABLE_SAVING * (double)row_bytes;
        const bool last = i + 1 == sets.count;
        if ((double)(plain.training_bytes - sets.items[0].peak_bytes + sets.items[i].peak_bytes) >
                most &&
            !last)
            continue;
        good = measure(&as_is, 0, sets.items[i].layers, &need, err);
        if (!good || !need.possible || need.training_bytes >= row_bytes)
            continue;
        print_set(search, &need, &plain, sets.items[i].layers, stream);
        row_bytes = need.training_bytes;
    }
    recompute_free_sets(&sets);
    return good;
}

bool fit_frontier(const char *path, const struct unet_compile_options *options,
                  const struct fit_request *request, FILE *stream, struct err *err) {
    struct search search = {.path = path, .options = options, .request = request};
    const bool good = open_search(&search, err) &&
                      (!search.sets_size || print_table(&search, stream, err)) &&
                      (!search.chooses_layers || print_sets(&search, stream, err));
    vec_free(&search.sizes);
    return good;
}
