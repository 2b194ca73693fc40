/*
 * contract.c: the table. docs/porting.md has it for people; a row more here is a row more there.
 * Numbers of required lines are what Vulkan 1.2 guarantees, but for the storage buffers of a shader
 * (Vulkan: 4).
 */
#include "runtime/gpu/contract.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/kernel_contract.h"

enum unit { UNIT_NUMBER, UNIT_BYTES, UNIT_VERSION };

/* ---- required ---- */

struct requirement {
    const char *name, *why;
    uint64_t wanted;
    enum unit unit;
    bool at_most; /* more is worse */
    uint64_t (*here)(const struct gpu_facts *facts, const struct plan_limits *limits);
};

static uint64_t api_version(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)limits;
    return facts->api_version;
}

static uint64_t queues(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)limits;
    return facts->n_queues;
}

static uint64_t storage_buffers(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)limits;
    return facts->storage_buffers;
}

static uint64_t alignment(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)limits;
    return facts->storage_alignment;
}

static uint64_t push_bytes(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)facts;
    return limits->max_push_bytes;
}

static uint64_t shared_bytes(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)facts;
    return limits->max_shared_bytes;
}

static uint64_t invocations(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)facts;
    return MIN(limits->max_group_invocations, limits->max_group_size[0]);
}

static uint64_t groups(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)facts;
    return MIN(limits->max_groups[0], limits->max_groups[1]);
}

static uint64_t binding_bytes(const struct gpu_facts *facts, const struct plan_limits *limits) {
    (void)facts;
    return limits->max_binding_bytes;
}

static const struct requirement requirements[] = {
    {"Vulkan", "shaders are SPIR-V 1.5", VK_API_VERSION_1_2, UNIT_VERSION, false, api_version},
    {"queues that compute", "", 1, UNIT_NUMBER, false, queues},
    {"storage buffers in a shader", "the most that a kernel binds", KERNEL_MAX_BINDINGS,
     UNIT_NUMBER, false, storage_buffers},
    {"alignment of storage buffers", "tensors lie at multiples of it", PLAN_ALIGNMENT, UNIT_BYTES,
     true, alignment},
    {"push constants", "parameters and addresses of a kernel", 128, UNIT_BYTES, false, push_bytes},
    {"shared memory of a workgroup", "tiles of unetc --target small", 16384, UNIT_BYTES, false,
     shared_bytes},
    {"invocations of a workgroup", "along x; of unetc --target small", 128, UNIT_NUMBER, false,
     invocations},
    {"workgroups along x and y", "more are folded over both", PLAN_MAX_GROUPS, UNIT_NUMBER, false,
     groups},
    {"one storage buffer", "tensors; longer ones by addresses", (uint64_t)128 << 20, UNIT_BYTES,
     false, binding_bytes},
};

static const char *write_number(uint64_t number, enum unit unit, char *text, size_t size_bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB"};
    if (unit == UNIT_VERSION) {
        const uint32_t version = (uint32_t)number;
        snprintf(text, size_bytes, "%u.%u", VK_API_VERSION_MAJOR(version),
                 VK_API_VERSION_MINOR(version));
        return text;
    }
    size_t power = 0;
    while (unit == UNIT_BYTES && power + 1 < ARRAY_LEN(units) && number >= 1024 &&
           number % 1024 == 0) {
        number /= 1024;
        power++;
    }
    snprintf(text, size_bytes, "%" PRIu64 "%s%s", number, unit == UNIT_BYTES ? " " : "",
             unit == UNIT_BYTES ? units[power] : "");
    return text;
}

/* The patch of a version is not compared. */
static bool is_met(const struct requirement *row, uint64_t here) {
    return row->at_most ? here <= row->wanted : here >= row->wanted;
}

static void add_missing(const struct unet_contract_line *line, struct unet_device_info *info) {
    const size_t length = strlen(info->missing);
    snprintf(info->missing + length, sizeof(info->missing) - length, "%s%s: %s needed, %s here",
             length > 0 ? "; " : "", line->name, line->required, line->here);
}

static void fill_required(const struct requirement *row, const struct gpu_facts *facts,
                          struct unet_device_info *info, struct unet_contract_line *line) {
    const uint64_t here = row->here(facts, &info->limits);
    char number[sizeof(line->required) - 8];
    line->is_required = true;
    line->name = row->name;
    line->brings = row->why;
    snprintf(line->required, sizeof(line->required), "%s%s", row->at_most ? "at most " : "",
             write_number(row->wanted, row->unit, number, sizeof(number)));
    write_number(here, row->unit, line->here, sizeof(line->here));
    line->good = is_met(row, here);
    if (!line->good)
        add_missing(line, info);
}

/* ---- optional ---- */

struct option {
    const char *name, *brings;
    void (*fill)(const struct gpu_facts *facts, const struct unet_device_info *info,
                 struct unet_contract_line *line);
};

static void say(struct unet_contract_line *line, bool good, const char *here, const char *use) {
    line->good = good;
    snprintf(line->here, sizeof(line->here), "%s", here);
    snprintf(line->use, sizeof(line->use), "%s", use);
}

static void say_feature(struct unet_contract_line *line, bool there, const char *use) {
    say(line, there, there ? "yes" : "no", there ? use : "not there");
}

static void fill_tiles(const struct gpu_facts *facts, const struct unet_device_info *info,
                       struct unet_contract_line *line) {
    const struct plan_limits least = plan_limits_minimum(PLAN_CLASS_GPU);
    const uint64_t bytes = shared_bytes(facts, &info->limits),
                   lanes = invocations(facts, &info->limits);
    char number[24], here[sizeof(line->here)];
    snprintf(here, sizeof(here), "%s, %" PRIu64,
             write_number(bytes, UNIT_BYTES, number, sizeof(number)), lanes);
    if (info->limits.class_ == PLAN_CLASS_CPU)
        say(line, false, here, "not used: tilings of CPUs have workgroups of 16");
    else if (bytes < least.max_shared_bytes || lanes < least.max_group_invocations)
        say(line, false, here,
            "too little for some plans without a target: their tilings of CPUs run, which are "
            "slower; unetrun devices --target FILE, then unetc --target FILE");
    else
        say(line, true, here, "used");
}

static void fill_addresses(const struct gpu_facts *facts, const struct unet_device_info *info,
                           struct unet_contract_line *line) {
    const char *forced = getenv("UNET_ACCESS");
    if (!facts->has_addresses)
        say(line, false, "no", "not there: a tensor longer than a storage buffer is refused");
    else if (info->limits.access == PLAN_ACCESS_ADDRESS)
        say(line, true, "yes", "used for all tensors");
    else if (info->limits.has_addresses)
        say(line, true, "yes", "used where a tensor is longer than a storage buffer");
    else if (forced != NULL && forced[0] != '\0')
        say(line, false, "yes", "not used: UNET_ACCESS");
    else
        say(line, false, "yes",
            "not used: compilers of CPU drivers but Mesa's take minutes over such shaders");
}

static void fill_matrices(const struct gpu_facts *facts, const struct unet_device_info *info,
                          struct unet_contract_line *line) {
    char here[sizeof(line->here)];
    snprintf(here, sizeof(here), "%u x %u x %u", info->limits.matrix_m, info->limits.matrix_n,
             info->limits.matrix_k);
    if (facts->has_matrices)
        say(line, true, here,
            info->rank < UNET_RANK_ON_REQUEST
                ? "used for convolutions of such models"
                : "used only where asked for: slower on CPU drivers than plain shaders");
    else
        say(line, false, "no", facts->matrix_reason);
}

static void fill_shared(const struct gpu_facts *facts, const struct unet_device_info *info,
                        struct unet_contract_line *line) {
    const VkMemoryPropertyFlags wanted = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                         VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                         VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const char *staging = getenv("UNET_STAGING");
    bool there = false;
    (void)info;
    for (uint32_t i = 0; i < facts->memory.memoryTypeCount; i++)
        there = there || (facts->memory.memoryTypes[i].propertyFlags & wanted) == wanted;
    if (there && staging != NULL && strcmp(staging, "1") == 0)
        say(line, false, "yes", "not used: UNET_STAGING");
    else
        say(line, there, there ? "yes" : "no",
            there ? "used" : "not there: inputs are copied in and outputs out");
}

static void fill_stamps(const struct gpu_facts *facts, const struct unet_device_info *info,
                        struct unet_contract_line *line) {
    char here[sizeof(line->here)];
    snprintf(here, sizeof(here), "%g ns", (double)info->timestamp_period_ns);
    say(line, facts->timestamp_bits > 0, facts->timestamp_bits > 0 ? here : "no",
        facts->timestamp_bits > 0 ? "used when asked for" : "not there");
}

static void fill_budget(const struct gpu_facts *facts, const struct unet_device_info *info,
                        struct unet_contract_line *line) {
    (void)info;
    say_feature(line, facts->has_memory_budget, "used");
}

static void fill_executables(const struct gpu_facts *facts, const struct unet_device_info *info,
                             struct unet_contract_line *line) {
    (void)info;
    say_feature(line, facts->has_executables, "used when asked for");
}

static void fill_portability(const struct gpu_facts *facts, const struct unet_device_info *info,
                             struct unet_contract_line *line) {
    (void)info;
    say(line, facts->has_portability, facts->has_portability ? "yes" : "no",
        facts->has_portability ? "enabled, as the driver demands" : "not needed: a whole Vulkan");
}

static const struct option options[] = {
    {"32 KiB, 256 invocations", "tiles of plans without a target on GPUs", fill_tiles},
    {"buffer addresses",
     "bufferDeviceAddress: tensors longer than a storage buffer; speed on Mesa's CPU driver",
     fill_addresses},
    {"matrix units", "VK_KHR_cooperative_matrix: models with precision: mixed", fill_matrices},
    {"memory of host and device", "inputs and outputs without a copy", fill_shared},
    {"time stamps", "--profile, --trace, unetrun tune", fill_stamps},
    {"memory budget", "VK_EXT_memory_budget: free memory in messages", fill_budget},
    {"pipeline properties",
     "VK_KHR_pipeline_executable_properties: devices --pipelines, tools/gpu-report",
     fill_executables},
    {"portability subset",
     "VK_KHR_portability_subset: drivers on top of another interface (MoltenVK)", fill_portability},
};

_Static_assert(ARRAY_LEN(requirements) + ARRAY_LEN(options) <= UNET_CONTRACT_LINES,
               "a line for each");

void gpu_contract_fill(const struct gpu_facts *facts, struct unet_device_info *info) {
    info->n_contract = 0;
    for (size_t i = 0; i < ARRAY_LEN(requirements); i++)
        fill_required(&requirements[i], facts, info, &info->contract[info->n_contract++]);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        struct unet_contract_line *line = &info->contract[info->n_contract++];
        line->name = options[i].name;
        line->brings = options[i].brings;
        options[i].fill(facts, info, line);
    }
}
