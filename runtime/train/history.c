/*
 * history.c: see history.h. Numbers are written with the digits that give them back exactly.
 */
#include "runtime/train/history.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

#define HEADER_ROOM 400
#define COLUMNS_BEFORE_SCORES 7

/* Writes the header row, its newline included; returns its length. */
static size_t make_header(const struct history *history, char header[HEADER_ROOM]) {
    int used = snprintf(header, HEADER_ROOM,
                        "step,loss,accuracy,learning_rate,seconds,data_seconds,prepare_seconds");
    for (int i = 0; i < UNET_SCORE_COUNT; i++)
        used += snprintf(header + used, HEADER_ROOM - (size_t)used, ",validation_%s",
                         unet_score_name((enum unet_score)i));
    used += snprintf(header + used, HEADER_ROOM - (size_t)used, "%s\n",
                     history->has_scale ? ",loss_scale,skipped_updates" : "");
    return (size_t)used;
}

/* Reads the start of a row; false for a line that is none, such as one cut off by a crash. */
static bool read_row(const char *line, uint32_t *step, struct history_times *times) {
    double loss, accuracy, rate;
    return sscanf(line, "%u,%lf,%lf,%lf,%lf,%lf,%lf,", step, &loss, &accuracy, &rate,
                  &times->total_seconds, &times->data_seconds, &times->prepare_seconds) == 7;
}

static void write_scores(FILE *stream, const struct unet_train_progress *progress) {
    for (int i = 0; i < UNET_SCORE_COUNT; i++) {
        fputc(',', stream);
        if (progress->has_validation && !isnan(progress->scores[i]))
            fprintf(stream, "%.9g", progress->scores[i]);
    }
}

/* Where so many columns of a row end, or the row does. */
static const char *skip_columns(const char *at, int count) {
    for (; *at != '\n'; at++) {
        if (*at == ',' && count-- == 1)
            break;
    }
    return at;
}

/* A row, its newline included, with other scores. */
static void write_scored(FILE *to, const char *row, const char *end,
                         const struct unet_train_progress *progress) {
    const char *scores = skip_columns(row, COLUMNS_BEFORE_SCORES);
    const char *rest = skip_columns(scores, 1 + UNET_SCORE_COUNT);
    fwrite(row, 1, (size_t)(scores - row), to);
    write_scores(to, progress);
    fwrite(rest, 1, (size_t)(end - rest), to);
}

/* Why a file has not the header that this run's has. */
static bool refuse_header(const struct history *history, const char *text, struct err *err) {
    char header[HEADER_ROOM];
    const struct history other = {.has_scale = !history->has_scale};
    const size_t length = make_header(&other, header);
    if (strncmp(text, header, length) == 0)
        err_set(err, ERR_INPUT, "%s: is of a run in %s precision, the plan is in %s precision",
                history->path, other.has_scale ? "mixed" : "single",
                history->has_scale ? "mixed" : "single");
    else
        err_set(err, ERR_INPUT, "%s: is not the metrics of a training run of this version",
                history->path);
    return err_hint(err, "move it away, or choose another output directory");
}

/* Copies the rows up to steps_done; text is the old file, ended by a zero byte. */
static bool copy_rows(struct history *history, const char *text, uint32_t steps_done, FILE *to,
                      struct err *err) {
    char header[HEADER_ROOM];
    const size_t length = make_header(history, header);
    if (strncmp(text, header, length) != 0)
        return refuse_header(history, text, err);
    for (const char *line = text + length, *end; (end = strchr(line, '\n')) != NULL;
         line = end + 1) {
        uint32_t step;
        struct history_times times;
        if (!read_row(line, &step, &times) || step > steps_done)
            continue;
        if (history->scored != NULL && step == history->scored->step)
            write_scored(to, line, end + 1, history->scored);
        else
            fwrite(line, 1, (size_t)(end + 1 - line), to);
        history->earlier = times;
    }
    return true;
}

/* Replaces the file by one that holds the header and the rows to keep. */
static bool write_start(struct history *history, uint32_t steps_done, struct err *err) {
    uint8_t *text = NULL;
    size_t size_bytes;
    struct file_writer writer;
    if (steps_done > 0 && file_exists(history->path) &&
        !file_read(history->path, &text, &size_bytes, err))
        return false;
    bool good = file_writer_open(&writer, history->path, err);
    if (good) {
        char header[HEADER_ROOM];
        fwrite(header, 1, make_header(history, header), writer.stream);
        good =
            text == NULL || copy_rows(history, (const char *)text, steps_done, writer.stream, err);
        if (good)
            good = file_writer_commit(&writer, err);
        else
            file_writer_abandon(&writer);
    }
    free(text);
    return good;
}

static bool start(struct history *history, uint32_t steps_done, struct err *err) {
    if (!write_start(history, steps_done, err))
        return false;
    history->stream = fopen(history->path, "a");
    return history->stream != NULL ||
           err_set(err, ERR_IO, "%s: cannot write: %s", history->path, strerror(errno));
}

bool history_open(struct history *history, const char *path, uint32_t steps_done, bool has_scale,
                  struct err *err) {
    *history = (struct history){.path = strdup(path), .has_scale = has_scale};
    bool good = history->path != NULL;
    if (!good)
        err_set(err, ERR_IO, "%s: out of memory", path);
    good = good && start(history, steps_done, err);
    if (!good)
        history_close(history);
    return good;
}

bool history_rewind(struct history *history, uint32_t steps_done, struct err *err) {
    const struct history_times earlier = history->earlier;
    if (history->stream != NULL)
        fclose(history->stream);
    history->stream = NULL;
    const bool good = start(history, steps_done, err);
    history->earlier = earlier;
    return good;
}

bool history_set_scores(struct history *history, const struct unet_train_progress *progress,
                        struct err *err) {
    history->scored = progress;
    const bool good = history_rewind(history, progress->step, err);
    history->scored = NULL;
    return good;
}

bool history_add(struct history *history, const struct unet_train_progress *progress,
                 const struct history_times *times, struct err *err) {
    FILE *stream = history->stream;
    const struct history_times *earlier = &history->earlier;
    fprintf(stream, "%u,%.9g,%.9g,%.9g,%.3f,%.3f,%.3f", progress->step, progress->loss,
            progress->accuracy, progress->learning_rate,
            earlier->total_seconds + times->total_seconds,
            earlier->data_seconds + times->data_seconds,
            earlier->prepare_seconds + times->prepare_seconds);
    write_scores(stream, progress);
    if (history->has_scale)
        fprintf(stream, ",%.9g,%u", progress->loss_scale, progress->skipped);
    fputc('\n', stream);
    if (fflush(stream) == 0 && !ferror(stream))
        return true;
    err_set(err, ERR_IO, "%s: cannot write: %s", history->path, strerror(errno));
    return err_hint(err, "free some space and continue from the last checkpoint");
}

void history_close(struct history *history) {
    if (history->stream != NULL)
        fclose(history->stream);
    free(history->path);
    *history = (struct history){0};
}
