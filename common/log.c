/*
 * log.c: one message, one line, one write to stderr, so that lines of several threads do not mix.
 */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum log_level log_level = LOG_INFO;
static bool has_open_line;

void log_set_level(enum log_level level) {
    log_level = level;
}

bool log_enabled(enum log_level level) {
    return level <= log_level;
}

void log_open_line(bool open) {
    has_open_line = open;
}

void log_end_line(void) {
    if (has_open_line)
        fputc('\n', stderr);
    has_open_line = false;
}

void log_print(enum log_level level, const char *format, ...) {
    static const char *const prefixes[] = {
        [LOG_ERROR] = "error: ", [LOG_WARNING] = "warning: ", [LOG_INFO] = ""};
    if (!log_enabled(level))
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_end_line();
    fprintf(stderr, "%s%s\n", prefixes[level], text);
}
