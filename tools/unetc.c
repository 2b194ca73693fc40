/*
 * unetc.c: the compiler's command line: a model file becomes a plan file, or a plan is checked.
 * Links the compiler library only, no Vulkan.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "compiler/compiler.h"
#include "compiler/report_diff.h"
#include "tools/cli.h"
#include "tools/unetc_fit.h"
#include "tools/unetc_pictures.h"

struct compile_values {
    struct cli_common common;
    const char *output, *dump, *disable, *verify, *arena_svg, *graph, *program, *place;
    uint64_t max_allocation_bytes;
    struct cli_list set;
    bool diff;
    const char *explain; /* NULL: not given */
    uint64_t memory_bytes;
    const char *target;
    const char *fit, *fit_program;
};

static const struct cli_option compile_options[] = {
    {"output", 'o', CLI_TEXT, "FILE.plan", offsetof(struct compile_values, output), false, NULL,
     "plan to write; without it MODEL.plan in the current directory"},
    {"set", 0, CLI_LIST, "NAME=VALUE", offsetof(struct compile_values, set), false, NULL,
     "value of a variable of the model's let: block"},
    {"explain", 0, CLI_WORD, "memory", offsetof(struct compile_values, explain), false, NULL,
     "print layers, sizes, operations and memory; \"memory\": what each tile or batch would need, "
     "and what recomputing layers would save"},
    {"memory", 0, CLI_BYTES, "SIZE", offsetof(struct compile_values, memory_bytes), false, NULL,
     "choose the largest tile whose plan fits into so much device memory, such as 4GiB, and the "
     "layers to recompute for it"},
    {"fit", 0, CLI_CHOICE, "tile|batch|recompute", offsetof(struct compile_values, fit), false,
     "tile",
     "the variable that --memory chooses and --explain=memory lists; \"recompute\": layers to "
     "recompute alone, the sizes stay"},
    {"fit-program", 0, CLI_CHOICE, "train_step|infer", offsetof(struct compile_values, fit_program),
     false, "train_step", "what has to fit: training or inference"},
    {"dump", 0, CLI_TEXT, "PASS", offsetof(struct compile_values, dump), false, NULL,
     "print the graph or plan as it is after this pass; \"all\": after every pass"},
    {"disable", 0, CLI_TEXT, "PASSES", offsetof(struct compile_values, disable), false, NULL,
     "passes to leave out, separated by commas, of mask, index, fuse, recompute, order, half, "
     "skip, inplace, and methods (winograd, winograd2 and split, which add up in another order)"},
    {"place", 0, CLI_TEXT, "STRATEGIES", offsetof(struct compile_values, place), false, NULL,
     "how to place tensors, separated by commas: the best of size, breadth, duration, start, "
     "best-fit, stacks, then search; without it all of them"},
    {"max-allocation", 0, CLI_BYTES, "SIZE", offsetof(struct compile_values, max_allocation_bytes),
     false, NULL,
     "the most that the device allocates at once, such as 1GiB: larger blocks are split"},
    {"target", 0, CLI_TEXT, "NAME|FILE", offsetof(struct compile_values, target), false, NULL,
     "keep to the limits of a device: generic, lavapipe, amd, nvidia, intel, small, or a file that "
     "unetrun devices --target wrote; with --verify, check against them; \"?\" lists them"},
    {"arena-svg", 0, CLI_TEXT, "FILE.svg", offsetof(struct compile_values, arena_svg), false, NULL,
     "draw the memory plan of a program: address against record"},
    {"graph", 0, CLI_TEXT, "FILE.dot", offsetof(struct compile_values, graph), false, NULL,
     "write the graph of a program after all passes, for Graphviz"},
    {"program", 0, CLI_TEXT, "NAME", offsetof(struct compile_values, program), false, NULL,
     "the program that --arena-svg and --graph show (default train_step)"},
    {"diff", 0, CLI_FLAG, NULL, offsetof(struct compile_values, diff), false, NULL,
     "compare two plans instead, A.plan and B.plan: programs, dispatches, bytes, what moved"},
    {"verify", 0, CLI_TEXT, "FILE.plan", offsetof(struct compile_values, verify), false, NULL,
     "check a plan instead: bounds, lifetimes, barriers; with --target also a device's limits"},
};

static const struct cli_option common_options[] = {
    {"quiet", 'q', CLI_FLAG, NULL, offsetof(struct cli_common, quiet), false, NULL,
     "no messages but errors"},
    {"help", 'h', CLI_FLAG, NULL, offsetof(struct cli_common, help), false, NULL, "print this"},
    {"version", 0, CLI_FLAG, NULL, offsetof(struct cli_common, version), false, NULL,
     "print the version"},
};

/* Options of a compilation, which mean nothing for plans that are there already. */
static bool has_compile_option(const struct compile_values *values) {
    return values->output != NULL || values->set.count > 0 || values->explain != NULL ||
           values->memory_bytes > 0 || values->dump != NULL || values->disable != NULL ||
           values->place != NULL || values->max_allocation_bytes > 0 || values->arena_svg != NULL ||
           values->graph != NULL || values->program != NULL;
}

static bool load_plan(const char *path, struct plan **out, struct err *err) {
    if (!plan_load(path, out, err))
        return false;
    if (plan_verify(*out, NULL, err))
        return true;
    plan_free(*out);
    *out = NULL;
    return err_prefix(err, "%s", path);
}

static bool diff_plans(const struct compile_values *values, struct err *err) {
    const struct cli_list *operands = &values->common.operands;
    struct plan *a, *b;
    if (operands->count != 2 || values->verify != NULL || values->target != NULL ||
        has_compile_option(values))
        return err_set(err, ERR_USAGE, "--diff takes two plans and no other option") ||
               err_hint(err, "unetc --diff A.plan B.plan");
    if (!load_plan(operands->items[0], &a, err))
        return false;
    const bool good = load_plan(operands->items[1], &b, err);
    if (good)
        report_diff(a, operands->items[0], b, operands->items[1], stdout);
    plan_free(a);
    plan_free(b);
    return good;
}

static void report_good(const char *path, const struct plan *plan) {
    size_t n_records = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        n_records += plan->programs[i].n_records;
    printf("%s: good: %u programs, %zu records, %u tensors\n", path, plan->n_programs, n_records,
           plan->n_tensors);
}

/* With a target, how the plan would be run there. */
static bool verify_target(const char *path, const struct plan *plan,
                          const struct unet_target *target, struct err *err) {
    struct plan_limits used;
    if (!unet_target_check(plan, target, &used, err))
        return err_prefix(err, "%s", path) ||
               err_hint(err, "compile the model with unetc --target");
    printf("%s: fits target %s: tilings of %s, by %s\n", path, target->name,
           used.class_ == PLAN_CLASS_GPU ? "GPUs" : "CPUs",
           used.access == PLAN_ACCESS_DESCRIPTOR ? "descriptors" : "addresses");
    if (used.class_ != target->limits.class_)
        printf("%s: its tilings of GPUs do not fit, and are faster: compile it with --target\n",
               path);
    return true;
}

static bool verify_plan(const struct compile_values *values, const struct unet_target *target,
                        struct err *err) {
    struct plan *plan;
    if (values->common.operands.count > 0 || has_compile_option(values))
        return err_set(err, ERR_USAGE,
                       "--verify takes no model, and no option of a compilation but --target");
    if (!load_plan(values->verify, &plan, err))
        return false;
    report_good(values->verify, plan);
    if (plan->target.device != NULL)
        printf("%s: compiled for target %s, within its limits\n", values->verify,
               plan->target.device);
    const bool good = target == NULL || verify_target(values->verify, plan, target, err);
    plan_free(plan);
    return good;
}

static bool write_plan(struct plan *plan, const char *path, struct err *err) {
    if (!plan_save(plan, path, err))
        return false;
    log_print(LOG_INFO, "%s: model %s, %ux%ux%u -> %ux%ux%u, %u parameter tensors, %u programs",
              path, plan->model.name, plan->model.channels, plan->model.in_h, plan->model.in_w,
              plan->model.n_classes, plan->model.out_h, plan->model.out_w, plan->n_params,
              plan->n_programs);
    return true;
}

static bool save_plan(struct plan *plan, const struct compile_values *values, struct err *err) {
    char *stem = file_stem(values->common.operands.items[0]), path[4096];
    snprintf(path, sizeof(path), "%s.plan", stem);
    free(stem);
    return write_plan(plan, values->output != NULL ? values->output : path, err);
}

static bool compile_plan(const struct compile_values *values,
                         const struct unet_compile_options *options,
                         struct unetc_pictures *pictures, struct err *err) {
    struct plan *plan;
    const bool good = unet_compile_file(values->common.operands.items[0], options, &plan, err) &&
                      unetc_pictures_check(pictures, plan, err) &&
                      unetc_pictures_write(pictures, plan, err) && save_plan(plan, values, err);
    plan_free(plan);
    return good;
}

/* With --memory, set, which has room for them, gets more settings. */
static bool compile_fitting(const struct compile_values *values, const char **set,
                            const struct unet_target *target, struct unetc_pictures *pictures,
                            struct err *err) {
    const char *model = values->common.operands.items[0];
    const struct unetc_fit fit = {values->memory_bytes, values->fit, values->fit_program};
    const bool wants_table = values->explain != NULL && values->explain[0] != '\0';
    struct unetc_fit_settings settings;
    struct unet_compile_options options = {
        .set = set,
        .n_set = values->set.count,
        .dump_pass = values->dump,
        .dump_stream = stdout,
        .disable = values->disable,
        .place = values->place,
        .max_allocation_bytes = values->max_allocation_bytes,
        .target = target,
        .diagnostics = stderr,
        .explain = values->explain != NULL && !wants_table ? stdout : NULL,
        .graph = pictures->graph,
        .graph_program = pictures->program,
    };
    if (wants_table && !unetc_fit_table(model, &options, &fit, err))
        return false;
    if (fit.memory_bytes > 0) {
        if (!unetc_fit_choose(model, &options, &fit, &settings, err))
            return false;
        for (size_t i = 0; i < settings.count; i++)
            set[options.n_set++] = settings.texts[i];
    }
    return compile_plan(values, &options, pictures, err);
}

static bool compile_model(const struct compile_values *values, const struct unet_target *target,
                          struct err *err) {
    struct unetc_pictures pictures;
    if (!unetc_pictures_open(&pictures, values->program, values->arena_svg, values->graph, err))
        return false;
    const char **set = calloc(values->set.count + UNETC_FIT_SETTINGS, sizeof(*set));
    bool good = set != NULL || err_set(err, ERR_IO, "out of memory");
    for (size_t i = 0; good && i < values->set.count; i++)
        set[i] = values->set.items[i];
    good = good && compile_fitting(values, set, target, &pictures, err);
    free(set);
    unetc_pictures_close(&pictures);
    return good;
}

static bool list_targets(void) {
    for (const char *const *name = unet_target_names(); *name != NULL; name++)
        printf("%s\n", *name);
    return true;
}

static bool run_compile(const void *data, struct err *err) {
    const struct compile_values *values = data;
    const struct cli_list *operands = &values->common.operands;
    if (values->diff)
        return diff_plans(values, err);
    if (values->target != NULL && strcmp(values->target, "?") == 0)
        return list_targets();
    struct unet_target found;
    const struct unet_target *target = values->target != NULL ? &found : NULL;
    if (target != NULL && !unet_target_find(values->target, stderr, &found, err))
        return false;
    if (values->verify != NULL)
        return verify_plan(values, target, err);
    if (operands->count == 0)
        return err_set(err, ERR_USAGE, "missing MODEL.yaml");
    if (operands->count > 1)
        return err_set(err, ERR_USAGE, "unexpected \"%s\"", operands->items[1]);
    return compile_model(values, target, err);
}

static const struct cli_command compile_command = {
    .name = NULL,
    .summary = "Compiles a U-Net described in YAML into a plan that unetrun executes.",
    .details = "Exit status: 0 done, 1 model or plan rejected, 2 usage, 4 input or output failed.",
    .operands = "[MODEL.yaml] [B.plan]",
    .options = compile_options,
    .n_options = ARRAY_LEN(compile_options),
    .values_bytes = sizeof(struct compile_values),
    .run = run_compile,
};

int main(int argc, char **argv) {
    static const struct cli_command *const commands[] = {&compile_command};
    static const struct cli_tool tool = {
        .name = "unetc",
        .summary = "Compiler of U-Net models.",
        .common = common_options,
        .n_common = ARRAY_LEN(common_options),
        .commands = commands,
        .n_commands = ARRAY_LEN(commands),
    };
    return cli_main(&tool, argc, argv);
}
