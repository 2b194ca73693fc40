/*
 * cli.h: command lines from tables. A tool is a list of commands, a command a list of options; each
 * option is one row, from which parsing, checking, defaults and the help text follow.
 *
 * Values land in a struct of the command's own, zeroed before, through the row's offset. Its first
 * member is a struct cli_common. What a command returns in struct err becomes the exit status and
 * two lines on stderr, "unetrun: error: TEXT" and "  hint: HINT".
 */
#ifndef UNET_CLI_H
#define UNET_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum cli_kind {
    CLI_FLAG,   /* bool */
    CLI_TEXT,   /* const char * */
    CLI_CHOICE, /* const char *, one of the words of the row's argument, "1|4|8" */
    CLI_COUNT,  /* uint32_t, at least 1 */
    CLI_SEED,   /* uint64_t */
    CLI_SIZE,   /* struct cli_size, "WxH" */
    CLI_BYTES,  /* uint64_t, at least 1: "4GiB", "512 MB", "1.5GiB", "100000" */
    CLI_WORD,   /* const char *: "" for --name alone, one of the row's words for --name=WORD */
    CLI_LIST    /* struct cli_list: may be given several times */
};

struct cli_size {
    uint32_t width, height;
};

struct cli_list {
    const char **items;
    size_t count;
};

struct cli_option {
    const char *name; /* without the dashes */
    char short_name;  /* 0: none */
    enum cli_kind kind;
    const char *argument; /* as shown: "DIR"; NULL for a flag */
    size_t offset;        /* of the value in the command's struct */
    bool required;
    const char *fallback; /* value when not given, also shown; NULL: none */
    const char *help;
};

/* What every command has; the first member of its struct. */
struct cli_common {
    bool quiet, help, version;
    const char *device;       /* tools with devices only */
    uint32_t threads;         /* of them; 0: not given */
    struct cli_list disable;  /* fast paths not to use on them */
    struct cli_list operands; /* everything that is no option */
};

struct cli_command {
    const char *name;     /* NULL in a tool without commands */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs under the options; NULL: none */
    const char *operands; /* "FILE.plan IMAGE...": words in order, optional ones in brackets */
    const struct cli_option *options;
    size_t n_options;
    size_t values_bytes; /* of the command's struct */
    bool (*run)(const void *values, struct err *err);
};

struct cli_tool {
    const char *name;
    const char *summary;
    const struct cli_option *common; /* offsets into struct cli_common */
    size_t n_common;
    const struct cli_command *const *commands;
    size_t n_commands;
};

/* Parses, runs, reports; the result is the exit status. */
int cli_main(const struct cli_tool *tool, int argc, char **argv);

/* A whole number written in decimal; false when it is none or does not fit into 64 bits. */
bool cli_parse_number(const char *text, uint64_t *value_out);

#endif
