/*
 * diag.c: the mistakes of a model file, as people see them:
 *
 *     model.yaml:12:9: unknown key "kernal"
 *        12 |   kernal: 3
 *           |   ^
 *     hint: did you mean "kernel"?
 *
 * Columns count characters, as libyaml does: a UTF-8 sequence is one column. Tabs before the caret
 * are repeated under the line, so that the caret stands right for any tab width.
 */
#include "common/diag.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"

void diag_init(struct diag *diag, const char *file, const char *text) {
    memset(diag, 0, sizeof(*diag));
    diag->file = file;
    diag->text = text;
}

static size_t shown(const struct diag *diag) {
    return MIN(diag->count, (size_t)DIAG_MAX);
}

void diag_free(struct diag *diag) {
    for (size_t i = 0; i < shown(diag); i++) {
        free(diag->items[i].message);
        free(diag->items[i].hint);
    }
    diag->count = 0;
}

static char *format_text(const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = calloc(length < 0 ? 1 : (size_t)length + 1, 1);
    if (text == NULL) {
        fprintf(stderr, "error: out of memory (a message)\n");
        exit(4);
    }
    if (length >= 0)
        vsnprintf(text, (size_t)length + 1, format, args);
    return text;
}

void diag_error(struct diag *diag, struct diag_pos pos, const char *format, ...) {
    if (diag->count < DIAG_MAX) {
        va_list args;
        va_start(args, format);
        diag->items[diag->count].pos = pos;
        diag->items[diag->count].message = format_text(format, args);
        diag->items[diag->count].hint = NULL;
        va_end(args);
    }
    diag->count++;
}

void diag_hint(struct diag *diag, const char *format, ...) {
    if (diag->count == 0 || diag->count > DIAG_MAX)
        return;
    struct diag_item *item = &diag->items[diag->count - 1];
    va_list args;
    va_start(args, format);
    free(item->hint);
    item->hint = format_text(format, args);
    va_end(args);
}

/* Start and length of a line (from 1) of the text, without its end; false when there is none. */
static bool find_line(const char *text, int line, const char **start, size_t *length) {
    for (int i = 1; i < line; i++) {
        text = strchr(text, '\n');
        if (text == NULL)
            return false;
        text++;
    }
    *start = text;
    *length = strcspn(text, "\r\n");
    return true;
}

static void print_caret(const struct diag *diag, struct diag_pos pos, FILE *stream) {
    const char *line;
    size_t length;
    if (diag->text == NULL || pos.line < 1 || !find_line(diag->text, pos.line, &line, &length))
        return;
    fprintf(stream, "%5d | %.*s\n", pos.line, (int)length, line);
    if (pos.column < 1)
        return;
    fputs("      | ", stream);
    int column = 1;
    for (size_t i = 0; i < length && column < pos.column; i++) {
        if (((unsigned char)line[i] & 0xc0) == 0x80)
            continue; /* a later byte of the same character */
        fputc(line[i] == '\t' ? '\t' : ' ', stream);
        column++;
    }
    fputs("^\n", stream);
}

static void print_item(const struct diag *diag, const struct diag_item *item, FILE *stream) {
    fputs(diag->file, stream);
    if (item->pos.line > 0)
        fprintf(stream, ":%d", item->pos.line);
    if (item->pos.line > 0 && item->pos.column > 0)
        fprintf(stream, ":%d", item->pos.column);
    fprintf(stream, ": %s\n", item->message);
    print_caret(diag, item->pos, stream);
    if (item->hint != NULL)
        fprintf(stream, "hint: %s\n", item->hint);
}

static bool comes_before(const struct diag_item *a, const struct diag_item *b) {
    if (a->pos.line != b->pos.line)
        return a->pos.line < b->pos.line;
    return a->pos.column < b->pos.column;
}

void diag_print(const struct diag *diag, FILE *stream) {
    const struct diag_item *order[DIAG_MAX];
    const size_t n = shown(diag);
    /* Insertion keeps the order of reporting among equal positions. */
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && comes_before(&diag->items[i], order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = &diag->items[i];
    }
    for (size_t i = 0; i < n; i++)
        print_item(diag, order[i], stream);
    if (diag->count > n)
        fprintf(stream, "%zu mistakes, the first %zu found are shown\n", diag->count, n);
    else if (n > 1)
        fprintf(stream, "%zu mistakes\n", n);
}

#define WORD_MAX 63

/*
 * Edit distance with insertion, deletion, substitution and the swap of two neighbours (restricted
 * Damerau-Levenshtein), ignoring case.
 */
static size_t edit_distance(const char *a, const char *b) {
    size_t rows[3][WORD_MAX + 1];
    const size_t na = strlen(a), nb = strlen(b);
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = rows[i % 3];
        const size_t *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            const int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            size_t best = last[j - 1] + (ca != cb);
            best = MIN(best, last[j] + 1);
            best = MIN(best, now[j - 1] + 1);
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]))
                best = MIN(best, before[j - 2] + 1);
            now[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *diag_did_you_mean(const char *word, const char *const *candidates, size_t count) {
    const char *nearest = NULL;
    const size_t length = strlen(word);
    if (length == 0 || length > WORD_MAX)
        return NULL;
    /* One slip in a short word, two in a longer one, three in a long one. */
    size_t allowed = length <= 3 ? 1 : length <= 7 ? 2 : 3;
    size_t least = allowed + 1;
    for (size_t i = 0; i < count; i++) {
        if (candidates[i] == NULL || strlen(candidates[i]) > WORD_MAX)
            continue;
        size_t distance = edit_distance(word, candidates[i]);
        /* Nothing in common is no slip, however short the words. */
        if (distance < least && distance < MAX(length, strlen(candidates[i]))) {
            least = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}
