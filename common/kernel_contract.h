/*
 * kernel_contract.h: the contract of every compute kernel, written once for the compiler (C), the
 * shaders (GLSL), the plan verifier and any other executor of dispatch records.
 *
 * For each kernel: its name, its bindings in order, and its parameter words in order. Both C and
 * GLSL include this file, so it holds preprocessor directives only. Parameters are 32-bit words, U
 * = unsigned integer, F = float (its bits).
 *
 * Tensors. Element (n, c, h, w) of an activation is at  n * stride_n + (c * H + h) * W + w  floats
 * after the start of its binding; planes are contiguous, stride_n is in elements and exceeds C*H*W
 * when the tensor is a channel slice of a wider one. Labels are 32-bit unsigned class numbers,
 * everything else is 32-bit float. Weights of conv and upconv lie as [in][tap][out4]: tap = ky * kw
 * + kx, out4 = out rounded up to a multiple of 4; the padding is zero in weights, gradients and
 * optimiser state, and kernels keep it zero.
 *
 * Bindings are written B(name, access): READ, WRITE (writes every element of the binding's extent)
 * or UPDATE (reads and writes).
 */
#ifndef UNET_KERNEL_CONTRACT_H
#define UNET_KERNEL_CONTRACT_H

#define KERNEL_MAX_BINDINGS 6
#define KERNEL_MAX_PARAMS                                                                          \
    20 /* 80 bytes; 6 addresses of 8 bytes fill the guaranteed 128 bytes of push constants */
#define KERNEL_MAX_SPEC                                                                            \
    16 /* specialisation constants, ids 0..15; 0, 1, 2 are the workgroup size                      \
        */

/* One more constant, which no plan states: the runtime sets it to 1 for drivers that load fastest at
   addresses that all lanes share (shaders/access.glsl), else to 0. */
#define KERNEL_SPEC_SHARED_LOADS 16
/* What follows the parameters on the descriptor path: the numbers 0 .. KERNEL_DIGITS - 1. */
#define KERNEL_DIGITS 8

/* Words of the control buffer: what changes from step to step. */
#define CONTROL_SEED_LO 0
#define CONTROL_SEED_HI 1
#define CONTROL_STEP 2          /* batch, from 0, over all training: the stream of random numbers */
#define CONTROL_ACCUMULATED 3   /* batches whose gradients the accumulators hold */
#define CONTROL_LEARNING_RATE 4 /* float */
#define CONTROL_ADAM_BIAS1 5    /* float: 1 - beta1^(step + 1) */
#define CONTROL_ADAM_BIAS2 6    /* float: 1 - beta2^(step + 1) */
#define CONTROL_WORDS 8

/* Epilogue bits of conv and upconv kernels, applied in this order to the finished sum. */
#define EPILOGUE_BIAS 1u /* += bias[c_out] */
#define EPILOGUE_ACT 2u  /* v > 0 ? v : slope * v   (slope 0: ReLU) */
#define EPILOGUE_MASK                                                                              \
    4u /* *= mask > 0 ? 1 : slope (the gradient of that, given the activation's output) */

/*
 * conv_fwd, conv_dgrad: y[n,o,yy,xx] = epilogue(sum over i, ky, kx of
 *     x[n, i, yy + ky * dilation - pad_h, xx + kx * dilation - pad_w] * w[i][ky * kw + kx][o]),
 * x being zero outside. The order of the sum is i, then ky, then kx, for every tile shape, so that
 * results do not depend on the position of a pixel (but for Winograd's algorithm on the CPU device,
 * runtime/cpu/winograd.c, and in the kernels below). conv_dgrad is the same sum with x = gradient
 * of the output, w = weights_transpose(flip) of the layer's weights, pad = dilation * (k - 1) - pad of
 * the layer.  aux: the bias (c_out floats) when EPILOGUE_BIAS, the mask tensor (shape of y, stride
 * aux_stride_n) when EPILOGUE_MASK, anything valid when neither; never both. The mask leaves the
 * plain_count channels from plain_first on alone (both 0 when there is no mask).
 * With EPILOGUE_MASK, y of conv_dgrad may be aux: the invocation that writes an element reads the
 * mask there before it does, and nobody else reads it.
 */
#define CONV_BINDINGS(B) B(x, READ) B(w, READ) B(aux, READ) B(y, WRITE)
#define CONV_PARAMS(U, F)                                                                          \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(h_in)                                                                                        \
    U(w_in) U(x_stride_n) U(c_out) U(h_out) U(w_out) U(y_stride_n) U(pad_h) U(pad_w) U(dilation)   \
        U(kh) U(kw) U(aux_stride_n) U(epilogue) F(slope) U(plain_first) U(plain_count)

/*
 * The same sums with a kernel of 3 x 3 and dilation 1 by Winograd's minimal filtering, in three
 * steps (shaders/winograd.glsl has the matrices A, B, G):
 *     y = epilogue(A' [sum over i of (G w G') * (B' x B)] A)    for tiles of 4 x 4 pixels of y,
 * * element by element. Tiles lie at multiples of 4 of y, rows first_row .. first_row + n_rows - 1
 * of tiles of all images are numbered image by image, row by row, in blocks of WINOGRAD_LANES.
 * Source channels come in chunks of WINOGRAD_CHUNK. What is missing in the last block or chunk, or
 * lies outside of x, counts as zero.
 *
 * winograd_weights: u[o / 4][i / CHUNK][point][i % CHUNK][o % 4] = (G w G')[point] of the output
 * channels first_channel + o, o < n_channels. transposed: w is that of the layer whose data
 * gradient the sum is, [c_out][9][c_in4], and its taps are taken in reverse order.
 *
 * winograd_input: v[tile / LANES][i / CHUNK][point][i % CHUNK][tile % LANES] = (B' x B)[point].
 *
 * winograd_product: the rest; of y the channels first_channel .. + n_channels - 1 and the rows of
 * pixels of these tiles are written. aux, epilogue, slope, plain_first, plain_count are those of
 * conv_fwd, and y may be aux as there.
 */
#define WINOGRAD_OUT 4u     /* pixels of a tile in each direction */
#define WINOGRAD_POINTS 36u /* elements of a transformed tile */
#define WINOGRAD_LANES 16u
#define WINOGRAD_CHUNK 4u
#define WINOGRAD_WEIGHTS_BINDINGS(B) B(w, READ) B(u, WRITE)
#define WINOGRAD_WEIGHTS_PARAMS(U, F)                                                              \
    U(c_in) U(c_out) U(transposed) U(first_channel) U(n_channels)
#define WINOGRAD_INPUT_BINDINGS(B) B(x, READ) B(v, WRITE)
#define WINOGRAD_INPUT_PARAMS(U, F)                                                                \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(h_in) U(w_in) U(x_stride_n) U(h_out) U(w_out) U(pad_h) U(pad_w) U(first_row) U(n_rows)
#define WINOGRAD_PRODUCT_BINDINGS(B) B(v, READ) B(u, READ) B(aux, READ) B(y, WRITE)
#define WINOGRAD_PRODUCT_PARAMS(U, F)                                                              \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(c_out)                                                                                       \
    U(h_out) U(w_out) U(y_stride_n) U(aux_stride_n) U(epilogue) F(slope) U(plain_first)            \
        U(plain_count) U(first_row) U(n_rows) U(first_channel) U(n_channels)

/*
 * conv_wgrad: partial[s][i][ky * kw + kx][o] = sum of x[n, i, yy + ky * dilation - pad_h, xx + ...]
 * * dy[n, o, yy, xx] over the output rows r = n * h_out + yy with  s * R / splits <= r < (s + 1) *
 * R / splits,  R = n * h_out (integer division of the 32-bit product).  Everything of partial is
 * written, padding as zero.
 */
#define CONV_WGRAD_BINDINGS(B) B(x, READ) B(dy, READ) B(partial, WRITE)
#define CONV_WGRAD_PARAMS(U, F)                                                                    \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(h_in)                                                                                        \
    U(w_in) U(x_stride_n) U(c_out) U(h_out) U(w_out) U(dy_stride_n) U(pad_h) U(pad_w) U(dilation)  \
        U(kh) U(kw) U(splits)

/* wgrad_reduce: dw[i] = sum of partial[s * count + i] for s = 0, 1, ... splits - 1, in that order;
 * i < count. */
#define WGRAD_REDUCE_BINDINGS(B) B(partial, READ) B(dw, WRITE)
#define WGRAD_REDUCE_PARAMS(U, F) U(count) U(splits)

/* weights_transpose: dst[b][flip ? taps - 1 - t : t][a] = src[a][t][b]; src is [in][taps][out4],
 * dst [out][taps][in4]. */
#define WEIGHTS_TRANSPOSE_BINDINGS(B) B(src, READ) B(dst, WRITE)
#define WEIGHTS_TRANSPOSE_PARAMS(U, F) U(in_count) U(out_count) U(taps) U(flip)

/* bias_grad: db[c] = sum of dy[n, c, h, w] over n, h, w, in a fixed order. */
#define BIAS_GRAD_BINDINGS(B) B(dy, READ) B(db, WRITE)
#define BIAS_GRAD_PARAMS(U, F) U(n) U(c) U(h) U(w) U(dy_stride_n)

/* upconv_fwd: y[n, o, yy * k + a, xx * k + b] = epilogue(sum over i of x[n, i, yy, xx] * w[i][a * k
 * + b][o]). */
#define UPCONV_BINDINGS(B) B(x, READ) B(w, READ) B(aux, READ) B(y, WRITE)
#define UPCONV_PARAMS(U, F)                                                                        \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(h_in) U(w_in) U(x_stride_n) U(c_out) U(y_stride_n) U(k) U(aux_stride_n) U(epilogue) F(slope)

/*
 * upconv_dgrad: dx[n, i, yy, xx] = epilogue(sum over o, a, b of dy[n, o, yy * k + a, xx * k + b] *
 * wt[o][a * k + b][i]), wt = weights_transpose(no flip).  h_in, w_in, c_in are those of the layer's
 * input (dx), as in upconv_fwd.  dx may be aux, as in conv_dgrad.
 */
#define UPCONV_DGRAD_BINDINGS(B) B(dy, READ) B(wt, READ) B(aux, READ) B(dx, WRITE)
#define UPCONV_DGRAD_PARAMS(U, F)                                                                  \
    U(n)                                                                                           \
    U(c_in)                                                                                        \
    U(h_in) U(w_in) U(dx_stride_n) U(c_out) U(dy_stride_n) U(k) U(aux_stride_n) U(epilogue) F(slope)

/* upconv_wgrad: partial[s][i][a * k + b][o] = sum of x[n, i, yy, xx] * dy[n, o, yy * k + a, xx * k
   + b] over the input rows r = n * h_in + yy with  s * R / splits <= r < (s + 1) * R / splits,  R =
   n * h_in. */
#define UPCONV_WGRAD_BINDINGS(B) B(x, READ) B(dy, READ) B(partial, WRITE)
#define UPCONV_WGRAD_PARAMS(U, F)                                                                  \
    U(n) U(c_in) U(h_in) U(w_in) U(x_stride_n) U(c_out) U(dy_stride_n) U(k) U(splits)

/* maxpool_fwd: y[n,c,yy,xx] = max over ky, kx < kernel of x[n, c, yy * stride + ky * dilation, xx *
 * stride + kx * dilation] */
#define MAXPOOL_BINDINGS(B) B(x, READ) B(y, WRITE)
#define MAXPOOL_PARAMS(U, F)                                                                       \
    U(n)                                                                                           \
    U(c)                                                                                           \
    U(h_in) U(w_in) U(x_stride_n) U(h_out) U(w_out) U(y_stride_n) U(kernel) U(stride) U(dilation)

/* maxpool_bwd: dx[n,c,h,w] = sum of dy over the windows whose first maximum (scan order ky, kx) is
 * at (h, w). */
#define MAXPOOL_BWD_BINDINGS(B) B(x, READ) B(dy, READ) B(dx, WRITE)
#define MAXPOOL_BWD_PARAMS(U, F)                                                                   \
    U(n)                                                                                           \
    U(c)                                                                                           \
    U(h_in)                                                                                        \
    U(w_in) U(x_stride_n) U(h_out) U(w_out) U(dy_stride_n) U(dx_stride_n) U(kernel) U(stride)      \
        U(dilation)

/*
 * maxpool_index: maxpool_fwd with kernel = stride = 2, dilation 1, and the place of the first
 * maximum (scan order ky, kx) of each window, ky * 2 + kx, as two bits.  Window i = yy * w_out + xx
 * of a plane lies in word  i / 1024 * 64 + i % 64  of the plane's words, at bits 2 * (i % 1024 /
 * 64) and above; a plane has 64 words for each 1024 windows begun; planes follow one another.
 * Bits of no window are 0.
 */
#define POOL_INDEX_LANES 64
#define POOL_INDEX_WINDOWS 1024 /* 16 in each of POOL_INDEX_LANES words */
#define MAXPOOL_INDEX_BINDINGS(B) B(x, READ) B(y, WRITE) B(index, WRITE)
#define MAXPOOL_INDEX_PARAMS(U, F)                                                                 \
    U(n) U(c) U(h_in) U(w_in) U(x_stride_n) U(h_out) U(w_out) U(y_stride_n)

/* maxpool_unpool: maxpool_bwd from that index: dy at each window's maximum, 0 elsewhere. */
#define MAXPOOL_UNPOOL_BINDINGS(B) B(index, READ) B(dy, READ) B(dx, WRITE)
#define MAXPOOL_UNPOOL_PARAMS(U, F)                                                                \
    U(n) U(c) U(h_in) U(w_in) U(h_out) U(w_out) U(dy_stride_n) U(dx_stride_n)

/* Point-wise kernels run over n images of count = c * h * w elements each. */
/* act_fwd: y = x > 0 ? x : slope * x.  y may be x. */
#define ACT_FWD_BINDINGS(B) B(x, READ) B(y, WRITE)
#define ACT_FWD_PARAMS(U, F) U(n) U(count) U(x_stride_n) U(y_stride_n) F(slope)

/* act_bwd: dx = y > 0 ? dy : slope * dy, y being the activation's output.  dx may be dy. */
#define ACT_BWD_BINDINGS(B) B(y, READ) B(dy, READ) B(dx, WRITE)
#define ACT_BWD_PARAMS(U, F) U(n) U(count) U(y_stride_n) U(dy_stride_n) U(dx_stride_n) F(slope)

/* add: y = a + b.  y may be a or b. */
#define ADD_BINDINGS(B) B(a, READ) B(b, READ) B(y, WRITE)
#define ADD_PARAMS(U, F) U(n) U(count) U(a_stride_n) U(b_stride_n) U(y_stride_n)

/* copy_region: dst[n, c, dst_top + h, dst_left + w] = src[n, c, src_top + h, src_left + w] for h <
 * h, w < w. */
#define COPY_REGION_BINDINGS(B) B(src, READ) B(dst, WRITE)
#define COPY_REGION_PARAMS(U, F)                                                                   \
    U(n)                                                                                           \
    U(c)                                                                                           \
    U(h)                                                                                           \
    U(w) U(src_h) U(src_w) U(src_top) U(src_left) U(src_stride_n) U(dst_h) U(dst_w) U(dst_top)     \
        U(dst_left) U(dst_stride_n)

/* add_region: the same, += instead of =. */
#define ADD_REGION_BINDINGS(B) B(src, READ) B(dst, UPDATE)
#define ADD_REGION_PARAMS(U, F) COPY_REGION_PARAMS(U, F)

/* embed_region: dst is src placed at (top, left), zero elsewhere. */
#define EMBED_REGION_BINDINGS(B) B(src, READ) B(dst, WRITE)
#define EMBED_REGION_PARAMS(U, F)                                                                  \
    U(n) U(c) U(src_h) U(src_w) U(src_stride_n) U(dst_h) U(dst_w) U(top) U(left) U(dst_stride_n)

/*
 * dropout: y = keep(e) ? x * scale : 0 with e = image * count + i;  keep(e) = word >= threshold,
 * word = element (e & 3) of Philox-4x32-10 with counter (e >> 2, layer, step, 0) and key (seed_lo,
 * seed_hi) from the control buffer. threshold = rate * 2^32, scale = 1 / (1 - rate). Its own
 * gradient (x = dy). y may be x.
 */
#define DROPOUT_BINDINGS(B) B(x, READ) B(control, READ) B(y, WRITE)
#define DROPOUT_PARAMS(U, F)                                                                       \
    U(n) U(count) U(x_stride_n) U(y_stride_n) U(layer) U(threshold) F(scale)

/*
 * half_store: x rounded to half precision, two numbers in a word: element i of an image is in word
 * i / HALF_BLOCK * HALF_LANES + i % HALF_LANES  of the image's words, in the low half when
 * i % HALF_BLOCK < HALF_LANES, else in the high one; an image has HALF_LANES words for each
 * HALF_BLOCK elements begun, and images follow one another. Halves of no element are 0.
 * Rounded to nearest, ties to even, by integers alone (shaders/half.glsl), so with the same bits
 * everywhere; finite numbers above 65504 become 65504; numbers other than 0 keep their sign: what
 * would round to 0 becomes 2^-24, the least. Infinities stay, NaN becomes 0x7e00 with its sign.
 * half_load: y = what half_store kept, exactly.
 */
#define HALF_LANES 64u
#define HALF_BLOCK 128u
#define HALF_STORE_BINDINGS(B) B(x, READ) B(packed, WRITE)
#define HALF_STORE_PARAMS(U, F) U(n) U(count) U(x_stride_n)
#define HALF_LOAD_BINDINGS(B) B(packed, READ) B(y, WRITE)
#define HALF_LOAD_PARAMS(U, F) U(n) U(count) U(y_stride_n)

/* softmax over the k classes of each of hw pixels. */
#define SOFTMAX_BINDINGS(B) B(x, READ) B(y, WRITE)
#define SOFTMAX_PARAMS(U, F) U(n) U(k) U(hw) U(x_stride_n) U(y_stride_n)

/*
 * softmax_loss: probs = softmax(logits); partial[g] = (sum of w * -log p[label], sum of w, pixels
 * with w > 0 whose arg-max is the label, pixels with w > 0) over the LOSS_PIXELS_PER_GROUP pixels
 * of group g, pixels counted over all images (p = image * hw + pixel), in a fixed order. labels and
 * weights are [n][hw]. -log p is computed from the logits (log-sum-exp), finite for any finite
 * logits.
 */
#define LOSS_PIXELS_PER_GROUP 1024
#define SOFTMAX_LOSS_BINDINGS(B)                                                                   \
    B(logits, READ) B(labels, READ) B(weights, READ) B(probs, WRITE) B(partial, WRITE)
#define SOFTMAX_LOSS_PARAMS(U, F) U(n) U(k) U(hw) U(logits_stride_n) U(probs_stride_n)

/* loss_reduce: loss = (L, sum w * ce, sum w, correct, counted, 0, 0, 0), L = sum w * ce / sum w, or
 * 0 when sum w is 0. */
#define LOSS_WORDS 8
#define LOSS_REDUCE_BINDINGS(B) B(partial, READ) B(loss, WRITE)
#define LOSS_REDUCE_PARAMS(U, F) U(count)

/* softmax_loss_grad: dlogits = w * (probs - onehot(label)) / sum w (loss[2]); 0 when sum w is 0. */
#define SOFTMAX_LOSS_GRAD_BINDINGS(B)                                                              \
    B(probs, READ) B(labels, READ) B(weights, READ) B(loss, READ) B(dlogits, WRITE)
#define SOFTMAX_LOSS_GRAD_PARAMS(U, F) U(n) U(k) U(hw) U(probs_stride_n) U(dlogits_stride_n)

/* sgd: g' = g + decay * w; m = momentum * m + g'; w -= lr * m   (torch.optim.SGD, dampening 0) */
#define SGD_BINDINGS(B) B(w, UPDATE) B(g, READ) B(m, UPDATE) B(control, READ)
#define SGD_PARAMS(U, F) U(count) F(momentum) F(decay)

/* adam: g' = g + decay * w; m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
   w -= lr * (m / bias1) / (sqrt(v / bias2) + epsilon)   (torch.optim.Adam) */
#define ADAM_BINDINGS(B) B(w, UPDATE) B(g, READ) B(m, UPDATE) B(v, UPDATE) B(control, READ)
#define ADAM_PARAMS(U, F) U(count) F(beta1) F(beta2) F(epsilon) F(decay)

/*
 * accumulate: y = (k == 0 ? g : sum + g) / (mean ? k + 1 : 1), k = control[CONTROL_ACCUMULATED]:
 * the gradients of several batches added up, or averaged. What sum holds does not matter at the
 * first batch. y may be g or sum.
 */
#define ACCUMULATE_BINDINGS(B) B(g, READ) B(sum, READ) B(control, READ) B(y, WRITE)
#define ACCUMULATE_PARAMS(U, F) U(count) U(mean)

/*
 * Loss scaling, in plans of mixed precision. The gradient of the loss is multiplied by a power of
 * two S, so that the gradients of all maps lie in the range of half precision; the optimiser divides
 * by it. When a gradient is not finite, the update is left out and S halved; after so many updates
 * without, S is doubled. What lasts from one update to the next is the tensor `scale` of
 * LOSS_SCALE_WORDS words in the block of states:
 */
#define LOSS_SCALE_S 0       /* 0 before the first update: what the kernels' parameter says */
#define LOSS_SCALE_GOOD 1    /* updates made since S changed last, at most LOSS_SCALE_MOST */
#define LOSS_SCALE_SKIPPED 2 /* updates left out so far, at most LOSS_SCALE_MOST; word 3 is 0 */
#define LOSS_SCALE_WORDS 4
#define LOSS_SCALE_MOST 16777216.0 /* floats count to 2^24 */
/* Bits of the least and the largest S, 2^-126 and 2^126: 1 / S is a normal number too, with the bits
   LOSS_SCALE_INVERSE - those of S. */
#define LOSS_SCALE_LEAST 0x00800000u
#define LOSS_SCALE_LARGEST 0x7e800000u
#define LOSS_SCALE_INVERSE 0x7f000000u

/* scale_gradient: y = S * x, S = scale[LOSS_SCALE_S], or initial where that is 0.  y may be x. */
#define SCALE_GRADIENT_BINDINGS(B) B(x, READ) B(scale, READ) B(y, WRITE)
#define SCALE_GRADIENT_PARAMS(U, F) U(n) U(count) U(x_stride_n) U(y_stride_n) F(initial)

/*
 * gradient_check: flags[i] = 1 when any of the elements e with  i * share <= e < (i + 1) * share,
 * share = count / GRADIENT_FLAGS rounded up, is not finite, else 0.
 */
#define GRADIENT_FLAGS 64
#define GRADIENT_CHECK_BINDINGS(B) B(g, READ) B(flags, WRITE)
#define GRADIENT_CHECK_PARAMS(U, F) U(count)

/*
 * loss_scale: found = any of the count flags is not 0.
 *     verdict = (1 / S, found ? 0 : 1, scale[SKIPPED], 0)
 * Then the numbers of `scale` change: if found, SKIPPED grows by 1, GOOD becomes 0 and S is halved;
 * else GOOD grows by 1, and where it has reached `interval`, S is doubled and GOOD becomes 0. S
 * stays what it is where interval is 0, and between LOSS_SCALE_LEAST and LOSS_SCALE_LARGEST.
 *     loss[5] = S before, loss[6] = scale[SKIPPED] after, loss[7] = found ? 1 : 0
 */
#define LOSS_WORD_SCALE 5
#define LOSS_WORD_SKIPPED 6
#define LOSS_WORD_FOUND 7
#define VERDICT_UNSCALE 0
#define VERDICT_APPLY 1
#define VERDICT_SKIPPED 2
#define VERDICT_WORDS 4
#define LOSS_SCALE_BINDINGS(B) B(flags, READ) B(scale, UPDATE) B(loss, UPDATE) B(verdict, WRITE)
#define LOSS_SCALE_PARAMS(U, F) U(count) U(interval) F(initial)

/* sgd_scaled, adam_scaled: sgd and adam of g * verdict[VERDICT_UNSCALE]; where
   verdict[VERDICT_APPLY] is 0, nothing is written. */
#define SGD_SCALED_BINDINGS(B) SGD_BINDINGS(B) B(verdict, READ)
#define SGD_SCALED_PARAMS(U, F) SGD_PARAMS(U, F)
#define ADAM_SCALED_BINDINGS(B) ADAM_BINDINGS(B) B(verdict, READ)
#define ADAM_SCALED_PARAMS(U, F) ADAM_PARAMS(U, F)

/* Every kernel: K(name, NAME) */
#define KERNELS(K)                                                                                 \
    K(conv_fwd, CONV)                                                                              \
    K(conv_dgrad, CONV)                                                                            \
    K(conv_wgrad, CONV_WGRAD)                                                                      \
    K(wgrad_reduce, WGRAD_REDUCE) K(weights_transpose, WEIGHTS_TRANSPOSE) K(bias_grad, BIAS_GRAD)  \
        K(upconv_fwd, UPCONV) K(upconv_dgrad, UPCONV_DGRAD) K(upconv_wgrad, UPCONV_WGRAD)          \
            K(maxpool_fwd, MAXPOOL) K(maxpool_bwd, MAXPOOL_BWD) K(act_fwd, ACT_FWD)                \
                K(act_bwd, ACT_BWD) K(add, ADD) K(copy_region, COPY_REGION)                        \
                    K(add_region, ADD_REGION) K(embed_region, EMBED_REGION) K(dropout, DROPOUT)    \
                        K(softmax, SOFTMAX) K(softmax_loss, SOFTMAX_LOSS)                          \
                            K(loss_reduce, LOSS_REDUCE) K(softmax_loss_grad, SOFTMAX_LOSS_GRAD)    \
                                K(sgd, SGD) K(adam, ADAM) K(accumulate, ACCUMULATE)        \
                                    K(maxpool_index, MAXPOOL_INDEX)                                \
                                        K(maxpool_unpool, MAXPOOL_UNPOOL)                          \
                                            K(winograd_weights, WINOGRAD_WEIGHTS)                  \
                                                K(winograd_input, WINOGRAD_INPUT)                  \
                                                    K(winograd_product, WINOGRAD_PRODUCT)          \
                                                      K(half_store, HALF_STORE)                    \
                                                          K(half_load, HALF_LOAD)                  \
    K(scale_gradient, SCALE_GRADIENT) K(gradient_check, GRADIENT_CHECK) K(loss_scale, LOSS_SCALE)  \
        K(sgd_scaled, SGD_SCALED) K(adam_scaled, ADAM_SCALED)

#endif
