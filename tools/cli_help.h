/*
 * cli_help.h: the help text of a tool or of one of its commands, made from the tables of cli.h.
 */
#ifndef UNET_CLI_HELP_H
#define UNET_CLI_HELP_H

#include <stdio.h>

#include "tools/cli.h"

/* command NULL: of the tool, with the list of its commands. */
void cli_print_help(const struct cli_tool *tool, const struct cli_command *command, FILE *stream);

#endif
