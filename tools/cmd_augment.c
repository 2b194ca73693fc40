/*
 * cmd_augment.c: unetrun augment: training samples as pictures, so that a person can look at what
 * the network will see before training it. They are the samples of a training run with the same
 * plan, data and seed; no device is needed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/memory.h"
#include "runtime/data/weightmap.h"
#include "tools/augment_pictures.h"
#include "tools/cmd.h"

#define SHEET_SAMPLES 24

struct augment_values {
    struct cli_common common;
    const char *data, *out, *frames;
    uint32_t count;
    uint64_t seed, epoch;
};

static const struct cli_option augment_options[] = {
    {"data", 0, CLI_TEXT, "DIR", offsetof(struct augment_values, data), true, NULL,
     "images/STEM.{png,tif} with labels/STEM.{png,tif}, or the stacks images.tif and labels.tif"},
    {"out", 0, CLI_TEXT, "DIR", offsetof(struct augment_values, out), true, NULL,
     "for the pictures; made when missing"},
    {"count", 0, CLI_COUNT, "N", offsetof(struct augment_values, count), false, "12", "samples"},
    {"seed", 0, CLI_SEED, "N", offsetof(struct augment_values, seed), false, "0",
     "of the training run whose samples to show"},
    {"epoch", 0, CLI_SEED, "N", offsetof(struct augment_values, epoch), false, "0",
     "begin with this epoch; each shows every frame once"},
    {"frames", 0, CLI_TEXT, "LIST", offsetof(struct augment_values, frames), false, NULL,
     "only these stems or page numbers: 09-11,24-26"},
};

/* Everything that is open while the command runs. */
struct viewer {
    const struct augment_values *values;
    struct dataset data;
    struct sampler sampler;
    struct augment_sample sample;
    struct augment_sheet sheet;
    float most_weight;
    double seconds; /* spent on making samples */
};

/* Of the processor: how busy the machine is does not matter. */
static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---------------------------------------------------------------- opening */

static bool load_data(struct viewer *viewer, const struct plan_model *model, struct err *err) {
    const struct augment_values *values = viewer->values;
    bool good = dataset_load_for_model(values->data, model, values->frames, &viewer->data, err);
    if (good && viewer->data.n_frames == 0)
        good = err_set(err, ERR_INPUT, "%s: holds no images", values->data);
    return good && weightmap_apply(&viewer->data, NULL, &model->weights, err);
}

/* Pictures among the data would be taken for data. */
static bool check_output(const struct augment_values *values, struct err *err) {
    static const char *const folders[] = {"images", "labels"};
    struct stat out, folder;
    char path[4096];
    if (stat(values->out, &out) != 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        snprintf(path, sizeof(path), "%s/%s", values->data, folders[i]);
        if (stat(path, &folder) == 0 && folder.st_dev == out.st_dev && folder.st_ino == out.st_ino)
            return err_set(err, ERR_USAGE, "%s holds the data: pictures go elsewhere", values->out);
    }
    return true;
}

static float find_most_weight(const struct dataset *data) {
    float most = 0;
    for (size_t f = 0; f < data->n_frames; f++) {
        const struct dataset_frame *frame = &data->frames[f];
        for (size_t i = 0; i < (size_t)frame->width * (size_t)frame->height; i++)
            most = fmaxf(most, frame->weights[i]);
    }
    return most;
}

/* Nodes closer than about six deviations fold the image over itself now and then. */
static void warn_about_folds(const struct viewer *viewer) {
    const struct plan_augment *augment = &viewer->sampler.augment;
    double closest = INFINITY;
    for (size_t f = 0; f < viewer->data.n_frames; f++) {
        const struct dataset_frame *frame = &viewer->data.frames[f];
        const int side = MIN(frame->width, frame->height) - 1;
        if (augment->elastic_grid >= 2)
            closest = fmin(closest, (double)side / (augment->elastic_grid - 1));
    }
    if (augment->elastic_probability > 0 && closest < 6 * (double)augment->elastic_sigma)
        log_print(LOG_WARNING,
                  "nodes of the elastic grid are only %.0f px apart in the smallest frame, with "
                  "displacements of %g px: the image may be folded over itself",
                  closest, (double)augment->elastic_sigma);
}

static void open_sample(struct viewer *viewer, const struct plan_model *model) {
    const size_t out_pixels = (size_t)model->out_h * model->out_w;
    sampler_open(&viewer->sampler, model, &viewer->data, viewer->values->seed);
    viewer->most_weight = find_most_weight(&viewer->data);
    viewer->sample = (struct augment_sample){
        .sampler = &viewer->sampler,
        .scratch = sampler_scratch_new(&viewer->sampler),
        .n_classes = model->n_classes,
        .image = memory_new((size_t)model->channels * model->in_h * model->in_w, sizeof(float)),
        .labels = memory_new(out_pixels, sizeof(uint32_t)),
        .weights = memory_new(out_pixels, sizeof(float)),
    };
    viewer->sheet =
        augment_sheet_new(&viewer->sampler, (int)MIN(viewer->values->count, SHEET_SAMPLES));
}

static void close_viewer(struct viewer *viewer) {
    free(viewer->sample.image);
    free(viewer->sample.labels);
    free(viewer->sample.weights);
    sampler_scratch_free(viewer->sample.scratch);
    sampler_close(&viewer->sampler);
    dataset_free(&viewer->data);
    image_free(&viewer->sheet.image);
}

/* ---------------------------------------------------------------- samples */

/* How far the elastic deformation moves a pixel of the output window at most. */
static double largest_displacement(const struct augment_sample *sample) {
    const struct sampler *sampler = sample->sampler;
    const struct augment_warp warp = sampler_warp(sampler, &sample->place, sample->scratch);
    double most = 0;
    for (int i = 0; i < sampler->out_h && warp.n_cells > 0; i++)
        for (int j = 0; j < sampler->out_w; j++) {
            float dy, dx;
            augment_displacement(&warp, warp.start_y + warp.down_y * i + warp.right_y * j,
                                 warp.start_x + warp.down_x * i + warp.right_x * j, &dy, &dx);
            most = fmax(most, hypot((double)dy, (double)dx));
        }
    return most;
}

static void print_header(void) {
    printf("%-6s  %-12s %6s %6s  %-6s %9s %6s %10s  %6s %6s %6s  %11s %11s\n", "sample", "frame",
           "y px", "x px", "mirror", "angle deg", "scale", "elastic px", "black", "white", "slope",
           "mean weight", "most weight");
}

static void print_row(const char *number, const struct augment_sample *sample) {
    const struct augment_draw *draw = &sample->place.draw;
    const struct sampler *sampler = sample->sampler;
    const size_t n = (size_t)sampler->out_h * (size_t)sampler->out_w;
    double sum = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)sample->weights[i];
        most = fmax(most, (double)sample->weights[i]);
    }
    printf("%-6s  %-12s %6d %6d  %-6s %9.1f %6.3f %10.1f  %6.3f %6.3f %6.3f  %11.3f %11.3f\n",
           number, sampler->data->frames[sample->place.frame].name, sample->place.y,
           sample->place.x,
           draw->mirror_y && draw->mirror_x ? "y, x"
           : draw->mirror_y                 ? "y"
           : draw->mirror_x                 ? "x"
                                            : "-",
           draw->angle_degrees, draw->scale, largest_displacement(sample), (double)draw->black,
           (double)draw->white, (double)draw->slope, sum / (double)n, most);
}

static bool write_picture(struct viewer *viewer, uint32_t index, const char *number,
                          enum augment_panel panel, struct err *err) {
    static const char *const names[PANEL_COUNT] = {"image", "grid", "label", "weights"};
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s-%s.png", viewer->values->out, number, names[panel]);
    struct image picture = augment_picture_draw(&viewer->sample, panel, viewer->most_weight);
    const bool good = image_write_png(path, &picture, err);
    if (index < SHEET_SAMPLES)
        augment_sheet_put(&viewer->sheet, (int)index, panel, &picture);
    image_free(&picture);
    return good;
}

static bool show_sample(struct viewer *viewer, uint32_t index, struct err *err) {
    struct augment_sample *sample = &viewer->sample;
    char number[16];
    snprintf(number, sizeof(number), "%03u", index);
    const double start = now_seconds();
    sample->place =
        sampler_choose(&viewer->sampler, viewer->values->epoch * viewer->data.n_frames + index);
    sampler_fill(&viewer->sampler, &sample->place, sample->scratch, sample->image, sample->labels,
                 sample->weights);
    viewer->seconds += now_seconds() - start;
    for (int panel = 0; panel < PANEL_COUNT; panel++)
        if (!write_picture(viewer, index, number, (enum augment_panel)panel, err))
            return false;
    print_row(number, sample);
    return true;
}

static bool show_samples(struct viewer *viewer, struct err *err) {
    const struct augment_values *values = viewer->values;
    char path[4096];
    print_header();
    for (uint32_t i = 0; i < values->count; i++)
        if (!show_sample(viewer, i, err))
            return false;
    snprintf(path, sizeof(path), "%s/overview.png", values->out);
    if (!image_write_png(path, &viewer->sheet.image, err))
        return false;
    log_print(LOG_INFO,
              "%u samples of %dx%d pixels, %.1f ms of processor time each; look at %s first",
              values->count, viewer->sampler.in_w, viewer->sampler.in_h,
              viewer->seconds * 1e3 / values->count, path);
    log_print(LOG_INFO, "white in the weights is %.3f; lattice lines are %d px of the frame apart",
              (double)viewer->most_weight, augment_picture_spacing(&viewer->sampler));
    return true;
}

static bool run_augment(const void *data, struct err *err) {
    struct viewer viewer = {.values = data};
    struct plan *plan = NULL;
    bool good = plan_load(viewer.values->common.operands.items[0], &plan, err) &&
                plan_verify(plan, NULL, err) && cmd_find_program(plan, "train_step", err) != NULL &&
                load_data(&viewer, &plan->model, err) && check_output(viewer.values, err) &&
                file_make_directories(viewer.values->out, err);
    if (good) {
        open_sample(&viewer, &plan->model);
        warn_about_folds(&viewer);
        good = show_samples(&viewer, err);
    }
    close_viewer(&viewer);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_augment = {
    .name = "augment",
    .summary = "Writes training samples as pictures: what the network will see.",
    .details =
        "The samples are those of \"unetrun train\" with the same plan, data, seed and frames. For "
        "each, OUT\nreceives NNN-image.png (the input tile, the output window inside a yellow "
        "frame), NNN-grid.png\n(with the frame's coordinates as a lattice; red beyond the frame), "
        "NNN-label.png (classes black\nto white, blue where the weight is 0) and NNN-weights.png "
        "(0 black, to white). overview.png\nshows the first 24 at a glance. Prints one row a "
        "sample: frame, corner of the window, how it was\nvaried, the largest elastic "
        "displacement in the window, mean and largest weight.",
    .operands = "FILE.plan",
    .options = augment_options,
    .n_options = ARRAY_LEN(augment_options),
    .values_bytes = sizeof(struct augment_values),
    .run = run_augment,
};
