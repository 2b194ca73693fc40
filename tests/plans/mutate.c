/*
 * mutate.c: see mutate.h. First the simulation, then the kinds of damage.
 */
#include "tests/plans/mutate.h"

#include <stdlib.h>
#include <string.h>

const char *const mutation_names[MUTATE_KIND_COUNT] = {
    "tensor up",      "tensor down",     "tensor unaligned", "tensor size",    "tensor shape",
    "tensor stride",  "tensor base",     "tensor block",     "tensor type",    "block shrink",
    "binding range",  "binding other",   "word up",          "word down",      "kernel",
    "groups zero",    "groups huge",     "group size",       "constants",      "shader",
    "shared",         "barrier drop",    "barrier add",      "swap",           "delete",
    "choice",         "method",          "port range",       "port direction", "parameter range",
    "parameter dims", "parameter twice", "accumulator",      "arena bytes",    "lower bound"};

/* --- the simulation: one entry for every word of every block --- */

struct sim_word {
    uint32_t owner; /* root that wrote it last, NOBODY, or HOST */
    uint32_t read_epoch,
        write_epoch; /* barriers before the last read and write, plus one; 0: none */
    uint32_t sum;    /* the accumulator that the last write added in, plus one; 0: none */
};

#define NOBODY UINT32_MAX
#define HOST (UINT32_MAX - 1)

struct sim {
    const struct plan *plan;
    const struct plan_program *program;
    struct sim_word *words[PLAN_BLOCK_COUNT];
    uint32_t assignment; /* which methods of its choices run: runs() */
    uint32_t epoch;
    uint32_t sum; /* of the record looked at, as in sim_word */
    const char *wrong;
};

uint32_t simulate_root(const struct plan *plan, uint32_t tensor) {
    while (plan->tensors[tensor].base != tensor)
        tensor = plan->tensors[tensor].base;
    return tensor;
}

static uint32_t word_of(const struct plan_record *record, const char *name) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    for (uint32_t i = 0; i < info->n_params; i++) {
        if (strcmp(info->params[i].name, name) == 0)
            return record->params[i];
    }
    return 0;
}

static bool is_touched(const struct plan_record *record, uint32_t binding) {
    const char *name = kernel_table[record->kernel].bindings[binding].name;
    return strcmp(name, "aux") != 0 ||
           (word_of(record, "epilogue") & (EPILOGUE_BIAS | EPILOGUE_MASK)) != 0;
}

static enum kernel_access access_of(const struct plan_record *record, uint32_t binding) {
    const enum kernel_access access = kernel_table[record->kernel].bindings[binding].access;
    const bool pastes = record->kernel == KERNEL_ID_copy_region && binding == 1 &&
                        (word_of(record, "h") != word_of(record, "dst_h") ||
                         word_of(record, "w") != word_of(record, "dst_w"));
    return pastes ? KERNEL_UPDATE : access;
}

unsigned simulate_access(const struct plan_record *record, uint32_t binding) {
    return is_touched(record, binding) ? (unsigned)access_of(record, binding) : 0;
}

bool simulate_writes_row(const struct plan_record *record, uint32_t channel, uint32_t y) {
    if (record->kernel != KERNEL_ID_winograd_product)
        return true;
    const uint32_t tile_row = y / 4;
    return channel - word_of(record, "first_channel") < word_of(record, "n_channels") &&
           tile_row - word_of(record, "first_row") < word_of(record, "n_rows"); /* or wrap round */
}

/* Calls visit for every word of a tensor that belongs to an element. */
static void each_word(struct sim *sim, uint32_t tensor,
                      void (*visit)(struct sim *, struct sim_word *, uint32_t root)) {
    const struct plan_tensor *t = &sim->plan->tensors[tensor];
    const uint64_t image = (uint64_t)t->shape.c * (uint64_t)t->shape.h * (uint64_t)t->shape.w;
    const bool planes = t->layout == PLAN_LAYOUT_PLANES;
    const uint64_t images = planes ? (uint64_t)t->shape.n : 1;
    const uint64_t count = planes ? image : t->size_bytes / 4;
    const uint32_t root = simulate_root(sim->plan, tensor);
    for (uint64_t n = 0; n < images; n++) {
        for (uint64_t i = 0; i < count; i++)
            visit(sim, &sim->words[t->block][t->offset_bytes / 4 + n * t->stride_n + i], root);
    }
}

/* The same for the words that a record writes: of winograd_product, those of its rows and channels.
 */
static void each_written(struct sim *sim, const struct plan_record *record, uint32_t binding,
                         void (*visit)(struct sim *, struct sim_word *, uint32_t root)) {
    const struct plan_tensor *t = &sim->plan->tensors[record->tensors[binding]];
    struct winograd_product_params p;
    if (record->kernel != KERNEL_ID_winograd_product) {
        each_word(sim, record->tensors[binding], visit);
        return;
    }
    memcpy(&p, record->params, sizeof(p));
    const uint32_t root = simulate_root(sim->plan, record->tensors[binding]);
    for (uint32_t row = 0; row < p.n * p.c_out * p.h_out; row++) {
        const uint32_t n = row / p.h_out / p.c_out, channel = row / p.h_out % p.c_out;
        struct sim_word *words = &sim->words[t->block][t->offset_bytes / 4 + n * p.y_stride_n];
        words += ((size_t)channel * p.h_out + row % p.h_out) * p.w_out;
        for (uint32_t x = 0; x < p.w_out && simulate_writes_row(record, channel, row % p.h_out);
             x++)
            visit(sim, &words[x], root);
    }
}

static void set_wrong(struct sim *sim, const char *wrong) {
    if (sim->wrong == NULL)
        sim->wrong = wrong;
}

static void visit_host(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->owner == HOST)
        set_wrong(sim, "two inputs share words");
    word->owner = HOST;
}

static void visit_read(struct sim *sim, struct sim_word *word, uint32_t root) {
    if (word->owner == NOBODY)
        set_wrong(sim, "undefined words are read");
    else if (word->owner != root && word->owner != HOST)
        set_wrong(sim, "overwritten words are read");
    if (word->write_epoch == sim->epoch)
        set_wrong(sim, "words are read after a write without a barrier");
}

static void visit_write(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->read_epoch == sim->epoch || word->write_epoch == sim->epoch)
        set_wrong(sim, "words are written after a use without a barrier");
}

static void visit_persistent(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->owner != HOST)
        set_wrong(sim, "a parameter is used after its update");
}

static void visit_input(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->owner == HOST)
        set_wrong(sim, "an input is written");
}

static void mark_read(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    word->read_epoch = sim->epoch;
}

static void mark_write(struct sim *sim, struct sim_word *word, uint32_t root) {
    word->write_epoch = sim->epoch;
    word->owner = root;
    word->sum = sim->sum;
}

static void visit_output(struct sim *sim, struct sim_word *word, uint32_t root) {
    if (word->owner != root)
        set_wrong(sim, "an output is not written");
}

/* Two bindings of one record, one of them written, share no word, unless in place. */
static bool may_work_in_place(const struct plan_record *record, uint32_t in) {
    switch (record->kernel) {
    case KERNEL_ID_act_fwd:
    case KERNEL_ID_dropout:
    case KERNEL_ID_scale_gradient:
        return in == 0;
    case KERNEL_ID_act_bwd:
        return in == 1;
    case KERNEL_ID_conv_dgrad:
    case KERNEL_ID_upconv_dgrad:
    case KERNEL_ID_winograd_product:
        return in == 2; /* the mask: a bias has another shape */
    case KERNEL_ID_add:
    case KERNEL_ID_accumulate:
        return in <= 1;
    default:
        return false;
    }
}

static uint32_t pair_mark;

static void mark_pair(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)sim, (void)root;
    word->read_epoch |= 1u << 31;
    pair_mark++;
}

static void unmark_pair(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)sim, (void)root;
    word->read_epoch &= ~(1u << 31);
}

static void visit_pair(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if ((word->read_epoch & (1u << 31)) != 0)
        set_wrong(sim, "bindings of one record overlap");
}

static void simulate_pairs(struct sim *sim, const struct plan_record *record) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    for (uint32_t w = 0; w < info->n_bindings; w++) {
        if ((access_of(record, w) & KERNEL_WRITE) == 0)
            continue;
        each_word(sim, record->tensors[w], mark_pair);
        for (uint32_t b = 0; b < info->n_bindings; b++) {
            const bool in_place = record->tensors[b] == record->tensors[w] &&
                                  w == info->n_bindings - 1 && may_work_in_place(record, b);
            if (b != w && is_touched(record, b) && !in_place)
                each_word(sim, record->tensors[b], visit_pair);
        }
        each_word(sim, record->tensors[w], unmark_pair);
    }
}

static void visit_gradient(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->sum != sim->sum)
        set_wrong(sim, "an update leaves out the accumulated batches");
}

/* Updates take what was worked out with the accumulator of their own parameter. */
static void simulate_update(struct sim *sim, const struct plan_record *record) {
    if (record->kernel != KERNEL_ID_sgd && record->kernel != KERNEL_ID_adam &&
        record->kernel != KERNEL_ID_sgd_scaled && record->kernel != KERNEL_ID_adam_scaled)
        return;
    for (uint32_t i = 0; i < sim->plan->n_params; i++) {
        const struct plan_param *param = &sim->plan->params[i];
        if (param->tensor != record->tensors[0] || param->accumulator == PLAN_NONE)
            continue;
        sim->sum = param->accumulator + 1;
        each_word(sim, record->tensors[1], visit_gradient);
    }
}

static void visit_accumulator(struct sim *sim, struct sim_word *word, uint32_t root) {
    (void)root;
    if (word->owner == HOST)
        set_wrong(sim, "a gradient is not accumulated");
}

/* Assignments 0 .. 2: all choices take the method of that number (the last, where there are fewer);
   further ones mix methods, so that of any two choices near each other every pair of first two
   methods occurs. */
#define ASSIGNMENTS (PLAN_METHOD_KIND_COUNT + 4)

static bool runs(const struct sim *sim, const struct plan_record *record) {
    if (record->choice == PLAN_NONE)
        return true;
    const uint32_t n = sim->program->choices[record->choice].n_methods;
    const uint32_t mix = sim->assignment - PLAN_METHOD_KIND_COUNT;
    uint32_t method = MIN(sim->assignment, n - 1);
    if (sim->assignment >= PLAN_METHOD_KIND_COUNT)
        method = (record->choice >> (mix >> 1) & 1u) ^ (mix & 1u);
    return record->method == method;
}

/* Every method of every choice is one run of records, in the order of the table. */
static bool are_choices_in_order(const struct plan_program *program) {
    uint32_t choice = 0, method = 0;
    for (uint32_t r = 0; r < program->n_records; r++) {
        const struct plan_record *record = &program->records[r];
        if (record->choice == PLAN_NONE && (record->method != 0 || method != 0))
            return false;
        if (record->choice == PLAN_NONE)
            continue;
        if (choice >= program->n_choices || record->choice != choice || record->method != method)
            return false;
        if (r + 1 < program->n_records && program->records[r + 1].choice == choice &&
            program->records[r + 1].method == method)
            continue;
        method = method + 1 < program->choices[choice].n_methods ? method + 1 : 0;
        choice += method == 0;
    }
    return choice == program->n_choices && method == 0;
}

static void simulate_record(struct sim *sim, const struct plan_record *record) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    sim->epoch += record->barrier;
    if (!runs(sim, record))
        return;
    simulate_pairs(sim, record);
    simulate_update(sim, record);
    sim->sum = record->kernel == KERNEL_ID_accumulate ? record->tensors[1] + 1 : 0;
    for (uint32_t b = 0; b < info->n_bindings; b++) {
        const enum plan_block block = sim->plan->tensors[record->tensors[b]].block;
        const enum kernel_access access = access_of(record, b);
        if (!is_touched(record, b))
            continue;
        if ((access & KERNEL_READ) != 0)
            each_word(sim, record->tensors[b], visit_read);
        if ((access & KERNEL_WRITE) != 0)
            each_word(sim, record->tensors[b], visit_write);
        if (block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE)
            each_word(sim, record->tensors[b], visit_persistent);
        if (block == PLAN_BLOCK_IO && (access & KERNEL_WRITE) != 0)
            each_word(sim, record->tensors[b], visit_input);
    }
    for (uint32_t b = 0; b < info->n_bindings; b++) {
        if (!is_touched(record, b))
            continue;
        if ((access_of(record, b) & KERNEL_READ) != 0)
            each_word(sim, record->tensors[b], mark_read);
    }
    for (uint32_t b = 0; b < info->n_bindings; b++) {
        if ((access_of(record, b) & KERNEL_WRITE) != 0)
            each_written(sim, record, b, mark_write);
    }
}

static bool uses_root(const struct plan *plan, const struct plan_record *record, uint32_t root) {
    for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
        if (is_touched(record, b) && simulate_root(plan, record->tensors[b]) == root)
            return true;
    }
    return false;
}

/* Arena size and most bytes live at once, by asking of every tensor at every record. */
static void simulate_figures(struct sim *sim) {
    const struct plan_program *program = sim->program;
    uint64_t *live = calloc(program->n_records, sizeof(uint64_t)), most = 0, end = 0;
    for (uint32_t t = 0; t < sim->plan->n_tensors; t++) {
        const struct plan_tensor *tensor = &sim->plan->tensors[t];
        uint32_t first = PLAN_NONE, last = 0;
        if (tensor->block != PLAN_BLOCK_ARENA || tensor->base != t)
            continue;
        for (uint32_t r = 0; r < program->n_records; r++) {
            if (uses_root(sim->plan, &program->records[r], t)) {
                first = MIN(first, r);
                last = r;
            }
        }
        if (first == PLAN_NONE)
            continue;
        for (uint32_t r = first; r <= last; r++)
            live[r] += align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        end = MAX(end, tensor->offset_bytes + align_up(tensor->size_bytes, PLAN_ALIGNMENT));
    }
    for (uint32_t r = 0; r < program->n_records; r++)
        most = MAX(most, live[r]);
    if (most != program->lower_bound_bytes || end != program->arena_bytes)
        set_wrong(sim, "the memory figures differ");
    free(live);
}

static const char *simulate_assignment(const struct plan *plan, const struct plan_program *program,
                                       uint32_t assignment) {
    struct sim sim = {.plan = plan, .program = program, .assignment = assignment, .epoch = 1};
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        const size_t count = (size_t)plan->block_bytes[block] / 4;
        const bool defined = block != PLAN_BLOCK_ARENA && block != PLAN_BLOCK_IO;
        sim.words[block] = calloc(count + 1, sizeof(struct sim_word));
        for (size_t i = 0; i < count; i++)
            sim.words[block][i].owner = defined ? HOST : NOBODY;
    }
    for (uint32_t i = 0; i < program->n_ports; i++) {
        if (program->ports[i].direction == PLAN_IN)
            each_word(&sim, program->ports[i].tensor, visit_host);
    }
    for (uint32_t r = 0; r < program->n_records; r++)
        simulate_record(&sim, &program->records[r]);
    for (uint32_t i = 0; i < program->n_ports; i++) {
        if (program->ports[i].direction == PLAN_OUT)
            each_word(&sim, program->ports[i].tensor, visit_output);
    }
    for (uint32_t i = 0; i < plan->n_params && strcmp(program->name, "accumulate") == 0; i++)
        each_word(&sim, plan->params[i].accumulator, visit_accumulator);
    simulate_figures(&sim);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++)
        free(sim.words[block]);
    return sim.wrong;
}

static const char *simulate_program(const struct plan *plan, const struct plan_program *program) {
    const char *wrong = are_choices_in_order(program) ? NULL : "methods are out of order";
    for (uint32_t i = 0; wrong == NULL && i < (program->n_choices > 0 ? ASSIGNMENTS : 1); i++)
        wrong = simulate_assignment(plan, program, i);
    return wrong;
}

/* Parameters, states and control lie apart from one another; ports of a program too. */
static const char *simulate_layout(const struct plan *plan) {
    for (uint32_t a = 0; a < plan->n_tensors; a++) {
        const struct plan_tensor *x = &plan->tensors[a];
        for (uint32_t b = 0; b < a; b++) {
            const struct plan_tensor *y = &plan->tensors[b];
            if (x->base != a || y->base != b || x->block != y->block ||
                x->block == PLAN_BLOCK_ARENA || x->block == PLAN_BLOCK_IO)
                continue;
            if (x->offset_bytes < y->offset_bytes + y->size_bytes &&
                y->offset_bytes < x->offset_bytes + x->size_bytes)
                return "lasting tensors overlap";
        }
    }
    return NULL;
}

const char *simulate_plan(const struct plan *plan) {
    const char *wrong = simulate_layout(plan);
    for (uint32_t i = 0; wrong == NULL && i < plan->n_programs; i++)
        wrong = simulate_program(plan, &plan->programs[i]);
    return wrong;
}

/* --- finding what to damage --- */

static uint32_t count_records(const struct plan *plan) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        count += plan->programs[i].n_records;
    return count;
}

static uint32_t count_ports(const struct plan *plan) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        count += plan->programs[i].n_ports;
    return count;
}

uint32_t mutation_count(const struct plan *plan, enum mutation_kind kind) {
    switch (kind) {
    case MUTATE_TENSOR_SHAPE:
        return plan->n_tensors * 4;
    case MUTATE_BLOCK_SHRINK:
        return PLAN_BLOCK_COUNT;
    case MUTATE_BINDING_RANGE:
    case MUTATE_BINDING_OTHER:
        return count_records(plan) * KERNEL_MAX_BINDINGS;
    case MUTATE_WORD_UP:
    case MUTATE_WORD_DOWN:
        return count_records(plan) * KERNEL_MAX_PARAMS;
    case MUTATE_GROUPS_ZERO:
    case MUTATE_GROUPS_HUGE:
    case MUTATE_GROUP_SIZE:
        return count_records(plan) * 3 * PLAN_CLASS_COUNT;
    case MUTATE_CONSTANTS:
    case MUTATE_SHADER:
    case MUTATE_SHARED:
        return count_records(plan) * PLAN_CLASS_COUNT;
    case MUTATE_KERNEL:
    case MUTATE_BARRIER_DROP:
    case MUTATE_BARRIER_ADD:
    case MUTATE_SWAP:
    case MUTATE_DELETE:
    case MUTATE_CHOICE:
    case MUTATE_METHOD:
        return count_records(plan);
    case MUTATE_PORT_RANGE:
    case MUTATE_PORT_DIRECTION:
        return count_ports(plan);
    case MUTATE_PARAM_RANGE:
    case MUTATE_PARAM_TWICE:
    case MUTATE_PARAM_SUM:
        return plan->n_params;
    case MUTATE_PARAM_DIMS:
        return plan->n_params * 4;
    case MUTATE_ARENA_BYTES:
    case MUTATE_LOWER_BOUND:
        return plan->n_programs;
    default:
        return plan->n_tensors;
    }
}

struct place {
    struct plan_program *program;
    uint32_t index; /* of a record or port of the program */
};

static struct place find_record(struct plan *plan, uint32_t i) {
    uint32_t p = 0;
    while (i >= plan->programs[p].n_records)
        i -= plan->programs[p++].n_records;
    return (struct place){&plan->programs[p], i};
}

static struct place find_port(struct plan *plan, uint32_t i) {
    uint32_t p = 0;
    while (i >= plan->programs[p].n_ports)
        i -= plan->programs[p++].n_ports;
    return (struct place){&plan->programs[p], i};
}

/* --- damage and repair --- */

static void save(struct mutation *m, void *at, size_t size_bytes) {
    m->patches[m->n_patches].at = at;
    m->patches[m->n_patches].size_bytes = size_bytes;
    m->patches[m->n_patches].saved = malloc(size_bytes);
    memcpy(m->patches[m->n_patches].saved, at, size_bytes);
    m->n_patches++;
}

void mutation_undo(struct mutation *m) {
    while (m->n_patches > 0) {
        m->n_patches--;
        memcpy(m->patches[m->n_patches].at, m->patches[m->n_patches].saved,
               m->patches[m->n_patches].size_bytes);
        free(m->patches[m->n_patches].saved);
    }
}

#define SAVE(m, lvalue) save((m), &(lvalue), sizeof(lvalue))
#define WHAT(m, ...) snprintf((m)->what, sizeof((m)->what), __VA_ARGS__)

static bool is_inside(const struct plan *plan, const struct plan_tensor *t) {
    return t->offset_bytes <= plan->block_bytes[t->block] &&
           t->size_bytes <= plan->block_bytes[t->block] - t->offset_bytes;
}

/* Whether all parts still lie in the images of their base. */
static bool parts_are_inside(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *part = &plan->tensors[i], *base = &plan->tensors[part->base];
        const uint64_t images = (uint64_t)part->shape.n;
        if (part == base)
            continue;
        if (part->offset_bytes < base->offset_bytes)
            return false;
        uint64_t first = part->offset_bytes - base->offset_bytes, size_bytes = part->size_bytes;
        uint64_t room = base->size_bytes;
        if (images > 1 && part->layout == PLAN_LAYOUT_PLANES) {
            size_bytes =
                4 * (uint64_t)part->shape.c * (uint64_t)part->shape.h * (uint64_t)part->shape.w;
            room = 4 * (uint64_t)base->shape.c * (uint64_t)base->shape.h * (uint64_t)base->shape.w;
        }
        if (first + size_bytes > room)
            return false;
    }
    return true;
}

/* The verdict of the simulation on a plan whose indices are valid. */
static void judge(const struct plan *plan, struct mutation *m) {
    const char *wrong = simulate_plan(plan);
    m->verdict = wrong != NULL ? MUTATION_REJECT : MUTATION_ACCEPT;
    const size_t used = strlen(m->what);
    snprintf(m->what + used, sizeof(m->what) - used, " (simulated: %s)",
             wrong != NULL ? wrong : "no word is used wrongly");
}

static bool move_tensor(struct plan *plan, uint32_t i, int64_t distance, struct mutation *m) {
    struct plan_tensor *t = &plan->tensors[i];
    SAVE(m, t->offset_bytes);
    t->offset_bytes += (uint64_t)distance;
    WHAT(m, "tensor %s moved by %lld bytes", t->name, (long long)distance);
    m->verdict = MUTATION_REJECT;
    if (t->offset_bytes % PLAN_ALIGNMENT != 0 || !is_inside(plan, t) || !parts_are_inside(plan))
        return true;
    if (t->block == PLAN_BLOCK_CONTROL)
        return true;
    judge(plan, m);
    return true;
}

static bool is_owned(const struct plan *plan, uint32_t tensor) {
    for (uint32_t i = 0; i < plan->n_params; i++) {
        if (plan->params[i].tensor == tensor)
            return true;
    }
    return false;
}

static bool change_shape(struct plan *plan, uint32_t tensor, uint32_t axis, struct mutation *m) {
    struct plan_tensor *t = &plan->tensors[tensor];
    int32_t *const sizes[] = {&t->shape.n, &t->shape.c, &t->shape.h, &t->shape.w};
    SAVE(m, t->shape);
    (*sizes[axis])++;
    WHAT(m, "tensor %s: size %u is one more", t->name, axis);
    /* The padding of weights has room for another output: the size in memory stays the same. */
    const bool padded = t->layout == PLAN_LAYOUT_WEIGHTS && axis == 0 && t->shape.n % 4 != 1;
    m->verdict = padded && !is_owned(plan, tensor) ? MUTATION_EITHER : MUTATION_REJECT;
    return true;
}

static bool is_bound(const struct plan *plan, uint32_t tensor) {
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++) {
            const struct plan_record *record = &plan->programs[p].records[r];
            for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
                if (record->tensors[b] == tensor && is_touched(record, b))
                    return true;
            }
        }
    }
    return false;
}

static bool damage_tensor(struct plan *plan, enum mutation_kind kind, uint32_t i,
                          struct mutation *m) {
    struct plan_tensor *t = &plan->tensors[kind == MUTATE_TENSOR_SHAPE ? i / 4 : i];
    m->verdict = MUTATION_REJECT;
    WHAT(m, "tensor %s: %s", t->name, mutation_names[kind]);
    switch (kind) {
    case MUTATE_TENSOR_UP:
        return move_tensor(plan, i, PLAN_ALIGNMENT, m);
    case MUTATE_TENSOR_DOWN:
        return move_tensor(plan, i, -(int64_t)PLAN_ALIGNMENT, m);
    case MUTATE_TENSOR_UNALIGNED:
        return move_tensor(plan, i, 4, m);
    case MUTATE_TENSOR_SIZE:
        SAVE(m, t->size_bytes);
        t->size_bytes += 4;
        return true;
    case MUTATE_TENSOR_SHAPE:
        return change_shape(plan, i / 4, i % 4, m);
    case MUTATE_TENSOR_STRIDE:
        SAVE(m, t->stride_n);
        t->stride_n++;
        if (t->layout == PLAN_LAYOUT_PLANES && t->shape.n == 1) {
            WHAT(m, "tensor %s: the stride of a single image is never used", t->name);
            m->verdict = MUTATION_ACCEPT;
        }
        return true;
    case MUTATE_TENSOR_BASE:
        SAVE(m, t->base);
        t->base = plan->n_tensors;
        return true;
    case MUTATE_TENSOR_BLOCK:
        if (t->block != PLAN_BLOCK_ARENA)
            return false;
        SAVE(m, t->block);
        t->block = PLAN_BLOCK_WEIGHTS;
        return true;
    default:
        SAVE(m, t->type);
        t->type = t->type == PLAN_TYPE_F32 ? PLAN_TYPE_U32 : PLAN_TYPE_F32;
        if (t->block == PLAN_BLOCK_CONTROL || (!is_bound(plan, i) && t->block == PLAN_BLOCK_ARENA))
            m->verdict =
                MUTATION_EITHER; /* the control buffer is both; nobody looks at the other */
        return true;
    }
}

/* Parameter words that say how large something is: another value never fits the tensors. */
static bool is_size(const struct plan_record *record, const char *name) {
    static const char *const sizes[] = {"n",     "c",        "c_in",     "c_out", "h_in",   "w_in",
                                        "h_out", "w_out",    "count",    "hw",    "splits", "kh",
                                        "kw",    "src_h",    "src_w",    "dst_h", "dst_w",  "k",
                                        "taps",  "in_count", "out_count"};
    /* It counts whole tiles of the output: another size may have as many. */
    if (record->kernel == KERNEL_ID_winograd_input &&
        (strcmp(name, "h_out") == 0 || strcmp(name, "w_out") == 0))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        if (strcmp(sizes[i], name) == 0)
            return true;
    }
    const bool bias_grad = record->kernel == KERNEL_ID_bias_grad;
    if (bias_grad && (strcmp(name, "h") == 0 || strcmp(name, "w") == 0))
        return true;
    /* Strides count when there is more than one image; that of aux when it is a mask. */
    const size_t length = strlen(name);
    if (length < 9 || strcmp(name + length - 9, "_stride_n") != 0 || word_of(record, "n") < 2)
        return false;
    return strcmp(name, "aux_stride_n") != 0 || (word_of(record, "epilogue") & EPILOGUE_MASK) != 0;
}

static bool change_word(struct place place, uint32_t word, uint32_t change, struct mutation *m) {
    struct plan_record *record = &place.program->records[place.index];
    const struct kernel_info *info = &kernel_table[record->kernel];
    if (word >= info->n_params)
        return false;
    m->verdict = is_size(record, info->params[word].name) ? MUTATION_REJECT : MUTATION_EITHER;
    SAVE(m, record->params[word]);
    record->params[word] += change;
    WHAT(m, "%s, record %u: %s changed by %d", place.program->name, place.index,
         info->params[word].name, (int)change);
    return true;
}

static bool change_binding(struct plan *plan, enum mutation_kind kind, struct place place,
                           uint32_t binding, struct mutation *m) {
    struct plan_record *record = &place.program->records[place.index];
    const struct kernel_info *info = &kernel_table[record->kernel];
    if (binding >= info->n_bindings)
        return false;
    WHAT(m, "%s, record %u: %s: %s", place.program->name, place.index, mutation_names[kind],
         info->bindings[binding].name);
    SAVE(m, record->tensors[binding]);
    m->verdict = MUTATION_REJECT;
    const struct plan_tensor *old = &plan->tensors[record->tensors[binding]];
    if (kind == MUTATE_BINDING_RANGE) {
        record->tensors[binding] = plan->n_tensors;
        return true;
    }
    record->tensors[binding] = (record->tensors[binding] + 1) % plan->n_tensors;
    const struct plan_tensor *now = &plan->tensors[record->tensors[binding]];
    if (!is_touched(record, binding))
        m->verdict = MUTATION_ACCEPT; /* bound, but not looked at */
    else if (now->size_bytes == old->size_bytes || old->block == PLAN_BLOCK_CONTROL) {
        judge(plan, m);
        /* Another tensor of the same size and rightly in memory may fit the kernel or not. */
        if (m->verdict == MUTATION_ACCEPT)
            m->verdict = MUTATION_EITHER;
    }
    return true;
}

static bool damage_dispatch(struct plan *plan, enum mutation_kind kind, uint32_t i,
                            struct mutation *m) {
    const bool axes = kind != MUTATE_CONSTANTS && kind != MUTATE_SHADER && kind != MUTATE_SHARED;
    const uint32_t axis = axes ? i % 3 : 0, cls = (axes ? i / 3 : i) % PLAN_CLASS_COUNT;
    struct place place = find_record(plan, (axes ? i / 3 : i) / PLAN_CLASS_COUNT);
    struct plan_dispatch *d = &place.program->records[place.index].dispatch[cls];
    SAVE(m, *d);
    m->verdict = MUTATION_REJECT;
    WHAT(m, "%s, record %u, class %u: %s", place.program->name, place.index, cls,
         mutation_names[kind]);
    if (kind == MUTATE_GROUPS_ZERO)
        d->groups[axis] = 0;
    else if (kind == MUTATE_GROUPS_HUGE)
        d->groups[axis] = PLAN_MAX_GROUPS + 1;
    else if (kind == MUTATE_GROUP_SIZE)
        d->spec[axis] = 0;
    else if (kind == MUTATE_CONSTANTS)
        d->n_spec = 2;
    else if (kind == MUTATE_SHADER)
        d->shader = plan->n_shaders;
    else
        d->shared_bytes = 32768 + 4;
    return true;
}

static bool damage_order(struct plan *plan, enum mutation_kind kind, uint32_t i,
                         struct mutation *m) {
    struct place place = find_record(plan, i);
    struct plan_program *program = place.program;
    struct plan_record *record = &program->records[place.index];
    const uint32_t following = program->n_records - 1 - place.index;
    WHAT(m, "%s, record %u: %s", program->name, place.index, mutation_names[kind]);
    switch (kind) {
    case MUTATE_BARRIER_DROP:
    case MUTATE_BARRIER_ADD:
        if (record->barrier == (kind == MUTATE_BARRIER_ADD))
            return false;
        SAVE(m, record->barrier);
        record->barrier = !record->barrier;
        break;
    case MUTATE_SWAP:
        if (following == 0)
            return false;
        save(m, record, 2 * sizeof(*record));
        const struct plan_record first = record[0];
        record[0] = record[1];
        record[1] = first;
        break;
    case MUTATE_CHOICE:
        SAVE(m, record->choice);
        record->choice = record->choice + 1 < program->n_choices ? record->choice + 1
                         : record->choice == PLAN_NONE           ? 0
                                                                 : PLAN_NONE;
        break;
    case MUTATE_METHOD:
        SAVE(m, record->method);
        record->method++;
        break;
    default:
        if (program->n_records == 1)
            return false;
        SAVE(m, program->n_records);
        save(m, record, (following + 1) * sizeof(*record));
        memmove(record, record + 1, following * sizeof(*record));
        program->n_records--;
    }
    judge(plan, m);
    if (kind == MUTATE_BARRIER_ADD)
        m->verdict = MUTATION_ACCEPT; /* it only makes the device wait */
    return true;
}

static bool damage_port(struct plan *plan, enum mutation_kind kind, uint32_t i,
                        struct mutation *m) {
    struct place place = find_port(plan, i);
    struct plan_port *port = &place.program->ports[place.index];
    SAVE(m, *port);
    m->verdict = MUTATION_REJECT;
    WHAT(m, "%s, port %s: %s", place.program->name, port->name, mutation_names[kind]);
    if (kind == MUTATE_PORT_RANGE)
        port->tensor = plan->n_tensors;
    else
        port->direction = port->direction == PLAN_IN ? PLAN_OUT : PLAN_IN;
    return true;
}

static bool damage_param(struct plan *plan, enum mutation_kind kind, uint32_t i,
                         struct mutation *m) {
    struct plan_param *param = &plan->params[kind == MUTATE_PARAM_DIMS ? i / 4 : i];
    SAVE(m, *param);
    m->verdict = MUTATION_REJECT;
    WHAT(m, "parameter %s: %s", param->name, mutation_names[kind]);
    if (kind == MUTATE_PARAM_RANGE)
        param->tensor = plan->n_tensors;
    else if (kind == MUTATE_PARAM_TWICE && i > 0)
        param->tensor = plan->params[i - 1].tensor;
    else if (kind == MUTATE_PARAM_DIMS && i % 4 < param->rank)
        param->dims[i % 4]++;
    else if (kind == MUTATE_PARAM_SUM)
        param->accumulator = param->accumulator == PLAN_NONE ? param->tensor : PLAN_NONE;
    else
        return false;
    return true;
}

static bool damage(struct plan *plan, enum mutation_kind kind, uint32_t i, struct mutation *m) {
    switch (kind) {
    case MUTATE_BLOCK_SHRINK:
        if (plan->block_bytes[i] < PLAN_ALIGNMENT)
            return false;
        SAVE(m, plan->block_bytes[i]);
        plan->block_bytes[i] -= PLAN_ALIGNMENT;
        WHAT(m, "block %u is %u bytes smaller", i, PLAN_ALIGNMENT);
        m->verdict = MUTATION_EITHER;
        for (uint32_t t = 0; t < plan->n_tensors; t++) {
            if (!is_inside(plan, &plan->tensors[t]))
                m->verdict = MUTATION_REJECT;
        }
        return true;
    case MUTATE_BINDING_RANGE:
    case MUTATE_BINDING_OTHER:
        return change_binding(plan, kind, find_record(plan, i / KERNEL_MAX_BINDINGS),
                              i % KERNEL_MAX_BINDINGS, m);
    case MUTATE_WORD_UP:
    case MUTATE_WORD_DOWN:
        return change_word(find_record(plan, i / KERNEL_MAX_PARAMS), i % KERNEL_MAX_PARAMS,
                           kind == MUTATE_WORD_UP ? 1u : UINT32_MAX, m);
    case MUTATE_KERNEL: {
        struct place place = find_record(plan, i);
        SAVE(m, place.program->records[place.index].kernel);
        place.program->records[place.index].kernel = KERNEL_COUNT;
        WHAT(m, "%s, record %u: kernel", place.program->name, place.index);
        m->verdict = MUTATION_REJECT;
        return true;
    }
    case MUTATE_GROUPS_ZERO:
    case MUTATE_GROUPS_HUGE:
    case MUTATE_GROUP_SIZE:
    case MUTATE_CONSTANTS:
    case MUTATE_SHADER:
    case MUTATE_SHARED:
        return damage_dispatch(plan, kind, i, m);
    case MUTATE_BARRIER_DROP:
    case MUTATE_BARRIER_ADD:
    case MUTATE_SWAP:
    case MUTATE_DELETE:
    case MUTATE_CHOICE:
    case MUTATE_METHOD:
        return damage_order(plan, kind, i, m);
    case MUTATE_PORT_RANGE:
    case MUTATE_PORT_DIRECTION:
        return damage_port(plan, kind, i, m);
    case MUTATE_PARAM_RANGE:
    case MUTATE_PARAM_DIMS:
    case MUTATE_PARAM_TWICE:
    case MUTATE_PARAM_SUM:
        return damage_param(plan, kind, i, m);
    case MUTATE_ARENA_BYTES:
        SAVE(m, plan->programs[i].arena_bytes);
        plan->programs[i].arena_bytes += PLAN_ALIGNMENT;
        WHAT(m, "program %s: arena bytes", plan->programs[i].name);
        m->verdict = MUTATION_REJECT;
        return true;
    case MUTATE_LOWER_BOUND:
        SAVE(m, plan->programs[i].lower_bound_bytes);
        plan->programs[i].lower_bound_bytes -= PLAN_ALIGNMENT;
        WHAT(m, "program %s: lower bound", plan->programs[i].name);
        m->verdict = MUTATION_REJECT;
        return true;
    default:
        return damage_tensor(plan, kind, i, m);
    }
}

bool mutation_apply(struct plan *plan, enum mutation_kind kind, uint32_t i,
                    struct mutation *mutation) {
    memset(mutation, 0, sizeof(*mutation));
    if (damage(plan, kind, i, mutation))
        return true;
    mutation_undo(mutation);
    return false;
}
