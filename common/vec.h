/*
 * vec.h: growing arrays on the heap. Declare  VEC(struct foo) foos;  (zero-initialised), push,
 * index foos.items[i], count foos.count, and vec_free. Running out of host memory ends the program
 * with a message.
 */
#ifndef UNET_VEC_H
#define UNET_VEC_H

#include <stddef.h>

#define VEC(type)                                                                                  \
    struct {                                                                                       \
        type *items;                                                                               \
        size_t count, capacity;                                                                    \
    }

#define vec_push(vec, item)                                                                        \
    do {                                                                                           \
        (vec)->items =                                                                             \
            vec_grow((vec)->items, (vec)->count, &(vec)->capacity, sizeof(*(vec)->items));         \
        (vec)->items[(vec)->count++] = (item);                                                     \
    } while (0)

#define vec_free(vec)                                                                              \
    do {                                                                                           \
        vec_release((vec)->items);                                                                 \
        (vec)->items = NULL;                                                                       \
        (vec)->count = (vec)->capacity = 0;                                                        \
    } while (0)

/* Room for one more item: returns items, moved when it had to grow. */
void *vec_grow(void *items, size_t count, size_t *capacity, size_t item_bytes);
void vec_release(void *items);

#endif
