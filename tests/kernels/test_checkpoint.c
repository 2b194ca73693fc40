/*
 * test_checkpoint.c: parameters between PyTorch's shapes and the kernels' layout, initial values,
 * and checkpoints: what is saved comes back to the bit, what does not fit is refused by name and
 * changes nothing.
 */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/kernels/fixture.h"

#include "common/safetensors.h"

#define CONV_ELEMENTS 108 /* 6 x 3 x 3 x 2 */
#define UP_ELEMENTS 80    /* 4 x 5 x 2 x 2 */

static struct unet_device *device;
static struct hand hand;
static struct unet_session *session;
static char path[] = "/tmp/unet-test-XXXXXX";

static int set_up(void **state) {
    (void)state;
    device = open_device();
    hand = make_hand();
    must(unet_session_open(device, hand.plan, NULL, &session, &err));
    const int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    memcpy(path + strlen(path) - 6, "XXXXXX", 6);
    unet_session_close(session);
    close_device(device);
    plan_free(hand.plan);
    return 0;
}

/* ---- layouts and initial values ---- */

/* Dense element (o, i, y, x) lies at ((i * kh + y) * kw + x) * out4 + o; padding is zero. */
static void test_conv_layout(void **state) {
    (void)state;
    float dense[CONV_ELEMENTS], packed[18 * 8], back[CONV_ELEMENTS];
    for (int i = 0; i < CONV_ELEMENTS; i++)
        dense[i] = (float)(i + 1);
    must(unet_session_write_param(session, hand.weights, -1, dense, &err));
    must(unet_session_read_tensor(session, hand.plan->params[hand.weights].tensor, packed, &err));
    for (int in = 0; in < 3; in++) {
        for (int tap = 0; tap < 6; tap++) {
            for (int out = 0; out < 8; out++) {
                const float expected = out < 6 ? dense[(out * 3 + in) * 6 + tap] : 0.0f;
                assert_true(packed[(in * 6 + tap) * 8 + out] == expected);
            }
        }
    }
    must(unet_session_read_param(session, hand.weights, -1, back, &err));
    assert_memory_equal(dense, back, sizeof(dense));
}

static void test_up_layout(void **state) {
    (void)state;
    float dense[UP_ELEMENTS], packed[16 * 8], back[UP_ELEMENTS];
    for (int i = 0; i < UP_ELEMENTS; i++)
        dense[i] = (float)(i + 1);
    must(unet_session_write_param(session, hand.up, 0, dense, &err));
    must(unet_session_read_tensor(session, hand.plan->params[hand.up].states[0], packed, &err));
    for (int in = 0; in < 4; in++) {
        for (int tap = 0; tap < 4; tap++) {
            for (int out = 0; out < 8; out++) {
                const float expected = out < 5 ? dense[(in * 5 + out) * 4 + tap] : 0.0f;
                assert_true(packed[(in * 4 + tap) * 8 + out] == expected);
            }
        }
    }
    must(unet_session_read_param(session, hand.up, 0, back, &err));
    assert_memory_equal(dense, back, sizeof(dense));
}

static void test_init(void **state) {
    (void)state;
    float first[CONV_ELEMENTS], again[CONV_ELEMENTS], bias[6], up[UP_ELEMENTS];
    double sum = 0.0, squares = 0.0, most = 0.0;
    memset(first, 0x55, sizeof(first));
    must(unet_session_write_param(session, hand.weights, 0, first, &err));
    must(unet_session_init_weights(session, 11, &err));
    must(unet_session_read_param(session, hand.weights, -1, first, &err));
    must(unet_session_read_param(session, hand.weights, 0, again, &err));
    for (int i = 0; i < CONV_ELEMENTS; i++) {
        assert_true(again[i] == 0.0f); /* optimiser state is cleared */
        sum += (double)first[i];
        squares += (double)first[i] * (double)first[i];
    }
    /* 108 draws of deviation 0.5: mean within 4 deviations of itself, variance within 5 */
    assert_true(fabs(sum / CONV_ELEMENTS) < 4.0 * 0.5 / sqrt(CONV_ELEMENTS));
    assert_true(fabs(squares / CONV_ELEMENTS / 0.25 - 1.0) < 5.0 * sqrt(2.0 / CONV_ELEMENTS));
    must(unet_session_read_param(session, hand.bias, -1, bias, &err));
    for (int i = 0; i < 6; i++)
        assert_true(bias[i] == 0.0f);
    must(unet_session_read_param(session, hand.up, -1, up, &err));
    for (int i = 0; i < UP_ELEMENTS; i++)
        most = fmax(most, fabs((double)up[i]));
    assert_true(most <= 0.25 && most > 0.2);
    must(unet_session_init_weights(session, 11, &err));
    must(unet_session_read_param(session, hand.weights, -1, again, &err));
    assert_memory_equal(first, again, sizeof(first));
    must(unet_session_init_weights(session, 12, &err));
    must(unet_session_read_param(session, hand.weights, -1, again, &err));
    assert_memory_not_equal(first, again, sizeof(first));
}

/* ---- checkpoints ---- */

static const struct unet_checkpoint_info saved_info = {
    .seed = 0xfedcba9876543210u, .step = 7, .total_steps = 70, .best_score = 0.1};

static void save(float *weights, float *momentum) {
    fill(weights, CONV_ELEMENTS, 1);
    fill(momentum, CONV_ELEMENTS, 2);
    must(unet_session_init_weights(session, 3, &err));
    must(unet_session_write_param(session, hand.weights, -1, weights, &err));
    must(unet_session_write_param(session, hand.weights, 0, momentum, &err));
    must(unet_checkpoint_save(session, path, &saved_info, &err));
}

static void test_round_trip(void **state) {
    (void)state;
    float weights[CONV_ELEMENTS], momentum[CONV_ELEMENTS], back[CONV_ELEMENTS];
    struct unet_checkpoint_info info;
    save(weights, momentum);
    must(unet_session_init_weights(session, 99, &err));
    must(unet_checkpoint_load(session, path, false, NULL, &err));
    must(unet_session_read_param(session, hand.weights, 0, back, &err));
    for (int i = 0; i < CONV_ELEMENTS; i++)
        assert_true(back[i] == 0.0f); /* without state, the state stays */
    must(unet_checkpoint_load(session, path, true, &info, &err));
    assert_true(info.seed == saved_info.seed && info.best_score == saved_info.best_score);
    assert_int_equal(info.step, 7);
    assert_int_equal(info.total_steps, 70);
    must(unet_session_read_param(session, hand.weights, -1, back, &err));
    assert_memory_equal(back, weights, sizeof(back));
    must(unet_session_read_param(session, hand.weights, 0, back, &err));
    assert_memory_equal(back, momentum, sizeof(back));
}

static void test_names(void **state) {
    (void)state;
    float weights[CONV_ELEMENTS], momentum[CONV_ELEMENTS];
    struct safetensors file;
    save(weights, momentum);
    must(safetensors_load(path, &file, &err));
    assert_int_equal(file.n_entries, 6);
    const struct safetensors_entry *entry = safetensors_find(&file, "conv.weight");
    assert_non_null(entry);
    assert_int_equal(entry->rank, 4);
    assert_true(entry->dims[0] == 6 && entry->dims[1] == 3 && entry->dims[2] == 3 &&
                entry->dims[3] == 2);
    assert_memory_equal(entry->data, weights, sizeof(weights));
    entry = safetensors_find(&file, "up.weight");
    assert_non_null(entry);
    assert_true(entry->dims[0] == 4 && entry->dims[1] == 5);
    assert_non_null(safetensors_find(&file, "conv.bias"));
    assert_non_null(safetensors_find(&file, "optimiser.conv.weight.momentum"));
    assert_string_equal(safetensors_metadata(&file, "step"), "7");
    assert_string_equal(safetensors_metadata(&file, "seed"), "18364758544493064720");
    assert_string_equal(safetensors_metadata(&file, "model_hash"), "0000000000001234");
    assert_string_equal(safetensors_metadata(&file, "device"), unet_device_get_info(device)->name);
    safetensors_free(&file);
}

/* Writes a file with weights as PyTorch would, after one change. */
enum change { PLAIN, MISSING, SURPLUS, MISSHAPEN, RANK, TYPE, INFINITE, OTHER_HASH, BAD_STEP };

static void write_foreign(enum change change) {
    float conv[CONV_ELEMENTS], bias[6], up[UP_ELEMENTS];
    struct safetensors file = {.entries = NULL};
    const uint64_t conv_dims[] = {6, 3, 3, 2}, swapped[] = {6, 3, 2, 3}, bias_dims[] = {6};
    const uint64_t up_dims[] = {4, 5, 2, 2}, column[] = {6, 1};
    fill(conv, CONV_ELEMENTS, 21);
    fill(bias, 6, 22);
    fill(up, UP_ELEMENTS, 23);
    if (change == INFINITE)
        bias[4] = INFINITY;
    safetensors_add(&file, "conv.weight", SAFETENSORS_F32, 4,
                    change == MISSHAPEN ? swapped : conv_dims, conv);
    safetensors_add(&file, "conv.bias", change == TYPE ? SAFETENSORS_U32 : SAFETENSORS_F32,
                    change == RANK ? 2 : 1, change == RANK ? column : bias_dims, bias);
    if (change != MISSING)
        safetensors_add(&file, "up.weight", SAFETENSORS_F32, 4, up_dims, up);
    if (change == SURPLUS)
        safetensors_add(&file, "head.bias", SAFETENSORS_F32, 1, bias_dims, bias);
    if (change == OTHER_HASH) {
        safetensors_add_metadata(&file, "model_hash", "00000000deadbeef");
        safetensors_add_metadata(&file, "model", "another");
        safetensors_add_metadata(&file, "overrides", "width=8");
    }
    if (change == BAD_STEP)
        safetensors_add_metadata(&file, "step", "-1");
    must(safetensors_save(&file, path, &err));
    safetensors_free(&file);
}

static void test_foreign(void **state) {
    (void)state;
    float expected[CONV_ELEMENTS], weights[CONV_ELEMENTS];
    struct unet_checkpoint_info info;
    write_foreign(PLAIN);
    must(unet_checkpoint_load(session, path, false, &info, &err));
    assert_true(info.step == 0 && isinf(info.best_score));
    fill(expected, CONV_ELEMENTS, 21);
    must(unet_session_read_param(session, hand.weights, -1, weights, &err));
    assert_memory_equal(weights, expected, sizeof(weights));
    must_fail(unet_checkpoint_load(session, path, true, NULL, &err), ERR_INPUT,
              "optimiser.conv.weight.momentum");
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        enum change change;
        const char *words;
    } cases[] = {
        {MISSING, "up.weight is missing"},
        {SURPLUS, "head.bias"},
        {MISSHAPEN, "conv.weight is 6 x 3 x 2 x 3, the model wants 6 x 3 x 3 x 2"},
        {RANK, "conv.bias is 6 x 1, the model wants 6"},
        {TYPE, "conv.bias does not hold"},
        {INFINITE, "conv.bias: element 4"},
        {OTHER_HASH, "another with width=8, hash 00000000deadbeef, but the plan is of by hand"},
        {BAD_STEP, "step: \"-1\""},
    };
    float before[CONV_ELEMENTS], after[CONV_ELEMENTS];
    must(unet_session_init_weights(session, 1, &err));
    must(unet_session_read_param(session, hand.weights, -1, before, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_foreign(cases[i].change);
        must_fail(unet_checkpoint_load(session, path, false, NULL, &err), ERR_INPUT,
                  cases[i].words);
        assert_non_null(strstr(err.text, path));
        must(unet_session_read_param(session, hand.weights, -1, after, &err));
        assert_memory_equal(before, after, sizeof(before));
    }
    must_fail(unet_checkpoint_load(session, "/nowhere/at/all", false, NULL, &err), ERR_IO,
              "/nowhere");
    must_fail(unet_checkpoint_save(session, "/nowhere/at/all", &saved_info, &err), ERR_IO,
              "/nowhere");
}

/* A session that only infers takes the weights of a training run and no more. */
static void test_without_state(void **state) {
    (void)state;
    const char *names[] = {"infer"};
    const struct unet_session_options options = {.programs = names, .n_programs = 1};
    float weights[CONV_ELEMENTS], momentum[CONV_ELEMENTS], back[CONV_ELEMENTS], out[18 * 8];
    struct safetensors file;
    save(weights, momentum);
    unet_session_close(session);
    must(unet_session_open(device, hand.plan, &options, &session, &err));
    must_fail(unet_checkpoint_load(session, path, true, NULL, &err), ERR_USAGE, "optimiser state");
    must(unet_checkpoint_load(session, path, false, NULL, &err));
    must(unet_session_read_param(session, hand.weights, -1, back, &err));
    assert_memory_equal(back, weights, sizeof(back));
    must(unet_session_run(session, "infer", &err));
    must(unet_session_read(session, "infer", "out", out, sizeof(out), &err));
    assert_true(out[0] == weights[0] && out[5] == weights[5 * 18] && out[6] == 0.0f);
    must(unet_checkpoint_save(session, path, &saved_info, &err));
    must(safetensors_load(path, &file, &err));
    assert_int_equal(file.n_entries, 3);
    safetensors_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conv_layout, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_up_layout, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_init, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_state, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
