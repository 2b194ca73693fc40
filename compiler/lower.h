/*
 * lower.h: from nodes to dispatch records. An op's lowering fills a kernel's parameter struct and
 * calls lower_record; places in memory, barriers, tiles and groups are decided later (memory.c,
 * barrier.c, tile.c).
 */
#ifndef UNET_LOWER_H
#define UNET_LOWER_H

#include "compiler/ir.h"
#include "compiler/tile.h"

/* The plan tensor that holds a value (made on first use). */
uint32_t lower_tensor(struct lower *lower, const struct value *value);

/* How many words a plan tensor takes. */
uint32_t lower_words(const struct lower *lower, uint32_t tensor);

/* A plan tensor over channels [channel, channel + n_channels) of a value, or PLAN_NONE when that
   part does not start at a multiple of PLAN_ALIGNMENT bytes. */
uint32_t lower_view(struct lower *lower, const struct value *value, int channel, int n_channels);

/* Elements from one image of the value to the next, in its storage. */
uint32_t lower_stride_n(const struct value *value);

/* True when two values are the same memory (then a copy between them is no work). */
bool lower_same_memory(const struct value *a, const struct value *b);

/* A temporary of `elements` words that lives from the first to the last record naming it (FLAT, or
 * WEIGHTS layout). */
uint32_t lower_scratch_flat(struct lower *lower, const char *name, uint64_t elements);
uint32_t lower_scratch_weights(struct lower *lower, const char *name, int in, int out, int kh,
                               int kw);
/* The first `elements` words of a FLAT temporary: itself, or a part of it. */
uint32_t lower_scratch_part(struct lower *lower, uint32_t scratch, uint64_t elements);

/* The control block. */
uint32_t lower_control(struct lower *lower);

/* Appends a record: role is "forward", "data gradient", ...; params points to the kernel's
   parameter struct; tensors are in the kernel's binding order, one each. */
void lower_record(struct lower *lower, const struct node *node, const char *role,
                  enum kernel_id kernel, const void *params, const uint32_t *tensors,
                  uint64_t flops);

/*
 * Several ways to compute the same: between lower_choice_begin and lower_choice_end every record
 * belongs to the method begun last; one method runs (common/plan.h). All methods must write the
 * same tensors, apart from scratch, which belongs to one of them. Records of all go through the
 * same passes: a method costs memory only while its own records run. preference: one number for
 * each enum plan_device. A choice of one method is none: its records stand by themselves.
 */
void lower_choice_begin(struct lower *lower, const struct node *node, const char *role);
void lower_method(struct lower *lower, enum plan_method_kind kind,
                  const int32_t preference[PLAN_DEVICE_COUNT]);
void lower_choice_end(struct lower *lower);

/* Whether products may round to half precision ("precision: mixed"). */
bool lower_is_mixed(const struct lower *lower);

/* Bytes of scratch that a method which is not the first of its choice may use in the node being
   lowered, all its tensors together, without making the arena larger. */
uint64_t lower_room(const struct lower *lower);

/* Elements of a weight tensor in the [in][tap][out4] layout. */
uint64_t lower_weight_elements(int in, int out, int taps);

#endif
