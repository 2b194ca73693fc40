/*
 * cli_help.c: help from the option tables: a usage line, one line per option or command.
 */
#include "tools/cli_help.h"

#include <string.h>

#include "common/base.h"

#define HELP_COLUMN 28
#define LINE_COLUMNS 100

/* Prints words, breaking lines before LINE_COLUMNS; later lines start at indent. */
static void print_wrapped(FILE *stream, size_t column, size_t indent, const char *text) {
    for (;;) {
        const size_t length = strcspn(text, " ");
        if (column > indent && column + 1 + length > LINE_COLUMNS) {
            fprintf(stream, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', stream);
            column++;
        }
        fprintf(stream, "%.*s", (int)length, text);
        column += length;
        if (text[length] == '\0')
            break;
        text += length + 1;
    }
    fputc('\n', stream);
}

static void print_row(FILE *stream, const char *left, const char *help) {
    size_t column = 2 + strlen(left);
    fprintf(stream, "  %s", left);
    if (column + 2 > HELP_COLUMN) {
        fputc('\n', stream);
        column = 0;
    }
    fprintf(stream, "%*s", (int)(HELP_COLUMN - column), "");
    print_wrapped(stream, HELP_COLUMN, HELP_COLUMN, help);
}

static void print_option(FILE *stream, const struct cli_option *option) {
    char left[128], help[512];
    const char short_form[] = {'-', option->short_name, ',', ' ', '\0'};
    snprintf(left, sizeof(left), "%s--%s%s%s%s", option->short_name != 0 ? short_form : "",
             option->name,
             option->kind == CLI_WORD   ? "[="
             : option->argument != NULL ? " "
                                        : "",
             option->argument != NULL ? option->argument : "", option->kind == CLI_WORD ? "]" : "");
    snprintf(help, sizeof(help), "%s%s%s%s%s", option->help,
             option->kind == CLI_LIST ? "; may be repeated" : "",
             option->fallback != NULL ? " (default " : "",
             option->fallback != NULL ? option->fallback : "", option->fallback != NULL ? ")" : "");
    print_row(stream, left, help);
}

static void print_usage(FILE *stream, const struct cli_tool *tool,
                        const struct cli_command *command) {
    char text[1024];
    size_t used = 0;
#define APPEND(...)                                                                                \
    used += (size_t)snprintf(text + MIN(used, sizeof(text) - 1),                                   \
                             sizeof(text) - MIN(used, sizeof(text) - 1), __VA_ARGS__)
    APPEND("usage: %s", tool->name);
    if (command->name != NULL)
        APPEND(" %s", command->name);
    if (command->operands[0] != '\0')
        APPEND(" %s", command->operands);
    for (int required = 1; required >= 0; required--)
        for (size_t i = 0; i < command->n_options; i++) {
            const struct cli_option *option = &command->options[i];
            if (option->required != (required == 1))
                continue;
            const bool word = option->kind == CLI_WORD;
            APPEND(" %s--%s%s%s%s%s%s", option->required ? "" : "[", option->name,
                   word                       ? "[="
                   : option->argument != NULL ? "\x01"
                                              : "",
                   option->argument != NULL ? option->argument : "", word ? "]" : "",
                   option->required ? "" : "]", option->kind == CLI_LIST ? "..." : "");
        }
#undef APPEND
    /* An option and its value stay on one line: the blank between them is put in last. */
    size_t column = 0, indent = strlen("usage: ");
    const char *rest = text;
    while (*rest != '\0') {
        const size_t length = strcspn(rest, " ");
        if (column > 0 && column + 1 + length > LINE_COLUMNS) {
            fprintf(stream, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > 0) {
            fputc(' ', stream);
            column++;
        }
        for (size_t i = 0; i < length; i++)
            fputc(rest[i] == '\x01' ? ' ' : rest[i], stream);
        column += length;
        rest += length + (rest[length] == ' ');
    }
    fputc('\n', stream);
}

static void print_options(FILE *stream, const struct cli_option *options, size_t count) {
    for (size_t i = 0; i < count; i++)
        print_option(stream, &options[i]);
}

static void print_command_help(const struct cli_tool *tool, const struct cli_command *command,
                               FILE *stream) {
    print_usage(stream, tool, command);
    fputc('\n', stream);
    print_wrapped(stream, 0, 0, command->summary);
    fputs("\nOptions\n", stream);
    print_options(stream, command->options, command->n_options);
    print_options(stream, tool->common, tool->n_common);
    if (command->details != NULL)
        fprintf(stream, "\n%s\n", command->details);
}

void cli_print_help(const struct cli_tool *tool, const struct cli_command *command, FILE *stream) {
    if (command != NULL) {
        print_command_help(tool, command, stream);
        return;
    }
    fprintf(stream, "usage: %s COMMAND [OPTION]... [ARGUMENT]...\n\n", tool->name);
    print_wrapped(stream, 0, 0, tool->summary);
    fputs("\nCommands\n", stream);
    for (size_t i = 0; i < tool->n_commands; i++)
        print_row(stream, tool->commands[i]->name, tool->commands[i]->summary);
    fputs("\nOptions of every command\n", stream);
    print_options(stream, tool->common, tool->n_common);
    fprintf(stream, "\n%s COMMAND --help tells more about one.\n", tool->name);
}
