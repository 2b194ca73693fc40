/*
 * test_session.c: devices and sessions on the device at hand, with plans written by hand: results
 * to the bit over all access paths or numbers of threads, guard words, replay, slabs, limits, the
 * choice of a device, the pipeline cache, profiles. Every test ends with no message from the
 * validation layer when UNET_VALIDATION=1 is set.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/kernels/fixture.h"

#include "common/file.h"
#include "runtime/exec.h"

/* ---- running ---- */

static void sum_body(struct unet_device *device, const struct hand *hand) {
    struct unet_session *session;
    must(unet_session_open(device, hand->plan, NULL, &session, &err));
    set_guards(session, hand);
    for (uint64_t seed = 1; seed < 4; seed++)
        run_sum(session, seed);
    check_guards(session, hand);
    unet_session_close(session);
}

static void test_sum(void **state) {
    (void)state;
    each_path(sum_body);
}

/* Two steps of SGD with momentum, computed alongside; all operations are exact or rounded once in
   the same order, so a multiply-add of the driver may change the last bit. */
static void train_body(struct unet_device *device, const struct hand *hand) {
    const size_t count = 6 * 3 * 3 * 2, packed = 3 * 3 * 2 * 8;
    float weights[108], momentum[108], gradient[144] = {0}, expected[108];
    struct unet_session *session;
    must(unet_session_open(device, hand->plan, NULL, &session, &err));
    must(unet_session_init_weights(session, 7, &err));
    must(unet_session_read_param(session, hand->weights, -1, expected, &err));
    for (size_t i = 0; i < packed; i++)
        gradient[i] = i % 8 < 6 ? 0.125f : 0.0f;
    must(unet_session_write(session, "train_step", "gradient", gradient, sizeof(gradient), &err));
    must(unet_session_set_step(session, 1, 0, 2, 0.0f, &err)); /* the plan's rate: 0.25 */
    must(unet_session_run(session, "train_step", &err));
    must(unet_session_set_step(session, 1, 1, 2, 2.0f, &err));
    must(unet_session_run(session, "train_step", &err));
    must(unet_session_read_param(session, hand->weights, -1, weights, &err));
    must(unet_session_read_param(session, hand->weights, 0, momentum, &err));
    for (size_t i = 0; i < count; i++) {
        assert_true(momentum[i] == 0.1875f);
        assert_float_equal(weights[i], expected[i] - 0.25f * 0.125f - 2.0f * 0.1875f, 1e-6f);
    }
    unet_session_close(session);
}

static void test_control(void **state) {
    (void)state;
    each_path(train_body);
}

/* Heavy records run in slabs; 10^12 operations exceed the batch of every type of device. */
static void slab_body(struct unet_device *device, const struct hand *hand) {
    struct unet_session *session;
    for (uint32_t i = 0; i < hand->plan->programs[0].n_records; i++)
        hand->plan->programs[0].records[i].flops = 1000000000000u;
    must(unet_session_open(device, hand->plan, NULL, &session, &err));
    set_guards(session, hand);
    run_sum(session, 5);
    run_sum(session, 6);
    check_guards(session, hand);
    unet_session_close(session);
}

static void test_slabs(void **state) {
    (void)state;
    each_path(slab_body);
}

/* A tensor longer than any descriptor of the CPU drivers reaches: its last element must arrive. */
static struct plan *make_long_plan(uint32_t *image_out, uint32_t *corner_out) {
    struct plan *plan = hand_plan_new("long");
    const struct shape small = {1, 1, 1, 2}, big = {1, 1, 4700, 7200};
    const uint32_t image =
        hand_plan_tensor(plan, "image", PLAN_BLOCK_IO, PLAN_LAYOUT_PLANES, small);
    const uint32_t corner =
        hand_plan_tensor(plan, "corner", PLAN_BLOCK_IO, PLAN_LAYOUT_PLANES, small);
    const uint32_t large =
        hand_plan_tensor(plan, "large map", PLAN_BLOCK_ARENA, PLAN_LAYOUT_PLANES, big);
    struct plan_program *program = hand_plan_program(plan, "infer");
    const struct embed_region_params embed = {1, 1, 1, 2, 2, 4700, 7200, 4699, 7198, 4700 * 7200};
    const struct copy_region_params copy = {1,    1,           1, 2, 4700, 7200, 4699,
                                            7198, 4700 * 7200, 1, 2, 0,    0,    2};
    hand_plan_port(plan, program, "small", PLAN_IN, image);
    hand_plan_port(plan, program, "corner", PLAN_OUT, corner);
    hand_plan_record(plan, program, "into", KERNEL_ID_embed_region, (uint32_t[]){image, large},
                     &embed, false);
    hand_plan_record(plan, program, "out of", KERNEL_ID_copy_region, (uint32_t[]){large, corner},
                     &copy, true);
    hand_plan_finish(plan, program);
    *image_out = image;
    *corner_out = corner;
    return plan;
}

static void test_long_tensor(void **state) {
    (void)state;
    uint32_t image, corner;
    float in[2] = {3.5f, -4.25f}, out[2] = {0.0f, 0.0f};
    struct plan *plan = make_long_plan(&image, &corner);
    struct unet_session *session;
    struct unet_device *device = open_device();
    must(unet_session_open(device, plan, NULL, &session, &err));
    must(unet_session_write(session, "infer", "small", in, sizeof(in), &err));
    must(unet_session_run(session, "infer", &err));
    must(unet_session_read(session, "infer", "corner", out, sizeof(out), &err));
    assert_true(out[0] == in[0] && out[1] == in[1]);
    unet_session_close(session);
    const uint64_t reach = unet_device_get_info(device)->limits.max_binding_bytes;
    close_device(device);
    if (reach < plan->tensors[2].size_bytes) {
        setenv("UNET_ACCESS", "descriptor", 1);
        device = open_device();
        must_fail(unet_session_open(device, plan, NULL, &session, &err), ERR_DEVICE, "large map");
        char limit[32];
        snprintf(limit, sizeof(limit), "%llu", (unsigned long long)reach);
        assert_non_null(strstr(err.text, limit));
        assert_null(session);
        close_device(device);
        unsetenv("UNET_ACCESS");
    }
    plan_free(plan);
}

/* ---- what is opened, and what is refused ---- */

static void test_programs(void **state) {
    (void)state;
    const char *names[] = {"sum"}, *wrong[] = {"sun"};
    struct unet_session_options options = {.programs = names, .n_programs = 1};
    struct unet_memory_report report;
    struct unet_session *session;
    struct hand hand = make_hand();
    struct unet_device *device = open_device();
    float data[COUNT];
    must(unet_session_open(device, hand.plan, &options, &session, &err));
    unet_session_memory(session, &report);
    assert_int_equal(report.block_bytes[PLAN_BLOCK_STATE], 0);
    assert_int_equal(report.block_bytes[PLAN_BLOCK_CONTROL], 0);
    assert_int_equal(report.block_bytes[PLAN_BLOCK_IO], hand.plan->block_bytes[PLAN_BLOCK_IO]);
    assert_int_equal(report.block_bytes[PLAN_BLOCK_ARENA], hand.plan->programs[0].arena_bytes);
    assert_false(unet_session_has_state(session));
    must(unet_session_set_step(session, 1, 2, 3, 0.5f, &err)); /* no control block: nothing to do */
    must_fail(unet_session_run(session, "train_step", &err), ERR_USAGE, "train_step");
    must_fail(unet_session_run(session, "sun", &err), ERR_INPUT, "sun");
    must_fail(unet_session_write(session, "sum", "d", data, 4, &err), ERR_INPUT, "\"d\"");
    must_fail(unet_session_write(session, "sum", "a", data, 4, &err), ERR_INPUT, "4 bytes");
    must_fail(unet_session_read(session, "sum", "y", data, 3996, &err), ERR_INPUT, "4000");
    must_fail(unet_session_read_param(session, 0, 0, data, &err), ERR_INPUT, "state");
    must_fail(unet_session_read_param(session, 0, 1, data, &err), ERR_USAGE, "conv.weight");
    must_fail(unet_session_read_param(session, 3, -1, data, &err), ERR_USAGE, "3");
    must_fail(unet_session_read_tensor(session, 99, data, &err), ERR_USAGE, "99");
    unet_session_close(session);
    options.programs = wrong;
    must_fail(unet_session_open(device, hand.plan, &options, &session, &err), ERR_INPUT, "sun");
    assert_null(session);
    close_device(device);
    plan_free(hand.plan);
}

/* Each breaks a sound plan in one way; opening must fail with these words. */
static void break_offset(struct hand *hand) {
    hand->plan->tensors[hand->b].offset_bytes += 16;
}
static void break_barrier(struct hand *hand) {
    hand->plan->programs[0].records[1].barrier = false;
}
static void break_groups(struct hand *hand) {
    for (int i = 0; i < PLAN_CLASS_COUNT; i++)
        hand->plan->programs[0].records[0].dispatch[i].groups[1] = 65536;
}
static void break_workgroup(struct hand *hand) {
    for (int i = 0; i < PLAN_CLASS_COUNT; i++)
        hand->plan->programs[0].records[0].dispatch[i].spec[0] = 1 << 20;
}
static void break_shared(struct hand *hand) {
    for (int i = 0; i < PLAN_CLASS_COUNT; i++)
        hand->plan->programs[0].records[0].dispatch[i].shared_bytes = 1 << 20;
}
static void break_tensor(struct hand *hand) {
    hand->plan->programs[0].records[1].tensors[1] = 1000;
}
static void break_code(struct hand *hand) {
    for (uint32_t i = 0; i < hand->plan->n_shaders; i++)
        memset(hand->plan->shaders[i].code, 0, sizeof(hand->plan->shaders[i].code));
}
static void break_memory(struct hand *hand) {
    hand->plan->block_bytes[PLAN_BLOCK_IO] = (uint64_t)1 << 46;
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        void (*break_)(struct hand *hand);
        enum err_code code;
        const char *words;
    } cases[] = {
        {break_offset, ERR_INPUT, "tensor b"}, {break_barrier, ERR_INPUT, "+ c"},
        {break_groups, ERR_INPUT, "65536"},    {break_workgroup, ERR_INPUT, "a + b"},
        {break_shared, ERR_INPUT, "shared"},   {break_tensor, ERR_INPUT, "1000"},
        {break_code, ERR_INPUT, "shader"},     {break_memory, ERR_DEVICE, "io block"},
    };
    struct unet_device *device = open_device();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct hand hand = make_hand();
        struct unet_session *session;
        cases[i].break_(&hand);
        must_fail(unet_session_open(device, hand.plan, NULL, &session, &err), cases[i].code,
                  cases[i].words);
        assert_null(session);
        plan_free(hand.plan);
    }
    close_device(device);
}

/* ---- devices ---- */

static bool open_named(const char *select, struct unet_device **out) {
    return unet_device_open(&(struct unet_device_options){.select = select}, out, &err);
}

/* The whole uuid, its first digits, and as other programs print it. */
static void open_by_uuid(const char *uuid) {
    struct unet_device *device;
    char text[64], dashed[64];
    snprintf(text, sizeof(text), "%.8s", uuid);
    snprintf(dashed, sizeof(dashed), "%.8s-%.4s-%.4s-%.4s-%s", uuid, uuid + 8, uuid + 12, uuid + 16,
             uuid + 20);
    for (char *c = dashed; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    const char *const forms[] = {uuid, text, dashed};
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        must(open_named(forms[i], &device));
        assert_int_equal(strncmp(unet_device_get_info(device)->uuid, uuid, 8), 0);
        close_device(device);
    }
    dashed[35] = dashed[35] == '1' ? '2' : '1';
    must_fail(open_named(dashed, &device), ERR_DEVICE, "there is none");
}

static void test_devices(void **state) {
    (void)state;
    struct unet_device_info *devices;
    struct unet_device *device;
    size_t count;
    must(unet_device_list(&devices, &count, &err));
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        char index[32];
        assert_int_equal(devices[i].index, i);
        assert_ptr_equal(devices[i].limits.device, devices[i].name);
        assert_true(devices[i].usable == (devices[i].missing[0] == '\0'));
        snprintf(index, sizeof(index), "%zu", i);
        if (devices[i].usable) {
            assert_true(devices[i].choice[0] != '\0');
            must(open_named(index, &device));
            assert_string_equal(unet_device_get_info(device)->name, devices[i].name);
            close_device(device);
            must(open_named(devices[i].name, &device));
            close_device(device);
            if (devices[i].uuid[0] != '\0')
                open_by_uuid(devices[i].uuid);
        }
    }
    free(devices);
    must_fail(open_named("99", &device), ERR_DEVICE, "\"99\"");
    must_fail(open_named("abacus", &device), ERR_DEVICE, "\"abacus\"");
    assert_true(strstr(err.hint, "0 ") != NULL);
    must_fail(open_named("", &device), ERR_DEVICE, "\"\"");
    assert_null(device);
}

/* The backends' names choose among all devices, whatever the environment says. */
static void test_backends(void **state) {
    (void)state;
    struct unet_device *device;
    const char *kept = getenv("UNET_DEVICE");
    char *old = kept != NULL ? strdup(kept) : NULL;
    for (int i = 0; i < 2; i++) {
        set_or_unset("UNET_DEVICE", i == 0 ? "vulkan" : "no such device");
        must(open_named("cpu", &device));
        assert_string_equal(unet_device_get_info(device)->backend, "cpu");
        assert_int_equal(unet_device_validation_count(device), 0);
        close_device(device);
    }
    must_fail(unet_device_open(NULL, &device, &err), ERR_DEVICE, "UNET_DEVICE=no such device");
    setenv("UNET_DEVICE", "cpu", 1);
    device = open_device();
    assert_string_equal(unet_device_get_info(device)->backend, "cpu");
    close_device(device);
    setenv("UNET_DEVICE", "", 1); /* as if unset: the best GPU or the CPU, no software driver */
    device = open_device();
    assert_true(unet_device_get_info(device)->rank < UNET_RANK_ON_REQUEST);
    close_device(device);
    set_or_unset("UNET_DEVICE", old);
    free(old);
}

static bool open_cpu(uint32_t threads, struct unet_device **out) {
    const struct unet_device_options options = {.select = "cpu", .threads = threads};
    return unet_device_open(&options, out, &err);
}

static void test_threads(void **state) {
    (void)state;
    static const char *const wrong[] = {"0", "two", "257", "-1", "2x"};
    struct unet_device *device;
    const char *kept = getenv("UNET_CPU");
    char *old = kept != NULL ? strdup(kept) : NULL;
    must(open_cpu(3, &device));
    assert_non_null(strstr(unet_device_get_info(device)->choice, "; 3 threads"));
    close_device(device);
    setenv("UNET_THREADS", "1", 1);
    must(open_cpu(0, &device));
    assert_non_null(strstr(unet_device_get_info(device)->choice, "; 1 thread"));
    close_device(device);
    must(open_cpu(5, &device)); /* what is asked for in words wins */
    assert_non_null(strstr(unet_device_get_info(device)->choice, "; 5 threads"));
    close_device(device);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        setenv("UNET_THREADS", wrong[i], 1);
        must_fail(open_cpu(0, &device), ERR_USAGE, "UNET_THREADS");
        assert_null(device);
    }
    unsetenv("UNET_THREADS");
    must_fail(open_cpu(100000, &device), ERR_USAGE, "at most 256");
    setenv("UNET_CPU", "plain", 1);
    must(open_cpu(0, &device));
    assert_non_null(strstr(unet_device_get_info(device)->name, "plain"));
    close_device(device);
    setenv("UNET_CPU", "sse9", 1);
    must_fail(open_cpu(0, &device), ERR_USAGE, "UNET_CPU=sse9");
    set_or_unset("UNET_CPU", old);
    free(old);
}

static void test_conv_ways(void **state) {
    (void)state;
    struct unet_device *device;
    const char *kept = getenv("UNET_CPU_CONV");
    char *old = kept != NULL ? strdup(kept) : NULL;
    setenv("UNET_CPU_CONV", "direct", 1);
    must(open_cpu(0, &device));
    assert_non_null(strstr(unet_device_get_info(device)->name, ", direct convolution)"));
    assert_non_null(strstr(unet_device_get_info(device)->choice, "because of UNET_CPU_CONV"));
    close_device(device);
    setenv("UNET_CPU_CONV", "", 1);
    must(open_cpu(0, &device));
    assert_null(strstr(unet_device_get_info(device)->name, "convolution"));
    close_device(device);
    setenv("UNET_CPU_CONV", "fft", 1);
    must_fail(open_cpu(0, &device), ERR_USAGE, "UNET_CPU_CONV=fft");
    set_or_unset("UNET_CPU_CONV", old);
    free(old);
}

static void test_environment(void **state) {
    (void)state;
    NEEDS_VULKAN;
    struct unet_device *device;
    setenv("UNET_ACCESS", "descriptors", 1);
    must_fail(unet_device_open(NULL, &device, &err), ERR_USAGE, "UNET_ACCESS");
    setenv("UNET_ACCESS", "address", 1);
    device = open_device();
    assert_int_equal(unet_device_get_info(device)->limits.access, PLAN_ACCESS_ADDRESS);
    assert_non_null(strstr(unet_device_get_info(device)->choice, "UNET_ACCESS"));
    close_device(device);
    unsetenv("UNET_ACCESS");
    unet_device_close(NULL);
    unet_session_close(NULL);
}

/* Without any driver the CPU is there, and asking for Vulkan says what to install. */
static void test_no_driver(void **state) {
    (void)state;
    NEEDS_VULKAN;
    static const char *const names[] = {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"};
    char *kept[2] = {NULL, NULL};
    struct unet_device_info *devices;
    struct unet_device *device;
    size_t count;
    for (int i = 0; i < 2; i++) {
        const char *value = getenv(names[i]);
        kept[i] = value != NULL ? strdup(value) : NULL;
        setenv(names[i], "/nowhere/none.json", 1);
    }
    must(unet_device_list(&devices, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(devices[0].backend, "cpu");
    free(devices);
    must_fail(open_named("vulkan", &device), ERR_DEVICE, "no Vulkan driver");
    assert_non_null(strstr(err.hint, "mesa-vulkan-drivers"));
    must(open_named("0", &device));
    assert_string_equal(unet_device_get_info(device)->backend, "cpu");
    close_device(device);
    for (int i = 0; i < 2; i++) {
        set_or_unset(names[i], kept[i]);
        free(kept[i]);
    }
}

/* ---- profile ---- */

static void test_profile(void **state) {
    (void)state;
    const struct unet_session_options options = {.profile = true};
    struct unet_session *session;
    struct unet_span spans[2] = {{0, 0}, {0, 0}};
    struct hand hand = make_hand();
    struct unet_device *device = open_device();
    const bool has_clock = unet_device_get_info(device)->timestamp_period_ns > 0.0f;
    must(unet_session_open(device, hand.plan, NULL, &session, &err));
    must_fail(unet_session_profile(session, "sum", spans, &err), ERR_USAGE, "profiling");
    unet_session_close(session);
    must(unet_session_open(device, hand.plan, &options, &session, &err));
    if (has_clock) {
        must_fail(unet_session_profile(session, "sum", spans, &err), ERR_USAGE, "not run");
        run_sum(session, 1);
        run_sum(session, 2);
        must(unet_session_profile(session, "sum", spans, &err));
        /* two additions of a thousand numbers: more than nothing, less than a minute */
        assert_true(spans[0].begin_ns == 0 && spans[1].end_ns > 0);
        assert_true(spans[1].end_ns < 60000000000u);
        assert_true(spans[0].begin_ns <= spans[0].end_ns && spans[0].end_ns <= spans[1].begin_ns &&
                    spans[1].begin_ns <= spans[1].end_ns);
    } else {
        must_fail(unet_session_profile(session, "sum", spans, &err), ERR_DEVICE, "time stamps");
    }
    unet_session_close(session);
    close_device(device);
    plan_free(hand.plan);
}

/* ---- pipeline cache ---- */

static void run_once(void) {
    struct unet_session *session;
    struct hand hand = make_hand();
    struct unet_device *device = open_device();
    must(unet_session_open(device, hand.plan, NULL, &session, &err));
    run_sum(session, 3);
    unet_session_close(session);
    close_device(device);
    plan_free(hand.plan);
}

/* The path of the only file in a folder, or "" when there is none. */
static void only_file(const char *folder, char *path, size_t size) {
    DIR *handle = opendir(folder);
    struct dirent *entry;
    path[0] = '\0';
    while (handle != NULL && (entry = readdir(handle)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        assert_true(path[0] == '\0');
        assert_true(snprintf(path, size, "%s/%s", folder, entry->d_name) < (int)size);
    }
    if (handle != NULL)
        closedir(handle);
}

static void test_cache(void **state) {
    (void)state;
    NEEDS_VULKAN;
    char root[] = "/tmp/unet-test-XXXXXX", folder[64], path[512];
    const char *kept = getenv("XDG_CACHE_HOME");
    char *old = kept != NULL ? strdup(kept) : NULL;
    uint8_t *good, *now;
    size_t good_size, now_size;
    assert_non_null(mkdtemp(root));
    snprintf(folder, sizeof(folder), "%s/unet", root);
    setenv("XDG_CACHE_HOME", root, 1);

    setenv("UNET_PIPELINE_CACHE", "off", 1);
    run_once();
    only_file(folder, path, sizeof(path));
    assert_string_equal(path, "");
    unsetenv("UNET_PIPELINE_CACHE");

    run_once();
    only_file(folder, path, sizeof(path));
    assert_true(path[0] != '\0');
    must(file_read(path, &good, &good_size, &err));
    assert_true(good_size > 24);
    run_once(); /* with what it finds */

    /* a flipped byte in each region, a cut and an empty file: ignored and replaced */
    const size_t places[] = {0, 8, 16, 24, good_size - 1};
    for (size_t i = 0; i < ARRAY_LEN(places) + 2; i++) {
        uint8_t *bad = malloc(good_size);
        size_t bad_size = good_size;
        memcpy(bad, good, good_size);
        if (i < ARRAY_LEN(places))
            bad[places[i]] ^= 0x40;
        else
            bad_size = i == ARRAY_LEN(places) ? good_size / 2 : 0;
        must(file_write(path, bad, bad_size, &err));
        run_once();
        must(file_read(path, &now, &now_size, &err));
        assert_true(now_size != bad_size || memcmp(now, bad, bad_size) != 0);
        free(now);
        free(bad);
    }
    free(good);
    unlink(path);
    rmdir(folder);

    /* a place that cannot be written costs nothing but the cache */
    must(file_write(folder, "x", 1, &err));
    run_once();
    unlink(folder);
    rmdir(root);
    set_or_unset("XDG_CACHE_HOME", old);
    free(old);
}

/* ---- cutting, with an executor that only writes down ---- */

#define MAX_PIECES 100

struct notebook {
    struct exec base;
    bool counts_groups;
    double limit, growth; /* cost of a batch; by which each cut raises it */
    struct exec_piece pieces[MAX_PIECES];
    double costs[MAX_PIECES]; /* of each batch */
    uint32_t n_pieces, n_batches;
};

static struct notebook notebook;

static bool note_begin(struct exec *exec, uint32_t program, struct err *e) {
    (void)exec, (void)program, (void)e;
    notebook.n_pieces = notebook.n_batches = 0;
    notebook.costs[0] = 0;
    return true;
}
static bool note_dispatch(struct exec *exec, const struct exec_piece *piece, struct err *e) {
    (void)exec, (void)e;
    assert_true(notebook.n_pieces < MAX_PIECES);
    notebook.pieces[notebook.n_pieces++] = *piece;
    notebook.costs[notebook.n_batches] += piece->cost;
    return true;
}
static bool note_cut(struct exec *exec, struct err *e) {
    (void)exec, (void)e;
    notebook.limit *= notebook.growth;
    notebook.costs[++notebook.n_batches] = 0;
    return true;
}
static double note_share(const struct exec *exec, const struct plan_record *record, double cost) {
    (void)exec, (void)record;
    return cost / notebook.limit;
}
static bool note_counts(const struct exec *exec, const struct plan_record *record) {
    (void)exec, (void)record;
    return notebook.counts_groups;
}
static void note_close(struct exec *exec) {
    (void)exec;
}
static const struct exec_ops note_ops = {.load = exec_prepare,
                                         .begin = note_begin,
                                         .dispatch = note_dispatch,
                                         .cut = note_cut,
                                         .end = note_cut,
                                         .share = note_share,
                                         .counts_groups = note_counts,
                                         .close = note_close};

static bool note_open(struct unet_device *device, const struct exec_request *request,
                      struct exec **out, struct err *e) {
    (void)device, (void)e;
    notebook.base =
        (struct exec){.ops = &note_ops, .plan = request->plan, .class_ = request->limits.class_};
    *out = &notebook.base;
    return true;
}

/* The pieces of a record must cover its groups once, along one axis, the others whole. */
static void check_pieces(const struct plan_record *record, uint32_t index, uint32_t axis,
                         uint32_t expected) {
    uint32_t next = 0, count = 0;
    for (uint32_t i = 0; i < notebook.n_pieces; i++) {
        const struct exec_piece *piece = &notebook.pieces[i];
        if (piece->record != index)
            continue;
        assert_int_equal(piece->first[axis], next);
        assert_int_equal(piece->is_first, next == 0);
        assert_int_equal(piece->barrier, record->barrier || next > 0);
        next += piece->groups[axis];
        count++;
        assert_int_equal(piece->is_last, next == record->dispatch[0].groups[axis]);
        for (uint32_t other = 0; other < 3; other++) {
            if (other == axis)
                continue;
            assert_int_equal(piece->first[other], 0);
            assert_int_equal(piece->groups[other], record->dispatch[0].groups[other]);
        }
    }
    assert_int_equal(next, record->dispatch[0].groups[axis]);
    assert_int_equal(count, expected);
}

/* Boxes of any shape: together they are the record, each group once. */
static void check_boxes(const struct plan_record *record, uint32_t index) {
    const uint32_t *groups = record->dispatch[0].groups;
    static uint8_t seen[7 * 40 * 3];
    uint32_t n_first = 0, n_last = 0;
    memset(seen, 0, sizeof(seen));
    for (uint32_t i = 0; i < notebook.n_pieces; i++) {
        const struct exec_piece *piece = &notebook.pieces[i];
        if (piece->record != index)
            continue;
        n_first += piece->is_first;
        n_last += piece->is_last;
        assert_int_equal(piece->is_least,
                         piece->groups[0] * piece->groups[1] * piece->groups[2] == 1);
        for (uint32_t z = 0; z < piece->groups[2]; z++)
            for (uint32_t y = 0; y < piece->groups[1]; y++)
                for (uint32_t x = 0; x < piece->groups[0]; x++)
                    seen[x + piece->first[0] +
                         groups[0] * (y + piece->first[1] + groups[1] * (z + piece->first[2]))]++;
    }
    assert_int_equal(n_first, 1);
    assert_int_equal(n_last, 1);
    for (uint32_t i = 0; i < groups[0] * groups[1] * groups[2]; i++)
        assert_int_equal(seen[i], 1);
}

static double most_cost(void) {
    double most = 0;
    for (uint32_t i = 0; i < notebook.n_batches; i++)
        most = MAX(most, notebook.costs[i]);
    return most;
}

struct cutting {
    struct hand hand;
    struct plan_record *records;
    struct unet_device device;
};

static void cut(struct cutting *cutting, double limit, double growth, bool counts_groups) {
    static const bool programs[] = {true, false, false};
    const struct exec_request request = {
        .plan = cutting->hand.plan, .programs = programs, .limits = {.class_ = PLAN_CLASS_GPU}};
    struct exec *exec;
    notebook.limit = limit;
    notebook.growth = growth;
    notebook.counts_groups = counts_groups;
    must(exec_open(&cutting->device, &request, &exec, &err));
}

static struct cutting make_cutting(uint32_t x, uint32_t y, uint32_t z) {
    static const struct exec_backend backend = {.open = note_open};
    const uint32_t groups[3] = {x, y, z};
    struct cutting cutting = {.hand = make_hand(), .device = {.backend = &backend}};
    cutting.records = cutting.hand.plan->programs[0].records;
    for (int i = 0; i < 2; i++) {
        memcpy(cutting.records[i].dispatch[0].groups, groups, sizeof(groups));
        cutting.records[i].flops = 0;
    }
    return cutting;
}

static void test_cutting(void **state) {
    (void)state;
    struct cutting cutting = make_cutting(7, 40, 3);
    cutting.records[0].flops = 4500000; /* 12000 bytes cost 96000: five slabs */
    cut(&cutting, 1e6, 1, false);
    check_pieces(&cutting.records[0], 0, 1, 5); /* the longest axis */
    check_pieces(&cutting.records[1], 1, 1, 1);
    assert_true(most_cost() <= 1e6);
    assert_int_equal(notebook.n_batches, 6);

    cut(&cutting, 1e6, 1, true);
    check_pieces(&cutting.records[0], 0, 2, 3); /* the outermost, however short */

    cutting.records[0].flops = 0; /* both fit one batch */
    cut(&cutting, 1e6, 1, false);
    assert_int_equal(notebook.n_batches, 1);
    assert_int_equal(notebook.n_pieces, 2);
    plan_free(cutting.hand.plan);
}

/* One slab of the longest axis is too much: it is divided along the next, and that one's too. */
static void test_cutting_deep(void **state) {
    (void)state;
    struct cutting cutting = make_cutting(4, 5, 2);
    cutting.records[0].flops = 904000; /* a million in all, 200000 a slab, 50000 a row */
    cut(&cutting, 120000, 1, false);
    check_boxes(&cutting.records[0], 0);
    assert_true(most_cost() <= 120000);
    assert_int_equal(notebook.pieces[0].groups[1], 1);
    assert_int_equal(notebook.pieces[0].groups[0], 2);
    cut(&cutting, 30000, 1, false);
    check_boxes(&cutting.records[0], 0);
    assert_true(most_cost() <= 96000); /* the other record */
    assert_true(notebook.pieces[0].is_least && notebook.n_pieces >= 40);
    cut(&cutting, 1, 1, false); /* hopeless: single groups */
    check_boxes(&cutting.records[0], 0);
    plan_free(cutting.hand.plan);
}

/* What is learnt at a cut counts for the pieces after it. */
static void test_cutting_grows(void **state) {
    (void)state;
    struct cutting cutting = make_cutting(1, 40, 1);
    cutting.records[0].flops = 3904000; /* four million, 100000 a group */
    cut(&cutting, 1e5, 2, false);
    check_boxes(&cutting.records[0], 0);
    for (uint32_t i = 0; i < 5; i++) /* those of a record are about equal */
        assert_in_range(notebook.pieces[i].groups[1], (1u << i) * 3 / 4, 1u << i);
    assert_in_range(notebook.n_batches, 6, 8);
    plan_free(cutting.hand.plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),           cmocka_unit_test(test_control),
        cmocka_unit_test(test_slabs),         cmocka_unit_test(test_long_tensor),
        cmocka_unit_test(test_programs),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_devices),       cmocka_unit_test(test_backends),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_conv_ways),
        cmocka_unit_test(test_environment),   cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_profile),       cmocka_unit_test(test_cache),
        cmocka_unit_test(test_cutting),       cmocka_unit_test(test_cutting_deep),
        cmocka_unit_test(test_cutting_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
