/*
 * cachedir.c: see cachedir.h. The variables are those of the XDG base directory specification.
 */
#include "runtime/cachedir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"

char *cachedir_path(const char *switch_variable, const char *file_name) {
    const char *mode = getenv(switch_variable);
    if (mode != NULL && strcmp(mode, "off") == 0)
        return NULL;
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const bool use_cache = cache != NULL && cache[0] == '/';
    if (!use_cache && (home == NULL || home[0] == '\0'))
        return NULL;
    const char *root = use_cache ? cache : home;
    const size_t size = strlen(root) + strlen(file_name) + sizeof("/.cache/unet/");
    char *path = malloc(size);
    if (path == NULL)
        return NULL;
    const int length = snprintf(path, size, "%s%s/unet", root, use_cache ? "" : "/.cache");
    struct err err;
    if (!file_make_directories(path, &err)) {
        free(path);
        return NULL;
    }
    snprintf(path + length, size - (size_t)length, "/%s", file_name);
    return path;
}
