/*
 * arena.c: a list of chunks, filled from the front; a request that does not fit gets a new chunk.
 */
#include "common/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 * 1024)
#define ALIGNMENT ((size_t)16)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, capacity;
};

/* The chunk's own fields, rounded up so that the memory after them is aligned. */
#define HEADER_BYTES ((sizeof(struct arena_chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static void out_of_memory(size_t size_bytes) {
    fprintf(stderr, "error: out of memory (%zu bytes wanted)\n", size_bytes);
    exit(4);
}

static struct arena_chunk *chunk_new(size_t capacity) {
    if (capacity > SIZE_MAX - HEADER_BYTES)
        out_of_memory(capacity);
    struct arena_chunk *chunk = calloc(1, HEADER_BYTES + capacity);
    if (chunk == NULL)
        out_of_memory(capacity);
    chunk->capacity = capacity;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size_bytes) {
    if (size_bytes > SIZE_MAX / 2)
        out_of_memory(size_bytes);
    size_t need = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (need == 0)
        need = ALIGNMENT; /* distinct addresses for empty arrays too */
    struct arena_chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->capacity - chunk->used < need) {
        struct arena_chunk *fresh = chunk_new(need > CHUNK_BYTES ? need : CHUNK_BYTES);
        if (chunk != NULL && need > CHUNK_BYTES) {
            /* A large request leaves the current chunk in front: its rest is still useful. */
            fresh->next = chunk->next;
            chunk->next = fresh;
        } else {
            fresh->next = chunk;
            arena->chunks = fresh;
        }
        chunk = fresh;
    }
    void *memory = (char *)chunk + HEADER_BYTES + chunk->used;
    chunk->used += need;
    return memory;
}

char *arena_strdup(struct arena *arena, const char *text) {
    size_t size_bytes = strlen(text) + 1;
    return memcpy(arena_alloc(arena, size_bytes), text, size_bytes);
}

char *arena_printf(struct arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = arena_alloc(arena, length < 0 ? 1 : (size_t)length + 1);
    if (length >= 0)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void arena_free(struct arena *arena) {
    struct arena_chunk *chunk = arena->chunks;
    while (chunk != NULL) {
        struct arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->chunks = NULL;
}
