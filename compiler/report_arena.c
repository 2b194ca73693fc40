/*
 * report_arena.c: "unetc --arena-svg": the memory plan of a program as a picture. To the right go
 * the records in order, upwards the addresses; a tensor is the rectangle from its first record to
 * its last and from its first byte to its last, so that no two rectangles may overlap. An arena of
 * several chunks is drawn as one range of addresses with a line at each border. What hovers
 * over a rectangle tells its name, size and records.
 */
#include <math.h>
#include <string.h>

#include "common/plan_memory.h"
#include "compiler/report_memory.h"
#include "compiler/report_picture.h"

/* All in px. */
#define WIDTH 1280
#define HEIGHT 760
#define LEFT 84
#define RIGHT 24
#define TOP 84
#define BOTTOM 60
#define FONT 11
#define LETTER 6.3 /* mean width of a letter at that size, on the safe side */
#define TICKS 10

struct picture {
    FILE *stream;
    const struct plan *plan;
    const struct plan_program *program;
    struct plan_lifetimes lifetimes;
    uint64_t end_bytes; /* the highest address that is used */
    double unit_bytes;  /* of the labels at the axis */
    const char *unit;
};

static double x_of(const struct picture *p, double record) {
    return LEFT + (WIDTH - LEFT - RIGHT) * record / MAX(p->program->n_records, 1u);
}

static double y_of(const struct picture *p, double address) {
    const double all = p->end_bytes > 0 ? (double)p->end_bytes : 1;
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * address / all;
}

static void print_escaped(FILE *stream, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '<')
            fputs("&lt;", stream);
        else if (*text == '>')
            fputs("&gt;", stream);
        else if (*text == '&')
            fputs("&amp;", stream);
        else
            fputc(*text, stream);
    }
}

/* 1, 2 or 5 times a power of ten, at most TICKS of them within a range, and no less than 1. */
static double tick_step(double range) {
    double step = 1;
    for (int i = 0; range / step > TICKS; i++)
        step *= i % 3 == 1 ? 2.5 : 2;
    return step;
}

static void print_axes(const struct picture *p) {
    const double top = (double)p->end_bytes / p->unit_bytes;
    const double record_step = tick_step(p->program->n_records), byte_step = tick_step(top);
    for (double v = 0; v <= top; v += byte_step) {
        const double y = y_of(p, v * p->unit_bytes);
        fprintf(p->stream,
                "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#ddd'/>"
                "<text x='%d' y='%.1f' text-anchor='end'>%g</text>\n",
                LEFT, y, WIDTH - RIGHT, y, LEFT - 6, y + 4, v);
    }
    for (double v = 0; v <= p->program->n_records; v += record_step) {
        const double x = x_of(p, v);
        fprintf(p->stream,
                "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' stroke='#888'/>"
                "<text x='%.1f' y='%d' text-anchor='middle'>%g</text>\n",
                x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5, x, HEIGHT - BOTTOM + 18, v);
    }
    fprintf(p->stream,
            "<text x='%d' y='%d' text-anchor='middle' font-size='13'>record (dispatch number)"
            "</text>\n<text transform='translate(22 %d) rotate(-90)' text-anchor='middle' "
            "font-size='13'>address in the arena, %s</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, (TOP + HEIGHT - BOTTOM) / 2, p->unit);
}

/* Along the longer side when the name fits there, else not at all. */
static void print_name(const struct picture *p, const char *name, double x, double y, double width,
                       double height) {
    const double length = LETTER * (double)strlen(name) + 4;
    if (height >= FONT + 1 && width >= length)
        fprintf(p->stream, "<text x='%.1f' y='%.1f' text-anchor='middle'>", x + width / 2,
                y + height / 2 + 4);
    else if (width >= FONT + 1 && height >= length)
        fprintf(p->stream,
                "<text transform='translate(%.1f %.1f) rotate(-90)' text-anchor='middle'>",
                x + width / 2 + 4, y + height / 2);
    else
        return;
    print_escaped(p->stream, name);
    fputs("</text>\n", p->stream);
}

static const char *const fills[PLAN_CONTENT_COUNT][2] = {
    [PLAN_CONTENT_MAP] = {"#b9d3ee", "#cfe1f4"},
    [PLAN_CONTENT_GRADIENT] = {"#f2c48d", "#f6d4ab"},
    [PLAN_CONTENT_SCRATCH] = {"#c9c9c9", "#d9d9d9"},
};

static void print_tensor(const struct picture *p, size_t index) {
    const struct plan_lifetime *l = &p->lifetimes.tensors.items[index];
    const char *name = p->plan->tensors[l->tensor].name;
    const double x = x_of(p, l->first), width = x_of(p, l->last + 1.0) - x;
    const double y = y_of(p, (double)(l->offset_bytes + l->size_bytes));
    const double height = y_of(p, (double)l->offset_bytes) - y;
    char text[32];
    fprintf(p->stream,
            "<rect x='%.1f' y='%.2f' width='%.1f' height='%.2f' fill='%s' stroke='#456' "
            "stroke-width='0.6'><title>",
            x, y, width, height, fills[l->content][index % 2]);
    print_escaped(p->stream, name);
    fprintf(p->stream, ": %s at %llu, records %u to %u</title></rect>\n",
            report_bytes(l->size_bytes, text, sizeof(text)), (unsigned long long)l->offset_bytes,
            l->first, l->last);
    print_name(p, name, x, y, width, height);
}

static void print_bound(const struct picture *p) {
    const double from = x_of(p, p->lifetimes.bound_record);
    const double width = x_of(p, p->lifetimes.bound_record + 1.0) - from, x = from + width / 2;
    const double y = y_of(p, (double)p->lifetimes.bound_bytes);
    char text[32];
    fprintf(p->stream,
            "<rect x='%.1f' y='%d' width='%.1f' height='%d' fill='#c00' fill-opacity='0.18'/>\n"
            "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' stroke='#c00' stroke-dasharray='5 3'/>\n"
            "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#c00' stroke-dasharray='5 3'/>\n",
            from, TOP, width, HEIGHT - TOP - BOTTOM, x, TOP - 6, x, HEIGHT - BOTTOM, LEFT, y,
            WIDTH - RIGHT, y);
    const bool on_left = x > WIDTH / 2.0;
    fprintf(p->stream, "<text x='%.1f' y='%d' text-anchor='%s' fill='#a00'>",
            on_left ? x + 4 : x - 4, TOP - 10, on_left ? "end" : "start");
    fprintf(p->stream, "lower bound: %s alive at record %u, ",
            report_bytes(p->lifetimes.bound_bytes, text, sizeof(text)), p->lifetimes.bound_record);
    print_escaped(p->stream, p->program->records[p->lifetimes.bound_record].label);
    fputs("</text>\n", p->stream);
}

/* Lines where one allocation ends and the next starts. */
static void print_splits(const struct picture *p) {
    const uint64_t *splits = p->plan->splits[PLAN_BLOCK_ARENA];
    for (uint32_t i = 0; i < p->plan->n_splits[PLAN_BLOCK_ARENA] && splits[i] < p->end_bytes; i++) {
        const double y = y_of(p, (double)splits[i]);
        fprintf(p->stream,
                "<line x1='%d' y1='%.2f' x2='%d' y2='%.2f' stroke='#063' stroke-width='2'/>"
                "<text x='%d' y='%.1f' text-anchor='end' fill='#063'>chunk %u</text>\n",
                LEFT, y, WIDTH - RIGHT, y, WIDTH - RIGHT - 4, y - 4, i + 1);
    }
}

static void print_head(const struct picture *p) {
    const struct plan_model *model = &p->plan->model;
    char arena[32], naive[32];
    fprintf(p->stream,
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
            "font-family='sans-serif' font-size='%d'>\n<rect width='%d' height='%d' "
            "fill='#fff'/>\n<text x='%d' y='28' font-size='17'>",
            WIDTH, HEIGHT, WIDTH, HEIGHT, FONT, WIDTH, HEIGHT, LEFT);
    print_escaped(p->stream, model->name);
    if (model->overrides[0] != '\0') {
        fputs(" (", p->stream);
        print_escaped(p->stream, model->overrides);
        fputs(")", p->stream);
    }
    fprintf(p->stream, ", %s: arena %s", p->program->name,
            report_bytes(p->program->arena_bytes, arena, sizeof(arena)));
    fprintf(p->stream, ", %s if nothing shared memory</text>\n",
            report_bytes(p->program->naive_arena_bytes, naive, sizeof(naive)));
    for (int i = 0; i < PLAN_CONTENT_COUNT; i++)
        fprintf(p->stream,
                "<rect x='%d' y='40' width='12' height='12' fill='%s' stroke='#456' "
                "stroke-width='0.6'/><text x='%d' y='50'>%s</text>\n",
                LEFT + 160 * i, fills[i][0], LEFT + 160 * i + 18,
                plan_content_title((enum plan_content)i));
}

void report_arena_svg(const struct plan *plan, const struct plan_program *program, FILE *stream) {
    struct picture p = {.stream = stream, .plan = plan, .program = program};
    plan_lifetimes_derive(plan, program, &p.lifetimes);
    for (size_t i = 0; i < p.lifetimes.tensors.count; i++) {
        const struct plan_lifetime *l = &p.lifetimes.tensors.items[i];
        p.end_bytes = MAX(p.end_bytes, l->offset_bytes + l->size_bytes);
    }
    const bool large = p.end_bytes >= (uint64_t)2 << 20;
    p.unit_bytes = large ? 1024 * 1024 : p.end_bytes >= 2048 ? 1024 : 1;
    p.unit = large ? "MiB" : p.end_bytes >= 2048 ? "KiB" : "bytes";
    print_head(&p);
    print_axes(&p);
    for (size_t i = 0; i < p.lifetimes.tensors.count; i++)
        print_tensor(&p, i);
    print_splits(&p);
    if (p.lifetimes.tensors.count > 0)
        print_bound(&p);
    fputs("</svg>\n", stream);
    plan_lifetimes_free(&p.lifetimes);
}
