/*
 * test_common.c: the small parts that both tools stand on: errors, diagnostics, memory, files,
 * random numbers, checkpoints.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "common/vec.h"

/* --- a directory of one test --- */

static char directory[64];

static int enter_directory(void **state) {
    (void)state;
    strcpy(directory, "/tmp/unet-common-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static const char *in_directory(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
    return path;
}

/* Names in the directory; removes them all. */
static int count_and_remove(const char *path) {
    int count = 0;
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        char inner[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (unlink(inner) != 0) {
            count_and_remove(inner);
            rmdir(inner);
        }
        count++;
    }
    if (stream != NULL)
        closedir(stream);
    return count;
}

static int leave_directory(void **state) {
    (void)state;
    count_and_remove(directory);
    return rmdir(directory);
}

/* --- err --- */

static void test_err(void **state) {
    (void)state;
    struct err err = {0};
    assert_false(err_set(&err, ERR_INPUT, "width %d is odd", 57));
    assert_int_equal(err.code, ERR_INPUT);
    assert_string_equal(err.text, "width 57 is odd");
    assert_string_equal(err.hint, "");
    assert_false(err_hint(&err, "try %d", 58));
    assert_string_equal(err.hint, "try 58");
    assert_false(err_prefix(&err, "tensor %s", "up3"));
    assert_string_equal(err.text, "tensor up3: width 57 is odd");
    /* The old text may be an argument of the new one. */
    err_set(&err, ERR_IO, "again: %s", err.text);
    assert_string_equal(err.text, "again: tensor up3: width 57 is odd");
    assert_string_equal(err.hint, "");
    err_set(&err, ERR_IO, "a\nb\tc");
    assert_string_equal(err.text, "a?b?c");
    assert_false(err_set(NULL, ERR_IO, "nobody listens"));
    assert_false(err_hint(NULL, "nobody listens"));
    assert_false(err_prefix(NULL, "nobody listens"));
}

static void test_err_too_long(void **state) {
    (void)state;
    struct err err = {0};
    char *text = malloc(5000);
    memset(text, 'x', 4999);
    text[4999] = '\0';
    err_set(&err, ERR_INPUT, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_prefix(&err, "short");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "short: xxx", 10);
    err_prefix(&err, "%s", text);
    assert_true(strlen(err.text) <= sizeof(err.text) - 1);
    err_hint(&err, "%s", text);
    assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
    free(text);
}

/* --- arena, vec --- */

static void test_arena(void **state) {
    (void)state;
    struct arena arena = {0};
    char *blocks[200];
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        const size_t size_bytes = i % 50 == 49 ? 300000 : i * 7;
        blocks[i] = arena_alloc(&arena, size_bytes);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        for (size_t b = 0; b < size_bytes; b++)
            assert_int_equal(blocks[i][b], 0);
        memset(blocks[i], (int)i, size_bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        for (size_t b = 0; b < (i % 50 == 49 ? 300000 : i * 7); b++)
            assert_int_equal((uint8_t)blocks[i][b], i);
    }
    assert_string_equal(arena_strdup(&arena, "name"), "name");
    assert_string_equal(arena_printf(&arena, "%s/%d", "enc", 12), "enc/12");
    arena_free(&arena);
    assert_null(arena.chunks);
    arena_free(&arena);
}

static void test_vec(void **state) {
    (void)state;
    VEC(int) numbers = {0};
    for (int i = 0; i < 1000; i++)
        vec_push(&numbers, i * i);
    assert_int_equal(numbers.count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(numbers.items[i], i * i);
    vec_free(&numbers);
    assert_null(numbers.items);
    assert_int_equal(numbers.count, 0);
}

/* --- diag --- */

static char *printed(const struct diag *diag) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    diag_print(diag, stream);
    fclose(stream);
    return text;
}

static void assert_printed(const struct diag *diag, const char *expected) {
    char *text = printed(diag);
    assert_string_equal(text, expected);
    free(text);
}

static void test_diag_golden(void **state) {
    (void)state;
    struct diag diag;
    diag_init(&diag, "net.yaml",
              "model: unet\n\tconv:\t3\r\n  gr\xc3\xb6\t\xc3\x9f"
              "e: 5\nlast");
    diag_error(&diag, (struct diag_pos){4, 5}, "the file ends");
    diag_error(&diag, (struct diag_pos){2, 8}, "kernel %d is odd", 3);
    diag_hint(&diag, "did you mean %s?", "2");
    diag_error(&diag, (struct diag_pos){3, 8}, "too large");
    diag_error(&diag, (struct diag_pos){2, 2}, "unknown key");
    diag_error(&diag, (struct diag_pos){0, 0}, "no output");
    diag_error(&diag, (struct diag_pos){9, 1}, "past the end");
    assert_printed(&diag, "net.yaml: no output\n"
                          "net.yaml:2:2: unknown key\n"
                          "    2 | \tconv:\t3\n"
                          "      | \t^\n"
                          "net.yaml:2:8: kernel 3 is odd\n"
                          "    2 | \tconv:\t3\n"
                          "      | \t     \t^\n"
                          "hint: did you mean 2?\n"
                          "net.yaml:3:8: too large\n"
                          "    3 |   gr\xc3\xb6\t\xc3\x9f"
                          "e: 5\n"
                          "      |      \t ^\n"
                          "net.yaml:4:5: the file ends\n"
                          "    4 | last\n"
                          "      |     ^\n"
                          "net.yaml:9:1: past the end\n"
                          "6 mistakes\n");
    diag_free(&diag);
    diag_init(&diag, "net.yaml", NULL);
    assert_printed(&diag, "");
    diag_hint(&diag, "to nothing");
    diag_error(&diag, (struct diag_pos){3, 1}, "one");
    assert_printed(&diag, "net.yaml:3:1: one\n");
    diag_free(&diag);
}

static void test_diag_many(void **state) {
    (void)state;
    struct diag diag;
    diag_init(&diag, "net.yaml", NULL);
    for (int i = 25; i > 0; i--) {
        diag_error(&diag, (struct diag_pos){i, 1}, "mistake %d", i);
        diag_hint(&diag, "hint %d", i);
    }
    assert_int_equal(diag.count, 25);
    char *text = printed(&diag), *at = text;
    for (int i = 6; i <= 25; i++) { /* the first 20 reported, in order of position */
        char line[128];
        snprintf(line, sizeof(line), "net.yaml:%d:1: mistake %d\nhint: hint %d\n", i, i, i);
        assert_memory_equal(at, line, strlen(line));
        at += strlen(line);
    }
    assert_string_equal(at, "25 mistakes, the first 20 found are shown\n");
    free(text);
    diag_free(&diag);
}

static void test_did_you_mean(void **state) {
    (void)state;
    static const char *const keys[] = {"kernel", "padding", "dilation", "act", "dropout", "n"};
    static const char *const cases[][2] = {
        {"kernal", "kernel"},  {"kernle", "kernel"}, {"Kernel", "kernel"},
        {"paddin", "padding"}, {"dilat", NULL},      {"dilatoin", "dilation"},
        {"ac", "act"},         {"atc", "act"},       {"xyz", NULL},
        {"m", NULL},           {"", NULL},           {"drop_out", "dropout"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *found = diag_did_you_mean(cases[i][0], keys, ARRAY_LEN(keys));
        if (cases[i][1] == NULL) {
            if (found != NULL)
                fail_msg("%s: %s", cases[i][0], found);
            continue;
        }
        if (found == NULL || strcmp(found, cases[i][1]) != 0)
            fail_msg("%s: %s, expected %s", cases[i][0], found != NULL ? found : "nothing",
                     cases[i][1]);
    }
    char longer[300];
    memset(longer, 'k', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_null(diag_did_you_mean(longer, keys, ARRAY_LEN(keys)));
}

/* --- log --- */

static void test_log(void **state) {
    (void)state;
    const char *path = in_directory("log");
    const int kept = dup(2);
    assert_non_null(freopen(path, "w", stderr));
    log_print(LOG_INFO, "step %d", 1);
    log_print(LOG_WARNING, "slow");
    log_set_level(LOG_ERROR);
    log_print(LOG_INFO, "hidden");
    log_print(LOG_WARNING, "hidden");
    log_print(LOG_ERROR, "lost");
    assert_false(log_enabled(LOG_INFO));
    log_set_level(LOG_INFO);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    uint8_t *data;
    size_t size_bytes;
    assert_true(file_read(path, &data, &size_bytes, NULL));
    assert_string_equal((char *)data, "step 1\nwarning: slow\nerror: lost\n");
    free(data);
}

/* --- file --- */

static void assert_content(const char *path, const char *expected) {
    uint8_t *data;
    size_t size_bytes;
    struct err err = {0};
    assert_true(file_read(path, &data, &size_bytes, &err));
    assert_int_equal(size_bytes, strlen(expected));
    assert_string_equal((char *)data, expected); /* one zero byte follows */
    free(data);
}

static void test_file(void **state) {
    (void)state;
    struct err err = {0};
    const char *path = in_directory("out.bin");
    assert_false(file_exists(path));
    assert_true(file_write(path, "first", 5, &err));
    assert_content(path, "first");
    assert_int_equal(chmod(path, 0640), 0);
    assert_true(file_write(path, "second", 6, &err));
    assert_content(path, "second");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_true(file_write(path, NULL, 0, &err));
    assert_content(path, "");
    assert_true(file_exists(path));
    assert_false(file_is_directory(path));
    assert_true(file_is_directory(directory));
    assert_int_equal(count_and_remove(directory), 1); /* no temporary file is left */

    char *large = malloc(1 << 20);
    memset(large, 'q', (1 << 20) - 1);
    large[(1 << 20) - 1] = '\0';
    assert_true(file_write(path, large, (1 << 20) - 1, &err));
    assert_content(path, large);
    free(large);
}

static void test_file_atomic(void **state) {
    (void)state;
    struct err err = {0};
    struct file_writer writer;
    const char *path = in_directory("out.csv");
    assert_true(file_write(path, "old", 3, &err));
    assert_true(file_writer_open(&writer, path, &err));
    fputs("half of the n", writer.stream);
    fflush(writer.stream);
    assert_content(path, "old"); /* until the commit */
    file_writer_abandon(&writer);
    file_writer_abandon(&writer);
    assert_content(path, "old");
    assert_true(file_writer_open(&writer, path, &err));
    fputs("new", writer.stream);
    assert_true(file_writer_commit(&writer, &err));
    assert_content(path, "new");
    file_writer_abandon(&writer); /* a closed writer: nothing happens */
    assert_content(path, "new");

    /* A link stays a link; the file it names is replaced. */
    const char *link_path = in_directory("link");
    assert_int_equal(symlink("out.csv", link_path), 0);
    assert_true(file_write(link_path, "through", 7, &err));
    assert_content(path, "through");
    struct stat info;
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(count_and_remove(directory), 2);
}

static void test_file_failures(void **state) {
    (void)state;
    struct err err = {0};
    uint8_t *data = (uint8_t *)1;
    size_t size_bytes = 1;
    assert_false(file_read(in_directory("none"), &data, &size_bytes, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "none: cannot open: No such file or directory"));
    assert_null(data);
    assert_false(file_read(directory, &data, &size_bytes, &err));
    assert_non_null(strstr(err.text, "is a directory"));

    assert_false(file_write(in_directory("no/such/place"), "x", 1, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "no/such/place: cannot create"));
    assert_string_equal(err.hint, "create the directory first, or choose another place");
    assert_false(file_write(directory, "x", 1, &err));
    assert_non_null(strstr(err.text, "it is a directory"));
    assert_int_equal(count_and_remove(directory), 0);
    /* A disk that is full. */
    assert_false(file_write("/dev/full", "x", 1, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "No space left on device"));
    assert_true(file_exists("/dev/full"));

    /* What has no end. */
    assert_false(file_read("/dev/zero", &data, &size_bytes, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.text, "/dev/zero: cannot read: File too large");

    /* A file that becomes larger than allowed before it is committed. */
    struct file_writer writer;
    struct rlimit old, limit;
    void (*const handler)(int) = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
    assert_true(file_writer_open(&writer, in_directory("large"), &err));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 100000; i++)
        fputs("content", writer.stream);
    const bool is_written = file_writer_commit(&writer, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_false(is_written);
    assert_non_null(strstr(err.text, "large: cannot write: File too large"));
    assert_int_equal(count_and_remove(directory), 0);

    /* The target becomes a directory while the file is written: the rename fails. */
    const char *path = in_directory("target");
    assert_true(file_writer_open(&writer, path, &err));
    fputs("content", writer.stream);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_false(file_writer_commit(&writer, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(count_and_remove(directory), 1); /* the directory only */
}

static void test_file_directories(void **state) {
    (void)state;
    struct err err = {0};
    assert_true(file_make_directories(in_directory("a//b/c/"), &err));
    assert_true(file_is_directory(in_directory("a/b/c")));
    assert_true(file_make_directories(in_directory("a/b"), &err));
    assert_true(file_make_directories("/", &err));
    assert_true(file_write(in_directory("a/file"), "x", 1, &err));
    assert_false(file_make_directories(in_directory("a/file/d"), &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "a/file: cannot make the directory: File exists"));
    assert_false(file_make_directories(in_directory("a/file"), &err));

    static const char *const stems[][2] = {{"dir/stem.png", "stem"}, {"stem", "stem"},
                                           {"a.b/c", "c"},           {"x.tar.gz", "x.tar"},
                                           {"d/.hidden", ".hidden"}, {"d/", ""}};
    for (size_t i = 0; i < ARRAY_LEN(stems); i++) {
        char *stem = file_stem(stems[i][0]);
        assert_string_equal(stem, stems[i][1]);
        free(stem);
    }
}

/* --- rng --- */

static void test_rng_vectors(void **state) {
    (void)state;
    /* Random123, kat_vectors, philox4x32 10 */
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint32_t *c = cases[i].counter;
        const uint64_t key = (uint64_t)cases[i].key[1] << 32 | cases[i].key[0];
        const struct rng_block block = rng_philox(key, c[0], c[1], c[2], c[3]);
        assert_memory_equal(block.word, cases[i].expected, sizeof(block.word));
    }
    /* A stream is the blocks at counters 0, 1, 2 ... */
    struct rng rng = rng_stream(42, 3, 9);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(rng_u32(&rng), rng_philox(42, i / 4, 0, 3, 9).word[i % 4]);
    rng.index = (uint64_t)4 << 32 | 1;
    assert_int_equal(rng_u32(&rng), rng_philox(42, 0, 1, 3, 9).word[1]);
    /* However it is drawn from, the words come in order. */
    struct rng other = rng_stream(42, 3, 9);
    rng_u32(&other);
    (void)rng_normal(&other);
    assert_int_equal(rng_u32(&other), rng_philox(42, 1, 0, 3, 9).word[1]);
}

#define DRAWS 200000

/* Mean and mean of squares of the draws, against their standard errors (five of them). */
static void assert_moments(double (*draw)(struct rng *), double mean, double square,
                           double deviation, double square_deviation) {
    struct rng rng = rng_stream(7, 1, 2);
    double sum = 0, squares = 0;
    for (int i = 0; i < DRAWS; i++) {
        const double value = draw(&rng);
        sum += value;
        squares += value * value;
    }
    assert_true(fabs(sum / DRAWS - mean) < 5 * deviation / sqrt(DRAWS));
    assert_true(fabs(squares / DRAWS - square) < 5 * square_deviation / sqrt(DRAWS));
}

static void test_rng_distributions(void **state) {
    (void)state;
    assert_moments(rng_uniform, 0.5, 1.0 / 3, sqrt(1.0 / 12), sqrt(4.0 / 45));
    assert_moments(rng_normal, 0, 1, 1, sqrt(2));
    struct rng rng = rng_stream(11, 0, 0);
    int beyond_two = 0, counts[7] = {0};
    for (int i = 0; i < DRAWS; i++) {
        const double uniform = rng_uniform(&rng), ranged = rng_range(&rng, -3, -2);
        assert_true(uniform >= 0 && uniform < 1);
        assert_true(ranged >= -3 && ranged < -2);
        beyond_two += fabs(rng_normal(&rng)) > 2;
        counts[rng_below(&rng, 7)]++;
    }
    assert_true(fabs(beyond_two - 0.0455 * DRAWS) < 5 * sqrt(0.0455 * DRAWS));
    for (int i = 0; i < 7; i++)
        assert_true(fabs(counts[i] - DRAWS / 7.0) < 5 * sqrt(DRAWS / 7.0));
    assert_int_equal(rng_below(&rng, 1), 0);
    assert_int_equal(rng_below(&rng, 0), 0);
    for (int i = 0; i < 100; i++)
        assert_true(rng_range(&rng, 1, nextafter(1, 2)) == 1); /* never the upper end */
    /* Without rejection, every third number below 3 * 2^30 would come twice as often. */
    int thirds = 0;
    for (int i = 0; i < DRAWS; i++)
        thirds += rng_below(&rng, 0xc0000000u) % 3 == 0;
    assert_true(fabs(thirds - DRAWS / 3.0) < 5 * sqrt(DRAWS / 4.0));
}

/* --- safetensors --- */

static void test_safetensors_round_trip(void **state) {
    (void)state;
    struct err err = {0};
    struct safetensors file = {0}, again;
    const float weights[6] = {1, 2, 3, 4, 5, -6.5f}, scalar = 0.25f;
    const int64_t steps[2] = {-1, (int64_t)1 << 40};
    const uint32_t labels[3] = {7, 8, 0xffffffffu};
    safetensors_add(&file, "enc/conv.weight", SAFETENSORS_F32, 2, (uint64_t[]){2, 3}, weights);
    safetensors_add(&file, "labels", SAFETENSORS_U32, 1, (uint64_t[]){3}, labels);
    safetensors_add(&file, "steps", SAFETENSORS_I64, 1, (uint64_t[]){2}, steps);
    safetensors_add(&file, "scalar", SAFETENSORS_F32, 0, NULL, &scalar);
    safetensors_add(&file, "empty", SAFETENSORS_F32, 2, (uint64_t[]){4, 0}, NULL);
    safetensors_add_metadata(&file, "step", "1200");
    safetensors_add_metadata(&file, "note", "\"quoted\" gr\xc3\xbc\xc3\x9f\x65\n");
    const char *path = in_directory("a.safetensors"), *path_two = in_directory("b.safetensors");
    assert_true(safetensors_save(&file, path, &err));
    assert_true(safetensors_save(&file, path_two, &err));
    uint8_t *one, *two;
    size_t one_bytes, two_bytes;
    assert_true(file_read(path, &one, &one_bytes, &err));
    assert_true(file_read(path_two, &two, &two_bytes, &err));
    assert_int_equal(one_bytes, two_bytes);
    assert_memory_equal(one, two, one_bytes);
    assert_int_equal((one[0] | one[1] << 8) % 8, 0);
    free(two);
    safetensors_free(&file);

    assert_true(safetensors_parse(one, one_bytes, &again, &err));
    assert_int_equal(again.n_entries, 5);
    const struct safetensors_entry *entry = safetensors_find(&again, "enc/conv.weight");
    assert_non_null(entry);
    assert_int_equal(entry->rank, 2);
    assert_int_equal(entry->dims[1], 3);
    assert_int_equal(entry->size_bytes, sizeof(weights));
    assert_memory_equal(entry->data, weights, sizeof(weights));
    assert_memory_equal(safetensors_find(&again, "steps")->data, steps, sizeof(steps));
    assert_int_equal((uintptr_t)safetensors_find(&again, "steps")->data % 8, 0);
    assert_memory_equal(safetensors_find(&again, "labels")->data, labels, sizeof(labels));
    assert_int_equal(safetensors_find(&again, "labels")->type, SAFETENSORS_U32);
    assert_int_equal(safetensors_find(&again, "scalar")->rank, 0);
    assert_int_equal(safetensors_find(&again, "empty")->size_bytes, 0);
    assert_null(safetensors_find(&again, "none"));
    assert_string_equal(safetensors_metadata(&again, "step"), "1200");
    assert_string_equal(safetensors_metadata(&again, "note"),
                        "\"quoted\" gr\xc3\xbc\xc3\x9f\x65\n");
    assert_null(safetensors_metadata(&again, "none"));
    safetensors_free(&again);

    assert_true(safetensors_load(path, &again, &err));
    safetensors_free(&again);
    assert_false(safetensors_load(in_directory("none"), &again, &err));
    assert_int_equal(err.code, ERR_IO);
}

static void test_safetensors_bad_names(void **state) {
    (void)state;
    struct err err = {0};
    struct safetensors file = {0};
    const float value = 1;
    const char *path = in_directory("bad.safetensors");
    safetensors_add(&file, "twice", SAFETENSORS_F32, 0, NULL, &value);
    safetensors_add(&file, "twice", SAFETENSORS_F32, 0, NULL, &value);
    assert_false(safetensors_save(&file, path, &err));
    assert_int_equal(err.code, ERR_INPUT);
    safetensors_free(&file);
    safetensors_add_metadata(&file, "key", "\xff\xfe");
    assert_false(safetensors_save(&file, path, &err));
    safetensors_free(&file);
    assert_int_equal(count_and_remove(directory), 0);
}

static uint8_t *file_of(const char *header, size_t data_bytes, size_t *size_out) {
    const size_t length = strlen(header);
    uint8_t *data = calloc(1, 8 + length + data_bytes + 1);
    data[0] = (uint8_t)length;
    data[1] = (uint8_t)(length >> 8);
    memcpy(data + 8, header, length);
    *size_out = 8 + length + data_bytes;
    return data;
}

#define ENTRY(name, type, shape, range)                                                            \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" range "}"

static void test_safetensors_broken(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *message;
    } cases[] = {
        {"{\"a\"", 0, "the header is not JSON"},
        {"{\"a\":{},\"a\":{}}", 0, "the header is not JSON: duplicate object key"},
        {"[1, 2]", 0, "the header is not a JSON object"},
        {"{\"a\":3}", 0, "tensor a is not an object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor a has no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "tensor a has no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor a has no data_offsets"},
        {"{" ENTRY("a", "F16", "[1]", "[0,2]") "}", 2, "tensor a: type F16 is not supported"},
        {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is not a string"},
        {"{" ENTRY("a", "F32", "4", "[0,4]") "}", 4, "tensor a: shape is not a list"},
        {"{" ENTRY("a", "F32", "[-1]", "[0,4]") "}", 4, "tensor a: dimension 0 is no size"},
        {"{" ENTRY("a", "F32", "[1, 1.5]", "[0,4]") "}", 4, "tensor a: dimension 1 is no size"},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "9 dimensions, at most 8"},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", "[0,4]") "}", 4, "shape is too large"},
        {"{" ENTRY("a", "F32", "[1]", "[0]") "}", 4, "tensor a: data_offsets are no range"},
        {"{" ENTRY("a", "F32", "[1]", "[4,0]") "}", 4, "tensor a: data_offsets are no range"},
        {"{" ENTRY("a", "F32", "[1]", "[-4,0]") "}", 4, "tensor a: data_offsets are no range"},
        {"{" ENTRY("a", "F32", "[1]", "\"0\"") "}", 4, "tensor a: data_offsets are no range"},
        {"{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 4, "data end at byte 8, the file's at 4"},
        {"{" ENTRY("a", "F32", "[2]", "[0,4]") "}", 4, "needs 8 bytes, its range has 4"},
        {"{" ENTRY("a", "F32", "[1]", "[2,6]") "}", 6, "tensor a: its data are not aligned"},
        {"{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[2]", "[4,12]") "}", 12,
         "the data of tensors a and b overlap"},
        {"{" ENTRY("b", "F32", "[1]", "[8,12]") "," ENTRY("a", "F32", "[1]", "[0,4]") "}", 12,
         "4 bytes before tensor b belong to no tensor"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "}", 12, "the last 8 bytes belong to no tensor"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"step\":3}}", 0, "metadata 'step' is not a string"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t size_bytes;
        uint8_t *data = file_of(cases[i].header, cases[i].data_bytes, &size_bytes);
        struct safetensors file;
        struct err err = {0};
        if (safetensors_parse(data, size_bytes, &file, &err))
            fail_msg("read, expected: %s", cases[i].message);
        assert_int_equal(err.code, ERR_INPUT);
        if (strstr(err.text, cases[i].message) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].message);
        assert_null(file.entries);
        safetensors_free(&file);
    }
}

static void test_safetensors_truncated(void **state) {
    (void)state;
    /* 67 bytes of header: also unaligned data, which the reader moves. */
    const char *header = "{" ENTRY("a", "F32", "[3]", "[0,12]") "}";
    size_t size_bytes;
    uint8_t *whole = file_of(header, 12, &size_bytes);
    const float values[3] = {1, 2, 3};
    memcpy(whole + 8 + strlen(header), values, sizeof(values));
    assert_true(strlen(header) % 8 != 0);
    for (size_t length = 0; length < size_bytes; length++) {
        uint8_t *part = malloc(length + 1);
        memcpy(part, whole, length);
        struct safetensors file;
        struct err err = {0};
        assert_false(safetensors_parse(part, length, &file, &err));
        assert_int_equal(err.code, ERR_INPUT);
    }
    struct safetensors file;
    struct err err = {0};
    uint8_t *large = calloc(1, 9);
    memset(large, 0xff, 8);
    assert_false(safetensors_parse(large, 9, &file, &err));
    assert_non_null(strstr(err.text, "not a safetensors file"));
    assert_true(safetensors_parse(whole, size_bytes, &file, &err));
    assert_int_equal((uintptr_t)file.entries[0].data % 8, 0);
    assert_memory_equal(file.entries[0].data, values, sizeof(values));
    safetensors_free(&file);
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, enter_directory, leave_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_err_too_long),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_vec),
        cmocka_unit_test(test_diag_golden),
        cmocka_unit_test(test_diag_many),
        cmocka_unit_test(test_did_you_mean),
        IN_DIRECTORY(test_log),
        IN_DIRECTORY(test_file),
        IN_DIRECTORY(test_file_atomic),
        IN_DIRECTORY(test_file_failures),
        IN_DIRECTORY(test_file_directories),
        cmocka_unit_test(test_rng_vectors),
        cmocka_unit_test(test_rng_distributions),
        IN_DIRECTORY(test_safetensors_round_trip),
        IN_DIRECTORY(test_safetensors_bad_names),
        cmocka_unit_test(test_safetensors_broken),
        cmocka_unit_test(test_safetensors_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
