/*
 * eval_report.c: see eval_report.h. One table of scores gives JSON and CSV their keys, in order.
 */
#include "tools/eval_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "tools/cmd.h"

/* The scores of some counts. */
struct scores {
    struct metrics_result pixels;
    struct instance_result objects;
};

/* Every key is there whatever the metric; what was not worked out is null. */
static const struct {
    const char *key;
    size_t offset; /* of the double in struct scores */
} score_rows[] = {
    {"pixel_error", offsetof(struct scores, pixels.pixel_error)},
    {"pixel_threshold", offsetof(struct scores, pixels.pixel_threshold)},
    {"misclassified", offsetof(struct scores, pixels.misclassified)},
    {"pixel_accuracy", offsetof(struct scores, pixels.accuracy)},
    {"rand_error", offsetof(struct scores, pixels.rand_error)},
    {"rand_threshold", offsetof(struct scores, pixels.rand_threshold)},
    {"warping_error", offsetof(struct scores, pixels.warping_error)},
    {"warping_threshold", offsetof(struct scores, pixels.warping_threshold)},
    {"warping_error_local", offsetof(struct scores, pixels.warping_error_local)},
    {"v_rand", offsetof(struct scores, pixels.v_rand)},
    {"v_rand_threshold", offsetof(struct scores, pixels.v_rand_threshold)},
    {"v_rand_split", offsetof(struct scores, pixels.v_rand_split)},
    {"v_rand_merge", offsetof(struct scores, pixels.v_rand_merge)},
    {"v_info", offsetof(struct scores, pixels.v_info)},
    {"v_info_threshold", offsetof(struct scores, pixels.v_info_threshold)},
    {"v_info_split", offsetof(struct scores, pixels.v_info_split)},
    {"v_info_merge", offsetof(struct scores, pixels.v_info_merge)},
    {"iou", offsetof(struct scores, pixels.foreground_iou)},
    {"mean_iou", offsetof(struct scores, pixels.mean_iou)},
    {"dice", offsetof(struct scores, pixels.foreground_dice)},
    {"mean_dice", offsetof(struct scores, pixels.mean_dice)},
    {"seg", offsetof(struct scores, objects.seg)},
    {"det", offsetof(struct scores, objects.det)},
    {"f1", offsetof(struct scores, objects.f1)},
};

/* Counts of objects, likewise; none without --metric instances. */
static const struct {
    const char *key;
    size_t offset; /* of the uint64_t in struct instance_metrics */
} object_rows[] = {
    {"labelled_objects", offsetof(struct instance_metrics, n_labelled)},
    {"predicted_objects", offsetof(struct instance_metrics, n_predicted)},
    {"merged", offsetof(struct instance_metrics, merged)},
    {"split", offsetof(struct instance_metrics, split)},
};

static struct scores scores_of(const struct eval_counts *counts) {
    return (struct scores){metrics_finish(&counts->pixels),
                           instance_metrics_finish(&counts->objects)};
}

static void free_scores(struct scores *scores) {
    metrics_result_free(&scores->pixels);
}

static double score_at(const struct scores *scores, size_t row) {
    double value;
    memcpy(&value, (const char *)scores + score_rows[row].offset, sizeof(value));
    return value;
}

static uint64_t objects_at(const struct eval_counts *counts, size_t row) {
    uint64_t value;
    memcpy(&value, (const char *)&counts->objects + object_rows[row].offset, sizeof(value));
    return value;
}

static const char *class_name(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_)
            return model->labels[i].name;
    return "";
}

/* ---------------------------------------------------------------- JSON */

/* JSON has no NaN: a score that does not exist is null. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *describe_classes(const struct plan_model *model,
                                const struct metrics_result *result) {
    json_t *classes = json_array();
    for (uint32_t k = 0; k < model->n_classes; k++)
        json_array_append_new(classes,
                              json_pack("{s:i, s:s, s:o, s:o, s:I, s:I}", "class", (int)k, "name",
                                        class_name(model, k), "iou", number(result->iou[k]), "dice",
                                        number(result->dice[k]), "labelled_pixels",
                                        (json_int_t)result->labelled[k], "predicted_pixels",
                                        (json_int_t)result->predicted[k]));
    return classes;
}

static void describe_scores(const struct eval_report *report, const struct eval_counts *counts,
                            const struct scores *scores, json_t *object) {
    json_object_set_new(object, "pixels", json_integer((json_int_t)counts->pixels.n_pixels));
    json_object_set_new(object, "ignored_pixels",
                        json_integer((json_int_t)counts->pixels.n_ignored));
    for (size_t i = 0; i < ARRAY_LEN(score_rows); i++)
        json_object_set_new(object, score_rows[i].key, number(score_at(scores, i)));
    for (size_t i = 0; i < ARRAY_LEN(object_rows); i++)
        json_object_set_new(object, object_rows[i].key,
                            report->instances ? json_integer((json_int_t)objects_at(counts, i))
                                              : json_null());
}

bool eval_report_print_json(const struct eval_report *report, struct err *err) {
    struct scores scores = scores_of(&report->all);
    json_t *object = json_pack("{s:s, s:I}", "metric", report->instances ? "instances" : "em",
                               "images", (json_int_t)report->n_images);
    json_t *frames = json_array();
    json_object_set_new(object, "reference",
                        !report->instances ? json_null()
                        : report->has_ids  ? json_string("instances")
                                           : json_string("components"));
    describe_scores(report, &report->all, &scores, object);
    json_object_set_new(object, "classes", describe_classes(report->model, &scores.pixels));
    for (size_t i = 0; i < report->n_images; i++) {
        struct scores one = scores_of(&report->images[i]);
        json_t *frame = json_pack("{s:s}", "name", report->images[i].name);
        describe_scores(report, &report->images[i], &one, frame);
        json_object_set_new(frame, "classes", describe_classes(report->model, &one.pixels));
        json_array_append_new(frames, frame);
        free_scores(&one);
    }
    json_object_set_new(object, "frames", frames);
    free_scores(&scores);
    return cmd_print_json(object, err);
}

/* ---------------------------------------------------------------- CSV */

/* Quoted where it has to be (RFC 4180). */
static void write_text(FILE *stream, const char *text) {
    if (strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', stream);
        fputc(*text, stream);
    }
    fputc('"', stream);
}

static void write_row(FILE *stream, const struct eval_report *report,
                      const struct eval_counts *counts) {
    struct scores scores = scores_of(counts);
    write_text(stream, counts->name);
    fprintf(stream, ",%llu,%llu", (unsigned long long)counts->pixels.n_pixels,
            (unsigned long long)counts->pixels.n_ignored);
    for (size_t i = 0; i < ARRAY_LEN(score_rows); i++) {
        const double value = score_at(&scores, i);
        fputc(',', stream);
        if (isfinite(value))
            fprintf(stream, "%.9g", value);
    }
    for (size_t i = 0; i < ARRAY_LEN(object_rows); i++) {
        fputc(',', stream);
        if (report->instances)
            fprintf(stream, "%llu", (unsigned long long)objects_at(counts, i));
    }
    for (uint32_t k = 0; k < report->model->n_classes; k++) {
        fputc(',', stream);
        if (isfinite(scores.pixels.iou[k]))
            fprintf(stream, "%.9g,%.9g", scores.pixels.iou[k], scores.pixels.dice[k]);
        else
            fputc(',', stream);
    }
    fputc('\n', stream);
    free_scores(&scores);
}

bool eval_report_write_csv(const struct eval_report *report, const char *path, struct err *err) {
    struct file_writer writer;
    if (!file_writer_open(&writer, path, err))
        return false;
    fprintf(writer.stream, "image,pixels,ignored_pixels");
    for (size_t i = 0; i < ARRAY_LEN(score_rows); i++)
        fprintf(writer.stream, ",%s", score_rows[i].key);
    for (size_t i = 0; i < ARRAY_LEN(object_rows); i++)
        fprintf(writer.stream, ",%s", object_rows[i].key);
    for (uint32_t k = 0; k < report->model->n_classes; k++)
        fprintf(writer.stream, ",iou_class_%u,dice_class_%u", k, k);
    fprintf(writer.stream, "\n");
    for (size_t i = 0; i < report->n_images; i++)
        write_row(writer.stream, report, &report->images[i]);
    return file_writer_commit(&writer, err);
}

/* ---------------------------------------------------------------- the table */

/* Returns whether there is a score; the caller goes on with the line. */
static bool print_score(const char *name, double value, int digits) {
    if (isfinite(value))
        printf("%-16s %.*f", name, digits, value);
    else
        printf("%-16s none", name);
    return isfinite(value);
}

static void print_pixels(const struct eval_report *report, const struct metrics_result *result) {
    const char *last = class_name(report->model, report->model->n_classes - 1);
    if (print_score("pixel error", result->pixel_error, 4))
        printf("  (1 - largest F1 of class %.40s, at %.1f)", last, result->pixel_threshold);
    printf("\n");
    print_score("misclassified", result->misclassified, 4);
    printf("  (share of pixels whose most probable class is wrong)\n");
    print_score("pixel accuracy", result->accuracy, 4);
    printf("\n");
}

static void print_em(const struct metrics_result *result) {
    if (print_score("Rand error", result->rand_error, 4))
        printf("  (at %.1f)", result->rand_threshold);
    printf("\n");
    if (print_score("warping error", result->warping_error, 6))
        printf("  (at %.1f: %llu pixels of mergers, %llu of splits; %.6f by the local rule)",
               result->warping_threshold, (unsigned long long)result->merger_pixels,
               (unsigned long long)result->split_pixels, result->warping_error_local);
    printf("\n");
    if (print_score("V_Rand", result->v_rand, 4))
        printf("  (split %.4f, merge %.4f, at %.1f)", result->v_rand_split, result->v_rand_merge,
               result->v_rand_threshold);
    printf("\n");
    if (print_score("V_Info", result->v_info, 4))
        printf("  (split %.4f, merge %.4f, at %.1f)", result->v_info_split, result->v_info_merge,
               result->v_info_threshold);
    printf("\n");
}

static void print_objects(const struct eval_report *report, const struct instance_result *result) {
    const struct instance_metrics *objects = &report->all.objects;
    printf("objects          %llu labelled, %llu predicted\n",
           (unsigned long long)objects->n_labelled, (unsigned long long)objects->n_predicted);
    if (!report->has_ids)
        printf("                 (the labels have no ids: their 4-connected components stand for "
               "objects)\n");
    print_score("SEG", result->seg, 4);
    printf("\n");
    print_score("DET", result->det, 4);
    printf("\n");
    print_score("F1", result->f1, 4);
    printf("  (pairs with IoU above 0.5: %llu)\n", (unsigned long long)objects->f1_matches);
    printf("merged           %llu predicted objects, each over several labelled ones\n",
           (unsigned long long)objects->merged);
    printf("split            %llu labelled objects, each into several predicted ones\n",
           (unsigned long long)objects->split);
}

static void print_classes(const struct eval_report *report, const struct metrics_result *result) {
    char name[64];
    if (print_score("mean IoU", result->mean_iou, 4))
        printf("  Dice %.4f", result->mean_dice);
    printf("\n");
    for (uint32_t k = 0; k < report->model->n_classes; k++) {
        snprintf(name, sizeof(name), "IoU %.40s", class_name(report->model, k));
        if (print_score(name, result->iou[k], 4))
            printf("  Dice %.4f", result->dice[k]);
        printf("\n");
    }
}

void eval_report_print(const struct eval_report *report) {
    struct scores scores = scores_of(&report->all);
    printf("images           %zu, %llu pixels", report->n_images,
           (unsigned long long)report->all.pixels.n_pixels);
    if (report->all.pixels.n_ignored > 0)
        printf(", %llu more ignored", (unsigned long long)report->all.pixels.n_ignored);
    printf("\n");
    if (report->instances)
        print_objects(report, &scores.objects);
    print_pixels(report, &scores.pixels);
    if (!report->instances)
        print_em(&scores.pixels);
    print_classes(report, &scores.pixels);
    if (scores.pixels.one_class_only)
        log_print(LOG_WARNING, "every pixel is predicted as the same class");
    free_scores(&scores);
}
