/*
 * cli.c: parsing of a command line by a tool's tables, and its exit status. cli_help.c prints help.
 */
#include "tools/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/log.h"
#include "tools/cli_help.h"

#define MAX_WORDS 64 /* options of a command, or commands of a tool */

/* One command line being read. */
struct parse {
    const struct cli_tool *tool;
    const struct cli_command *command;
    char *values;          /* the command's struct */
    bool given[MAX_WORDS]; /* by row: common options first, then the command's */
    struct err *err;
};

static void *allocate(size_t count, size_t size_bytes) {
    void *memory = calloc(count, size_bytes);
    if (memory == NULL) {
        fprintf(stderr, "error: out of memory (the command line)\n");
        exit(ERR_IO);
    }
    return memory;
}

static size_t count_rows(const struct parse *parse) {
    return parse->tool->n_common + parse->command->n_options;
}

static const struct cli_option *find_row(const struct parse *parse, size_t row) {
    return row < parse->tool->n_common ? &parse->tool->common[row]
                                       : &parse->command->options[row - parse->tool->n_common];
}

bool cli_parse_number(const char *text, uint64_t *value_out) {
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    *value_out = strtoull(text, NULL, 10);
    return errno == 0;
}

static bool parse_count(const char *name, const char *text, uint32_t *value, struct err *err) {
    uint64_t number;
    if (!cli_parse_number(text, &number) || number == 0 || number > UINT32_MAX)
        return err_set(err, ERR_USAGE, "--%s: \"%s\" is not a whole number from 1 to %u", name,
                       text, UINT32_MAX);
    *value = (uint32_t)number;
    return true;
}

static bool parse_size(const char *name, const char *text, struct cli_size *size, struct err *err) {
    char width[16];
    uint64_t w = 0, h = 0;
    const size_t digits = strspn(text, "0123456789");
    bool good =
        digits > 0 && digits < sizeof(width) && (text[digits] == 'x' || text[digits] == 'X');
    if (good) {
        memcpy(width, text, digits);
        width[digits] = '\0';
        good = cli_parse_number(width, &w) && cli_parse_number(text + digits + 1, &h) && w > 0 &&
               h > 0 && w <= 65535 && h <= 65535;
    }
    if (!good)
        return err_set(err, ERR_USAGE,
                       "--%s: \"%s\" is not a size such as 512x384 (each from 1 to 65535)", name,
                       text);
    *size = (struct cli_size){.width = (uint32_t)w, .height = (uint32_t)h};
    return true;
}

static bool parse_bytes(const char *name, const char *text, uint64_t *value, struct err *err) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"KiB", 1024},
                 {"MiB", 1024.0 * 1024},
                 {"GiB", 1024.0 * 1024 * 1024},
                 {"TiB", 1024.0 * 1024 * 1024 * 1024},
                 {"kB", 1e3},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12}};
    char *end;
    const double number = strtod(text, &end);
    const bool is_decimal =
        text[0] >= '0' && text[0] <= '9' && strspn(text, "0123456789.") == (size_t)(end - text);
    end += strspn(end, " ");
    for (size_t i = 0; is_decimal && i < ARRAY_LEN(units); i++)
        if (strcmp(end, units[i].name) == 0 && number * units[i].bytes >= 1 &&
            number * units[i].bytes < 9e18) {
            *value = (uint64_t)(number * units[i].bytes);
            return true;
        }
    err_set(err, ERR_USAGE, "--%s: \"%s\" is not a number of bytes", name, text);
    return err_hint(err, "write 4GiB, 512MiB, 6GB or a number of bytes");
}

static bool parse_choice(const struct cli_option *option, const char *text, const char **value,
                         struct err *err) {
    char words[256];
    const char *choices[MAX_WORDS];
    size_t n = 0;
    snprintf(words, sizeof(words), "%s", option->argument);
    for (char *rest = words, *word; (word = strtok_r(rest, "|", &rest)) != NULL;) {
        if (strcmp(word, text) == 0) {
            *value = text;
            return true;
        }
        if (n < MAX_WORDS)
            choices[n++] = word;
    }
    char list[256] = "";
    for (size_t i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i > 0 ? ", " : "",
                 choices[i]);
    err_set(err, ERR_USAGE, "--%s: \"%s\" is unknown; there %s %s", option->name, text,
            n == 1 ? "is" : "are", list);
    const char *near = diag_did_you_mean(text, choices, n);
    if (near != NULL)
        err_hint(err, "did you mean \"%s\"?", near);
    return false;
}

static bool store(const struct parse *parse, const struct cli_option *option, const char *text) {
    void *target = parse->values + option->offset;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)target = true;
        return true;
    case CLI_TEXT:
        if (text[0] == '\0')
            return err_set(parse->err, ERR_USAGE, "--%s: its %s is empty", option->name,
                           option->argument);
        *(const char **)target = text;
        return true;
    case CLI_CHOICE:
        return parse_choice(option, text, target, parse->err);
    case CLI_COUNT:
        return parse_count(option->name, text, target, parse->err);
    case CLI_SEED:
        if (cli_parse_number(text, target))
            return true;
        return err_set(parse->err, ERR_USAGE,
                       "--%s: \"%s\" is not a whole number from 0 to 2^64 - 1", option->name, text);
    case CLI_SIZE:
        return parse_size(option->name, text, target, parse->err);
    case CLI_BYTES:
        return parse_bytes(option->name, text, target, parse->err);
    case CLI_WORD:
        if (text[0] != '\0')
            return parse_choice(option, text, target, parse->err);
        *(const char **)target = "";
        return true;
    case CLI_LIST: {
        struct cli_list *list = target;
        list->items[list->count++] = text;
        return true;
    }
    }
    return false;
}

static bool report_unknown(const struct parse *parse, const char *word, size_t length) {
    const char *names[MAX_WORDS];
    char given[64];
    const size_t n = MIN(count_rows(parse), (size_t)MAX_WORDS);
    for (size_t i = 0; i < n; i++)
        names[i] = find_row(parse, i)->name;
    snprintf(given, sizeof(given), "%.*s", (int)length, word);
    err_set(parse->err, ERR_USAGE, "unknown option %.64s", given);
    const char *near = diag_did_you_mean(given + strspn(given, "-"), names, n);
    if (near != NULL)
        err_hint(parse->err, "did you mean --%s?", near);
    return false;
}

/* The row of "--name", "--name=value" or "-nvalue"; *value_out is the part behind, or NULL. */
static bool match_option(const struct parse *parse, const char *word, size_t *row_out,
                         const char **value_out) {
    const bool is_long = word[1] == '-';
    const size_t length = is_long ? strcspn(word, "=") : 2;
    for (size_t row = 0; row < count_rows(parse); row++) {
        const struct cli_option *option = find_row(parse, row);
        if (is_long ? strlen(option->name) != length - 2 ||
                          strncmp(option->name, word + 2, length - 2) != 0
                    : option->short_name != word[1])
            continue;
        *row_out = row;
        *value_out = word[length] == '\0' ? NULL : word + length + (is_long ? 1 : 0);
        return true;
    }
    return report_unknown(parse, word, length);
}

/* Reads the option at argv[*at], and its value when it has one; *at ends at the last word used. */
static bool parse_option(struct parse *parse, int argc, char **argv, int *at) {
    size_t row;
    const char *value;
    if (!match_option(parse, argv[*at], &row, &value))
        return false;
    const struct cli_option *option = find_row(parse, row);
    if (parse->given[row] && option->kind != CLI_LIST && option->kind != CLI_FLAG &&
        option->kind != CLI_WORD)
        return err_set(parse->err, ERR_USAGE, "--%s is given twice", option->name);
    parse->given[row] = true;
    if (option->kind == CLI_FLAG) {
        if (value != NULL)
            return err_set(parse->err, ERR_USAGE, "--%s takes no value", option->name);
        return store(parse, option, NULL);
    }
    if (option->kind == CLI_WORD)
        return store(parse, option, value != NULL ? value : "");
    if (value == NULL) {
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return err_set(parse->err, ERR_USAGE, "--%s needs a value, %s", option->name,
                           option->argument);
        value = argv[++*at];
    }
    return store(parse, option, value);
}

/* Whether a word before "--" asks for help: then mistakes elsewhere on the line do not matter. */
static bool has_word(int argc, char **argv, const char *word, const char *short_word) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], word) == 0 || (short_word != NULL && strcmp(argv[i], short_word) == 0))
            return true;
    return false;
}

static bool check_operands(const struct parse *parse, const struct cli_list *operands) {
    char words[256];
    size_t seen = 0;
    bool open_ended = false;
    snprintf(words, sizeof(words), "%s", parse->command->operands);
    for (char *rest = words, *word; (word = strtok_r(rest, " ", &rest)) != NULL; seen++) {
        open_ended = strstr(word, "...") != NULL;
        if (word[0] == '[' || seen < operands->count)
            continue;
        const char *dots = strstr(word, "...");
        return err_set(parse->err, ERR_USAGE, "missing %.*s",
                       (int)(dots != NULL ? (size_t)(dots - word) : strlen(word)), word) ||
               err_hint(parse->err, "usage: %s %s%s%s", parse->tool->name,
                        parse->command->name != NULL ? parse->command->name : "",
                        parse->command->name != NULL ? " " : "", parse->command->operands);
    }
    if (operands->count > seen && !open_ended)
        return err_set(parse->err, ERR_USAGE, "unexpected \"%s\"", operands->items[seen]);
    return true;
}

static bool check_required(const struct parse *parse) {
    for (size_t row = 0; row < count_rows(parse); row++) {
        const struct cli_option *option = find_row(parse, row);
        if (option->required && !parse->given[row])
            return err_set(parse->err, ERR_USAGE, "missing --%s %s", option->name,
                           option->argument);
    }
    return true;
}

/* Fills the command's struct; argv[0] is not looked at. */
static bool parse_words(struct parse *parse, int argc, char **argv) {
    struct cli_common *common = (struct cli_common *)parse->values;
    bool only_operands = false;
    for (size_t row = 0; row < count_rows(parse); row++) {
        const struct cli_option *option = find_row(parse, row);
        if (option->fallback != NULL && !store(parse, option, option->fallback))
            return false;
    }
    for (int i = 1; i < argc; i++) {
        if (only_operands || argv[i][0] != '-' || argv[i][1] == '\0')
            common->operands.items[common->operands.count++] = argv[i];
        else if (strcmp(argv[i], "--") == 0)
            only_operands = true;
        else if (!parse_option(parse, argc, argv, &i))
            return false;
    }
    return check_operands(parse, &common->operands) && check_required(parse);
}

static void allocate_lists(struct parse *parse, int argc) {
    struct cli_common *common = (struct cli_common *)parse->values;
    common->operands.items = allocate((size_t)argc + 1, sizeof(char *));
    for (size_t row = 0; row < count_rows(parse); row++)
        if (find_row(parse, row)->kind == CLI_LIST) {
            struct cli_list *list = (void *)(parse->values + find_row(parse, row)->offset);
            list->items = allocate((size_t)argc + 1, sizeof(char *));
        }
}

static void free_lists(struct parse *parse) {
    free(((struct cli_common *)parse->values)->operands.items);
    for (size_t row = 0; row < count_rows(parse); row++)
        if (find_row(parse, row)->kind == CLI_LIST)
            free(
                ((struct cli_list *)(void *)(parse->values + find_row(parse, row)->offset))->items);
}

static bool run_command(const struct cli_tool *tool, const struct cli_command *command, int argc,
                        char **argv, struct err *err) {
    struct parse parse = {.tool = tool, .command = command, .err = err};
    parse.values = allocate(1, command->values_bytes);
    allocate_lists(&parse, argc);
    bool good = parse_words(&parse, argc, argv);
    if (good) {
        if (((struct cli_common *)parse.values)->quiet)
            log_set_level(LOG_ERROR);
        good = command->run(parse.values, err);
    }
    free_lists(&parse);
    free(parse.values);
    return good;
}

static const struct cli_command *find_command(const struct cli_tool *tool, const char *word,
                                              struct err *err) {
    const char *names[MAX_WORDS];
    const size_t n = MIN(tool->n_commands, (size_t)MAX_WORDS);
    for (size_t i = 0; i < n; i++) {
        names[i] = tool->commands[i]->name;
        if (strcmp(names[i], word) == 0)
            return tool->commands[i];
    }
    err_set(err, ERR_USAGE, "unknown command \"%s\"", word);
    const char *near = diag_did_you_mean(word, names, n);
    if (near != NULL)
        err_hint(err, "did you mean %s %s?", tool->name, near);
    return NULL;
}

/* Prints an error and turns it into the exit status. */
static int report(const struct cli_tool *tool, const struct cli_command *command, struct err *err) {
    fprintf(stderr, "%s: error: %s\n", tool->name, err->text);
    if (err->code == ERR_USAGE && err->hint[0] == '\0')
        err_hint(err, "%s%s%s --help lists what there is", tool->name,
                 command != NULL && command->name != NULL ? " " : "",
                 command != NULL && command->name != NULL ? command->name : "");
    if (err->hint[0] != '\0')
        fprintf(stderr, "  hint: %s\n", err->hint);
    const int status = err->code != ERR_NONE ? (int)err->code : ERR_INPUT;
    if (err->device_hangs) { /* what drivers do at the end of a process may wait for the device */
        fflush(NULL);
        _Exit(status);
    }
    return status;
}

/* Results that did not reach their file are no success. */
static bool flush_results(struct err *err) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    return err_set(err, ERR_IO, "standard output: cannot write: %s", strerror(errno));
}

int cli_main(const struct cli_tool *tool, int argc, char **argv) {
    struct err err = {0};
    const struct cli_command *command = NULL;
    const bool has_commands = tool->commands[0]->name != NULL;
    const bool wants_help = has_word(argc, argv, "--help", "-h");
    bool good = true;
    signal(SIGXFSZ, SIG_IGN); /* a file beyond the limit: the write fails and is told */
    if (!has_commands) {
        command = tool->commands[0];
    } else if (argc > 1 && argv[1][0] != '-') {
        command = find_command(tool, argv[1], &err);
        good = command != NULL;
        argv++;
        argc--;
    }
    if (good && wants_help)
        cli_print_help(tool, command, stdout);
    else if (good && has_word(argc, argv, "--version", NULL))
        printf("%s %s\n", tool->name, UNET_VERSION);
    else if (good && command == NULL)
        good = argc > 1 ? err_set(&err, ERR_USAGE, "%s stands before the command", argv[1]) ||
                              err_hint(&err, "write the command first: %s COMMAND %s", tool->name,
                                       argv[1])
                        : err_set(&err, ERR_USAGE, "no command given");
    else if (good)
        good = run_command(tool, command, argc, argv, &err);
    good = good && flush_results(&err);
    return good ? ERR_NONE : report(tool, command, &err);
}
