/*
 * upconv_channels.glsl: the up-convolution of conv_reg.comp where a load at an address that all
 * lanes share is cheap (SHARED_LOADS): lanes are columns of the weights, a vec4 each, and share
 * RUN neighbouring pixels of the source. A workgroup has one run after the other: as many as there
 * are more of them than workgroups, whose number is that of the other form. Sums are added in the
 * same order.
 */
#ifndef UNET_UPCONV_CHANNELS_GLSL
#define UNET_UPCONV_CHANNELS_GLSL

#define RUN 16
/* A turn of the loop costs as much as the multiply-adds of a source channel. */
#define TURN_SOURCES 4u

/* One source channel; past the last it is that one, multiplied by zero. */
void run_add_source(uint pixel_at[RUN], uint shared_source, uint source, uint channels, uint column,
                    inout vec4 sum[RUN]) {
    uint plane_at = min(shared_source, SRC_C - 1u) * (SRC_H * SRC_W);
    vec4 weight = AT(w, min(source, SRC_C - 1u) * COLUMNS + column);
    [[unroll]] for (int b = 0; b < RUN; b++) {
        float loaded = AT(src, plane_at + pixel_at[b]);
        sum[b] = fma(vec4(source < channels ? loaded : 0.0), weight, sum[b]);
    }
}

void run_store(uint column, bool live, uint image, uint first_pixel, vec4 sum[RUN]) {
    /* A loop over an array other than that of the sums, which so stay out of memory. */
    float result[4 * RUN];
    [[unroll]] for (int b = 0; b < RUN; b++) {
        [[unroll]] for (int j = 0; j < 4; j++)
            result[j * RUN + b] = sum[b][j];
    }
    place to = place_first(column * 4u);
    uint first_y = first_pixel / PIXELS_W;
    uint first_x = first_pixel - first_y * PIXELS_W;
    uint j = 0u;
    while (true) {
        float bias = place_bias(to);
        bool stored = live && place_exists(to);
        uint y = first_y, x = first_x, b = 0u;
        while (true) {
            if (stored && y < PIXELS_H)
                place_store(to, bias, image, place_at(to, y, x), result[j * RUN + b]);
            x++;
            if (x == PIXELS_W) {
                x = 0u;
                y++;
            }
            b++;
            if (b == RUN)
                break;
        }
        place_advance(to);
        j++;
        if (j == 4u)
            break;
    }
}

/* The run of that number for a block of columns; where it is not wanted, the motions of a turn. */
void run_compute(uint number, uint column_blocks, uint image_runs, bool wanted) {
    uint run = number / column_blocks;
    uint own = (number - run * column_blocks) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint column = min(own, COLUMNS - 1u);
    uint image = run / image_runs;
    uint first_pixel = (run - image * image_runs) * RUN;
    uint image_at = SHARED(image) * SRC_STRIDE_N;
    uint shared_first = SHARED(first_pixel);
    uint pixel_at[RUN];
    vec4 sum[RUN];
    [[unroll]] for (int b = 0; b < RUN; b++) {
        pixel_at[b] = image_at + min(shared_first + b, SRC_H * SRC_W - 1u);
        sum[b] = vec4(0.0);
    }
    bool live = wanted && own < COLUMNS;
    uint channels = live ? SRC_C : 1u;
    uint s = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
        uint shared_s = SHARED(s);
        run_add_source(pixel_at, shared_s, s, channels, column, sum);
        run_add_source(pixel_at, shared_s + 1u, s + 1u, channels, column, sum);
        run_add_source(pixel_at, shared_s + 2u, s + 2u, channels, column, sum);
        run_add_source(pixel_at, shared_s + 3u, s + 3u, channels, column, sum);
        s += TURN_SOURCES;
        if (s >= channels)
            break;
    }
    run_store(column, live, image, first_pixel, sum);
}

void upconv_of_channels() {
    uint column_blocks = div_up(COLUMNS, gl_WorkGroupSize.x);
    uint image_runs = div_up(PIXELS_H * PIXELS_W, RUN);
    uint items = p.n * image_runs * column_blocks;
    uint lane_blocks =
        div_up(div_up(PIXELS_H, ROWS) * div_up(PIXELS_W, COLS), gl_WorkGroupSize.x);
    uint each = div_up(items, p.n * lane_blocks * div_up(COLUMNS, OUT_VECS));
    uint item = flat_group() * each;
    uint end = item + each;
    while (true) {
        run_compute(min(item, items - 1u), column_blocks, image_runs, item < items);
        item++;
        if (item == end)
            break;
    }
}

#endif
