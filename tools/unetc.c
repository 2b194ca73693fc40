/*
 * unetc.c: the compiler's command line: a model file becomes a plan file, or a plan is checked.
 * Links the compiler library only, no Vulkan.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "compiler/compiler.h"
#include "tools/cli.h"

struct compile_values {
    struct cli_common common;
    const char *output, *dump, *verify;
    struct cli_list set;
    bool explain;
};

static const struct cli_option compile_options[] = {
    {"output", 'o', CLI_TEXT, "FILE.plan", offsetof(struct compile_values, output), false, NULL,
     "plan to write; without it MODEL.plan in the current directory"},
    {"set", 0, CLI_LIST, "NAME=VALUE", offsetof(struct compile_values, set), false, NULL,
     "value of a variable of the model's let: block"},
    {"explain", 0, CLI_FLAG, NULL, offsetof(struct compile_values, explain), false, NULL,
     "print layers, sizes, operations and memory"},
    {"dump", 0, CLI_TEXT, "PASS", offsetof(struct compile_values, dump), false, NULL,
     "print the graph or plan as it is after this pass; \"all\": after every pass"},
    {"verify", 0, CLI_TEXT, "FILE.plan", offsetof(struct compile_values, verify), false, NULL,
     "check a plan instead: bounds, lifetimes, barriers, limits"},
};

static const struct cli_option common_options[] = {
    {"quiet", 'q', CLI_FLAG, NULL, offsetof(struct cli_common, quiet), false, NULL,
     "no messages but errors"},
    {"help", 'h', CLI_FLAG, NULL, offsetof(struct cli_common, help), false, NULL, "print this"},
    {"version", 0, CLI_FLAG, NULL, offsetof(struct cli_common, version), false, NULL,
     "print the version"},
};

static bool verify_plan(const struct compile_values *values, struct err *err) {
    struct plan *plan;
    if (values->common.operands.count > 0 || values->output != NULL || values->set.count > 0 ||
        values->explain || values->dump != NULL)
        return err_set(err, ERR_USAGE, "--verify stands alone: it takes no model and no options");
    if (!plan_load(values->verify, &plan, err))
        return false;
    bool good = plan_verify(plan, NULL, err);
    if (good) {
        size_t n_records = 0;
        for (uint32_t i = 0; i < plan->n_programs; i++)
            n_records += plan->programs[i].n_records;
        printf("%s: good: %u programs, %zu records, %u tensors\n", values->verify, plan->n_programs,
               n_records, plan->n_tensors);
    } else {
        err_prefix(err, "%s", values->verify);
    }
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

static bool compile_model(const struct compile_values *values, struct err *err) {
    const char *model = values->common.operands.items[0];
    const struct unet_compile_options options = {
        .set = values->set.items,
        .n_set = values->set.count,
        .dump_pass = values->dump,
        .dump_stream = stdout,
        .diagnostics = stderr,
        .explain = values->explain ? stdout : NULL,
    };
    struct plan *plan;
    if (!unet_compile_file(model, &options, &plan, err))
        return false;
    char *stem = file_stem(model), path[4096];
    snprintf(path, sizeof(path), "%s.plan", stem);
    free(stem);
    bool good = write_plan(plan, values->output != NULL ? values->output : path, err);
    plan_free(plan);
    return good;
}

static bool run_compile(const void *data, struct err *err) {
    const struct compile_values *values = data;
    if (values->verify != NULL)
        return verify_plan(values, err);
    if (values->common.operands.count == 0)
        return err_set(err, ERR_USAGE, "missing MODEL.yaml");
    return compile_model(values, err);
}

static const struct cli_command compile_command = {
    .name = NULL,
    .summary = "Compiles a U-Net described in YAML into a plan that unetrun executes.",
    .details = "Exit status: 0 done, 1 model or plan rejected, 2 usage, 4 input or output failed.",
    .operands = "[MODEL.yaml]",
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
