/*
 * fit.c: sizes that fit. Legal tiles come from the rules of model_sizes.c; the bytes of one from
 * compiling it, so that no estimate can be wrong. Needs grow with the size: the largest that fits
 * is found by doubling the distance from the smallest, then halving.
 */
#include "compiler/fit.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/report_memory.h"

#define MAX_TILE 16384
#define MAX_BATCH 4096
#define TABLE_RATIO 1.25 /* from one tile of the table to the next, at least */
#define TABLE_BATCHES 64

struct search {
    const char *path;
    const struct unet_compile_options *options;
    const struct fit_request *request;
    VEC(uint32_t) sizes; /* legal, ascending */
    uint32_t own_size;   /* the model's */
};

/* ---- one size ---- */

struct need {
    bool possible; /* false: more than the kernels can count */
    uint64_t training_bytes, inference_bytes;
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

/* Compiles with the variable set, silently. A size that the model rejects is too large: all others
   were sorted out before. */
static bool measure(const struct search *search, uint32_t size, struct need *need,
                    struct err *err) {
    const size_t n_set = search->options->n_set;
    const char **set = malloc((n_set + 1) * sizeof(*set));
    char setting[64];
    struct err reason = {0};
    struct plan *plan;
    if (set == NULL)
        return err_set(err, ERR_IO, "out of memory");
    if (n_set > 0)
        memcpy(set, search->options->set, n_set * sizeof(*set));
    snprintf(setting, sizeof(setting), "%s=%u", search->request->variable, size);
    set[n_set] = setting;
    const struct unet_compile_options options = {.set = set, .n_set = n_set + 1};
    *need = (struct need){.possible = false};
    bool good = unet_compile_file(search->path, &options, &plan, &reason);
    free(set);
    if (!good) {
        if (reason.code == ERR_INPUT)
            return true;
        if (reason.code != ERR_USAGE) {
            *err = reason;
            return false;
        }
        err_set(err, ERR_USAGE, "%s: %s cannot be set", search->path, setting);
        return err_hint(err, "declare the variable %s in the model's let: block",
                        search->request->variable);
    }
    const struct plan_model *model = &plan->model;
    uint64_t blocks[PLAN_BLOCK_COUNT];
    *need = (struct need){
        .possible = true,
        .training_bytes = plan_device_bytes(plan, PLAN_FOR_TRAINING, blocks),
        .inference_bytes = plan_device_bytes(plan, PLAN_FOR_INFERENCE, blocks),
        .step_flops = program_flops(plan, "train_step"),
        .infer_flops = program_flops(plan, "infer"),
        .pixels = (uint64_t)model->batch * model->core_h * model->core_w,
    };
    good = check_effect(search, plan, size, err);
    plan_free(plan);
    return good;
}

static uint64_t needed_bytes(const struct search *search, const struct need *need) {
    if (!need->possible)
        return UINT64_MAX;
    return search->request->use_case == PLAN_FOR_INFERENCE ? need->inference_bytes
                                                           : need->training_bytes;
}

/* ---- legal sizes ---- */

static bool is_set(const struct search *search) {
    const char *name = search->request->variable;
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
    for (uint32_t size = 1; size <= (is_tile ? MAX_TILE : MAX_BATCH); size++)
        if (!is_tile || model_tile_is_legal(model, size))
            vec_push(&search->sizes, size);
}

static bool open_search(struct search *search, struct err *err) {
    struct model *model = NULL;
    uint8_t *text;
    size_t size_bytes;
    if (!file_read(search->path, &text, &size_bytes, err))
        return false;
    bool good = memchr(text, 0, size_bytes) == NULL ||
                err_set(err, ERR_INPUT, "%s: not a model: it holds a zero byte", search->path);
    good =
        good && compile_read_model(search->path, (const char *)text, search->options, &model, err);
    if (good)
        list_sizes(search, model);
    model_free(model);
    free(text);
    if (good && search->sizes.count == 0)
        return err_set(err, ERR_INPUT, "%s: no tile up to %d pixels is legal", search->path,
                       MAX_TILE);
    return good;
}

/* ---- choosing ---- */

static bool fits(const struct search *search, size_t index, uint64_t *bytes_out, bool *fits_out,
                 struct err *err) {
    struct need need;
    if (!measure(search, search->sizes.items[index], &need, err))
        return false;
    *bytes_out = needed_bytes(search, &need);
    *fits_out = *bytes_out <= search->request->memory_bytes;
    return true;
}

static bool nothing_fits(const struct search *search, uint64_t least_bytes, struct err *err) {
    char least[32], given[32];
    if (least_bytes == UINT64_MAX)
        return err_set(err, ERR_INPUT, "%s: cannot be compiled with %s=%u", search->path,
                       search->request->variable, search->sizes.items[0]);
    err_set(err, ERR_INPUT, "%s: nothing fits into %s: the smallest %s, %u, needs %s for %s",
            search->path, report_bytes(search->request->memory_bytes, given, sizeof(given)),
            search->request->variable, search->sizes.items[0],
            report_bytes(least_bytes, least, sizeof(least)),
            search->request->use_case == PLAN_FOR_INFERENCE ? "inference" : "training");
    return err_hint(err, "fewer channels need less memory: a smaller width");
}

static bool choose(const struct search *search, struct fit_choice *choice, struct err *err) {
    size_t low = 0, high = search->sizes.count; /* low fits, high does not (or is the end) */
    uint64_t low_bytes, high_bytes = 0, bytes;
    bool good;
    if (!fits(search, 0, &low_bytes, &good, err))
        return false;
    if (!good)
        return nothing_fits(search, low_bytes, err);
    bool doubling = true;
    for (size_t distance = 1; high - low > 1;) {
        const size_t middle = doubling ? MIN(low + distance, high - 1) : low + (high - low) / 2;
        if (!fits(search, middle, &bytes, &good, err))
            return false;
        if (good) {
            low = middle;
            low_bytes = bytes;
            distance *= 2;
        } else {
            high = middle;
            high_bytes = bytes;
            doubling = false;
        }
    }
    *choice = (struct fit_choice){.size = search->sizes.items[low], .needed_bytes = low_bytes};
    if (high < search->sizes.count && high_bytes != UINT64_MAX) {
        choice->next_size = search->sizes.items[high];
        choice->next_bytes = high_bytes;
    }
    return true;
}

bool fit_choose(const char *path, const struct unet_compile_options *options,
                const struct fit_request *request, struct fit_choice *choice, struct err *err) {
    struct search search = {.path = path, .options = options, .request = request};
    if (is_set(&search))
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
        if (!measure(search, size, &need, err))
            return false;
        if (!need.possible)
            break;
        print_row(search, size, &need, stream);
        previous = size;
    }
    return true;
}

bool fit_frontier(const char *path, const struct unet_compile_options *options,
                  const struct fit_request *request, FILE *stream, struct err *err) {
    struct search search = {.path = path, .options = options, .request = request};
    const bool good = open_search(&search, err) && print_table(&search, stream, err);
    vec_free(&search.sizes);
    return good;
}
