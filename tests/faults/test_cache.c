/*
 * test_cache.c: the pipeline cache on disk: kept and found again, by device and driver; damaged,
 * foreign or impossible to write, it costs time and nothing else; several processes write it at
 * once. Drivers may keep nothing but the header that the specification demands (Mesa's CPU driver
 * does), so what is looked at are files and results, not time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"
#include "tests/faults/layer.h"
#include "tests/unit/scratch.h"

#define HEADER_BYTES 24 /* magic, hash, length: runtime/gpu/cache.c */
#define PROCESSES 4
#define SESSIONS 8

static struct plan *plan;
static struct err err;
static float wanted[2 * 14 * 14];

#define must(expression)                                                                           \
    do {                                                                                           \
        if (!(expression))                                                                         \
            fail_msg("%s: %s (%s)", #expression, err.text, err.hint);                              \
    } while (0)

static const char model_text[] = "model: tiny\n"
                                 "input: {channels: 1, tile: 16}\n"
                                 "labels:\n"
                                 "  - {value: 0, class: a}\n"
                                 "  - {value: 1, class: b}\n"
                                 "layers:\n"
                                 "  - conv: {name: one, channels: 4, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: score, channels: 2, kernel: 1}\n"
                                 "  - cross_entropy: {}\n";

/* ---- sessions and files ---- */

/* A session from beginning to end; its result must be the usual one. False: no session. */
static bool infer(float probs[2 * 14 * 14]) {
    static const char *const programs[] = {"infer"};
    const struct unet_session_options options = {.programs = programs, .n_programs = 1};
    const struct unet_device_options vulkan = {.select = "vulkan"};
    struct unet_device *device = NULL;
    struct unet_session *session = NULL;
    float image[16 * 16];
    for (int i = 0; i < 16 * 16; i++)
        image[i] = (float)(i % 7) / 7;
    const bool good =
        unet_device_open(&vulkan, &device, &err) &&
        unet_session_open(device, plan, &options, &session, &err) &&
        unet_session_init_weights(session, 3, &err) &&
        unet_session_set_step(session, 3, 0, 1, 0, &err) &&
        unet_session_write(session, "infer", "image", image, sizeof(image), &err) &&
        unet_session_run(session, "infer", &err) &&
        unet_session_read(session, "infer", "probs", probs, 2 * 14 * 14 * sizeof(float), &err);
    unet_session_close(session);
    unet_device_close(device);
    return good;
}

static void check_infer(void) {
    float probs[2 * 14 * 14];
    must(infer(probs));
    assert_memory_equal(probs, wanted, sizeof(wanted));
}

/* The cache files there; *path_out is the last one. */
static int count_files(const char **path_out) {
    int count = 0;
    DIR *directory = opendir(scratch_path("cache/unet"));
    for (struct dirent *item; directory != NULL && (item = readdir(directory)) != NULL;) {
        if (strstr(item->d_name, ".tmp") != NULL)
            fail_msg("%s is left", item->d_name);
        if (strstr(item->d_name, ".pipelines") == NULL)
            continue;
        *path_out = scratch_path("cache/unet/%s", item->d_name);
        count++;
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

static void start_empty(void) {
    scratch_remove(scratch_path("cache"));
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    unsetenv("UNET_FAULT_DRIVER");
}

/* The file that a session leaves in an empty folder. */
static void make_file(char path[1024], uint8_t **bytes, size_t *size_bytes) {
    const char *found = NULL;
    start_empty();
    check_infer();
    assert_int_equal(count_files(&found), 1);
    snprintf(path, 1024, "%s", found);
    must(file_read(path, bytes, size_bytes, &err));
    assert_true(*size_bytes >= HEADER_BYTES + 32);
}

static ino_t inode_of(const char *path) {
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_ino;
}

/* Puts bytes in the file's place; the session after must work and put the right ones back. */
static void try_bytes(const char *path, const uint8_t *bytes, size_t size_bytes,
                      const uint8_t *right, size_t right_bytes, const char *what) {
    uint8_t *now;
    size_t now_bytes;
    must(file_write(path, bytes, size_bytes, &err));
    check_infer();
    must(file_read(path, &now, &now_bytes, &err));
    if (now_bytes != right_bytes || memcmp(now, right, right_bytes) != 0)
        fail_msg("%s: the file was not made again", what);
    free(now);
}

/* ---- tests ---- */

static void test_kept(void **state) {
    (void)state;
    char path[1024];
    uint8_t *bytes;
    size_t size_bytes;
    make_file(path, &bytes, &size_bytes);
    const ino_t inode = inode_of(path);
    check_infer(); /* nothing new: the file stays */
    assert_true(inode_of(path) == inode);
    setenv("UNET_PIPELINE_CACHE", "off", 1);
    unlink(path);
    check_infer();
    assert_false(file_exists(path));
    unsetenv("UNET_PIPELINE_CACHE");
    free(bytes);
}

static void test_damaged(void **state) {
    (void)state;
    char path[1024], what[64];
    uint8_t *right, *bytes;
    size_t size_bytes;
    make_file(path, &right, &size_bytes);
    bytes = malloc(size_bytes + 100);
    for (size_t i = 0; i < size_bytes; i += i < 64 ? 5 : size_bytes / 10 + 1) {
        snprintf(what, sizeof(what), "byte %zu turned", i);
        memcpy(bytes, right, size_bytes);
        bytes[i] ^= 0x40;
        try_bytes(path, bytes, size_bytes, right, size_bytes, what);
        snprintf(what, sizeof(what), "cut to %zu bytes", i);
        try_bytes(path, right, i, right, size_bytes, what);
    }
    memcpy(bytes, right, size_bytes);
    memset(bytes + size_bytes, 0, 100);
    try_bytes(path, bytes, size_bytes + 100, right, size_bytes, "something behind");
    memset(bytes + 16, 0xff, 8);
    try_bytes(path, bytes, size_bytes, right, size_bytes, "an endless length");
    free(bytes);
    free(right);
}

/* Whole files, but of another device, driver, or version of the header: a byte of the driver's own
 * header is another one, and the hash is right. */
static void test_foreign(void **state) {
    (void)state;
    char path[1024], what[64];
    uint8_t *right, *bytes;
    size_t size_bytes;
    make_file(path, &right, &size_bytes);
    bytes = malloc(size_bytes);
    for (size_t i = 4; i < 32; i += 4) { /* version, vendor, device, uuid */
        snprintf(what, sizeof(what), "foreign at byte %zu", i);
        memcpy(bytes, right, size_bytes);
        bytes[HEADER_BYTES + i] ^= 1;
        const uint64_t hash =
            hash_bytes(HASH_START, bytes + HEADER_BYTES, size_bytes - HEADER_BYTES);
        memcpy(bytes + 8, &hash, sizeof(hash));
        try_bytes(path, bytes, size_bytes, right, size_bytes, what);
    }
    free(bytes);
    free(right);
}

/* Another version of the driver has a file of its own; the former's is there when it comes back. */
static void test_driver_update(void **state) {
    (void)state;
    char path[1024];
    const char *found;
    uint8_t *bytes;
    size_t size_bytes;
    make_file(path, &bytes, &size_bytes);
    const ino_t inode = inode_of(path);
    setenv("UNET_FAULT_DRIVER", "77", 1);
    check_infer();
    assert_int_equal(count_files(&found), 2);
    check_infer();
    assert_int_equal(count_files(&found), 2);
    unsetenv("UNET_FAULT_DRIVER");
    check_infer();
    assert_int_equal(count_files(&found), 2);
    assert_true(inode_of(path) == inode);
    free(bytes);
}

/* Places where nothing can be written, whoever asks: a file instead of a folder, a folder instead
 * of the file, a folder without permission (which the superuser does not need). */
static void test_unwritable(void **state) {
    (void)state;
    char path[1024];
    uint8_t *bytes;
    size_t size_bytes;
    make_file(path, &bytes, &size_bytes);
    unlink(path);
    must(file_make_directories(path, &err));
    snprintf(path + strlen(path), 16, "/inside");
    must(file_write(path, "x", 1, &err));
    check_infer();
    assert_true(file_exists(path));

    start_empty();
    must(file_write(scratch_path("cache"), "x", 1, &err));
    check_infer();
    assert_false(file_is_directory(scratch_path("cache")));

    start_empty();
    must(file_make_directories(scratch_path("cache/unet"), &err));
    assert_int_equal(chmod(scratch_path("cache/unet"), 0500), 0);
    check_infer();
    assert_int_equal(chmod(scratch_path("cache/unet"), 0700), 0);
    free(bytes);
}

/* ---- several processes ---- */

static void open_sessions(void) {
    float probs[2 * 14 * 14];
    for (int i = 0; i < SESSIONS; i++) {
        if (!infer(probs)) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
        if (memcmp(probs, wanted, sizeof(wanted)) != 0)
            _exit(2);
    }
    _exit(0);
}

/* Each starts on an empty cache and writes it, while the file is damaged again and again. */
static void test_processes(void **state) {
    (void)state;
    char path[1024];
    pid_t children[PROCESSES];
    uint8_t *right, *now;
    size_t size_bytes, now_bytes;
    make_file(path, &right, &size_bytes);
    unlink(path);
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            open_sessions();
    }
    for (int left = PROCESSES, k = 0; left > 0; k++) {
        int status;
        const pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended > 0) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
            left--;
        }
        must(file_write(path, right, (size_t)k % size_bytes, &err));
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    unlink(path);
    check_infer();
    must(file_read(path, &now, &now_bytes, &err));
    assert_int_equal(now_bytes, size_bytes);
    assert_memory_equal(now, right, size_bytes);
    free(now);
    free(right);
}

/* ---- setting up ---- */

static int set_up(void **state) {
    const struct unet_compile_options compile = {.diagnostics = stderr};
    if (scratch_open(state) != 0)
        return -1;
    log_set_level(LOG_ERROR);
    start_empty();
    if (unet_compile_text("tiny.yaml", model_text, &compile, &plan, &err) && infer(wanted))
        return 0;
    fprintf(stderr, "test_cache: %s\n", err.text);
    return -1;
}

static int tear_down(void **state) {
    plan_free(plan);
    return scratch_close(state);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),       cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_foreign),    cmocka_unit_test(test_driver_update),
        cmocka_unit_test(test_unwritable), cmocka_unit_test(test_processes),
    };
    const int status = fault_layer_open(argc, argv);
    if (status != 0)
        return status;
    return cmocka_run_group_tests_name("cache", tests, set_up, tear_down);
}
