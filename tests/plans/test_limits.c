/*
 * test_limits.c: limits of devices as text, targets that are built in, and plans compiled for them:
 * tiles that fit, counts that are folded, and what is refused, with the tensor named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan_limits.h"
#include "common/rng.h"
#include "compiler/compiler.h"
#include "tests/unit/scratch.h"

static struct err err;

/* Kernels of all widths that tiles are chosen for, and one that no tile of GPUs has room for. */
static const char wide[] = "model: wide\n"
                           "let: {tile: 40, batch: 1}\n"
                           "input: {channels: 1, tile: \"${tile}\"}\n"
                           "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
                           "train: {batch: \"${batch}\"}\n"
                           "layers:\n"
                           "  - conv: {name: three, channels: 16, kernel: 3}\n"
                           "  - relu: {name: skip}\n"
                           "  - maxpool: 2\n"
                           "  - conv: {name: five, channels: 40, kernel: 5, padding: same}\n"
                           "  - relu\n"
                           "  - conv: {name: long, channels: 8, kernel: [1, 65], padding: same}\n"
                           "  - upconv: {name: up, channels: 12, kernel: 2}\n"
                           "  - concat: [skip, up]\n"
                           "  - conv: {name: seven, channels: 64, kernel: 7, padding: same}\n"
                           "  - relu\n"
                           "  - conv: {name: score, channels: 2, kernel: 1}\n"
                           "  - cross_entropy\n";

static struct unet_target find(const char *name) {
    struct unet_target target;
    if (!unet_target_find(name, stderr, &target, &err))
        fail_msg("%s: %s", name, err.text);
    return target;
}

static bool compile(const struct unet_target *target, const char *const *set, size_t n_set,
                    struct plan **plan) {
    const struct unet_compile_options options = {
        .set = set, .n_set = n_set, .diagnostics = stderr, .target = target};
    err = (struct err){.code = ERR_NONE};
    return unet_compile_text("wide.yaml", wide, &options, plan, &err);
}

static struct plan *compile_good(const struct unet_target *target) {
    struct plan *plan;
    if (!compile(target, NULL, 0, &plan))
        fail_msg("%s", err.text);
    return plan;
}

static void must_say(const char *words) {
    if (strstr(err.text, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

/* ---- text ---- */

static void write_text(const char *path, const char *text) {
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    fputs(text, stream);
    assert_int_equal(fclose(stream), 0);
}

static uint64_t some_value(struct rng *rng, const struct plan_limits_field *field) {
    const uint64_t any = (uint64_t)rng_u32(rng) << 32 | rng_u32(rng);
    if (field->words != NULL)
        return any % 2;
    return MAX(field->size_bytes == 8 ? any : any >> 32, field->least);
}

/* What is written is what is read, whatever the numbers and the device's name. */
static void text_keeps_all(void **state) {
    (void)state;
    static const char *const remarks[] = {"a remark: with a colon", "", NULL};
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    struct rng rng = rng_stream(7, 0, 0);
    for (int round = 0; round < 50; round++) {
        struct plan_limits limits = {.device = "A \"device\" \\ of #1, [odd]: name"};
        for (size_t i = 0; i < n_fields; i++)
            for (uint32_t j = 0; j < fields[i].count; j++)
                plan_limits_set(&limits, &fields[i], j, some_value(&rng, &fields[i]));
        const char *path = scratch_path("limits.yaml");
        FILE *stream = fopen(path, "w");
        plan_limits_print(&limits, remarks, stream);
        fclose(stream);
        const struct unet_target target = find(path);
        assert_string_equal(target.name, limits.device);
        for (size_t i = 0; i < n_fields; i++)
            for (uint32_t j = 0; j < fields[i].count; j++)
                assert_true(plan_limits_get(&target.limits, &fields[i], j) ==
                            plan_limits_get(&limits, &fields[i], j));
    }
}

/* Each field is one of its own: what one call sets no other field shows. */
static void fields_lie_apart(void **state) {
    (void)state;
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    for (size_t i = 0; i < n_fields; i++) {
        struct plan_limits limits;
        memset(&limits, 0, sizeof(limits));
        plan_limits_set(&limits, &fields[i], fields[i].count - 1, 1);
        for (size_t k = 0; k < n_fields; k++)
            for (uint32_t j = 0; j < fields[k].count; j++)
                assert_int_equal(plan_limits_get(&limits, &fields[k], j),
                                 k == i && j == fields[i].count - 1);
        assert_ptr_equal(plan_limits_find(fields[i].name, strlen(fields[i].name)), &fields[i]);
    }
}

static void must_not_read(const char *text, const char *words) {
    struct unet_target target;
    char *shown = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&shown, &length);
    const char *path = scratch_path("wrong.yaml");
    write_text(path, text);
    err = (struct err){.code = ERR_NONE};
    assert_false(unet_target_find(path, stream, &target, &err));
    fclose(stream);
    assert_int_equal(err.code, ERR_INPUT);
    assert_true(strstr(err.hint, "unetrun devices --target") != NULL);
    if (strstr(shown, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", shown, words);
    free(shown);
}

static void mistakes_are_shown(void **state) {
    (void)state;
    must_not_read("shard_bytes: 1\n", "wrong.yaml:1:1: there is no limit \"shard_bytes\"");
    must_not_read("shard_bytes: 1\n", "did you mean shared_bytes?");
    must_not_read("push_bytes: -1\n", "push_bytes is a whole number from 0 to 4294967295");
    must_not_read("push_bytes: 4294967296\n", "push_bytes is a whole number");
    must_not_read("allocation_bytes: 255\n", "a whole number from 256 to 18446744073709551615");
    must_not_read("allocation_bytes: 99999999999999999999\n", "allocation_bytes is a whole number");
    must_not_read("group_invocations: 0\n", "group_invocations is a whole number from 1");
    must_not_read("tilings: tpu\n", "tilings is gpu or cpu");
    must_not_read("groups: 65535\n", "groups is a list of 3 numbers: [x, y, z]");
    must_not_read("groups: [1, 2]\n", "groups is a list of 3 numbers: [x, y, z]");
    must_not_read("groups: [1, 2, x]\n", "wrong.yaml:1:16: groups is a whole number");
    must_not_read("name: []\n", "name is the device's");
    must_not_read("name: \"a\\e[31mb\"\n", "of characters that print");
    must_not_read("push_bytes: 128\npush_bytes: 128\n", "the key \"push_bytes\" is here twice");
    must_not_read("- push_bytes\n", "a list of lines \"name: value\"");
    must_not_read("# nothing\n\n  \n", "there is no limit in it");
    must_not_read("", "there is no limit in it");
}

static void files_are_found(void **state) {
    (void)state;
    struct unet_target target;
    assert_false(unet_target_find(scratch_path("none.yaml"), NULL, &target, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.hint, "generic, lavapipe, amd, nvidia, intel, small"));
    write_text(scratch_path("part.yaml"), "shared_bytes: 20000\n");
    target = find(scratch_path("part.yaml"));
    assert_int_equal(target.limits.max_shared_bytes, 20000);
    assert_int_equal(target.limits.max_groups[2], PLAN_MAX_GROUPS); /* as without a target */
}

static void lists_lower(void **state) {
    (void)state;
    struct plan_limits limits = plan_limits_minimum(PLAN_CLASS_GPU);
    assert_true(plan_limits_lower("X", "shared_bytes=100,groups=70,push_bytes=999", &limits, &err));
    assert_int_equal(limits.max_shared_bytes, 100);
    assert_int_equal(limits.max_groups[0], 70);
    assert_int_equal(limits.max_groups[2], 70);
    assert_int_equal(limits.max_push_bytes, 128); /* never raised */
    assert_true(plan_limits_lower("X", NULL, &limits, &err));
    static const char *const wrong[] = {
        "shared_bytes",  "shared_bytes=", "shared_bytes=x", "=3", "tilings=cpu", "access=1", ",",
        "groups=1,bad=2"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        err = (struct err){.code = ERR_NONE};
        assert_false(plan_limits_lower("UNET_LIMITS", wrong[i], &limits, &err));
        assert_int_equal(err.code, ERR_USAGE);
        must_say("UNET_LIMITS: ");
    }
}

/* ---- targets ---- */

static void targets_are_devices(void **state) {
    (void)state;
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    const struct plan_limits least = find("small").limits;
    size_t n_targets = 0;
    for (const char *const *name = unet_target_names(); *name != NULL; name++, n_targets++) {
        const struct unet_target target = find(*name);
        assert_string_equal(target.name, *name);
        for (size_t i = 0; i < n_fields; i++)
            for (uint32_t j = 0; fields[i].is_bound && j < fields[i].count; j++)
                if (plan_limits_get(&target.limits, &fields[i], j) <
                    plan_limits_get(&least, &fields[i], j))
                    fail_msg("%s: %s is less than the contract asks for", *name, fields[i].name);
    }
    assert_int_equal(n_targets, 6);
    const struct plan_limits minimum = plan_limits_minimum(PLAN_CLASS_GPU);
    const struct plan_limits generic = find("generic").limits;
    for (size_t i = 0; i < n_fields; i++)
        for (uint32_t j = 0; j < fields[i].count; j++)
            assert_true(plan_limits_get(&generic, &fields[i], j) ==
                        plan_limits_get(&minimum, &fields[i], j));
}

struct most {
    uint32_t shared_bytes, invocations, groups[3];
};

/* Of the records that always run, or by the method that every choice has. */
static struct most most_of(const struct plan *plan, enum plan_class cls) {
    struct most most = {0};
    for (uint32_t p = 0; p < plan->n_programs; p++)
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++) {
            const struct plan_record *record = &plan->programs[p].records[r];
            const struct plan_dispatch *dispatch = &record->dispatch[cls];
            if (record->method != 0)
                continue;
            most.shared_bytes = MAX(most.shared_bytes, dispatch->shared_bytes);
            most.invocations = MAX(most.invocations, dispatch->spec[0]);
            for (int i = 0; i < 3; i++)
                most.groups[i] = MAX(most.groups[i], dispatch->groups[i]);
        }
    return most;
}

/* A plan for any GPU uses more; one for the small device is all within it, and still has tiles in
   shared memory. */
static void tiles_fit(void **state) {
    (void)state;
    const struct unet_target small = find("small");
    struct plan *any = compile_good(NULL), *plan = compile_good(&small);
    assert_true(most_of(any, PLAN_CLASS_GPU).shared_bytes > 16384);
    assert_int_equal(most_of(any, PLAN_CLASS_GPU).invocations, 256);
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++) {
        assert_true(most_of(plan, (enum plan_class)cls).shared_bytes <= 16384);
        assert_true(most_of(plan, (enum plan_class)cls).invocations <= 128);
    }
    bool tiled = false;
    for (uint32_t i = 0; i < plan->n_shaders; i++)
        tiled = tiled || strcmp(plan->shaders[i].variant, "conv_tile") == 0;
    assert_true(tiled);
    assert_true(plan_verify(plan, NULL, &err));
    assert_true(unet_target_check(plan, &small, NULL, &err));
    plan_free(any);
    plan_free(plan);
}

/* Fewer invocations than the contract asks for are no reason to give up. */
static void sizes_are_halved(void **state) {
    (void)state;
    struct unet_target tiny = find("small");
    tiny.limits.max_group_invocations = 64;
    tiny.limits.max_group_size[0] = 64;
    struct plan *plan = compile_good(&tiny);
    assert_int_equal(most_of(plan, PLAN_CLASS_GPU).invocations, 64);
    plan_free(plan);
}

/* Workgroups that are too many for x go on along y, as many as before. */
static void counts_are_folded(void **state) {
    (void)state;
    struct unet_target narrow = find("generic");
    narrow.limits.max_groups[0] = 7;
    struct plan *any = compile_good(NULL), *plan = compile_good(&narrow);
    for (uint32_t p = 0; p < plan->n_programs; p++)
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++) {
            const uint32_t *all = any->programs[p].records[r].dispatch[0].groups;
            const uint32_t *folded = plan->programs[p].records[r].dispatch[0].groups;
            assert_true(folded[0] <= 7 && folded[2] == 1 && all[1] == 1);
            assert_true(folded[0] * folded[1] >= all[0]);
            assert_true((folded[0] - 1) * folded[1] < all[0]);
        }
    plan_free(any);
    plan_free(plan);
}

/* ---- refused ---- */

static void must_refuse(const struct unet_target *target, const char *const *set, size_t n_set,
                        const char *words) {
    struct plan *plan;
    if (compile(target, set, n_set, &plan))
        fail_msg("compiled, but \"%s\" was to be refused", words);
    assert_null(plan);
    assert_int_equal(err.code, ERR_INPUT);
    must_say("wide.yaml: ");
    must_say(words);
    assert_non_null(strstr(err.hint, "smaller tile"));
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    const struct unet_target small = find("small");
    struct unet_target target = small;
    target.limits.max_binding_bytes = 50000;
    must_refuse(&target, NULL, 0,
                "tensor concat1.concat[0:16] has 92416 bytes, small binds at most 50000");
    target = small;
    target.limits.max_groups[0] = 4;
    target.limits.max_groups[1] = 4;
    must_refuse(&target, NULL, 0, "(three forward): tensor ");
    must_refuse(&target, NULL, 0, "workgroups along axis 1, small allows 4");
    target = small;
    target.limits.max_allocation_bytes = 50000;
    must_refuse(&target, NULL, 0, "is larger than an allocation of 49920 bytes");
    must_say("tensor ");
    target = small;
    target.limits.max_group_invocations = 8;
    must_refuse(&target, NULL, 0, "invocations, small allows 8");
    target = small;
    target.limits.max_push_bytes = 16;
    must_refuse(&target, NULL, 0, "bytes of push constants, small allows 16");
}

/* What the contract's devices guarantee is passed by a batch of the same model. */
static void large_models_are_refused(void **state) {
    (void)state;
    const struct unet_target small = find("small");
    static const char *const batch[] = {"batch=400", "tile=88"};
    must_refuse(&small, batch, ARRAY_LEN(batch), "binds at most 134217728");
    must_say("tensor ");
    struct unet_target reaching = small; /* by addresses there is no limit */
    reaching.limits.has_addresses = true;
    struct plan *plan;
    struct plan_limits used;
    if (!compile(&reaching, batch, ARRAY_LEN(batch), &plan))
        fail_msg("%s", err.text);
    assert_true(unet_target_check(plan, &reaching, &used, &err));
    assert_int_equal(used.access, PLAN_ACCESS_ADDRESS);
    plan_free(plan);
}

/* Past 2^31 elements no device helps: the reader says so of the layer. */
static void more_than_2_31_is_refused(void **state) {
    (void)state;
    static const char *const set[] = {"batch=4096", "tile=400"};
    const struct unet_target nvidia = find("nvidia");
    char *shown = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&shown, &length);
    const struct unet_compile_options options = {
        .set = set, .n_set = ARRAY_LEN(set), .diagnostics = stream, .target = &nvidia};
    struct plan *plan;
    assert_false(unet_compile_text("wide.yaml", wide, &options, &plan, &err));
    fclose(stream);
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(shown, "three has 10381164544 values, more than 2^31 - 1") == NULL)
        fail_msg("\"%s\"", shown);
    free(shown);
}

/* ---- at load ---- */

static void plans_without_target_fall_back(void **state) {
    (void)state;
    struct plan *plan = compile_good(NULL);
    struct plan_limits small = find("small").limits;
    small.device = "Toy";
    assert_false(plan_fits(plan, &small, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    assert_non_null(strstr(err.hint, "unetrun devices --target FILE"));
    assert_non_null(strstr(err.hint, "unetc --target FILE"));
    const struct plan_limits used = plan_limits_choose(plan, small);
    assert_int_equal(used.class_, PLAN_CLASS_CPU);
    assert_true(plan_fits(plan, &used, &err));
    /* Nothing is changed where the tilings of GPUs fit, and where neither does. */
    assert_int_equal(plan_limits_choose(plan, plan_limits_minimum(PLAN_CLASS_GPU)).class_,
                     PLAN_CLASS_GPU);
    small.max_push_bytes = 16;
    assert_int_equal(plan_limits_choose(plan, small).class_, PLAN_CLASS_GPU);
    plan_free(plan);
}

/* A plan names its target, and must keep to it. */
static void plans_name_their_target(void **state) {
    (void)state;
    const struct unet_target small = find("small");
    struct plan *any = compile_good(NULL), *plan = compile_good(&small);
    assert_null(any->target.device);
    assert_string_equal(plan->target.device, "small");
    assert_int_equal(plan->target.max_shared_bytes, 16384);
    any->target = plan->target; /* with the tilings of CPUs it would run there */
    assert_true(plan_verify(any, NULL, &err));
    any->target.max_push_bytes = 16;
    assert_false(plan_verify(any, NULL, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "plan: compiled for target small, but: "));
    assert_non_null(strstr(err.text, "bytes of push constants, small allows 16"));
    plan_free(any);
    plan_free(plan);
}

/* What a device has less of than the target is told in both numbers. */
static void less_than_the_target_is_told(void **state) {
    (void)state;
    const struct unet_target nvidia = find("nvidia");
    struct plan *plan = compile_good(&nvidia), *any = compile_good(NULL);
    struct plan_limits device = nvidia.limits;
    char text[PLAN_TARGET_TEXT];
    assert_null(plan_target_excess(plan, &device, text));
    device.max_shared_bytes = 16384;
    device.max_groups[1] = 9;
    device.max_group_invocations = 4096;
    assert_string_equal(plan_target_excess(plan, &device, text),
                        "shared_bytes 49152, here 16384; groups 65535, here 9");
    device = nvidia.limits;
    device.max_binding_bytes = 4;
    assert_non_null(plan_target_excess(plan, &device, text));
    device.access = PLAN_ACCESS_ADDRESS; /* nothing is bound */
    assert_null(plan_target_excess(plan, &device, text));
    device.max_shared_bytes = 0;
    assert_null(plan_target_excess(any, &device, text));
    plan_free(plan);
    plan_free(any);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_keeps_all),
        cmocka_unit_test(fields_lie_apart),
        cmocka_unit_test(mistakes_are_shown),
        cmocka_unit_test(files_are_found),
        cmocka_unit_test(lists_lower),
        cmocka_unit_test(targets_are_devices),
        cmocka_unit_test(tiles_fit),
        cmocka_unit_test(sizes_are_halved),
        cmocka_unit_test(counts_are_folded),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(large_models_are_refused),
        cmocka_unit_test(more_than_2_31_is_refused),
        cmocka_unit_test(plans_without_target_fall_back),
        cmocka_unit_test(plans_name_their_target),
        cmocka_unit_test(less_than_the_target_is_told),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
