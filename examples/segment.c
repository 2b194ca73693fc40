/*
 * segment.c: segments one image with a trained network.
 *
 *     segment FILE.plan WEIGHTS.safetensors IMAGE.png OUT.png
 *
 * The picture written holds the label value of each pixel's most probable class.
 */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

/* Reads an 8-bit picture as planes [channels][height][width] of grey values. */
static float *read_planes(const char *path, uint32_t channels, png_image *png) {
    memset(png, 0, sizeof(*png));
    png->version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(png, path))
        return NULL;
    png->format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    const size_t pixels = (size_t)png->width * png->height;
    png_bytep bytes = malloc(PNG_IMAGE_SIZE(*png));
    float *planes = malloc(pixels * channels * sizeof(float));
    if (bytes == NULL || planes == NULL || !png_image_finish_read(png, NULL, bytes, 0, NULL)) {
        png_image_free(png);
        free(bytes);
        free(planes);
        return NULL;
    }
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < pixels; i++)
            planes[c * pixels + i] = bytes[i * channels + c];
    free(bytes);
    return planes;
}

/* The label value of the most probable class of a pixel. */
static uint8_t choose_label(const struct plan_model *model, const float *probs, size_t pixels,
                            size_t pixel) {
    uint32_t best = 0;
    for (uint32_t k = 1; k < model->n_classes; k++)
        if (probs[k * pixels + pixel] > probs[best * pixels + pixel])
            best = k;
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == best && model->labels[i].value <= UINT8_MAX)
            return (uint8_t)model->labels[i].value;
    return (uint8_t)best;
}

/* Runs the network over an image of any size and writes the labels. */
static bool segment_image(struct unet_session *session, const char *in_path, const char *out_path,
                          struct err *err) {
    const struct plan *plan = unet_session_plan(session);
    const struct plan_model *model = &plan->model;
    png_image png;
    float *image = read_planes(in_path, model->channels, &png);
    if (image == NULL)
        return err_set(err, ERR_IO, "%s: %s", in_path, png.message);
    const size_t pixels = (size_t)png.width * png.height;
    float *probs = malloc(pixels * model->n_classes * sizeof(float));
    uint8_t *labels = malloc(pixels);
    bool good = probs != NULL && labels != NULL;
    if (good) {
        unet_normalise(plan, image, model->channels, pixels, 255);
        good = unet_infer(session, image, png.height, png.width, 1, probs, err);
    }
    for (size_t i = 0; good && i < pixels; i++)
        labels[i] = choose_label(model, probs, pixels, i);
    png.format = PNG_FORMAT_GRAY;
    if (good && !png_image_write_to_file(&png, out_path, 0, labels, 0, NULL))
        good = err_set(err, ERR_IO, "%s: %s", out_path, png.message);
    free(labels);
    free(probs);
    free(image);
    return good;
}

int main(int argc, char **argv) {
    static const char *const programs[] = {"infer"};
    const struct unet_session_options options = {.programs = programs, .n_programs = 1};
    struct err err = {0};
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    struct unet_session *session = NULL;
    if (argc != 5) {
        fprintf(stderr, "usage: segment FILE.plan WEIGHTS.safetensors IMAGE.png OUT.png\n");
        return ERR_USAGE;
    }
    bool good = plan_load(argv[1], &plan, &err) && unet_device_open(NULL, &device, &err) &&
                unet_session_open(device, plan, &options, &session, &err) &&
                unet_checkpoint_load(session, argv[2], false, NULL, &err) &&
                segment_image(session, argv[3], argv[4], &err);
    if (good)
        printf("%s\n", argv[4]);
    else
        fprintf(stderr, "segment: %s\n", err.text);
    unet_session_close(session);
    unet_device_close(device);
    plan_free(plan);
    return good ? 0 : (int)err.code;
}
