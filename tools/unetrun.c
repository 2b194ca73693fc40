/*
 * unetrun.c: the command line of the runtime: chooses the command. Each command has a file of its
 * own, tools/cmd_*.c.
 */
#include "common/base.h"
#include "tools/cmd.h"

static const struct cli_option common_options[] = {
    {"device", 0, CLI_TEXT, "INDEX|NAME", offsetof(struct cli_common, device), false, NULL,
     "cpu, vulkan, a device's number, uuid or a part of its name; without it the best GPU, else "
     "the cpu"},
    {"threads", 0, CLI_COUNT, "N", offsetof(struct cli_common, threads), false, NULL,
     "threads of the cpu device; without it one for each core. Changes no result"},
    {"disable", 0, CLI_LIST, "NAME", offsetof(struct cli_common, disable), false, NULL,
     "a fast path not to use, as \"unetrun devices\" lists them"},
    {"quiet", 'q', CLI_FLAG, NULL, offsetof(struct cli_common, quiet), false, NULL,
     "no messages but errors"},
    {"help", 'h', CLI_FLAG, NULL, offsetof(struct cli_common, help), false, NULL, "print this"},
    {"version", 0, CLI_FLAG, NULL, offsetof(struct cli_common, version), false, NULL,
     "print the version"},
};

int main(int argc, char **argv) {
    static const struct cli_command *const commands[] = {
        &cmd_devices, &cmd_info,   &cmd_train,   &cmd_infer, &cmd_eval,
        &cmd_bench,   &cmd_sample, &cmd_augment, &cmd_tune,  &cmd_selftest,
    };
    static const struct cli_tool tool = {
        .name = "unetrun",
        .summary =
            "Trains and runs compiled U-Nets (made by unetc) on Vulkan devices or the CPU. Exit "
            "status: "
            "0 done, 1 input rejected, 2 usage, 3 device or driver, 4 input or output failed.",
        .common = common_options,
        .n_common = ARRAY_LEN(common_options),
        .commands = commands,
        .n_commands = ARRAY_LEN(commands),
    };
    return cli_main(&tool, argc, argv);
}
