/*
 * train_arrays.c: compiles a small network and trains it on arrays in memory, step by step: noisy
 * pictures of discs, to be told from their ground.
 *
 *     train_arrays [CHECKPOINT.safetensors]      where to save the weights
 */
#include <stdio.h>
#include <stdlib.h>

#include "compiler/compiler.h"
#include "runtime/runtime.h"

#define STEPS 60

static const char model_text[] = "model: discs\n"
                                 "input: {channels: 1, tile: 44, normalise: none}\n"
                                 "labels: [{value: 0, class: ground}, {value: 1, class: disc}]\n"
                                 "train: {optimiser: adam, learning_rate: 0.005, steps: 60}\n"
                                 "layers:\n"
                                 "  - conv: {name: a, channels: 8, kernel: 3}\n"
                                 "  - relu: {name: wide}\n"
                                 "  - maxpool: 2\n"
                                 "  - conv: {channels: 16, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {channels: 16, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - upconv: {name: up, channels: 8, kernel: 2}\n"
                                 "  - concat: [wide, up]\n"
                                 "  - conv: {channels: 8, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: score, channels: 2, kernel: 1}\n"
                                 "  - cross_entropy: {weight_map: true}\n";

/* One training sample: image of in_h x in_w, labels and weights of out_h x out_w in its middle. */
struct sample {
    float *image, *weights;
    uint32_t *labels;
};

static void draw_sample(const struct plan_model *model, struct sample *sample) {
    const int in = (int)model->in_w, out = (int)model->out_w, margin = (in - out) / 2;
    const int radius = 6 + rand() % 6, cx = rand() % in, cy = rand() % in;
    for (int y = 0; y < in; y++)
        for (int x = 0; x < in; x++) {
            const bool inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < radius * radius;
            const int oy = y - margin, ox = x - margin;
            sample->image[y * in + x] =
                (inside ? 0.5f : -0.5f) + ((float)rand() / (float)RAND_MAX - 0.5f) * 1.5f;
            if (oy < 0 || ox < 0 || oy >= out || ox >= out)
                continue;
            sample->labels[oy * out + ox] = inside;
            sample->weights[oy * out + ox] = 1;
        }
}

static bool train_step(struct unet_session *session, struct sample *sample, uint32_t step,
                       float *loss_out, struct err *err) {
    const struct plan_model *model = &unet_session_plan(session)->model;
    const size_t in = (size_t)model->in_h * model->in_w, out = (size_t)model->out_h * model->out_w;
    float loss[LOSS_WORDS];
    draw_sample(model, sample);
    if (!unet_session_write(session, "train_step", "image", sample->image, in * 4, err) ||
        !unet_session_write(session, "train_step", "labels", sample->labels, out * 4, err) ||
        !unet_session_write(session, "train_step", "weights", sample->weights, out * 4, err) ||
        !unet_session_set_step(session, 1, step, STEPS, 0, err) ||
        !unet_session_run(session, "train_step", err) ||
        !unet_session_read(session, "train_step", "loss", loss, sizeof(loss), err))
        return false;
    *loss_out = loss[0];
    return true;
}

static bool train(struct unet_session *session, struct sample *sample, struct err *err) {
    float first = 0, last = 0; /* means over ten steps */
    for (uint32_t step = 0; step < STEPS; step++) {
        float loss;
        if (!train_step(session, sample, step, &loss, err))
            return false;
        first += step < 10 ? loss / 10 : 0;
        last += step >= STEPS - 10 ? loss / 10 : 0;
    }
    printf("loss %.3f at first, %.3f after %d steps\n", (double)first, (double)last, STEPS);
    return last < first || err_set(err, ERR_INPUT, "the loss did not fall");
}

int main(int argc, char **argv) {
    const struct unet_compile_options options = {.diagnostics = stderr};
    const struct unet_checkpoint_info info = {.seed = 1, .step = STEPS, .total_steps = STEPS};
    struct err err = {0};
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    struct unet_session *session = NULL;
    struct sample sample = {0};
    bool good = unet_compile_text("discs", model_text, &options, &plan, &err) &&
                unet_device_open(NULL, &device, &err) &&
                unet_session_open(device, plan, NULL, &session, &err) &&
                unet_session_init_weights(session, 1, &err);
    if (good) {
        sample.image = calloc((size_t)plan->model.in_h * plan->model.in_w, sizeof(float));
        sample.weights = calloc((size_t)plan->model.out_h * plan->model.out_w, sizeof(float));
        sample.labels = calloc((size_t)plan->model.out_h * plan->model.out_w, sizeof(uint32_t));
        good = sample.image && sample.weights && sample.labels && train(session, &sample, &err) &&
               (argc < 2 || unet_checkpoint_save(session, argv[1], &info, &err));
    }
    if (!good)
        fprintf(stderr, "train_arrays: %s\n", err.text);
    free(sample.image);
    free(sample.weights);
    free(sample.labels);
    unet_session_close(session);
    unet_device_close(device);
    plan_free(plan);
    return good ? 0 : (int)err.code;
}
