/*
 * test_contract.c: the contract against devices that are not there: one that offers just enough,
 * and such as lack one thing each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/kernel_contract.h"
#include "runtime/gpu/contract.h"

/* A device of just what Vulkan 1.2 and the contract ask for, and nothing that is optional. */
static void make_least(struct gpu_facts *facts, struct unet_device_info *info) {
    *facts = (struct gpu_facts){.api_version = VK_API_VERSION_1_2,
                                .storage_buffers = KERNEL_MAX_BINDINGS,
                                .storage_alignment = 256,
                                .n_queues = 1,
                                .matrix_reason = "not there: a reason"};
    *info = (struct unet_device_info){.backend = "vulkan"};
    info->limits = plan_limits_minimum(PLAN_CLASS_GPU);
    info->limits.max_shared_bytes = 16384;
    info->limits.max_group_invocations = 128;
    info->limits.max_group_size[0] = 128;
}

static const struct unet_contract_line *find(const struct unet_device_info *info,
                                             const char *name) {
    for (size_t i = 0; i < info->n_contract; i++)
        if (strcmp(info->contract[i].name, name) == 0)
            return &info->contract[i];
    fail_msg("no line %s", name);
    return NULL;
}

static void least_is_enough(void **state) {
    (void)state;
    struct gpu_facts facts;
    struct unet_device_info info;
    make_least(&facts, &info);
    gpu_contract_fill(&facts, &info);
    assert_string_equal(info.missing, "");
    size_t n_required = 0;
    for (size_t i = 0; i < info.n_contract; i++) {
        const struct unet_contract_line *line = &info.contract[i];
        n_required += line->is_required;
        assert_true(line->good == line->is_required);
        assert_true((line->required[0] != '\0') == line->is_required);
        assert_true((line->use[0] != '\0') == !line->is_required);
        assert_true(line->here[0] != '\0');
    }
    assert_int_equal(n_required, 9);
    assert_string_equal(find(&info, "matrix units")->use, "not there: a reason");
    assert_non_null(strstr(find(&info, "32 KiB, 256 invocations")->use, "unetc --target FILE"));
}

/* What one step less of a line is called. */
struct lack {
    const char *line, *missing;
    void (*take)(struct gpu_facts *facts, struct plan_limits *limits);
};

static void take_version(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)limits;
    facts->api_version = VK_MAKE_API_VERSION(0, 1, 1, 999);
}

static void take_queues(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)limits;
    facts->n_queues = 0;
}

static void take_buffers(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)limits;
    facts->storage_buffers--;
}

static void take_alignment(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)limits;
    facts->storage_alignment = 512;
}

static void take_push(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_push_bytes = 124;
}

static void take_shared(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_shared_bytes--;
}

static void take_invocations(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_group_invocations--;
}

static void take_size(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_group_size[0]--;
}

static void take_groups(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_groups[1]--;
}

static void take_range(struct gpu_facts *facts, struct plan_limits *limits) {
    (void)facts;
    limits->max_binding_bytes -= 1024;
}

static const struct lack lacks[] = {
    {"Vulkan", "Vulkan: 1.2 needed, 1.1 here", take_version},
    {"queues that compute", "queues that compute: 1 needed, 0 here", take_queues},
    {"storage buffers in a shader", "storage buffers in a shader: 6 needed, 5 here", take_buffers},
    {"alignment of storage buffers",
     "alignment of storage buffers: at most 256 bytes needed, 512 bytes here", take_alignment},
    {"push constants", "push constants: 128 bytes needed, 124 bytes here", take_push},
    {"shared memory of a workgroup",
     "shared memory of a workgroup: 16 KiB needed, 16383 bytes here", take_shared},
    {"invocations of a workgroup", "invocations of a workgroup: 128 needed, 127 here",
     take_invocations},
    {"invocations of a workgroup", "invocations of a workgroup: 128 needed, 127 here", take_size},
    {"workgroups along x and y", "workgroups along x and y: 65535 needed, 65534 here", take_groups},
    {"one storage buffer", "one storage buffer: 128 MiB needed, 131071 KiB here", take_range},
};

static void each_lack_is_named(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lacks); i++) {
        struct gpu_facts facts;
        struct unet_device_info info;
        make_least(&facts, &info);
        lacks[i].take(&facts, &info.limits);
        gpu_contract_fill(&facts, &info);
        assert_string_equal(info.missing, lacks[i].missing);
        for (size_t k = 0; k < info.n_contract; k++)
            if (info.contract[k].is_required)
                assert_true(info.contract[k].good ==
                            (strcmp(info.contract[k].name, lacks[i].line) != 0));
    }
}

static void all_lacks_are_listed(void **state) {
    (void)state;
    struct gpu_facts facts;
    struct unet_device_info info;
    make_least(&facts, &info);
    for (size_t i = 0; i < ARRAY_LEN(lacks); i++)
        lacks[i].take(&facts, &info.limits);
    gpu_contract_fill(&facts, &info);
    for (size_t i = 0; i < info.n_contract; i++)
        if (info.contract[i].is_required)
            assert_non_null(strstr(info.missing, info.contract[i].name));
}

static void options_say_what_becomes_of_them(void **state) {
    (void)state;
    struct gpu_facts facts;
    struct unet_device_info info;
    make_least(&facts, &info);
    facts.has_addresses = info.limits.has_addresses = true;
    facts.has_matrices = true;
    info.rank = UNET_RANK_DISCRETE;
    info.limits.matrix_m = info.limits.matrix_n = 16;
    info.limits.matrix_k = 8;
    info.limits.max_shared_bytes = 32768;
    info.limits.max_group_invocations = info.limits.max_group_size[0] = 256;
    gpu_contract_fill(&facts, &info);
    assert_true(find(&info, "32 KiB, 256 invocations")->good);
    assert_true(find(&info, "buffer addresses")->good);
    assert_string_equal(find(&info, "matrix units")->here, "16 x 16 x 8");
    info.limits.access = PLAN_ACCESS_ADDRESS;
    gpu_contract_fill(&facts, &info);
    assert_string_equal(find(&info, "buffer addresses")->use, "used for all tensors");
    info.limits.access = PLAN_ACCESS_DESCRIPTOR;
    info.limits.has_addresses = false;
    gpu_contract_fill(&facts, &info);
    assert_false(find(&info, "buffer addresses")->good);
    assert_string_equal(find(&info, "buffer addresses")->here, "yes");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_is_enough),
        cmocka_unit_test(each_lack_is_named),
        cmocka_unit_test(all_lacks_are_listed),
        cmocka_unit_test(options_say_what_becomes_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
