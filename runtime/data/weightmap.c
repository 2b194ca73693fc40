/*
 * weightmap.c: see weightmap.h.
 *
 * Distances. The squared distance of pixel (x, y) to an object is the least of (x - c)^2 + g^2 over
 * all columns c, g being its vertical distance to the object's nearest pixel in column c.
 *
 * Columns: every pixel learns the two nearest objects of its column (two different ids), from one
 * pass up the picture and one down. More are not needed: an object that is only third in a column
 * is, at every pixel of the row, no nearer by way of that column than two others are.
 *
 * Rows: the nearest object is the lower envelope of the parabolas (x - c)^2 + g1(c)^2, one for the
 * nearest object of each column (A. Meijster, J. Roerdink and W. Hesselink, "A general algorithm
 * for computing distance transforms in linear time", 2000). The columns a(x) that it comes from do
 * not decrease with x. Let I be a run of pixels with the same nearest object A. The second-nearest
 * there is the lower envelope of the parabolas of the nearest object other than A of each column,
 * and of those only columns between a(the last pixel before I) and a(the first pixel behind I)
 * matter: with p that first pixel behind and c = a(p), whose object is not A, no column c' > c is
 * better at p, and going left from p by t adds 2t(c' - p) + t^2 to it but only 2t(c - p) + t^2 to
 * c. The other side mirrors this.
 *
 * Call these column ranges R_j, j counting the runs of a row. R_j ends at a(first pixel of run j +
 * 1) and R_(j + 2) begins at a(last pixel of run j + 1), no farther left, so they share one column
 * at most. R_j and R_(j + 4) share none: a() would be the same on runs j + 1 to j + 3, but a column
 * has one nearest object and neighbouring runs have different ones. So a column is in two ranges of
 * even number at most and in two of odd number; all envelopes of a row together go over no more
 * than five times its width, and the whole is linear in pixels, whatever the number of objects. All
 * distances are squares, in integers, exact.
 */
#include "runtime/data/weightmap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "runtime/data/memory.h"
#include "runtime/data/weightmap_cache.h"

#define NONE INT64_MAX
#define NO_ROW (-1)

/* ---------------------------------------------------------------- distances */

/* Of a column, seen from one pixel upwards or downwards: the row of the nearest object's nearest
 * pixel, and of the nearest pixel of another object; NO_ROW: none. */
struct near_rows {
    int32_t first, second;
};

/* One row of the picture at work. */
struct work {
    const uint32_t *instances;
    int width, height;
    struct near_rows *above; /* [width] */
    struct near_rows *below; /* [height][width] */
    uint32_t *ids[2];        /* [width]: nearest and second-nearest object of the column; 0: none */
    int64_t *gaps[2];        /* [width]: their squared vertical distances, or NONE */
    int *sites, *starts;     /* pieces of an envelope: column, and first pixel */
    int64_t *heights;        /* of the columns' parabolas */
    int64_t *first, *second; /* [width]: squared distances; NONE */
    int *origins;            /* [width]: a(x) */
};

static uint32_t id_at(const struct work *work, int32_t row, int x) {
    return work->instances[(size_t)row * (size_t)work->width + (size_t)x];
}

/* Moves on by one pixel, to row y. */
static struct near_rows step_rows(const struct work *work, struct near_rows rows, int y, int x) {
    const uint32_t id = id_at(work, y, x);
    if (id == 0)
        return rows;
    if (rows.first != NO_ROW && id_at(work, rows.first, x) != id)
        rows.second = rows.first;
    rows.first = y;
    return rows;
}

static void scan_upwards(struct work *work) {
    for (int y = work->height - 1; y >= 0; y--) {
        struct near_rows *here = work->below + (size_t)y * (size_t)work->width;
        for (int x = 0; x < work->width; x++) {
            const struct near_rows none = {NO_ROW, NO_ROW};
            here[x] = step_rows(work, y == work->height - 1 ? none : here[work->width + x], y, x);
        }
    }
}

/* The nearer of an object's pixel and what is there already, when that is none or farther. */
static void offer(struct work *work, int k, int y, int x, int32_t row, uint32_t other_than) {
    if (row == NO_ROW)
        return;
    const uint32_t id = id_at(work, row, x);
    const int64_t squared = (int64_t)(row - y) * (row - y);
    if (id == other_than || squared >= work->gaps[k][x])
        return;
    work->ids[k][x] = id;
    work->gaps[k][x] = squared;
}

/* The two nearest objects of every column, from row y. */
static void scan_row(struct work *work, int y) {
    const struct near_rows *below = work->below + (size_t)y * (size_t)work->width;
    for (int x = 0; x < work->width; x++) {
        work->above[x] = step_rows(work, work->above[x], y, x);
        const int32_t rows[4] = {work->above[x].first, below[x].first, work->above[x].second,
                                 below[x].second};
        for (int k = 0; k < 2; k++) {
            work->ids[k][x] = 0;
            work->gaps[k][x] = NONE;
        }
        offer(work, 0, y, x, rows[0], 0);
        offer(work, 0, y, x, rows[1], 0);
        for (int i = 0; i < 4 && work->ids[0][x] != 0; i++)
            offer(work, 1, y, x, rows[i], work->ids[0][x]);
    }
}

static int64_t parabola(int64_t height, int column, int x) {
    return height + (int64_t)(x - column) * (x - column);
}

/* Columns, then pixels, ends included. */
struct range {
    int first, last;
};

/*
 * The lower envelope, over some pixels, of the parabolas of some columns, each that of its nearest
 * object other than one (0: other than none). Returns the number of pieces. On equal heights the
 * piece farther left goes on.
 */
static int build_envelope(struct work *work, struct range columns, struct range pixels,
                          uint32_t other_than) {
    int n = 0;
    for (int c = columns.first; c <= columns.last; c++) {
        const int64_t height = work->gaps[work->ids[0][c] == other_than][c];
        if (height == NONE)
            continue;
        while (n > 0 && parabola(work->heights[n - 1], work->sites[n - 1], work->starts[n - 1]) >
                            parabola(height, c, work->starts[n - 1]))
            n--;
        int64_t start = pixels.first;
        if (n > 0) {
            const int64_t p = work->sites[n - 1], q = c;
            start = (height + q * q - work->heights[n - 1] - p * p) / (2 * (q - p)) + 1;
        }
        if (start > pixels.last)
            continue;
        work->sites[n] = c;
        work->starts[n] = (int)start;
        work->heights[n++] = height;
    }
    return n;
}

static void evaluate_envelope(const struct work *work, int n, struct range pixels,
                              int64_t *distances, int *origins) {
    for (int i = 0; i < n; i++) {
        const int end = i + 1 < n ? work->starts[i + 1] : pixels.last + 1;
        for (int x = work->starts[i]; x < end; x++) {
            distances[x] = parabola(work->heights[i], work->sites[i], x);
            if (origins != NULL)
                origins[x] = work->sites[i];
        }
    }
}

/* There are two objects at least. */
static void measure_row(struct work *work) {
    const int last = work->width - 1;
    const struct range row = {0, last};
    const uint32_t *nearest = work->ids[0];
    evaluate_envelope(work, build_envelope(work, row, row, 0), row, work->first, work->origins);
    for (int x = 0; x <= last;) {
        struct range run = {x, x};
        const uint32_t id = nearest[work->origins[x]];
        while (run.last < last && nearest[work->origins[run.last + 1]] == id)
            run.last++;
        const struct range columns = {run.first > 0 ? work->origins[run.first - 1] : 0,
                                      run.last < last ? work->origins[run.last + 1] : last};
        evaluate_envelope(work, build_envelope(work, columns, run, id), run, work->second, NULL);
        x = run.last + 1;
    }
}

static struct work work_new(const uint32_t *instances, int width, int height) {
    const size_t n = (size_t)width;
    struct work work = {.instances = instances, .width = width, .height = height};
    work.above = memory_new(n, sizeof(*work.above));
    work.below = memory_new(n * (size_t)height, sizeof(*work.below));
    for (int k = 0; k < 2; k++) {
        work.ids[k] = memory_new(n, sizeof(*work.ids[k]));
        work.gaps[k] = memory_new(n, sizeof(*work.gaps[k]));
    }
    work.sites = memory_new(n, sizeof(*work.sites));
    work.starts = memory_new(n, sizeof(*work.starts));
    work.heights = memory_new(n, sizeof(*work.heights));
    work.first = memory_new(n, sizeof(*work.first));
    work.second = memory_new(n, sizeof(*work.second));
    work.origins = memory_new(n, sizeof(*work.origins));
    for (int x = 0; x < width; x++)
        work.above[x] = (struct near_rows){NO_ROW, NO_ROW};
    return work;
}

static void work_free(struct work *work) {
    for (int k = 0; k < 2; k++) {
        free(work->ids[k]);
        free(work->gaps[k]);
    }
    free(work->above);
    free(work->below);
    free(work->sites);
    free(work->starts);
    free(work->heights);
    free(work->first);
    free(work->second);
    free(work->origins);
}

/* ---------------------------------------------------------------- the border term */

static bool has_two_objects(const uint32_t *instances, size_t n) {
    uint32_t id = 0;
    for (size_t i = 0; i < n; i++) {
        if (instances[i] != 0 && id != 0 && instances[i] != id)
            return true;
        id = instances[i] != 0 ? instances[i] : id;
    }
    return false;
}

void weightmap_border(const uint32_t *instances, int width, int height, float w0, float sigma,
                      float *out) {
    const size_t n = (size_t)width * (size_t)height;
    const double spread = 2.0 * (double)sigma * (double)sigma;
    if (!has_two_objects(instances, n)) {
        memset(out, 0, n * sizeof(*out));
        return;
    }
    struct work work = work_new(instances, width, height);
    scan_upwards(&work);
    for (int y = 0; y < height; y++) {
        scan_row(&work, y);
        measure_row(&work);
        for (int x = 0; x < width; x++) {
            /* exp(-800) is 0 in double */
            const bool far = (double)work.second[x] > 800 * spread;
            const double sum = far ? 0 : sqrt((double)work.first[x]) + sqrt((double)work.second[x]);
            *out++ = far ? 0.0f : (float)((double)w0 * exp(-(sum * sum) / spread));
        }
    }
    work_free(&work);
}

/* ---------------------------------------------------------------- whole data sets */

static bool set_class_weights(struct dataset *train, double balance, struct err *err) {
    uint64_t counts[DATASET_MAX_CLASSES], ignored, total = 0;
    unsigned n_classes = 0;
    dataset_count(train, counts, &ignored);
    for (size_t c = 0; c < DATASET_MAX_CLASSES; c++) {
        total += counts[c];
        n_classes += counts[c] > 0;
    }
    if (total == 0) {
        err_set(err, ERR_INPUT, "no pixel of the training images counts: all are ignored");
        return err_hint(err, "look at the ignore value and the weights in the model's label table");
    }
    for (size_t c = 0; c < DATASET_MAX_CLASSES; c++) {
        const double share = (double)counts[c] * n_classes / (double)total;
        const double factor = (double)train->class_factors[c];
        train->class_weights[c] =
            (float)(counts[c] > 0 ? factor * pow(1 / share, balance) : factor);
    }
    return true;
}

struct border_counts {
    size_t computed, kept;
};

static void set_border(struct dataset_frame *frame, const struct plan_weights *settings,
                       struct weightmap_cache *cache, struct border_counts *counts) {
    const size_t n = (size_t)frame->width * (size_t)frame->height;
    free(frame->border);
    frame->border = NULL;
    if (settings->border == 0 || frame->instances == NULL || !has_two_objects(frame->instances, n))
        return;
    frame->border = memory_new(n, sizeof(*frame->border));
    char *path = weightmap_cache_path(cache, frame, settings);
    if (weightmap_cache_load(cache, path, frame, settings)) {
        counts->kept++;
    } else {
        weightmap_border(frame->instances, frame->width, frame->height, settings->border,
                         settings->sigma, frame->border);
        weightmap_cache_save(cache, path, frame, settings);
        counts->computed++;
    }
    free(path);
}

static void set_weights(struct dataset_frame *frame, const struct dataset *dataset) {
    const size_t n = (size_t)frame->width * (size_t)frame->height;
    for (size_t i = 0; i < n; i++) {
        const uint8_t class_ = frame->classes[i];
        if (frame->weights[i] == 0)
            continue;
        frame->weights[i] = dataset->class_weights[class_];
        if (frame->border != NULL && class_ == dataset->background)
            frame->weights[i] += frame->border[i];
    }
}

bool weightmap_apply(struct dataset *train, struct dataset *others,
                     const struct plan_weights *settings, struct err *err) {
    struct dataset *const sets[] = {train, others};
    struct border_counts counts = {0};
    struct weightmap_cache cache = {0};
    const double start = clock_now_seconds();
    if (!set_class_weights(train, (double)settings->balance, err))
        return false;
    for (int k = 0; k < 2 && sets[k] != NULL; k++) {
        memcpy(sets[k]->class_weights, train->class_weights, sizeof(train->class_weights));
        for (size_t i = 0; i < sets[k]->n_frames; i++) {
            set_border(&sets[k]->frames[i], settings, &cache, &counts);
            set_weights(&sets[k]->frames[i], sets[k]);
        }
    }
    const size_t n = counts.computed + counts.kept;
    if (n > 0)
        log_print(LOG_INFO,
                  "border weights of %zu image%s: %zu computed, %zu kept from before, %.2f s", n,
                  n > 1 ? "s" : "", counts.computed, counts.kept, clock_now_seconds() - start);
    weightmap_cache_report(&cache);
    return true;
}
