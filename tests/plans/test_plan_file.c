/*
 * test_plan_file.c: plan files: what is written reads the same, and every way to be broken is
 * noticed.
 */
#include "tests/plans/sample.h"

#include <stdio.h>

#include "common/file.h"
#include "common/plan_format.h"
#include "common/plan_limits.h"
#include "common/rng.h"

static void assert_accepted(const struct plan *plan) {
    struct err err = {0};
    if (!plan_verify(plan, NULL, &err))
        fail_msg("rejected: %s", err.text);
}

/* --- whole files --- */

static void test_round_trip(void **state) {
    (void)state;
    struct plan *plan = build_plan(), *again;
    uint8_t *first, *second, *third;
    size_t first_bytes, second_bytes, third_bytes;
    struct err err = {0};
    plan_serialise(plan, &first, &first_bytes);
    plan_serialise(plan, &third, &third_bytes);
    assert_int_equal(first_bytes, third_bytes);
    assert_memory_equal(first, third, first_bytes);
    assert_true(plan_parse(first, first_bytes, &again, &err));
    assert_true(again->hash == plan->hash);
    assert_accepted(again);
    plan_serialise(again, &second, &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);

    assert_string_equal(again->model.overrides, "width=4");
    assert_memory_equal(&again->model.augment, &plan->model.augment, sizeof(plan->model.augment));
    assert_memory_equal(&again->model.weights, &plan->model.weights, sizeof(plan->model.weights));
    assert_string_equal(again->model.labels[1].name, "cell");
    assert_int_equal(again->n_tensors, plan->n_tensors);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        assert_string_equal(again->tensors[i].name, plan->tensors[i].name);
        assert_true(shape_equal(again->tensors[i].shape, plan->tensors[i].shape));
        assert_true(again->tensors[i].offset_bytes == plan->tensors[i].offset_bytes);
    }
    const struct plan_program *step = plan_program_find(plan, "train_step");
    const struct plan_program *step_again = plan_program_find(again, "train_step");
    for (uint32_t r = 0; r < step->n_records; r++) {
        const struct plan_record *a = &step->records[r], *b = &step_again->records[r];
        assert_string_equal(a->label, b->label);
        assert_int_equal(a->choice, b->choice);
        assert_int_equal(a->method, b->method);
        assert_memory_equal(a->tensors, b->tensors, sizeof(a->tensors));
        assert_memory_equal(a->params, b->params, sizeof(a->params));
        assert_memory_equal(a->dispatch, b->dispatch, sizeof(a->dispatch));
    }
    assert_memory_equal(again->shaders[1].code[0], sample_code, 7 * 4);
    free(first);
    free(second);
    free(third);
    plan_free(plan);
    plan_free(again);
}

/* The target is kept, with every number, and printed; that of a plan for any device is nothing. */
static void test_target(void **state) {
    (void)state;
    struct plan *plan = build_plan(), *again;
    struct err err = {0};
    uint8_t *data;
    size_t size_bytes;
    plan->target = plan_limits_minimum(PLAN_CLASS_GPU);
    plan->target.device = "toaster";
    plan->target.max_allocation_bytes = 0x123456789abc;
    plan->target.matrix_k = 16;
    plan->target.has_addresses = true;
    plan_serialise(plan, &data, &size_bytes);
    assert_true(plan_parse(data, size_bytes, &again, &err));
    assert_string_equal(again->target.device, "toaster");
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    for (size_t i = 0; i < n_fields; i++)
        for (uint32_t j = 0; j < fields[i].count; j++)
            assert_true(plan_limits_get(&again->target, &fields[i], j) ==
                        plan_limits_get(&plan->target, &fields[i], j));
    char *listing = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&listing, &length);
    plan_print(again, stream);
    fclose(stream);
    assert_non_null(strstr(listing, "target toaster: tilings 0, "));
    assert_non_null(strstr(listing, ", shared_bytes 32768, "));
    free(listing);
    free(data);
    plan_free(again);
    plan->target.device = NULL;
    plan->target = (struct plan_limits){.device = NULL};
    plan_serialise(plan, &data, &size_bytes);
    assert_true(plan_parse(data, size_bytes, &again, &err));
    assert_null(again->target.device);
    free(data);
    plan_free(again);
    plan_free(plan);
}

static void test_save_and_print(void **state) {
    (void)state;
    struct plan *plan = build_plan(), *again;
    struct err err = {0};
    char path[] = "/tmp/unet-plan-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_true(plan_save(plan, path, &err));
    assert_true(plan_load(path, &again, &err));
    assert_true(again->hash == plan->hash);
    assert_true(file_write(path, "junk", 4, &err));
    struct plan *none;
    assert_false(plan_load(path, &none, &err));
    assert_null(none);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, path));
    remove(path);
    assert_false(plan_load(path, &none, &err));
    assert_int_equal(err.code, ERR_IO);

    char *listing = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&listing, &length);
    plan_print(again, stream);
    fclose(stream);
    static const char *const parts[] = {
        "model small (small.yaml, width=4), hash 0123456789abcdef",
        "program infer: 8 records, 6 barriers (|)",
        "  choice 0: c2 forward: direct (0 1 -2 0), winograd (0 0 3 -1)",
        "conv_fwd           c2 again  (0.000 GFLOP)  choice 0, winograd",
        "   1 | act_fwd            c1 act",
        "arena 5632 B, least possible 5632 B",
        "x <- skip, y -> skip",
        "part of cat",
        "up.weight                        8 x 4 x 2 x 2, normal 0.5, 1 states",
        "gpu: any_gpu 3 x 2 x 1 groups, constants 64 1 1 7"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (strstr(listing, parts[i]) == NULL)
            fail_msg("the listing lacks \"%s\":\n%s", parts[i], listing);
    }
    free(listing);
    plan_free(plan);
    plan_free(again);
}

/* --- broken files --- */

static void store(uint8_t *data, size_t at, uint64_t value, int size_bytes) {
    for (int i = 0; i < size_bytes; i++)
        data[at + (size_t)i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load(const uint8_t *data, size_t at, int size_bytes) {
    uint64_t value = 0;
    for (int i = size_bytes - 1; i >= 0; i--)
        value = value << 8 | data[at + (size_t)i];
    return value;
}

static void seal(uint8_t *data, size_t size_bytes) {
    store(data, PLAN_AT_CHECKSUM, plan_checksum(data, size_bytes), 8);
}

static size_t section_at(const uint8_t *data, enum plan_section section) {
    return (size_t)load(data, PLAN_HEADER_BYTES + section * PLAN_ENTRY_BYTES + 8, 8);
}

static void assert_unreadable(const uint8_t *data, size_t size_bytes, const char *part) {
    struct plan *plan = (struct plan *)8;
    struct err err = {0};
    uint8_t *exact = malloc(size_bytes > 0 ? size_bytes : 1); /* so that reading past it is seen */
    memcpy(exact, data, size_bytes);
    if (plan_parse(exact, size_bytes, &plan, &err))
        fail_msg("read, expected: %s", part);
    free(exact);
    assert_null(plan);
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

struct file {
    uint8_t *data;
    size_t size_bytes;
};

static struct file sample_file(void) {
    struct file file;
    struct plan *plan = build_plan();
    plan_serialise(plan, &file.data, &file.size_bytes);
    plan_free(plan);
    return file;
}

static void test_truncated(void **state) {
    (void)state;
    struct file file = sample_file();
    char message[128];
    for (size_t length = 0; length < 8; length++)
        assert_unreadable(file.data, length, "not a plan file");
    for (size_t length = 8; length < PLAN_HEADER_BYTES; length++)
        assert_unreadable(file.data, length, "truncated");
    for (size_t length = PLAN_HEADER_BYTES; length < file.size_bytes; length++) {
        snprintf(message, sizeof(message), "plan: truncated: %zu of %zu bytes", length,
                 file.size_bytes);
        assert_unreadable(file.data, length, message);
    }
    /* Cut off, with a header that admits it: every section may end anywhere. */
    for (size_t length = PLAN_HEADER_BYTES; length < file.size_bytes; length++) {
        uint8_t *cut = malloc(length);
        memcpy(cut, file.data, length);
        store(cut, PLAN_AT_LENGTH, length, 8);
        seal(cut, length);
        assert_unreadable(cut, length, "plan: ");
        free(cut);
    }
    free(file.data);
}

static void test_broken_header(void **state) {
    (void)state;
    struct file good = sample_file();
    const size_t n = good.size_bytes;
    uint8_t *data = calloc(n + 8, 1);
#define FRESH() memcpy(data, good.data, n)
    FRESH();
    assert_unreadable(data, n + 8, "plan: 8 bytes follow its end");
    data[n / 2] ^= 1;
    assert_unreadable(data, n, "plan: checksum differs");
    FRESH();
    data[3] = 'X';
    assert_unreadable(data, n, "plan: not a plan file");
    FRESH();
    store(data, PLAN_AT_VERSION, 7, 4);
    assert_unreadable(data, n, "plan: version 7, this program reads 6");
    FRESH();
    store(data, PLAN_AT_SECTIONS, 9, 4);
    seal(data, n);
    assert_unreadable(data, n, "plan: 9 sections, must be 8");
    FRESH();
    store(data, PLAN_HEADER_BYTES + 2 * PLAN_ENTRY_BYTES, 5, 4);
    seal(data, n);
    assert_unreadable(data, n, "plan: entry 2 of the section table is not model");
    FRESH();
    store(data, PLAN_HEADER_BYTES + 4 * PLAN_ENTRY_BYTES + 8, 1, 8);
    seal(data, n);
    assert_unreadable(data, n, "plan: section tensors");
    FRESH();
    store(data, PLAN_HEADER_BYTES + 4 * PLAN_ENTRY_BYTES + 16, UINT64_MAX - 3, 8);
    seal(data, n);
    assert_unreadable(data, n, "is not where it belongs");
#undef FRESH
    free(data);
    free(good.data);
}

/* Overwrites a word, at an offset in a section, and expects a message. */
struct bad_word {
    enum plan_section section;
    size_t offset;
    uint32_t value;
    const char *message;
};

/* Offsets in the sample's section of programs: its first has two ports and one choice of two
   methods. */
#define TARGET 272u /* in the section of the model */
#define CHOICES 60u
#define RECORDS (CHOICES + 4 + 8 + 2 * 20)

static void test_broken_sections(void **state) {
    (void)state;
    static const struct bad_word cases[] = {
        {PLAN_SECTION_MODEL, 0, 1, "section model: 1 is not the start of a string"},
        {PLAN_SECTION_MODEL, 4, 0x7fffffff, "is not the start of a string"},
        {PLAN_SECTION_MODEL, 20 + 13 * 4, 3, "section model: the normalisation is 3"},
        {PLAN_SECTION_MODEL, 20 + 16 * 4, 1000, "section model: 1000 labels do not fit"},
        /* no target, then one called as the model is */
        {PLAN_SECTION_MODEL, TARGET + 4, 1, "tilings of the target \"\" is 1"},
        {PLAN_SECTION_MODEL, TARGET + 4 + 17 * 8, 9, "matrix of the target \"\" is 9"},
        {PLAN_SECTION_MODEL, TARGET, 0, "binding_bytes of the target \"small\" is 0"},
        {PLAN_SECTION_BLOCKS, 0, 6, "plan: 6 memory blocks, must be 5"},
        {PLAN_SECTION_BLOCKS, 44, 0x10000000, "268435456 splits do not fit"},
        {PLAN_SECTION_BLOCKS, 44, 1, "section blocks "},
        {PLAN_SECTION_TENSORS, 0, 0xffffffff, "4294967295 tensors do not fit"},
        {PLAN_SECTION_TENSORS, 0, 3, "section tensors has "},
        {PLAN_SECTION_TENSORS, 8, 5, "the block of a tensor is 5, must be less than 5"},
        {PLAN_SECTION_TENSORS, 12, 3, "the layout of a tensor is 3"},
        {PLAN_SECTION_TENSORS, 16, 2, "the type of a tensor is 2"},
        {PLAN_SECTION_SHADERS, 0, 500000000, "500000000 shaders do not fit"},
        {PLAN_SECTION_SHADERS, 8, 0x40000000, "shader any_gpu: "},
        {PLAN_SECTION_SHADERS, 12, 0xffffffff, "shader any_gpu: 4294967295 words of code"},
        {PLAN_SECTION_PARAMS, 0, 60000, "60000 parameters do not fit"},
        {PLAN_SECTION_PARAMS, 12, 3, "the number of states is 3"},
        {PLAN_SECTION_PARAMS, 28, 5, "the rank of a parameter is 5"},
        {PLAN_SECTION_PROGRAMS, 0, 80000, "80000 programs do not fit"},
        {PLAN_SECTION_PROGRAMS, 0, 1, "section programs has "},
        {PLAN_SECTION_PROGRAMS, 32, 70000, "70000 ports do not fit"},
        {PLAN_SECTION_PROGRAMS, 40, 2, "the direction of a port is 2"},
        {PLAN_SECTION_PROGRAMS, CHOICES, 70000, "70000 choices do not fit"},
        {PLAN_SECTION_PROGRAMS, CHOICES + 8, 7, "the number of methods of a choice is 7"},
        {PLAN_SECTION_PROGRAMS, CHOICES + 12, 6, "a method of a choice is 6"},
        {PLAN_SECTION_PROGRAMS, CHOICES + 32, 9, "a method of a choice is 9"},
        {PLAN_SECTION_PROGRAMS, RECORDS, 70000, "70000 records do not fit"},
        {PLAN_SECTION_PROGRAMS, RECORDS + 16, 0, "this program has no kernel 'small'"},
        {PLAN_SECTION_PROGRAMS, RECORDS + 20, 3, "kernel conv_fwd has 3 tensors, must be 4"},
        {PLAN_SECTION_PROGRAMS, RECORDS + 40, 16,
         "kernel conv_fwd has 16 parameter words, must be 19"},
        {PLAN_SECTION_PROGRAMS, RECORDS + 44 + 19 * 4, 2, "barrier is 2"},
        {PLAN_SECTION_PROGRAMS, RECORDS + 44 + 19 * 4 + 16, 17, "the number of constants is 17"},
    };
    struct file file = sample_file();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const size_t at = section_at(file.data, cases[i].section) + cases[i].offset;
        const uint32_t old = (uint32_t)load(file.data, at, 4);
        store(file.data, at, cases[i].value, 4);
        seal(file.data, file.size_bytes);
        assert_unreadable(file.data, file.size_bytes, cases[i].message);
        store(file.data, at, old, 4);
    }
    file.data[section_at(file.data, PLAN_SECTION_CODE) - 1] = 7;
    seal(file.data, file.size_bytes);
    assert_unreadable(file.data, file.size_bytes, "plan: ");
    free(file.data);
}

/* Any damaged byte is noticed; with the checksum made right again, reading and verifying survive
   whatever the file says, and what is read reads the same when written again. */
static void test_random_damage(void **state) {
    (void)state;
    struct file file = sample_file();
    struct rng rng = rng_stream(20240611, 1, 0);
    uint32_t read = 0, verified = 0;
    uint8_t *data = malloc(file.size_bytes);
    for (int round = 0; round < 10000; round++) {
        memcpy(data, file.data, file.size_bytes);
        const uint32_t flips = 1 + rng_below(&rng, 3);
        for (uint32_t i = 0; i < flips; i++) {
            const uint32_t at = rng_below(&rng, (uint32_t)file.size_bytes);
            data[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
        }
        struct plan *plan, *again;
        struct err err = {0};
        if (memcmp(data, file.data, file.size_bytes) == 0)
            continue;
        assert_false(plan_parse(data, file.size_bytes, &plan, &err));
        seal(data, file.size_bytes);
        if (!plan_parse(data, file.size_bytes, &plan, &err))
            continue;
        read++;
        verified += plan_verify(plan, NULL, &err);
        uint8_t *out, *out_again;
        size_t out_bytes, out_again_bytes;
        plan_serialise(plan, &out, &out_bytes);
        assert_true(plan_parse(out, out_bytes, &again, &err));
        plan_serialise(again, &out_again, &out_again_bytes);
        assert_int_equal(out_bytes, out_again_bytes);
        assert_memory_equal(out, out_again, out_bytes);
        free(out);
        free(out_again);
        plan_free(plan);
        plan_free(again);
    }
    /* The figures belong to the seed: flips in names, floats and the like pass. */
    assert_true(read > 1000 && verified > 100 && verified < read);
    free(data);
    free(file.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_target),
        cmocka_unit_test(test_save_and_print), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_broken_header),  cmocka_unit_test(test_broken_sections),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
