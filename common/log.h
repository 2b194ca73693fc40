/*
 * log.h: messages for people on stderr, with a level set once by the tools (--quiet).
 */
#ifndef UNET_LOG_H
#define UNET_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO };

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* One line; the newline is added. Errors and warnings start with "error: " and "warning: ". */
void log_print(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says whether a line without its newline is on the terminal: messages then start below it. */
void log_open_line(bool open);
void log_end_line(void); /* the newline, if one is missing */

#endif
