/*
 * bench.h: a graph of many independent operations, run by the interpreter in double and by a
 * device, and compared. Every operation added has inputs of its own with seeded random values, so
 * that one plan and one session check many shapes.
 */
#ifndef UNET_TESTS_BENCH_H
#define UNET_TESTS_BENCH_H

#include "compiler/ir.h"
#include "runtime/runtime.h"

/* Of Adam updates: the device corrects its moments with these. */
#define BENCH_BETA1 0.9f
#define BENCH_BETA2 0.999f

/* How far a result may be from the truth. */
enum bench_bound {
    BENCH_EXACT, /* bit for bit (selection and copies) */
    BENCH_SUM, /* gamma(terms) * sum |a||b|, the a-priori bound of a sum of products in any order */
    BENCH_RELATIVE, /* terms * 2^-24 of the largest magnitude in the result (functions with a
                       bounded error in ulps) */
};

struct bench_output {
    struct value *value;
    const struct value *param; /* read parameter or state `state` instead of a port */
    int state;
    enum bench_bound bound;
    double terms;
};

struct bench {
    struct arena arena;
    struct graph graph;
    VEC(struct bench_output) outputs;
    VEC(const struct param *) params;
    enum plan_optimiser optimiser; /* of the updating nodes in it; SGD unless set */
    uint64_t seed;
    double learning_rate;
    uint64_t method_bytes; /* scratch of a method: struct memory_options; 0: none */
    bool has_winograd2;    /* elsewhere the method is the direct sum */
    uint32_t n_records[PLAN_METHOD_KIND_COUNT]; /* of each method, that ran */
    int n_names;
    double **tensors;    /* the interpreter's results */
    double **magnitudes; /* the same with all inputs replaced by their absolute values */
};

void bench_init(struct bench *bench, uint64_t seed);
void bench_free(struct bench *bench);

/* Inputs with random values, drawn when the bench runs. */
struct value *bench_input(struct bench *bench, struct shape shape);
struct value *bench_labels(struct bench *bench, struct shape shape, int n_classes);
struct value *bench_param(struct bench *bench, struct shape shape, bool is_bias, bool transposed);
struct value *bench_state(struct bench *bench, struct value *param, int index);

/* Adds a node; its outputs are not yet checked. Fails the test when the shape rule objects. */
struct node *bench_node(struct bench *bench, enum op_kind op, struct value *const *inputs,
                        int n_inputs, int n_outputs, struct attr attr);
/* Makes a value an output of the program, to be checked. */
void bench_check(struct bench *bench, struct value *value, enum bench_bound bound, double terms);
void bench_check_param(struct bench *bench, struct value *param, int state, enum bench_bound bound,
                       double terms);

/* Compiles, runs on the device between guard words, compares all outputs and the guards; fails the
 * test naming node and element. Twice, and the second result must equal the first. All of it once
 * more by each method that some operation has besides the first and the device allows; Winograd's
 * algorithm is judged by its own a-priori bound (docs/runtime.md), matrix units by that of factors
 * rounded to half precision. */
void bench_run(struct bench *bench, struct unet_device *device);

/* Unless NULL, bench_run makes and verifies the plan, then calls this instead of running and
   comparing anything; n_records are those of the bench. For programs that put the same cases to
   another test. */
extern void (*bench_instead)(struct unet_device *device, const struct plan *plan,
                             uint32_t n_records[PLAN_METHOD_KIND_COUNT]);

#endif
