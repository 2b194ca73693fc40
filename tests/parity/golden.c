/*
 * golden.c: see golden.h.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parity/golden.h"

void golden_open(struct golden *golden, const char *directory) {
    char path[1200];
    struct err err = {0};
    memset(golden, 0, sizeof(*golden));
    snprintf(golden->directory, sizeof(golden->directory), "%s", directory);
    snprintf(path, sizeof(path), "%s/unet-small.safetensors", directory);
    if (!safetensors_load(path, &golden->file, &err)) {
        fail_msg("%s", err.text);
    }
}

void golden_close(struct golden *golden) {
    safetensors_free(&golden->file);
}

const struct safetensors_entry *golden_find(const struct golden *golden, const char *prefix,
                                            const char *name) {
    char full[300];
    snprintf(full, sizeof(full), "%s%s%s", prefix, name ? "/" : "", name ? name : "");
    const struct safetensors_entry *entry = safetensors_find(&golden->file, full);
    if (!entry) {
        fail_msg("the golden file has no tensor %s", full);
    }
    return entry;
}

const float *golden_floats(const struct golden *golden, const char *prefix, const char *name,
                           size_t count) {
    const struct safetensors_entry *entry = golden_find(golden, prefix, name);
    if (entry->type != SAFETENSORS_F32 || entry->size_bytes != count * sizeof(float)) {
        fail_msg("golden tensor %s has %zu bytes, expected %zu floats", entry->name,
                 entry->size_bytes, count);
    }
    return entry->data;
}

float golden_number(const struct golden *golden, const char *name) {
    return golden_floats(golden, name, NULL, 1)[0];
}

double golden_error(const float *a, const float *b, size_t count) {
    double difference = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!isfinite(d)) {
            return INFINITY;
        }
        difference = fmax(difference, d);
        largest = fmax(largest, fabs((double)b[i]));
    }
    if (largest == 0) {
        return difference == 0 ? 0 : INFINITY;
    }
    return difference / largest;
}

void golden_compare(const char *what, const char *name, const float *a, const float *b,
                    size_t count, double tolerance, double *worst) {
    double error = golden_error(a, b, count);
    if (!(error <= tolerance)) {
        fail_msg("%s%s%s: relative error %g, allowed %g", what, name[0] ? " of " : "", name, error,
                 tolerance);
    }
    if (worst && error > *worst) {
        *worst = error;
    }
}
