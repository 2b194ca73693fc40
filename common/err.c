/*
 * err.c: filling in struct err. Texts that do not fit are cut at the end, never overflowed. A text
 * is one line even when a name from a file holds line ends: control characters become '?'.
 */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void make_one_line(char *text) {
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
    }
}

bool err_set(struct err *err, enum err_code code, const char *format, ...) {
    if (err == NULL)
        return false;
    /* Formatted aside first: the arguments may point into the old text. */
    char text[sizeof(err->text)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    make_one_line(text);
    memcpy(err->text, text, sizeof(text));
    err->code = code;
    err->hint[0] = '\0';
    err->device_lost = err->device_hangs = false;
    return false;
}

bool err_hint(struct err *err, const char *format, ...) {
    if (err == NULL)
        return false;
    char hint[sizeof(err->hint)];
    va_list args;
    va_start(args, format);
    vsnprintf(hint, sizeof(hint), format, args);
    va_end(args);
    make_one_line(hint);
    memcpy(err->hint, hint, sizeof(hint));
    return false;
}

bool err_prefix(struct err *err, const char *format, ...) {
    if (err == NULL)
        return false;
    char prefix[sizeof(err->text)];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof(prefix), format, args);
    va_end(args);
    make_one_line(prefix);
    const size_t room = sizeof(err->text) - 1;
    size_t prefix_bytes = strlen(prefix), text_bytes = strlen(err->text);
    if (prefix_bytes > room - 2)
        prefix_bytes = room - 2;
    if (text_bytes > room - 2 - prefix_bytes)
        text_bytes = room - 2 - prefix_bytes;
    memmove(err->text + prefix_bytes + 2, err->text, text_bytes);
    memcpy(err->text, prefix, prefix_bytes);
    memcpy(err->text + prefix_bytes, ": ", 2);
    err->text[prefix_bytes + 2 + text_bytes] = '\0';
    return false;
}
