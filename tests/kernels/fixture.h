/*
 * fixture.h: what the tests of sessions and checkpoints share: a plan written by hand, the device
 * at hand, checks of results.
 */
#ifndef UNET_TESTS_FIXTURE_H
#define UNET_TESTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/runtime.h"
#include "tests/kernels/hand_plan.h"

#define COUNT 1000u /* elements of the flat tensors */

extern struct err err;

#define must(expression)                                                                           \
    do {                                                                                           \
        err.text[0] = '\0';                                                                        \
        if (!(expression))                                                                         \
            fail_msg("%s: %s", #expression, err.text);                                             \
    } while (0)

/* The call must fail with this code and these words. */
#define must_fail(expression, wanted, words)                                                       \
    do {                                                                                           \
        err = (struct err){.code = ERR_NONE};                                                      \
        if (expression)                                                                            \
            fail_msg("%s: did not fail", #expression);                                             \
        if (err.code != (wanted) || strstr(err.text, words) == NULL)                               \
            fail_msg("%s: code %d, \"%s\" lacks \"%s\"", #expression, (int)err.code, err.text,     \
                     words);                                                                       \
    } while (0)

/*
 * Program sum: y = (a + b) + c, in two records over a tensor of the arena. Program train_step: one
 * step of gradient descent of a convolution's weights with the gradient as input. Program infer:
 * copies these weights to a port. Guard tensors stand around what is written.
 */
struct hand {
    struct plan *plan;
    uint32_t a, b, c, y, t, gradient;
    uint32_t guards[8], n_guards;
    uint32_t weights, bias, up; /* parameters */
};

struct hand make_hand(void);

/* The best device in the environment a test has set up (UNET_DEVICE). Closing fails the test when
 * the validation layer had something to say. */
struct unet_device *open_device(void);
/* Whether that is a Vulkan device; tests of what only those have begin with NEEDS_VULKAN. */
bool device_is_vulkan(void);
#define NEEDS_VULKAN                                                                               \
    do {                                                                                           \
        if (!device_is_vulkan()) {                                                                 \
            print_message("skipped: only Vulkan devices have this\n");                             \
            skip();                                                                                \
        }                                                                                          \
    } while (0)
void close_device(struct unet_device *device);
void set_or_unset(const char *name, const char *value);

/* Runs a body on a new device and plan: on Vulkan for each access path, with and without staging;
   on the CPU for several numbers of threads. */
void each_path(void (*body)(struct unet_device *device, const struct hand *hand));

void set_guards(struct unet_session *session, const struct hand *hand);
void check_guards(struct unet_session *session, const struct hand *hand);

/* Numbers from -1 to 1. */
void fill(float *data, size_t count, uint64_t seed);

/* Runs program sum on random numbers and compares to the bit. */
void run_sum(struct unet_session *session, uint64_t seed);

/* A training step of learning rate 0 out of ten; what was submitted for it. */
struct unet_submissions run_step(struct unet_session *session, uint32_t step);

#endif
