/*
 * fuzz_models.c: random damage to model files. The reader must come back, with a model or with
 * mistakes that print; nothing else is asked. Built with sanitizers it finds the rest.
 *
 *   fuzz_models [COUNT [SEED [FILE...]]]      2000 mutants, seed 1, the shipped models
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/file.h"
#include "common/rng.h"
#include "compiler/model.h"

#define SECONDS_MAX 5.0 /* for one text, with sanitizers on a busy machine */
#define TEXT_MAX 32768
#define MUTATIONS_MAX 3

/* Pieces that mean something to the reader. */
static const char *const words[] = {
    "${",    "}",      "${width}", "*",    "-", ": ",   "\n",       "- ",     "{",        "[",
    "]",     "0",      "1e300",    "\"",   "'", "relu", "repeat",   "concat", "  ",       "\t",
    "&a",    "*a",     "!!",       "---",  "%", "#",    "99999999", "-1",     "${1/0}",   "enc1",
    "times", "layers", "name",     "from", ",", "\xc3", "${((",     "**",     "upconv: ", "\x01"};

static void replace(char *text, size_t at, size_t removed, const char *piece, size_t length) {
    const size_t size = strlen(text);
    if (at + removed > size || size - removed + length + 1 > TEXT_MAX)
        return;
    memmove(text + at + length, text + at + removed, size - at - removed + 1);
    memcpy(text + at, piece, length);
}

/* Start of a random line; its length with the newline in *length. */
static size_t random_line(const char *text, struct rng *rng, size_t *length) {
    size_t at = rng_below(rng, (uint32_t)strlen(text) + 1);
    while (at > 0 && text[at - 1] != '\n')
        at--;
    *length = strcspn(text + at, "\n");
    *length += text[at + *length] == '\n';
    return at;
}

static void mutate(char *text, struct rng *rng) {
    char line[512];
    size_t length;
    const size_t size = strlen(text), at = rng_below(rng, (uint32_t)size + 1);
    const char *word = words[rng_below(rng, ARRAY_LEN(words))];
    const char byte = (char)(1 + rng_below(rng, 255));
    switch (rng_below(rng, 7)) {
    case 0: /* remove a few bytes */
        replace(text, at, rng_below(rng, 8), "", 0);
        break;
    case 1:
        replace(text, at, rng_below(rng, 2), &byte, 1);
        break;
    case 2:
        replace(text, at, rng_below(rng, 6), word, strlen(word));
        break;
    case 3: { /* remove a line */
        const size_t from = random_line(text, rng, &length);
        replace(text, from, length, "", 0);
        break;
    }
    case 4: /* a line somewhere else again */
    case 5: {
        const size_t from = random_line(text, rng, &length);
        length = MIN(length, sizeof(line));
        memcpy(line, text + from, length);
        size_t unused;
        replace(text, random_line(text, rng, &unused), 0, line, length);
        break;
    }
    default: /* more or less indentation */
        replace(text, random_line(text, rng, &length), 0, "    ", 1 + rng_below(rng, 4));
        break;
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Reads one text and, when it is a model, builds its graphs. */
static bool try_text(const char *text, FILE *sink) {
    struct model *model = NULL;
    struct diag diag;
    diag_init(&diag, "mutant.yaml", text);
    const bool ok =
        model_parse("mutant.yaml", text, NULL, 0, &model, &diag) && model_check_sizes(model, &diag);
    for (int program = 0; ok && program < 3; program++) {
        struct graph graph;
        struct err err = {0};
        graph_init(&graph, &model->arena, "program");
        if (!build_graph(model, (enum model_program)program, &graph, &err)) {
            fprintf(stderr, "sizes were accepted, building failed: %s\n%s\n", err.text, text);
            exit(1);
        }
        graph_free(&graph);
    }
    if (ok != (diag.count == 0)) {
        fprintf(stderr, "%zu mistakes, and the model was %s\n%s\n", diag.count,
                ok ? "accepted" : "rejected", text);
        exit(1);
    }
    diag_print(&diag, sink);
    diag_free(&diag);
    model_free(model);
    return ok;
}

static const char *const shipped[] = {"unet", "unet-2015-release", "fcn8", "sliding-window",
                                      "demo"};

/* Text number i: a file of the command line, or a shipped model. */
static bool read_original(char *const *files, int n_files, int i, char *text) {
    char path[1024];
    const char *root = getenv("UNET_TEST_ROOT"); /* of the project; tests start there without it */
    uint8_t *data;
    size_t size;
    struct err err = {0};
    if (n_files > 0)
        snprintf(path, sizeof(path), "%s", files[i % n_files]);
    else
        snprintf(path, sizeof(path), "%s/models/%s.yaml", root != NULL ? root : ".",
                 shipped[(size_t)i % ARRAY_LEN(shipped)]);
    if (!file_read(path, &data, &size, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    snprintf(text, TEXT_MAX, "%s", (const char *)data);
    free(data);
    return true;
}

int main(int argc, char **argv) {
    const int count = argc > 1 ? atoi(argv[1]) : 2000;
    struct rng rng = rng_stream(argc > 2 ? strtoull(argv[2], NULL, 10) : 1, 0, 0);
    static char text[TEXT_MAX];
    FILE *sink = fopen("/dev/null", "w");
    int accepted = 0;
    if (sink == NULL || count < 1)
        return 2;
    for (int i = 0; i < count; i++) {
        if (!read_original(argv + 3, MAX(0, argc - 3), i, text))
            return 4;
        for (uint32_t n = 1 + rng_below(&rng, MUTATIONS_MAX); n > 0; n--)
            mutate(text, &rng);
        const double start = seconds();
        accepted += try_text(text, sink);
        if (seconds() - start > SECONDS_MAX) {
            fprintf(stderr, "mutant %d took %.1f s\n%s\n", i, seconds() - start, text);
            return 1;
        }
    }
    fclose(sink);
    fprintf(stderr, "%d mutants read, %d of them still models\n", count, accepted);
    return 0;
}
