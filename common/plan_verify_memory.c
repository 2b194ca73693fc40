/*
 * plan_verify_memory.c: the records of a program together. An interval map over the bytes of each
 * block holds who wrote each byte last; a list holds what was touched since the last barrier. From
 * them follow reads of undefined or overwritten bytes, hazards without a barrier, outputs never
 * written, and parameters read after their update. The lifetimes behind the memory figures of a
 * program are derived again from its records.
 *
 * Of a choice one method runs. Each is followed from the map as it was before the choice; behind it
 * stands what all of them agree on, and bytes that not all wrote last by the same tensor belong to
 * nobody. So every combination of methods is covered. Barriers are executed with all of them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/plan_check.h"
#include "common/vec.h"

#define HOST (PLAN_NONE - 1)    /* as the writer: defined before the program starts */
#define NOBODY PLAN_NONE        /* as the writer: undefined */
#define DEPENDS (PLAN_NONE - 2) /* as the writer: another one for another method of a choice */

/* Bytes begin <= b < end of a block, last written by a root tensor in a record. */
struct segment {
    uint64_t begin, end;
    uint32_t writer, record;
};

/* The segments of a block cover it without gaps, in order. */
struct map {
    VEC(struct segment) segments;
};

/* Touched since the last barrier. */
struct touched {
    struct plan_use use;
    uint32_t record;
};

struct memory {
    const struct plan_check *check;
    const struct plan_program *program;
    struct map maps[PLAN_BLOCK_COUNT];
    VEC(struct touched) touched;
    uint32_t record;                     /* the one looked at */
    struct map before[PLAN_BLOCK_COUNT]; /* the choice looked at; empty outside of choices */
    struct map agreed[PLAN_BLOCK_COUNT]; /* by its methods so far; empty in the first */
};

#define REJECT(memory, ...) err_set((memory)->check->err, ERR_INPUT, __VA_ARGS__)

/* A record of the program; before and after them, one that belongs to no choice. */
static const struct plan_record *record_at(const struct memory *memory, uint32_t index) {
    static const struct plan_record outside = {.choice = PLAN_NONE};
    return index < memory->program->n_records ? &memory->program->records[index] : &outside;
}

/* --- the interval map --- */

/* The first segment that ends after a byte. */
static size_t map_find(const struct map *map, uint64_t at) {
    size_t low = 0, high = map->segments.count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (map->segments.items[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Makes a border at a byte; returns the segment that starts there. */
static size_t map_split(struct map *map, uint64_t at) {
    const size_t index = map_find(map, at);
    if (index == map->segments.count || map->segments.items[index].begin == at)
        return index;
    const struct segment whole = map->segments.items[index];
    vec_push(&map->segments, whole);
    struct segment *items = map->segments.items;
    memmove(&items[index + 1], &items[index], sizeof(*items) * (map->segments.count - 1 - index));
    items[index].end = at;
    items[index + 1].begin = at;
    return index + 1;
}

static void map_write(struct map *map, uint64_t begin, uint64_t end, uint32_t writer,
                      uint32_t record) {
    const size_t first = map_split(map, begin), last = map_split(map, end);
    struct segment *items = map->segments.items;
    items[first] = (struct segment){begin, end, writer, record};
    memmove(&items[first + 1], &items[last], sizeof(*items) * (map->segments.count - last));
    map->segments.count -= last - first - 1;
}

/* A part of what is being put together; one that goes on like the last makes it longer. */
static void map_append(struct map *map, struct segment segment) {
    struct segment *last =
        map->segments.count > 0 ? &map->segments.items[map->segments.count - 1] : NULL;
    if (last != NULL && last->writer == segment.writer && last->record == segment.record)
        last->end = segment.end;
    else
        vec_push(&map->segments, segment);
}

/* Copies what a map holds from *at up to a byte; *index is the segment looked at. */
static void map_keep(struct map *to, const struct map *from, size_t *index, uint64_t *at,
                     uint64_t end) {
    for (; *index < from->segments.count && *at < end; ++*index) {
        struct segment part = from->segments.items[*index];
        part.begin = MAX(part.begin, *at);
        if (part.end <= *at)
            continue;
        const bool is_cut = part.end > end;
        part.end = MIN(part.end, end);
        map_append(to, part);
        *at = part.end;
        if (is_cut)
            break;
    }
}

/* Puts parts in the place of the segments first to last - 1. */
static void map_replace(struct map *map, size_t first, size_t last, const struct map *parts) {
    const size_t count = map->segments.count, n_parts = parts->segments.count;
    for (size_t i = last - first; i < n_parts; i++)
        vec_push(&map->segments, parts->segments.items[0]);
    struct segment *items = map->segments.items;
    memmove(&items[first + n_parts], &items[last], sizeof(*items) * (count - last));
    memcpy(&items[first], parts->segments.items, sizeof(*items) * n_parts);
    map->segments.count = count - (last - first) + n_parts;
}

static uint64_t span_end(const struct plan_span *span) {
    return span->begin + (span->count - 1) * span->step + span->size_bytes;
}

/* As map_write for each piece of a span, but moves what lies behind them once: spans have as many
   pieces as a batch has channels, and maps hundreds of thousands of segments. */
static void map_write_pieces(struct map *map, const struct plan_span *span, uint32_t writer,
                             uint32_t record) {
    const size_t first = map_find(map, span->begin), last = map_find(map, span_end(span) - 1) + 1;
    const uint64_t end = map->segments.items[last - 1].end;
    struct map parts = {{0}};
    size_t index = first;
    uint64_t at = map->segments.items[first].begin;
    for (uint32_t i = 0; i < span->count; i++) {
        const uint64_t begin = span->begin + i * span->step;
        map_keep(&parts, map, &index, &at, begin);
        map_append(&parts, (struct segment){begin, begin + span->size_bytes, writer, record});
        at = begin + span->size_bytes;
    }
    map_keep(&parts, map, &index, &at, end);
    map_replace(map, first, last, &parts);
    vec_free(&parts.segments);
}

static void write_span(struct memory *memory, const struct plan_span *span, uint32_t writer) {
    struct map *map = &memory->maps[span->block];
    if (span->count > 1 && span->size_bytes > 0 && span->step >= span->size_bytes &&
        map_find(map, span_end(span) - 1) < map->segments.count) {
        map_write_pieces(map, span, writer, memory->record);
        return;
    }
    for (uint32_t i = 0; i < span->count; i++) {
        const uint64_t begin = span->begin + i * span->step;
        map_write(map, begin, begin + span->size_bytes, writer, memory->record);
    }
}

/* The bytes that a use writes: of a part of the planes, plane by plane. */
static void write_use(struct memory *memory, const struct plan_use *use) {
    const struct kernel_region *region = &use->region;
    if (region->n_c == 0) {
        write_span(memory, &use->span, use->root);
        return;
    }
    const uint64_t row_bytes = (uint64_t)region->w * 4, plane_bytes = region->h * row_bytes;
    for (uint32_t n = 0; n < region->n; n++) {
        const uint64_t image = use->span.begin + (uint64_t)n * region->stride_n * 4;
        const struct plan_span planes = {.block = use->span.block,
                                         .begin = image + region->first_c * plane_bytes +
                                                  region->first_h * row_bytes,
                                         .size_bytes = region->n_h * row_bytes,
                                         .step = plane_bytes,
                                         .count = region->n_c};
        write_span(memory, &planes, use->root);
    }
}

/* The first segment of a span that was not written by root or the host; NULL when all was. */
static const struct segment *find_foreign(const struct memory *memory, const struct plan_span *span,
                                          uint32_t root) {
    const struct map *map = &memory->maps[span->block];
    for (uint32_t i = 0; i < span->count; i++) {
        const uint64_t begin = span->begin + i * span->step;
        for (size_t s = map_find(map, begin);
             s < map->segments.count && map->segments.items[s].begin < begin + span->size_bytes;
             s++) {
            const struct segment *segment = &map->segments.items[s];
            if (segment->writer != root && segment->writer != HOST)
                return segment;
        }
    }
    return NULL;
}

/* --- choices --- */

static void map_copy(struct map *to, const struct map *from) {
    to->segments.count = 0;
    for (size_t i = 0; i < from->segments.count; i++)
        vec_push(&to->segments, from->segments.items[i]);
}

/* Takes the writer from the parts where the other's is another one. Both cover the same bytes; each
   segment of both is looked at once, for there may be hundreds of thousands. */
static void map_agree(struct map *map, const struct map *other) {
    struct map agreed = {{0}};
    uint64_t begin = 0;
    for (size_t i = 0, j = 0; i < map->segments.count && j < other->segments.count;) {
        const struct segment *own = &map->segments.items[i];
        const struct segment *theirs = &other->segments.items[j];
        const uint64_t end = MIN(own->end, theirs->end);
        const bool agree = own->writer == theirs->writer;
        map_append(&agreed, (struct segment){begin, end, agree ? own->writer : DEPENDS,
                                             agree ? own->record : theirs->record});
        begin = end;
        i += own->end == end;
        j += theirs->end == end;
    }
    vec_free(&map->segments);
    *map = agreed;
}

/* The map of a method that ends joins what the methods agree on. */
static void end_method(struct memory *memory) {
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        if (memory->agreed[block].segments.count > 0)
            map_agree(&memory->agreed[block], &memory->maps[block]);
        else
            map_copy(&memory->agreed[block], &memory->maps[block]);
    }
}

static bool check_agreed(const struct memory *memory) {
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        const struct map *map = &memory->agreed[block];
        for (size_t i = 0; block != PLAN_BLOCK_ARENA && i < map->segments.count; i++) {
            if (map->segments.items[i].writer == DEPENDS)
                return REJECT(
                    memory,
                    "byte %" PRIu64 " of the block %s is not written alike by all "
                    "methods of choice %s",
                    map->segments.items[i].begin, plan_block_names[block],
                    memory->program->choices[record_at(memory, memory->record - 1)->choice].name);
        }
    }
    return true;
}

/* Before a record: leaves the method and the choice of the one before, enters its own. */
static bool change_method(struct memory *memory) {
    const struct plan_record *before = record_at(memory, memory->record - 1);
    const struct plan_record *record = record_at(memory, memory->record);
    if (before->choice == record->choice && before->method == record->method)
        return true;
    if (before->choice != PLAN_NONE)
        end_method(memory);
    const bool leaves = before->choice != PLAN_NONE && before->choice != record->choice;
    if (leaves && !check_agreed(memory))
        return false;
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        struct map *map = &memory->maps[block];
        if (leaves) {
            map_copy(map, &memory->agreed[block]);
            memory->agreed[block].segments.count = 0;
        }
        if (record->choice != PLAN_NONE && record->method == 0)
            map_copy(&memory->before[block], map);
        else if (record->choice != PLAN_NONE)
            map_copy(map, &memory->before[block]);
    }
    return true;
}

/* --- the start of a program --- */

static void start_maps(struct memory *memory) {
    const struct plan *plan = memory->check->plan;
    memory->record = PLAN_NONE;
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        const bool undefined = block == PLAN_BLOCK_ARENA || block == PLAN_BLOCK_IO;
        const struct segment all = {0, plan->block_bytes[block], undefined ? NOBODY : HOST,
                                    PLAN_NONE};
        if (all.end > 0)
            vec_push(&memory->maps[block].segments, all);
    }
    for (uint32_t i = 0; i < memory->program->n_ports; i++) {
        const struct plan_port *port = &memory->program->ports[i];
        const struct plan_span span = plan_tensor_span(&plan->tensors[port->tensor]);
        if (port->direction == PLAN_IN)
            write_span(memory, &span, memory->check->roots[port->tensor]);
    }
}

/* --- one use --- */

static const char *name_of(const struct memory *memory, uint32_t tensor) {
    return plan_tensor_name(memory->check->plan, tensor);
}

static bool check_read(const struct memory *memory, const struct plan_use *use) {
    const struct segment *foreign = find_foreign(memory, &use->span, use->root);
    if (foreign == NULL)
        return true;
    if (foreign->writer == NOBODY)
        return REJECT(memory,
                      "tensor %s: reads undefined bytes: nothing has written byte %" PRIu64
                      " of its block",
                      name_of(memory, use->tensor), MAX(foreign->begin, use->span.begin));
    if (foreign->writer == DEPENDS)
        return REJECT(memory,
                      "tensor %s: reads byte %" PRIu64
                      " of its block, which not all methods of an earlier choice write alike",
                      name_of(memory, use->tensor), MAX(foreign->begin, use->span.begin));
    if (foreign->record == PLAN_NONE)
        return REJECT(memory, "tensor %s: reads memory of the input %s",
                      name_of(memory, use->tensor), name_of(memory, foreign->writer));
    return REJECT(memory, "tensor %s: was overwritten by tensor %s in record %u",
                  name_of(memory, use->tensor), name_of(memory, foreign->writer), foreign->record);
}

/* Parameters stay as they were at the start until nothing needs them any more. */
static bool check_read_persistent(const struct memory *memory, const struct plan_use *use) {
    const enum plan_block block = use->span.block;
    if (block != PLAN_BLOCK_WEIGHTS && block != PLAN_BLOCK_STATE)
        return true;
    const struct segment *updated = find_foreign(memory, &use->span, HOST);
    return updated == NULL || REJECT(memory, "tensor %s: is used after its update in record %u",
                                     name_of(memory, use->tensor), updated->record);
}

static bool is_accumulator(const struct memory *memory, uint32_t root) {
    const uint32_t owner = memory->check->owners[root];
    return owner != PLAN_NONE && memory->check->plan->params[owner].accumulator == root;
}

static bool check_write(const struct memory *memory, const struct plan_use *use) {
    const struct plan *plan = memory->check->plan;
    const char *program = memory->program->name;
    const enum plan_block block = use->span.block;
    if ((block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE) &&
        (strcmp(program, "infer") == 0 || strcmp(program, "evaluate") == 0))
        return REJECT(memory, "tensor %s: program %s must not change parameters",
                      name_of(memory, use->tensor), program);
    const bool persists = block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE;
    if (persists && (strcmp(program, "accumulate") == 0) != is_accumulator(memory, use->root))
        return REJECT(memory, "tensor %s: program %s must not change %s",
                      name_of(memory, use->tensor), program,
                      is_accumulator(memory, use->root) ? "accumulators"
                                                        : "anything but accumulators");
    for (uint32_t i = 0; block == PLAN_BLOCK_IO && i < memory->program->n_ports; i++) {
        const struct plan_port *port = &memory->program->ports[i];
        const struct plan_span span = plan_tensor_span(&plan->tensors[port->tensor]);
        if (port->direction == PLAN_IN && plan_spans_overlap(&span, &use->span))
            return REJECT(memory, "tensor %s: writes the input %s, which is the host's",
                          name_of(memory, use->tensor), port->name);
    }
    return true;
}

/* Records of two methods of one choice. */
static bool exclude_each_other(const struct memory *memory, uint32_t a, uint32_t b) {
    const struct plan_record *x = record_at(memory, a), *y = record_at(memory, b);
    return x->choice != PLAN_NONE && x->choice == y->choice && x->method != y->method;
}

static bool check_hazard(const struct memory *memory, const struct plan_use *use) {
    for (size_t i = 0; i < memory->touched.count; i++) {
        const struct touched *other = &memory->touched.items[i];
        if ((!other->use.writes && !use->writes) ||
            !plan_spans_overlap(&other->use.span, &use->span) ||
            exclude_each_other(memory, other->record, memory->record))
            continue;
        const char *what = !use->writes         ? "reads what was written"
                           : !other->use.writes ? "writes what was read"
                                                : "writes what was written";
        return REJECT(memory, "tensor %s: %s as tensor %s in record %u, with no barrier between",
                      name_of(memory, use->tensor), what, name_of(memory, other->use.tensor),
                      other->record);
    }
    return true;
}

static bool check_uses(struct memory *memory) {
    const struct plan_record *record = &memory->program->records[memory->record];
    struct plan_use uses[KERNEL_MAX_BINDINGS];
    const uint32_t count = plan_record_uses(memory->check, record, uses);
    if (record->barrier)
        memory->touched.count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((uses[i].reads && !check_read(memory, &uses[i])) ||
            !check_read_persistent(memory, &uses[i]) ||
            (uses[i].writes && !check_write(memory, &uses[i])) || !check_hazard(memory, &uses[i]))
            return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct touched now = {uses[i], memory->record};
        if (uses[i].writes)
            write_use(memory, &uses[i]);
        vec_push(&memory->touched, now);
    }
    return true;
}

/* --- the end of a program --- */

static bool check_outputs(const struct memory *memory) {
    for (uint32_t i = 0; i < memory->program->n_ports; i++) {
        const struct plan_port *port = &memory->program->ports[i];
        if (port->direction != PLAN_OUT)
            continue;
        const struct plan_span span = plan_tensor_span(&memory->check->plan->tensors[port->tensor]);
        const struct segment *foreign =
            find_foreign(memory, &span, memory->check->roots[port->tensor]);
        if (foreign == NULL)
            continue;
        if (foreign->writer == NOBODY)
            return REJECT(memory, "plan: program %s: output %s is never written%s",
                          memory->program->name, port->name,
                          foreign->begin > span.begin ? " to its end" : "");
        if (foreign->writer == DEPENDS)
            return REJECT(memory,
                          "plan: program %s: output %s is not written alike by all methods of a "
                          "choice",
                          memory->program->name, port->name);
        return REJECT(memory,
                      "plan: program %s: output %s was overwritten by tensor %s in record "
                      "%u",
                      memory->program->name, port->name, name_of(memory, foreign->writer),
                      foreign->record);
    }
    return true;
}

/* The program accumulate leaves out no parameter. */
static bool check_accumulated(const struct memory *memory) {
    const struct plan *plan = memory->check->plan;
    if (strcmp(memory->program->name, "accumulate") != 0)
        return true;
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const uint32_t tensor = plan->params[i].accumulator;
        if (tensor == PLAN_NONE)
            continue;
        const struct plan_span span = plan_tensor_span(&plan->tensors[tensor]);
        if (find_foreign(memory, &span, HOST) == NULL)
            return REJECT(memory, "plan: program accumulate: the gradient of %s is not accumulated",
                          plan->params[i].name);
    }
    return true;
}

/* First and last record that touches each root tensor of the arena. */
struct lifetime {
    uint32_t first, last;
};

static struct lifetime *derive_lifetimes(const struct memory *memory) {
    const struct plan *plan = memory->check->plan;
    struct lifetime *lifetimes = malloc(sizeof(*lifetimes) * (plan->n_tensors + (size_t)1));
    if (lifetimes == NULL)
        return NULL;
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        lifetimes[i] = (struct lifetime){PLAN_NONE, 0};
    for (uint32_t r = 0; r < memory->program->n_records; r++) {
        struct plan_use uses[KERNEL_MAX_BINDINGS];
        const uint32_t count = plan_record_uses(memory->check, &memory->program->records[r], uses);
        for (uint32_t i = 0; i < count; i++) {
            struct lifetime *lifetime = &lifetimes[uses[i].root];
            lifetime->first = MIN(lifetime->first, r);
            lifetime->last = r;
        }
    }
    return lifetimes;
}

static bool compare_figures(const struct memory *memory, uint64_t arena_bytes,
                            uint64_t live_bytes) {
    const struct plan_program *p = memory->program;
    if (p->arena_bytes != arena_bytes)
        return REJECT(memory,
                      "plan: program %s: arena of %" PRIu64 " bytes, its tensors use %" PRIu64,
                      p->name, p->arena_bytes, arena_bytes);
    if (p->lower_bound_bytes != live_bytes)
        return REJECT(memory,
                      "plan: program %s: lower bound of %" PRIu64 " bytes, but %" PRIu64
                      " are live at once",
                      p->name, p->lower_bound_bytes, live_bytes);
    if (p->naive_arena_bytes < live_bytes)
        return REJECT(memory,
                      "plan: program %s: %" PRIu64 " bytes without sharing are fewer than "
                      "the %" PRIu64 " live at once",
                      p->name, p->naive_arena_bytes, live_bytes);
    return true;
}

/* The arena's size, chunk by chunk, and the most bytes live at one record, sizes rounded up to the
 * alignment. */
static bool check_figures(const struct memory *memory) {
    const struct plan *plan = memory->check->plan;
    const uint32_t n_records = memory->program->n_records;
    const size_t n_chunks = plan->n_splits[PLAN_BLOCK_ARENA] + (size_t)1;
    struct lifetime *lifetimes = derive_lifetimes(memory);
    /* starts[r] - ends[r]: bytes that come alive at record r, and that died before it */
    uint64_t *starts = calloc(n_records + (size_t)1, sizeof(uint64_t));
    uint64_t *ends = calloc(n_records + (size_t)1, sizeof(uint64_t));
    uint64_t *used = calloc(n_chunks, sizeof(uint64_t)); /* of each chunk, bytes from its start */
    if (lifetimes == NULL || starts == NULL || ends == NULL || used == NULL) {
        free(lifetimes);
        free(starts);
        free(ends);
        free(used);
        return err_set(memory->check->err, ERR_IO, "plan: out of memory");
    }
    uint64_t live_bytes = 0, most_bytes = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (lifetimes[i].first == PLAN_NONE || tensor->block != PLAN_BLOCK_ARENA)
            continue;
        const uint64_t size_bytes = align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        const uint32_t chunk = plan_chunk_of(plan, PLAN_BLOCK_ARENA, tensor->offset_bytes);
        const uint64_t begin = chunk > 0 ? plan->splits[PLAN_BLOCK_ARENA][chunk - 1] : 0;
        used[chunk] = MAX(used[chunk], tensor->offset_bytes + size_bytes - begin);
        starts[lifetimes[i].first] += size_bytes;
        ends[lifetimes[i].last + 1] += size_bytes;
    }
    for (uint32_t r = 0; r < n_records; r++) {
        live_bytes += starts[r] - ends[r];
        most_bytes = MAX(most_bytes, live_bytes);
    }
    uint64_t arena_bytes = 0;
    for (size_t i = 0; i < n_chunks; i++)
        arena_bytes += used[i];
    free(lifetimes);
    free(starts);
    free(ends);
    free(used);
    return compare_figures(memory, arena_bytes, most_bytes);
}

bool plan_check_memory(const struct plan_check *check, const struct plan_program *program) {
    struct memory memory = {.check = check, .program = program};
    start_maps(&memory);
    bool good = true;
    for (memory.record = 0; good && memory.record < program->n_records; memory.record++) {
        good = change_method(&memory) && check_uses(&memory);
        if (!good)
            plan_at_record(check, program, memory.record);
    }
    if (good && !change_method(&memory)) /* the last record may belong to a choice */
        good = plan_at_record(check, program, memory.record - 1);
    good = good && check_outputs(&memory) && check_accumulated(&memory) && check_figures(&memory);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++)
        vec_free(&memory.maps[block].segments);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        vec_free(&memory.before[block].segments);
        vec_free(&memory.agreed[block].segments);
    }
    vec_free(&memory.touched);
    return good;
}
