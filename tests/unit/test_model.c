/*
 * test_model.c: the model language (docs/model.md): expressions, overrides, blocks, repeats, names,
 * settings; sizes and tilings; the graphs built; the shipped models.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/model.h"

#define LABELS "labels: [{value: 0, class: membrane}, {value: 255, class: cell}]\n"
#define END "  - conv: {name: score, channels: 2, kernel: 1}\n  - cross_entropy\n"
#define HEAD "input: {tile: 64}\n" LABELS

static const char *models_folder;

/* Reads a model that must be good. */
static struct model *parse_set(const char *text, const struct model_override *overrides, size_t n) {
    struct model *model;
    struct diag diag;
    diag_init(&diag, "test.yaml", text);
    const bool ok = model_parse("test.yaml", text, overrides, n, &model, &diag) &&
                    model_check_sizes(model, &diag);
    if (!ok)
        diag_print(&diag, stderr);
    assert_true(ok);
    diag_free(&diag);
    return model;
}

static struct model *parse(const char *text) {
    return parse_set(text, NULL, 0);
}

static const struct layer *layer_named(const struct model *model, const char *name) {
    for (size_t i = 0; i < model->layers.count; i++)
        if (strcmp(model->layers.items[i].name, name) == 0)
            return &model->layers.items[i];
    fail_msg("no layer %s", name);
    return NULL;
}

/* Names of all layers but the input, with a blank behind each. */
static char *layer_names(const struct model *model) {
    static char names[2048];
    size_t length = 0;
    names[0] = '\0';
    for (size_t i = 1; i < model->layers.count; i++)
        length += (size_t)snprintf(names + length, sizeof(names) - length, "%s ",
                                   model->layers.items[i].name);
    return names;
}

static void test_expressions(void **state) {
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"${1 + 2 * 3}", "7"},
        {"${(1 + 2) * 3}", "9"},
        {"${10 - 4 - 3}", "3"},
        {"${64 / 2 / 4}", "8"},
        {"${2 ^ 3 ^ 2}", "512"},
        {"${2 ** 3}", "8"},
        {"${-2 ^ 2}", "-4"},
        {"${2 ^ -1}", "0.5"},
        {"${7 % 3}", "1"},
        {"${-7 % 3}", "2"},
        {"${0 - 0}", "0"},
        {"${1e-3 * 4}", "0.004"},
        {"${.5 + 1.}", "1.5"},
        {"${min(4, 2, 3)}", "2"},
        {"${max(4, 2, 7)}", "7"},
        {"${floor(7 / 2) + ceil(7 / 2) + round(3.5)}", "11"},
        {"${sqrt(16) + log2(8) + abs(-1)}", "8"},
        {"${if(w > 3, 'wide', 'narrow')}", "wide"},
        {"${if(w == 3, 'wide', 'narrow')}", "narrow"},
        {"${(1 <= 1) + (1 < 1) + (2 >= 3) + (2 != 3) + (2 == 2)}", "3"},
        {"${kind == 'adam'}", "1"},
        {"${kind != 'adam'}", "0"},
        {"${true + false}", "1"},
        {"enc${w}/out", "enc8/out"},
        {"${w}x${w * 2}", "8x16"},
        {"a}b{c", "a}b{c"},
        {"$w", "$w"},
        {"${'}'}", "}"},
        {"${1000000 * 1000000}", "1000000000000"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[512];
        snprintf(text, sizeof(text),
                 "let: {w: 8, kind: adam}\nmodel: \"%s\"\n" HEAD "layers:\n" END, cases[i].text);
        struct model *model = parse(text);
        assert_string_equal(model->name, cases[i].expected);
        model_free(model);
    }
}

static void test_expressions_need_no_quotes_in_braces(void **state) {
    (void)state;
    struct model *model = parse("let: {w: ${2 * 4}, v: ${max(w, 3)}}\n" HEAD "layers:\n"
                                "  - conv: {channels: ${w}, kernel: [${w - 5}, ${min(w, 1)}]}\n"
                                "  - conv: {channels: ${v + 1}, kernel: 1}\n" END);
    assert_int_equal(layer_named(model, "conv1")->channels, 8);
    assert_int_equal(layer_named(model, "conv1")->kernel_h, 3);
    assert_int_equal(layer_named(model, "conv1")->kernel_w, 1);
    assert_int_equal(layer_named(model, "conv2")->channels, 9);
    model_free(model);
}

static void test_overrides(void **state) {
    static const char text[] = "let: {width: 64, double: \"${width * 2}\", optimiser: adam}\n" HEAD
                               "train: {optimiser: \"${optimiser}\"}\nlayers:\n"
                               "  - conv: ${width}\n  - conv: ${double}\n" END;
    static const struct model_override overrides[] = {
        {"width", "4"}, {"optimiser", "sgd"}, {"width", "${2 * 8}"}};
    (void)state;
    struct model *model = parse_set(text, overrides, 3);
    assert_int_equal(layer_named(model, "conv1")->channels, 16); /* the last one counts */
    assert_int_equal(layer_named(model, "conv2")->channels, 32); /* later variables follow */
    assert_int_equal(model->settings.optimiser, PLAN_OPTIMISER_SGD);
    assert_string_equal(model->overrides, "width=4 optimiser=sgd width=${2 * 8}");
    assert_string_equal(model->settings.overrides, model->overrides);
    model_free(model);
    model = parse(text);
    assert_int_equal(layer_named(model, "conv2")->channels, 128);
    assert_int_equal(model->settings.optimiser, PLAN_OPTIMISER_ADAM);
    assert_string_equal(model->overrides, "");
    model_free(model);
}

static void test_blocks_and_repeats(void **state) {
    (void)state;
    struct model *model =
        parse("let: {depth: 2}\n" HEAD "blocks:\n"
              "  pair: {parameters: [n, {kernel: \"${n + 1}\"}], layers: [\n"
              "    conv: {channels: \"${n}\", kernel: \"${kernel}\"}, relu,\n"
              "    single: {name: last, n: \"${n * 2}\"}]}\n"
              "  single: {parameters: [n], layers: [conv: \"${n}\"]}\n"
              "layers:\n"
              "  - pair: 2\n"
              "  - repeat: {times: \"${depth}\", as: i, from: 5, step: -2, layers: [\n"
              "      pair: {name: \"p${i}\", n: \"${i}\", kernel: 1}, relu]}\n"
              "  - repeat: {times: 0, layers: [unheard_of]}\n"
              "  - single: 7\n" END);
    assert_string_equal(layer_names(model),
                        "pair1/conv1 pair1/relu1 pair1/last/conv1 "
                        "p5/conv1 p5/relu1 p5/last/conv1 relu1 "
                        "p3/conv1 p3/relu1 p3/last/conv1 relu2 single1/conv1 score "
                        "cross_entropy1 ");
    assert_int_equal(layer_named(model, "pair1/conv1")->channels, 2);
    assert_int_equal(layer_named(model, "pair1/conv1")->kernel_h, 3);
    assert_int_equal(layer_named(model, "p5/conv1")->channels, 5);
    assert_int_equal(layer_named(model, "p5/conv1")->kernel_h, 1);
    assert_int_equal(layer_named(model, "p3/last/conv1")->channels, 6);
    assert_int_equal(layer_named(model, "single1/conv1")->channels, 7);
    model_free(model);
}

static void test_names(void **state) {
    (void)state;
    struct model *model = parse(HEAD "blocks:\n"
                                     "  inner: {parameters: [skip], layers: [\n"
                                     "    conv: {name: a, channels: 3, padding: same},\n"
                                     "    concat: [a, \"${skip}\", input]]}\n"
                                     "layers:\n"
                                     "  - conv: {name: a, channels: 4, padding: same}\n"
                                     "  - conv: {name: b, channels: 5, padding: same}\n"
                                     "  - inner: {name: first, skip: b, from: a}\n"
                                     "  - inner: {name: second, skip: first}\n"
                                     "  - inner: {name: third, skip: first/a}\n"
                                     "  - add: {name: sum, inputs: [third/a, first/a]}\n"
                                     "  - conv: {name: c, channels: 6, from: third}\n"
                                     "  - concat: [sum, c]\n" END);
    /* 0 input, 1 a, 2 b, 3 first/a, 4 first/concat1, 5 second/a, 6 .., 7 third/a, 8 .., 9 sum */
    assert_int_equal(layer_named(model, "first/a")->inputs[0], 1);
    const struct layer *join = layer_named(model, "first/concat1");
    assert_int_equal(join->n_inputs, 3);
    assert_int_equal(join->inputs[0], 3); /* the block's own a */
    assert_int_equal(join->inputs[1], 2);
    assert_int_equal(join->inputs[2], 0);
    assert_int_equal(join->channels, 9);
    assert_int_equal(layer_named(model, "second/concat1")->inputs[1], 4); /* a block: its end */
    assert_int_equal(layer_named(model, "third/concat1")->inputs[1], 3);
    assert_int_equal(layer_named(model, "sum")->inputs[0], 7);
    assert_int_equal(layer_named(model, "sum")->inputs[1], 3);
    assert_int_equal(layer_named(model, "sum")->channels, 3);
    assert_int_equal(layer_named(model, "c")->inputs[0], 8);
    model_free(model);
}

static void test_layer_fields(void **state) {
    (void)state;
    struct model *model =
        parse("input: {tile: [66, 60], channels: 3}\n" LABELS "layers:\n"
              "  - conv: {channels: 4, kernel: [1, 5], padding: same, dilation: 2, bias: false}\n"
              "  - leaky_relu: 0.25\n  - leaky_relu\n"
              "  - maxpool: {size: 3, stride: 1, dilation: 2}\n  - maxpool\n"
              "  - dropout: 0.25\n  - dropout\n"
              "  - upconv: {channels: 5, kernel: 2}\n" END);
    const struct layer *conv = layer_named(model, "conv1");
    assert_int_equal(conv->kernel_h, 1);
    assert_int_equal(conv->kernel_w, 5);
    assert_true(conv->same);
    assert_false(conv->bias);
    assert_int_equal(conv->dilation, 2);
    assert_true(layer_named(model, "leaky_relu1")->slope == 0.25f);
    assert_true(layer_named(model, "leaky_relu2")->slope == 0.1f);
    assert_int_equal(layer_named(model, "maxpool1")->stride, 1);
    assert_int_equal(layer_named(model, "maxpool1")->kernel_h, 3);
    assert_int_equal(layer_named(model, "maxpool1")->dilation, 2);
    assert_int_equal(layer_named(model, "maxpool2")->stride, 2);
    assert_true(layer_named(model, "dropout1")->rate == 0.25f);
    assert_true(layer_named(model, "dropout2")->rate == 0.5f);
    assert_int_equal(model->settings.channels, 3);
    assert_int_equal(model->settings.in_h, 66);
    assert_int_equal(model->settings.out_h, 62);
    assert_int_equal(model->settings.out_w, 56);
    model_free(model);
}

static void test_settings(void **state) {
    (void)state;
    struct model *model =
        parse("model: named\ninput: {tile: 64, normalise: standard, offset: 0.25, scale: 4}\n"
              "labels:\n"
              "  - {value: 7, class: a}\n  - {value: 9, class: b, weight: 3}\n"
              "  - {value: 8, class: a, weight: 0.5}\n  - {value: 128, class: ignore}\n"
              "train:\n"
              "  optimiser: sgd\n  momentum: 0.99\n  learning_rate: 0.01\n  weight_decay: 0.001\n"
              "  schedule: {kind: step, every: 50, factor: 0.5}\n  warmup: 7\n  batch: 3\n"
              "  steps: 99\n  accumulate: 4\n  sampling: 0.25\n"
              "layers:\n" END);
    const struct plan_model *settings = &model->settings;
    assert_string_equal(settings->name, "named");
    assert_string_equal(settings->source, "test.yaml");
    assert_int_equal(settings->normalise, PLAN_NORMALISE_STANDARD);
    assert_true(settings->input_offset == 0.25f && settings->input_scale == 4);
    assert_int_equal(settings->n_classes, 2);
    assert_int_equal(settings->n_labels, 3);
    assert_int_equal(settings->labels[2].value, 8);
    assert_int_equal(settings->labels[2].class_, 0);
    assert_true(settings->labels[0].weight == 0.5f && settings->labels[1].weight == 3);
    assert_string_equal(settings->labels[1].name, "b");
    assert_true(settings->has_ignore);
    assert_int_equal(settings->ignore_value, 128);
    assert_int_equal(settings->optimiser, PLAN_OPTIMISER_SGD);
    assert_true(settings->momentum == 0.99f && settings->learning_rate == 0.01f);
    assert_true(model->weight_decay == 0.001f);
    assert_int_equal(settings->schedule, PLAN_SCHEDULE_STEP);
    assert_int_equal(settings->schedule_steps, 50);
    assert_true(settings->schedule_gamma == 0.5f);
    assert_int_equal(settings->warmup_steps, 7);
    assert_int_equal(settings->batch, 3);
    assert_int_equal(settings->default_steps, 99);
    assert_int_equal(settings->accumulate, 4);
    assert_true(settings->sample_balance == 0.25f);
    model_free(model);
}

/* Settings of a model with these sections. */
static struct plan_model sections(const char *text) {
    char whole[1024];
    snprintf(whole, sizeof(whole), "%s" HEAD "layers:\n" END, text);
    struct model *model = parse(whole);
    const struct plan_model settings = model->settings;
    model_free(model);
    return settings;
}

static void test_augment(void **state) {
    (void)state;
    static const char none[] = "", word[] = "augment: none\n";
    for (int i = 0; i < 2; i++) {
        const struct plan_augment a = sections(i == 0 ? none : word).augment;
        assert_int_equal(a.elastic_grid, 0);
        assert_true(a.rotate_degrees == 0 && a.mirror_probability == 0);
        assert_true(a.scale_min == 1 && a.scale_max == 1);
        assert_true(a.grey_probability == 0 && a.grey_slope_min == 1 && a.grey_slope_max == 1);
        assert_true(a.shift && a.cubic);
    }
    struct plan_augment a =
        sections("augment:\n  elastic: {grid: 5, sigma: 7, probability: 0.5}\n"
                 "  rotate: {degrees: 90, step: 45, probability: 0.25}\n  mirror: 0.125\n"
                 "  scale: {from: 0.5, to: 2, probability: 0.75}\n  shift: false\n"
                 "  grey: {black: 0.125, white: 0.25, slope: {from: 0.5, to: 1.25}}\n"
                 "  interpolation: linear\n")
            .augment;
    assert_int_equal(a.elastic_grid, 5);
    assert_true(a.elastic_sigma == 7 && a.elastic_probability == 0.5f);
    assert_true(a.rotate_degrees == 90 && a.rotate_step == 45 && a.rotate_probability == 0.25f);
    assert_true(a.mirror_probability == 0.125f);
    assert_true(a.scale_min == 0.5f && a.scale_max == 2 && a.scale_probability == 0.75f);
    assert_true(a.grey_black == 0.125f && a.grey_white == 0.25f && a.grey_probability == 1);
    assert_true(a.grey_slope_min == 0.5f && a.grey_slope_max == 1.25f);
    assert_false(a.shift || a.cubic);
    /* A lone number is the main field, the others have defaults. */
    a = sections("augment: {elastic: 10, rotate: 180, grey: {slope: 0.25}}\n").augment;
    assert_int_equal(a.elastic_grid, 3);
    assert_true(a.elastic_sigma == 10 && a.elastic_probability == 1);
    assert_true(a.rotate_degrees == 180 && a.rotate_step == 0 && a.rotate_probability == 1);
    assert_true(a.grey_slope_min == 0.75f && a.grey_slope_max == 1.25f);
    /* 0 switches a part off, whatever its other fields say. */
    a = sections("augment: {elastic: {sigma: 0, grid: 4}, rotate: {degrees: 0, step: 90}}\n")
            .augment;
    assert_int_equal(a.elastic_grid, 0);
    assert_true(a.rotate_degrees == 0);
    assert_true(sections("train: {sampling: uniform}\n").sample_balance == 0);
    assert_true(sections("train: {sampling: balanced}\n").sample_balance == 1);
}

static void test_weights(void **state) {
    (void)state;
    const struct plan_weights none = sections("").weights;
    assert_true(none.balance == 0 && none.border == 0 && none.sigma == 5);
    const struct plan_weights some = sections("weights: {balance: 0.5, sigma: 3}\n").weights;
    assert_true(some.balance == 0.5f && some.border == 0 && some.sigma == 3);
    static const char cells[] =
        "input: {tile: 64}\nlabels:\n  - {value: 0, class: background}\n"
        "  - {value: other, class: cell, instances: true}\n  - {value: 9, class: ignore}\n"
        "weights: {balance: 1, border: 10}\nlayers:\n"
        "  - conv: {name: score, channels: 2, kernel: 1}\n  - cross_entropy: ";
    for (int map = 0; map < 2; map++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s\n", cells, map ? "true" : "false");
        struct model *model = parse(text);
        assert_true(model->settings.weights.balance == (float)map);
        assert_true(model->settings.weights.border == (float)(10 * map));
        model_free(model);
    }
}

/* Values that are objects of their own, ranges, and the value that "other" is written as. */
static void test_instances(void **state) {
    (void)state;
    struct model *model = parse("input: {tile: 64}\nlabels:\n  - {value: 0, class: background}\n"
                                "  - {values: [1, 99], class: cell, instances: true, weight: 2}\n"
                                "  - {value: other, class: rod, instances: true}\n"
                                "layers:\n  - conv: {channels: 3, kernel: 1}\n  - cross_entropy\n");
    const struct plan_label *labels = model->settings.labels;
    assert_int_equal(model->settings.n_labels, 4);
    assert_int_equal(labels[0].last_value, 0);
    assert_false(labels[0].instances);
    assert_int_equal(labels[1].value, 1);
    assert_int_equal(labels[1].last_value, 99);
    assert_true(labels[1].instances && labels[1].weight == 2);
    /* 255 is written for the class, and where it is read it is one object among the others. */
    assert_int_equal(labels[2].value, 255);
    assert_int_equal(labels[2].last_value, 255);
    assert_true(labels[2].instances);
    assert_int_equal(labels[2].class_, 2);
    assert_int_equal(labels[3].value, PLAN_LABEL_OTHER);
    assert_int_equal(labels[3].last_value, PLAN_LABEL_OTHER);
    assert_true(labels[3].instances);
    model_free(model);
    /* A range from 200 on leaves 199 for the class that is only "other". */
    model = parse("input: {tile: 64}\nlabels:\n  - {value: other, class: cell}\n"
                  "  - {values: [200, 65535], class: background}\n"
                  "layers:\n  - conv: {channels: 2, kernel: 1}\n  - cross_entropy\n");
    assert_int_equal(model->settings.labels[0].value, 199);
    model_free(model);
}

static void test_other_labels(void **state) {
    (void)state;
    struct model *model =
        parse("input: {tile: 64}\nlabels: [{value: 0, class: background}, {value: 255, class: rim},"
              " {value: other, class: cell, weight: 2}]\n"
              "layers:\n  - conv: {channels: 3, kernel: 1}\n  - cross_entropy: false\n");
    const struct plan_model *settings = &model->settings;
    assert_int_equal(settings->n_labels, 4);
    assert_int_equal(settings->labels[2].value, 254); /* what is written for the class */
    assert_int_equal(settings->labels[2].class_, 2);
    assert_int_equal(settings->labels[3].value, PLAN_LABEL_OTHER);
    assert_int_equal(settings->labels[3].class_, 2);
    assert_string_equal(settings->labels[3].name, "cell");
    for (uint32_t i = 0; i < 4; i++)
        assert_true(settings->labels[i].weight == 1); /* no weight map */
    model_free(model);
}

static void expect_init(const struct param *param, const char *name, enum plan_init init,
                        double scale) {
    assert_string_equal(param->name, name);
    assert_int_equal(param->init, init);
    assert_true(fabs((double)param->init_scale - scale) < 1e-6);
}

static void test_parameters(void **state) {
    (void)state;
    const struct param *const *params, *const *again;
    struct model *model =
        parse(HEAD "layers:\n"
                   "  - conv: {channels: 8, kernel: [3, 1]}\n"
                   "  - maxpool: {size: 1, stride: 1}\n  - maxpool: {size: 3, stride: 1}\n"
                   "  - conv: {channels: 6, kernel: 1, init: xavier, bias: false}\n"
                   "  - conv: {channels: 5, kernel: 1, init: {normal: 0.125}, bias: false}\n"
                   "  - conv: {channels: 5, kernel: 1, init: {uniform: 0.25}, bias: false}\n"
                   "  - conv: {channels: 5, kernel: 1, init: zero, bias: false}\n"
                   "  - conv: {channels: 8, kernel: 3}\n"
                   "  - maxpool\n  - upconv: {channels: 4, bias: false}\n"
                   "  - maxpool\n  - upconv: {channels: 4}\n  - relu\n" END);
    assert_int_equal(model_params(model, &params), 13);
    expect_init(params[0], "conv1.weight", PLAN_INIT_NORMAL, sqrt(2.0 / 3));
    expect_init(params[1], "conv1.bias", PLAN_INIT_ZERO, 0);
    assert_true(shape_equal(params[0]->shape, (struct shape){8, 1, 3, 1}));
    assert_true(shape_equal(params[1]->shape, (struct shape){1, 8, 1, 1}));
    assert_true(params[1]->is_bias && !params[0]->is_bias);
    expect_init(params[2], "conv2.weight", PLAN_INIT_UNIFORM, sqrt(6.0 / (8 + 6)));
    expect_init(params[3], "conv3.weight", PLAN_INIT_NORMAL, 0.125);
    expect_init(params[4], "conv4.weight", PLAN_INIT_UNIFORM, 0.25);
    assert_int_equal(params[5]->init, PLAN_INIT_ZERO);
    expect_init(params[6], "conv6.weight", PLAN_INIT_NORMAL, sqrt(2.0 / 45));
    expect_init(params[8], "upconv1.weight", PLAN_INIT_NORMAL, sqrt(1.0 / 8));
    expect_init(params[9], "upconv2.weight", PLAN_INIT_NORMAL, sqrt(2.0 / 4));
    assert_true(params[8]->transposed && !params[6]->transposed);
    assert_true(shape_equal(params[8]->shape, (struct shape){8, 4, 2, 2}));
    expect_init(params[11], "score.weight", PLAN_INIT_NORMAL, sqrt(2.0 / 4));
    assert_int_equal(model_params(model, &again), 13);
    assert_ptr_equal(params, again);
    model_free(model);
}

/* The hash tells apart what weights depend on, and nothing else. */
static void test_hash(void **state) {
    static const char text[] =
        "let: {tile: 64, width: 8, rate: 0.5, lr: 0.1, slope: 0.1, off: 0, a: x, b: y, n: conv}\n"
        "model: \"m${tile}\"\ninput: {tile: \"${tile}\", offset: \"${off}\"}\n"
        "labels: [{value: 0, class: \"${a}\"}, {value: 1, class: \"${b}\"}]\n"
        "train: {learning_rate: \"${lr}\", batch: \"${if(lr > 1, 2, 1)}\"}\nlayers:\n"
        "  - conv: {name: \"${n}\", channels: \"${width}\"}\n  - leaky_relu: ${slope}\n"
        "  - dropout: ${rate}\n" END;
    static const struct {
        struct model_override set;
        bool same;
    } cases[] = {{{"tile", "100"}, true}, {{"rate", "0.25"}, true},  {{"lr", "3"}, true},
                 {{"width", "9"}, false}, {{"slope", "0.2"}, false}, {{"off", "0.5"}, false},
                 {{"a", "z"}, false},     {{"n", "other"}, false}};
    (void)state;
    struct model *first = parse(text);
    assert_true(first->hash != 0 && first->hash == first->settings.hash);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model *model = parse_set(text, &cases[i].set, 1);
        assert_int_equal(model->hash == first->hash, cases[i].same);
        model_free(model);
    }
    model_free(first);
}

/* Shipped models */

static struct model *load_set(const char *name, const struct model_override *overrides, size_t n) {
    char path[1024];
    struct model *model;
    struct diag diag;
    snprintf(path, sizeof(path), "%s/%s", models_folder, name);
    diag_init(&diag, path, NULL);
    const bool ok =
        model_load(path, overrides, n, &model, &diag) && model_check_sizes(model, &diag);
    if (!ok)
        diag_print(&diag, stderr);
    assert_true(ok);
    diag_free(&diag);
    return model;
}

static uint64_t count_parameters(struct model *model) {
    const struct param *const *params;
    const size_t n = model_params(model, &params);
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += shape_elements(params[i]->shape);
    return count;
}

/* Builds a program; its convolutions and their multiply-adds, counted from shapes. */
static void count_convs(struct model *model, enum model_program program, int *convs,
                        uint64_t *macs) {
    struct graph graph;
    struct err err = {0};
    *convs = 0;
    *macs = 0;
    graph_init(&graph, &model->arena, "counted");
    if (!build_graph(model, program, &graph, &err))
        fail_msg("%s", err.text);
    if (!graph_check(&graph, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < graph.nodes.count; i++) {
        const struct node *node = graph.nodes.items[i];
        if (node->op != OP_CONV && node->op != OP_UPCONV)
            continue;
        const struct shape y = node->outputs[0]->shape;
        const uint64_t taps =
            node->op == OP_CONV ? (uint64_t)node->attr.kh * (uint64_t)node->attr.kw : 1;
        ++*convs;
        *macs += shape_elements(y) * (uint64_t)node->inputs[0]->shape.c * taps;
    }
    graph_free(&graph);
}

static void expect_sizes(const struct model *model, uint32_t in, uint32_t out, uint32_t margin,
                         uint32_t core, uint32_t stride) {
    const struct plan_model *s = &model->settings;
    assert_int_equal(s->in_h, in);
    assert_int_equal(s->in_w, in);
    assert_int_equal(s->out_h, out);
    assert_int_equal(s->out_w, out);
    assert_int_equal(s->margin_top, margin);
    assert_int_equal(s->margin_left, margin);
    assert_int_equal(s->core_h, core);
    assert_int_equal(s->core_w, core);
    assert_int_equal(s->stride_h, stride);
    assert_int_equal(s->stride_w, stride);
}

static void test_unet(void **state) {
    (void)state;
    int convs;
    uint64_t macs;
    struct model *model = load_set("unet.yaml", NULL, 0);
    count_convs(model, MODEL_INFER, &convs, &macs);
    assert_int_equal(convs, 23);
    assert_true(macs == 150428424448u);
    assert_int_equal(count_parameters(model), 31030658);
    expect_sizes(model, 572, 388, 92, 388, 16);
    assert_true(model->settings.learning_rate == (float)(0.016 / 64));
    const uint64_t hash = model->hash;
    model_free(model);

    static const struct model_override small[] = {{"width", "16"}, {"tile", "316"}};
    model = load_set("unet.yaml", small, 2);
    count_convs(model, MODEL_TRAIN, &convs, &macs);
    assert_int_equal(convs, 23);
    assert_int_equal(count_parameters(model), 1940834);
    expect_sizes(model, 316, 132, 92, 132, 16);
    assert_true(model->settings.learning_rate == 0.001f);
    assert_string_equal(model->settings.overrides, "width=16 tile=316");
    assert_true(model->hash != hash);
    model_free(model);
    model = load_set("unet.yaml", small + 1, 1);
    assert_true(model->hash == hash);
    model_free(model);
}

static void test_release(void **state) {
    (void)state;
    int convs;
    uint64_t macs;
    const struct param *const *params;
    struct model *model = load_set("unet-2015-release.yaml", NULL, 0);
    count_convs(model, MODEL_INFER, &convs, &macs);
    assert_int_equal(convs, 23);
    assert_true(macs == 157294254336u);
    assert_int_equal(count_parameters(model), 31100354);
    expect_sizes(model, 572, 388, 92, 388, 16);
    assert_int_equal(layer_named(model, "d3c")->kind, LAYER_DROPOUT);
    assert_int_equal(layer_named(model, "d4c")->kind, LAYER_DROPOUT);
    assert_int_equal(model_params(model, &params), 46);
    expect_init(params[20], "upconv_d4c_u3a.weight", PLAN_INIT_NORMAL, sqrt(2.0 / (4 * 512)));
    expect_init(params[38], "upconv_u1d_u0a.weight", PLAN_INIT_NORMAL, sqrt(2.0 / (4 * 128)));
    assert_string_equal(params[45]->name, "conv_u0d-score.bias");
    model_free(model);
}

static void test_other_models(void **state) {
    (void)state;
    int convs;
    uint64_t macs;
    struct model *model = load_set("fcn8.yaml", NULL, 0);
    expect_sizes(model, 256, 256, 64, 128, 32); /* a quarter: less than padding reaches */
    model_free(model);
    static const struct model_override large = {"tile", "1024"};
    model = load_set("fcn8.yaml", &large, 1);
    expect_sizes(model, 1024, 1024, 192, 640, 32); /* as far as padding reaches */
    count_convs(model, MODEL_EVALUATE, &convs, &macs);
    assert_int_equal(convs, 21);
    model_free(model);

    model = load_set("sliding-window.yaml", NULL, 0);
    expect_sizes(model, 222, 128, 47, 128, 1);
    model_free(model);
    static const struct model_override window = {"tile", "95"};
    model = load_set("sliding-window.yaml", &window, 1);
    expect_sizes(model, 95, 1, 47, 1, 1);
    count_convs(model, MODEL_INFER, &convs, &macs);
    assert_int_equal(convs, 6);
    model_free(model);

    model = load_set("demo.yaml", NULL, 0);
    expect_sizes(model, 168, 128, 20, 128, 4);
    model_free(model);
}

/* Legal tiles of the paper's net: 16 d + 60 with d >= 8, no others. */
static void test_legal_tiles(void **state) {
    (void)state;
    for (int tile = 150; tile < 330; tile++) {
        char value[16];
        struct model *model;
        struct diag diag;
        char path[1024];
        snprintf(value, sizeof(value), "%d", tile);
        snprintf(path, sizeof(path), "%s/unet.yaml", models_folder);
        const struct model_override set = {"tile", value};
        diag_init(&diag, path, NULL);
        assert_true(model_load(path, &set, 1, &model, &diag));
        assert_int_equal(model_check_sizes(model, &diag), tile >= 188 && tile % 16 == 12);
        diag_free(&diag);
        model_free(model);
    }
}

/* Graphs */

static const struct value *port_value(const struct graph *graph, const char *port) {
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->port != NULL && strcmp(value->port, port) == 0)
            return value;
    }
    return NULL;
}

static int count_op(const struct graph *graph, enum op_kind op) {
    int count = 0;
    for (size_t i = 0; i < graph->nodes.count; i++)
        count += graph->nodes.items[i]->op == op;
    return count;
}

static void expect_port(const struct graph *graph, const char *port, enum plan_type type,
                        struct shape shape) {
    const struct value *value = port_value(graph, port);
    assert_non_null(value);
    assert_int_equal(value->type, type);
    assert_true(shape_equal(value->shape, shape));
}

static const char joined[] =
    "input: {tile: [33, 40], channels: 3}\n" LABELS "train: {batch: 2}\nlayers:\n"
    "  - conv: {name: a, channels: 4}\n  - relu\n  - conv: {name: b, channels: 4}\n"
    "  - dropout: 0.25\n  - conv: {name: c, channels: 5, kernel: 2}\n"
    "  - concat: {name: join, inputs: [a, c]}\n  - conv: {name: d, channels: 4, kernel: 1}\n"
    "  - add: [a, b, d]\n  - conv: {channels: 2, kernel: 1}\n  - softmax\n  - cross_entropy\n";

static void check_program(struct model *model, enum model_program program) {
    struct graph graph;
    struct err err = {0};
    const int batch = 2, h = 33 - 5, w = 40 - 5;
    graph_init(&graph, &model->arena, "checked");
    if (!build_graph(model, program, &graph, &err) || !graph_check(&graph, &err))
        fail_msg("%s", err.text);
    const bool infer = program == MODEL_INFER;
    expect_port(&graph, "image", PLAN_TYPE_F32, (struct shape){batch, 3, 33, 40});
    if (!infer) {
        expect_port(&graph, "labels", PLAN_TYPE_U32, (struct shape){batch, 1, h, w});
        expect_port(&graph, "weights", PLAN_TYPE_F32, (struct shape){batch, 1, h, w});
        assert_non_null(port_value(&graph, "loss"));
    }
    if (program != MODEL_TRAIN)
        expect_port(&graph, "probs", PLAN_TYPE_F32, (struct shape){batch, 2, h, w});
    assert_int_equal(port_value(&graph, "labels") != NULL, !infer);
    assert_int_equal(port_value(&graph, "probs") != NULL, program != MODEL_TRAIN);
    assert_int_equal(count_op(&graph, OP_DROPOUT), program == MODEL_TRAIN);
    assert_int_equal(count_op(&graph, OP_SOFTMAX), infer);
    assert_int_equal(count_op(&graph, OP_SOFTMAX_LOSS), !infer);
    assert_int_equal(count_op(&graph, OP_CROP), 3);
    assert_int_equal(count_op(&graph, OP_ADD), 2);
    for (size_t i = 0; i < graph.nodes.count; i++) {
        const struct node *node = graph.nodes.items[i];
        if (node->op == OP_CROP && strcmp(node->name, "join") == 0) {
            assert_int_equal(node->attr.top, 1); /* of 3: the upper left middle */
            assert_int_equal(node->attr.left, 1);
        }
    }
    graph_free(&graph);
}

static void test_graphs(void **state) {
    (void)state;
    struct model *model = parse(joined);
    assert_int_equal(model->settings.out_h, 28);
    assert_int_equal(model->settings.out_w, 35);
    for (int program = 0; program < 3; program++)
        check_program(model, (enum model_program)program);
    model_free(model);
}

/* Zero padding: the margin given in the model wins; otherwise what padding reaches. */
static void test_margins(void **state) {
    static const char layers[] =
        "layers:\n  - conv: {channels: 2, kernel: 5, padding: same}\n  - maxpool\n"
        "  - conv: {channels: 2, padding: same}\n  - upconv: 2\n  - conv: 2\n  - cross_entropy\n";
    char text[1024];
    (void)state;
    snprintf(text, sizeof(text), "input: {tile: 64}\n" LABELS "%s", layers);
    struct model *model = parse(text);
    /* 2 px at full, 1 at half, + 1, doubled: 4; the valid conv takes 1 more on each side. */
    expect_sizes(model, 64, 62, 5, 54, 2);
    model_free(model);
    snprintf(text, sizeof(text), "input: {tile: 64, margin: 10}\n" LABELS "%s", layers);
    model = parse(text);
    expect_sizes(model, 64, 62, 11, 42, 2);
    model_free(model);
}

static void test_missing_file(void **state) {
    (void)state;
    struct model *model;
    struct diag diag;
    diag_init(&diag, "nowhere.yaml", NULL);
    assert_false(model_load("no such folder/nowhere.yaml", NULL, 0, &model, &diag));
    assert_int_equal(diag.count, 1);
    assert_null(model);
    diag_free(&diag);
    model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_expressions_need_no_quotes_in_braces),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_blocks_and_repeats),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_layer_fields),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_augment),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_other_labels),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_unet),
        cmocka_unit_test(test_release),
        cmocka_unit_test(test_other_models),
        cmocka_unit_test(test_legal_tiles),
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_margins),
        cmocka_unit_test(test_missing_file),
    };
    const char *root = getenv("UNET_TEST_ROOT"); /* of the project; tests start there without it */
    static char folder[1024];
    snprintf(folder, sizeof(folder), "%s/models", root != NULL ? root : ".");
    models_folder = folder;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
