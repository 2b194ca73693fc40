/*
 * test_model_errors.c: every broken model of tests/errors/models gives exactly the messages of the
 * text file beside it. Lines "# set: NAME=VALUE" at the top of a model stand for --set.
 *
 *   test_model_errors            compares
 *   test_model_errors --update   writes the text files anew (read the differences before use)
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/model.h"

#define OVERRIDES_MAX 8
#define CASES_MIN 40 /* fewer mean that the folder was not found whole */

static const char *folder;

static char *path_of(const char *name, const char *ending) {
    const size_t size = strlen(folder) + strlen(name) + strlen(ending) + 2;
    char *path = malloc(size);
    assert_non_null(path);
    snprintf(path, size, "%s/%s%s", folder, name, ending);
    return path;
}

static char *read_text(const char *path) {
    uint8_t *data;
    size_t size;
    struct err err = {0};
    if (!file_read(path, &data, &size, &err))
        fail_msg("%s", err.text);
    return (char *)data;
}

/* The overrides named in the first lines; the texts stay in *copy. */
static size_t read_overrides(char *copy, struct model_override *overrides) {
    size_t count = 0;
    for (char *line = strtok(copy, "\n"); line != NULL && strncmp(line, "# set: ", 7) == 0;
         line = strtok(NULL, "\n")) {
        char *equals = strchr(line, '=');
        assert_non_null(equals);
        assert_true(count < OVERRIDES_MAX);
        *equals = '\0';
        overrides[count++] = (struct model_override){line + 7, equals + 1};
    }
    return count;
}

/* What a user sees for this model. */
static char *messages(const char *name) {
    char *path = path_of(name, ".yaml"), *text = read_text(path), *copy = strdup(text);
    char *shown = NULL;
    size_t shown_size = 0;
    char file[256];
    struct model_override overrides[OVERRIDES_MAX];
    struct model *model = NULL;
    struct diag diag;
    snprintf(file, sizeof(file), "%s.yaml", name);
    diag_init(&diag, file, text);
    const size_t n = read_overrides(copy, overrides);
    const bool ok =
        model_parse(file, text, overrides, n, &model, &diag) && model_check_sizes(model, &diag);
    FILE *stream = open_memstream(&shown, &shown_size);
    assert_non_null(stream);
    diag_print(&diag, stream);
    fclose(stream);
    assert_false(ok);
    assert_true(diag.count > 0);
    diag_free(&diag);
    model_free(model);
    free(copy);
    free(text);
    free(path);
    return shown;
}

static void compare(void **state) {
    const char *name = *state;
    char *path = path_of(name, ".txt"), *expected = read_text(path), *shown = messages(name);
    if (strcmp(shown, expected) != 0)
        fail_msg("%s: expected\n%s\nbut was\n%s", name, expected, shown);
    free(shown);
    free(expected);
    free(path);
}

static void update(void **state) {
    const char *name = *state;
    char *path = path_of(name, ".txt"), *shown = messages(name);
    struct err err = {0};
    if (!file_write(path, shown, strlen(shown), &err))
        fail_msg("%s", err.text);
    free(shown);
    free(path);
}

static int model_name(const struct dirent *entry) {
    const char *ending = strrchr(entry->d_name, '.');
    return ending != NULL && strcmp(ending, ".yaml") == 0;
}

int main(int argc, char **argv) {
    struct dirent **entries;
    const bool updating = argc == 2 && strcmp(argv[1], "--update") == 0;
    const char *root = getenv("UNET_TEST_ROOT"); /* of the project; tests start there without it */
    static char models[1024];
    if (argc > 1 && !updating) {
        fprintf(stderr, "usage: %s [--update]\n", argv[0]);
        return 2;
    }
    snprintf(models, sizeof(models), "%s/tests/errors/models", root != NULL ? root : ".");
    folder = models;
    const int count = scandir(folder, &entries, model_name, alphasort);
    if (count < CASES_MIN) {
        fprintf(stderr, "%s: %d models found, at least %d expected\n", folder, count, CASES_MIN);
        return 1;
    }
    struct CMUnitTest *tests = calloc((size_t)count, sizeof(*tests));
    for (int i = 0; tests != NULL && i < count; i++) {
        *strrchr(entries[i]->d_name, '.') = '\0';
        tests[i].name = entries[i]->d_name;
        tests[i].test_func = updating ? update : compare;
        tests[i].initial_state = entries[i]->d_name;
    }
    const int failed = _cmocka_run_group_tests("model errors", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    free(tests);
    return failed;
}
