/*
 * selftest_plans.h: the plans of unetrun selftest, made by unetc from selftest.yaml when the program
 * is built (tools/meson.build).
 */
#ifndef UNET_SELFTEST_PLANS_H
#define UNET_SELFTEST_PLANS_H

#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* A plan file each: first byte, one past the last. */
extern const uint8_t selftest_plan_0[] HIDDEN, selftest_plan_0_end[] HIDDEN;
extern const uint8_t selftest_plan_1[] HIDDEN, selftest_plan_1_end[] HIDDEN;
/* The same for target small, in the same order, with or without code (strip_code.py). */
extern const uint8_t selftest_plan_2[] HIDDEN, selftest_plan_2_end[] HIDDEN;
extern const uint8_t selftest_plan_3[] HIDDEN, selftest_plan_3_end[] HIDDEN;

#endif
