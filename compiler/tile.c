/*
 * tile.c: how each kernel is laid out on each class of device: shader variant, specialisation
 * constants, workgroups. Called by the lowering's last step for every record. The measurements
 * behind the choices are in docs/shaders.md.
 */
#include <string.h>

#include "compiler/tile_internal.h"

union kernel_params tile_read_params(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    return p;
}

void tile_set_size(struct tile *tile, uint32_t size) {
    tile->spec[0] = size;
    tile->spec[1] = 1;
    tile->spec[2] = 1;
    tile->n_spec = 3;
}

void tile_add_spec(struct tile *tile, uint32_t value) {
    tile->spec[tile->n_spec++] = value;
}

void tile_set_groups(struct tile *tile, uint64_t groups) {
    const uint32_t most = MIN(tile->limits->max_groups[0], PLAN_MAX_GROUPS);
    uint32_t rows = (uint32_t)tile_blocks(groups, most);
    rows = MAX(rows, 1);
    tile->groups[0] = (uint32_t)((groups + rows - 1) / rows);
    tile->groups[1] = rows;
    tile->groups[2] = 1;
}

struct map tile_map_find(enum kernel_id kernel, const union kernel_params *p) {
    if (kernel == KERNEL_ID_upconv_fwd) {
        const struct upconv_params *u = &p->upconv;
        return (struct map){.n = u->n,
                            .h = u->h_in,
                            .w = u->w_in,
                            .columns = u->k * u->k * div_up(u->c_out, 4),
                            .sources = u->c_in,
                            .kh = 1,
                            .kw = 1,
                            .dense = true,
                            .epilogue = u->epilogue};
    }
    if (kernel == KERNEL_ID_upconv_dgrad) {
        const struct upconv_dgrad_params *u = &p->upconv_dgrad;
        return (struct map){.n = u->n,
                            .h = u->h_in,
                            .w = u->w_in,
                            .columns = div_up(u->c_in, 4),
                            .sources = u->c_out,
                            .kh = u->k,
                            .kw = u->k,
                            .dense = true,
                            .epilogue = u->epilogue};
    }
    const struct conv_params *c = &p->conv;
    return (struct map){.n = c->n,
                        .h = c->h_out,
                        .w = c->w_out,
                        .columns = div_up(c->c_out, 4),
                        .sources = c->c_in,
                        .kh = c->kh,
                        .kw = c->kw,
                        .padded = c->pad_h > 0 || c->pad_w > 0,
                        .dense = c->dilation == 1,
                        .near_edges = c->pad_h <= LANE_MARGIN && c->pad_w <= LANE_MARGIN &&
                                      c->h_out + c->kh <= c->h_in + 2 * c->pad_h + 1 &&
                                      c->w_out + c->kw <= c->w_in + 2 * c->pad_w + 1,
                        .epilogue = c->epilogue};
}

struct wgrad tile_wgrad_find(enum kernel_id kernel, const union kernel_params *p) {
    if (kernel == KERNEL_ID_upconv_wgrad) {
        const struct upconv_wgrad_params *u = &p->upconv_wgrad;
        return (struct wgrad){.rows = u->c_in,
                              .cols = (uint64_t)u->k * u->k * div_up(u->c_out, 4) * 4,
                              .c_in = u->c_in,
                              .c_out = u->c_out,
                              .taps = u->k * u->k,
                              .kh = u->k,
                              .kw = u->k,
                              .map_rows = u->n * u->h_in,
                              .map_w = u->w_in,
                              .splits = u->splits,
                              .dense = true};
    }
    const struct conv_wgrad_params *c = &p->conv_wgrad;
    return (struct wgrad){.rows = (uint64_t)c->c_in * c->kh * c->kw,
                          .cols = div_up(c->c_out, 4) * 4,
                          .c_in = c->c_in,
                          .c_out = c->c_out,
                          .taps = c->kh * c->kw,
                          .kh = c->kh,
                          .kw = c->kw,
                          .map_rows = c->n * c->h_out,
                          .map_w = c->w_out,
                          .splits = c->splits,
                          .padded = c->pad_h > 0 || c->pad_w > 0,
                          .dense = c->dilation == 1};
}

/* A size of workgroups, a power of two, halved until the device allows it. */
static uint32_t allowed_size(const struct tile *tile, uint32_t size) {
    while (size > 1 && size > tile_most_invocations(tile))
        size /= 2;
    return size;
}

/* Kernels that share out the pixels of planes (plane.glsl), or the elements of images (each.glsl):
   `parts` planes or images of `elements` each. */
static void choose_each(const char *variant, uint64_t parts, uint64_t elements, enum plan_class cls,
                        struct tile *tile) {
    uint32_t size = allowed_size(tile, 64), items = cls == PLAN_CLASS_CPU ? 8 : 1;
    tile->variant = variant;
    tile_set_size(tile, size);
    tile_add_spec(tile, items);
    tile_set_groups(tile, parts * tile_blocks(elements, (uint64_t)size * items));
}

/* Kernels whose workgroups add up in shared memory. */
static void choose_sum(const char *variant, uint64_t groups, uint32_t size, uint32_t lane_bytes,
                       struct tile *tile) {
    size = allowed_size(tile, size);
    tile->variant = variant;
    tile_set_size(tile, size);
    tile->shared_bytes = size * lane_bytes;
    tile_set_groups(tile, groups);
}

static void choose_maxpool_bwd(const struct maxpool_bwd_params *pool, enum plan_class cls,
                               struct tile *tile) {
    uint64_t planes = (uint64_t)pool->n * pool->c;
    if (pool->stride == pool->kernel && pool->dilation == 1 && pool->kernel <= 4) {
        uint64_t cells =
            tile_blocks(pool->h_in, pool->kernel) * tile_blocks(pool->w_in, pool->kernel);
        choose_each("maxpool_bwd_tight", planes, cells, cls, tile);
        tile_add_spec(tile, pool->kernel);
    } else {
        choose_each("maxpool_bwd", planes, (uint64_t)pool->h_in * pool->w_in, cls, tile);
    }
}

/* The kernels without a tile of their own. */
static void choose_simple(enum kernel_id kernel, const union kernel_params *p, enum plan_class cls,
                          struct tile *tile) {
    const char *variant = kernel_table[kernel].name;
    bool cpu = cls == PLAN_CLASS_CPU;
    switch (kernel) {
    case KERNEL_ID_wgrad_reduce:
        choose_each(variant, 1, p->wgrad_reduce.count, cls, tile);
        break;
    case KERNEL_ID_weights_transpose:
        choose_each(variant, 1,
                    (uint64_t)p->weights_transpose.out_count * p->weights_transpose.taps *
                        div_up(p->weights_transpose.in_count, 4),
                    cls, tile);
        break;
    case KERNEL_ID_bias_grad:
        choose_sum(variant, p->bias_grad.c, cpu ? 16 : 256, 4, tile);
        break;
    case KERNEL_ID_maxpool_fwd:
        choose_each(variant, (uint64_t)p->maxpool.n * p->maxpool.c,
                    (uint64_t)p->maxpool.h_out * p->maxpool.w_out, cls, tile);
        tile_add_spec(tile, p->maxpool.kernel <= 4 ? p->maxpool.kernel : 0);
        break;
    case KERNEL_ID_maxpool_bwd:
        choose_maxpool_bwd(&p->maxpool_bwd, cls, tile);
        break;
    case KERNEL_ID_maxpool_index:
        tile->variant = variant;
        tile_set_size(tile, POOL_INDEX_LANES);
        tile_set_groups(tile,
                        (uint64_t)p->maxpool_index.n * p->maxpool_index.c *
                            tile_blocks((uint64_t)p->maxpool_index.h_out * p->maxpool_index.w_out,
                                        POOL_INDEX_WINDOWS));
        break;
    case KERNEL_ID_maxpool_unpool:
        choose_each(variant, (uint64_t)p->maxpool_unpool.n * p->maxpool_unpool.c,
                    tile_blocks(p->maxpool_unpool.h_in, 2) * tile_blocks(p->maxpool_unpool.w_in, 2),
                    cls, tile);
        break;
    case KERNEL_ID_copy_region:
    case KERNEL_ID_add_region:
        choose_each(variant, (uint64_t)p->copy_region.n * p->copy_region.c,
                    (uint64_t)p->copy_region.h * p->copy_region.w, cls, tile);
        break;
    case KERNEL_ID_embed_region:
        choose_each(variant, (uint64_t)p->embed_region.n * p->embed_region.c,
                    (uint64_t)p->embed_region.dst_h * p->embed_region.dst_w, cls, tile);
        break;
    case KERNEL_ID_dropout:
        choose_each(variant, 1, tile_blocks((uint64_t)p->dropout.n * p->dropout.count, 4), cls,
                    tile);
        break;
    case KERNEL_ID_half_store:
    case KERNEL_ID_half_load: /* an invocation takes words, two elements each */
        choose_each(variant, p->half_store.n, kernel_half_words(1, p->half_store.count), cls, tile);
        break;
    case KERNEL_ID_softmax:
        choose_each(variant, p->softmax.n, p->softmax.hw, cls, tile);
        break;
    case KERNEL_ID_softmax_loss:
        choose_sum(
            variant,
            tile_blocks((uint64_t)p->softmax_loss.n * p->softmax_loss.hw, LOSS_PIXELS_PER_GROUP),
            cpu ? 16 : 128, 16, tile);
        break;
    case KERNEL_ID_loss_reduce:
        choose_sum(variant, 1, cpu ? 16 : 128, 16, tile);
        break;
    case KERNEL_ID_softmax_loss_grad:
        choose_each(variant, p->softmax_loss_grad.n, p->softmax_loss_grad.hw, cls, tile);
        break;
    case KERNEL_ID_sgd:
        choose_each(variant, 1, p->sgd.count, cls, tile);
        break;
    case KERNEL_ID_adam:
        choose_each(variant, 1, p->adam.count, cls, tile);
        break;
    case KERNEL_ID_accumulate:
        choose_each(variant, 1, p->accumulate.count, cls, tile);
        break;
    case KERNEL_ID_gradient_check:
        choose_sum(variant, GRADIENT_FLAGS, cpu ? 16 : 256, 0, tile);
        tile->shared_bytes = 4;
        break;
    case KERNEL_ID_loss_scale:
        choose_sum(variant, 1, cpu ? 16 : 256, 0, tile);
        tile->shared_bytes = 4;
        break;
    case KERNEL_ID_sgd_scaled:
    case KERNEL_ID_adam_scaled: /* count comes first */
        choose_each(variant, 1, p->sgd.count, cls, tile);
        break;
    default: /* act_fwd, act_bwd, add, scale_gradient: n and count come first */
        choose_each(variant, p->act_fwd.n, p->act_fwd.count, cls, tile);
        break;
    }
}

/* The steps of Winograd's algorithm: workgroups of a block of tiles, whatever the device. */
static void choose_winograd(enum kernel_id kernel, const union kernel_params *p,
                            enum plan_class cls, struct tile *tile) {
    if (kernel == KERNEL_ID_winograd_weights) {
        const struct winograd_weights_params *w = &p->winograd_weights;
        choose_each("winograd_weights", 1,
                    tile_blocks(w->c_in, WINOGRAD_CHUNK) * WINOGRAD_CHUNK *
                        tile_blocks(w->n_channels, 4) * 4,
                    cls, tile);
        return;
    }
    tile_set_size(tile, WINOGRAD_LANES);
    if (kernel == KERNEL_ID_winograd_input) {
        const struct winograd_input_params *x = &p->winograd_input;
        tile->variant = "winograd_input";
        tile_set_groups(tile, kernel_winograd_blocks(x->n, x->n_rows, x->w_out) *
                                  tile_blocks(x->c_in, WINOGRAD_CHUNK));
        return;
    }
    const struct winograd_product_params *y = &p->winograd_product;
    tile->variant = "winograd_product";
    tile->shared_bytes = WINOGRAD_POINTS * WINOGRAD_LANES * 32; /* by descriptors */
    tile_add_spec(tile, y->epilogue);
    tile_set_groups(tile, kernel_winograd_blocks(y->n, y->n_rows, y->w_out) *
                              tile_blocks(y->n_channels, 4));
}

static void choose(enum kernel_id kernel, const uint32_t *params, enum plan_class cls,
                   enum plan_method_kind method, struct tile *tile) {
    union kernel_params p = tile_read_params(kernel, params);
    bool cpu = cls == PLAN_CLASS_CPU;
    switch (kernel) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
    case KERNEL_ID_upconv_fwd:
    case KERNEL_ID_upconv_dgrad:
        if (method == PLAN_METHOD_MATRIX)
            tile_choose_conv_matrix(kernel, &p, tile);
        else if (method == PLAN_METHOD_WINOGRAD2 && !cpu)
            tile_choose_conv_winograd2(&p, tile);
        else if (cpu || !tile_choose_conv_shared(kernel, &p, tile))
            tile_choose_conv_reg(kernel, &p, method, tile);
        break;
    case KERNEL_ID_winograd_weights:
    case KERNEL_ID_winograd_input:
    case KERNEL_ID_winograd_product:
        choose_winograd(kernel, &p, cls, tile);
        break;
    case KERNEL_ID_conv_wgrad:
    case KERNEL_ID_upconv_wgrad:
        if (method == PLAN_METHOD_MATRIX)
            tile_choose_wgrad_matrix(kernel, &p, tile);
        else
            cpu ? tile_choose_wgrad_reg(kernel, &p, tile)
                : tile_choose_wgrad_shared(kernel, &p, tile);
        break;
    default:
        choose_simple(kernel, &p, cls, tile);
        break;
    }
}

void tile_choose(enum kernel_id kernel, const uint32_t *params, enum plan_class cls,
                 const struct plan_limits *limits, enum plan_method_kind method,
                 struct tile *tile) {
    const struct plan_limits least = plan_limits_minimum(PLAN_CLASS_GPU);
    *tile = (struct tile){.limits = limits != NULL ? limits : &least};
    choose(kernel, params, cls, method, tile);
    tile->limits = limits;
}

/*
 * Enough splits that the outermost layers, with few channels and many pixels, still fill a device
 * (about 256 workgroups of 32 x 32 results), at least 8 rows each, and at most 4 MiB of partial
 * sums beyond the first.
 */
uint32_t tile_wgrad_splits(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p = tile_read_params(kernel, params);
    struct wgrad wgrad = tile_wgrad_find(kernel, &p);
    uint64_t results = wgrad.rows * wgrad.cols; /* float32, of one partial sum */
    uint64_t splits = tile_blocks(256, tile_blocks(results, 1024));
    splits = MIN(splits, MAX(1, wgrad.map_rows / 8));
    splits = MIN(splits, MAX(1, (4u << 20) / (results * 4)));
    return (uint32_t)MAX(splits, 1);
}

/* About 1000 workgroups of the largest tile (4096 results, 16 MiB in all), 512 pixels each. */
uint32_t tile_wgrad_most_splits(enum kernel_id kernel, const uint32_t *params,
                                uint64_t room_bytes) {
    union kernel_params p = tile_read_params(kernel, params);
    struct wgrad wgrad = tile_wgrad_find(kernel, &p);
    uint64_t results = wgrad.rows * wgrad.cols; /* float32, of one partial sum */
    uint64_t splits =
        MIN(tile_blocks(1000, tile_blocks(results, 4096)), room_bytes / (results * 4));
    splits = MIN(splits, (uint64_t)wgrad.map_rows * wgrad.map_w / 512);
    return (uint32_t)MIN(splits, wgrad.map_rows);
}
