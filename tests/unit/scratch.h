/*
 * scratch.h: a folder for the files of a test, gone when the test ends.
 */
#ifndef UNET_TESTS_SCRATCH_H
#define UNET_TESTS_SCRATCH_H

#include <dirent.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_root[512];

static inline int scratch_open(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(scratch_root, sizeof scratch_root, "%s/unet-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(scratch_root) ? 0 : -1;
}

static inline void scratch_remove(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) {
        unlink(path);
        return;
    }
    for (struct dirent *item; (item = readdir(directory)) != NULL;) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        size_t size_bytes = strlen(path) + strlen(item->d_name) + 2;
        char *inner = malloc(size_bytes);
        snprintf(inner, size_bytes, "%s/%s", path, item->d_name);
        scratch_remove(inner);
        free(inner);
    }
    closedir(directory);
    rmdir(path);
}

static inline int scratch_close(void **state) {
    (void)state;
    scratch_remove(scratch_root);
    return 0;
}

/* The path of a name inside the folder; good until the eighth call after. */
__attribute__((format(printf, 1, 2))) static inline const char *scratch_path(const char *format,
                                                                             ...) {
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8], name[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    snprintf(path, sizeof paths[0], "%s/%s", scratch_root, name);
    return path;
}

#endif
