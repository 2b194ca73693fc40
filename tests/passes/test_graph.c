/*
 * test_graph.c: editing and printing graphs, and that graph_check sees each way in which a pass
 * could leave one broken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/passes/random_graph.c" /* its builders; this program needs no other source */

static struct arena arena;

static void close_graph(struct graph *graph) {
    graph_free(graph);
    arena_free(&arena);
}

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

/* What graph_check says of mistake i of break_graph. */
static const char *const messages[] = {
    "node act1: reads a value that is made later",
    "value conv0.weight: its number is not its index",
    "node act1: makes a value that exists already",
    "value softmax_loss3.softmax_loss: is made by no node",
    "node conv0: makes a value that does not name it as producer",
    "value act1.act: temporaries have a producer",
    "value act1.act: does not have the shape and type that its operation gives",
    "value act1.act: does not have the shape and type that its operation gives",
    "graph test: conv0 (conv): the input of 6x6 pixels is smaller than the kernel",
    "value image: is an input without a port",
    "value act1.act: is stored in a value outside the graph",
    "value conv0.conv: is stored in a value that is stored itself",
    "value conv2.conv: does not have the shape of its storage",
    "value act1.act: reaches past the channels of its storage",
    "value conv0.conv: only temporaries share memory",
    "value conv0.weight: does not have the shape of its parameter",
    "value conv0.weight: parameters and states belong to a parameter",
    "node act1: reads a value outside the graph",
    "act1 (act): has 0 inputs",
    "node act1: has an unknown operation or too many inputs",
    "conv0 (conv): the bias is 3x2x3x3, must be 1x3x1x1",
};

/* image -> conv -> act -> conv -> loss, and what can be wrong with it. */
static void break_graph(struct graph *graph, int how) {
    struct node **nodes = graph->nodes.items;
    struct value **values = graph->values.items, *conv = nodes[0]->outputs[0];
    struct value *act = nodes[1]->outputs[0];
    struct node *node = nodes[1];
    switch (how) {
    case 0: /* a reader before its producer */
        nodes[1] = nodes[0];
        nodes[0] = node;
        break;
    case 1:
        values[1]->id = 2;
        break;
    case 2:
        nodes[2] = nodes[1];
        break;
    case 3: /* made by nobody */
        graph->nodes.count--;
        break;
    case 4:
        conv->producer = nodes[1];
        break;
    case 5:
        act->producer = NULL;
        break;
    case 6:
        act->shape.h++;
        break;
    case 7:
        act->type = PLAN_TYPE_U32;
        break;
    case 8: /* the shape rule's own objection */
        nodes[0]->attr.dilation = 100;
        break;
    case 9:
        values[0]->port = NULL;
        break;
    case 10:
        act->storage = act;
        break;
    case 11: /* a chain */
        act->storage = conv;
        conv->storage = act;
        break;
    case 12: /* not the same planes */
        nodes[2]->outputs[0]->storage = conv;
        break;
    case 13: /* past the last channel */
        act->storage = conv;
        act->storage_channel = 1;
        break;
    case 14: /* in the memory of the input */
        conv->storage = values[0];
        break;
    case 15:
        values[1]->shape.w++;
        break;
    case 16:
        values[1]->param = NULL;
        break;
    case 17: /* an input that is not of the graph */
        node->inputs[0] = ARENA_NEW(graph->arena, struct value);
        break;
    case 18:
        node->n_inputs = 0;
        break;
    case 19:
        node->n_inputs = NODE_MAX_INPUTS + 1;
        break;
    case 20: /* optional, but then of the right size */
        nodes[0]->inputs[2] = values[1];
        break;
    default:
        fail_msg("no such mistake");
    }
}

static void open_small_graph(struct graph *graph) {
    graph_init(graph, &arena, "test");
    struct value *x = net_input(graph, 1, 2, 6, 6);
    x = net_act(graph, net_conv(graph, x, 3, true, NULL), 0);
    net_loss(graph, net_conv(graph, x, 2, true, NULL));
}

static void test_graph_check(void **state) {
    (void)state;
    struct graph graph;
    struct err err = {0};
    for (int how = 0; how < (int)ARRAY_LEN(messages); how++) {
        err = (struct err){0};
        open_small_graph(&graph);
        must(graph_check(&graph, &err), &err);
        break_graph(&graph, how);
        if (graph_check(&graph, &err)) {
            fail_msg("mistake %d is not seen", how);
        }
        assert_int_equal(err.code, ERR_INPUT);
        if (!strstr(err.text, messages[how])) {
            fail_msg("mistake %d: %s", how, err.text);
        }
        close_graph(&graph);
    }
    open_small_graph(&graph); /* what skip.c and inplace.c do is no mistake */
    graph.nodes.items[1]->outputs[0]->storage = graph.nodes.items[0]->outputs[0];
    must(graph_check(&graph, &err), &err);
    close_graph(&graph);
}

static void test_remove_dead(void **state) {
    (void)state;
    struct graph graph;
    struct err err = {0};
    open_small_graph(&graph);
    struct value *act = graph.nodes.items[1]->outputs[0];
    size_t n_nodes = graph.nodes.count, n_values = graph.values.count;
    net_act(&graph, net_dropout(&graph, act, 0.5f, 1), 0); /* nobody reads it */
    assert_int_equal(graph_use_count(&graph, act), 2);
    graph_remove_dead(&graph);
    must(graph_check(&graph, &err), &err);
    assert_int_equal(graph.nodes.count, n_nodes);
    assert_int_equal(graph.values.count, n_values);
    assert_int_equal(graph_use_count(&graph, act), 1);

    /* without the activation; its node is gone, later values move up */
    graph_replace_uses(&graph, act, graph.nodes.items[0]->outputs[0]);
    graph_remove_dead(&graph);
    must(graph_check(&graph, &err), &err);
    assert_int_equal(graph.nodes.count, n_nodes - 1);
    assert_int_equal(graph.values.count, n_values - 1);

    /* a port is a use */
    struct value *loss = graph.nodes.items[2]->outputs[1];
    assert_int_equal(graph_use_count(&graph, loss), 1);
    loss->port = NULL;
    graph_remove_dead(&graph);
    assert_int_equal(graph.nodes.count, 0);
    close_graph(&graph);
}

static void test_print(void **state) {
    (void)state;
    static const char expected[] = "graph test\n"
                                   "  input %0 image 1x2x6x6 <- image\n"
                                   "  param %1 conv0.weight 3x2x3x3\n"
                                   "  param %2 conv0.bias 1x3x1x1\n"
                                   "  param %5 conv2.weight 2x3x3x3\n"
                                   "  param %6 conv2.bias 1x2x1x1\n"
                                   "  input %8 labels 1x1x2x2 u32 <- labels\n"
                                   "  input %9 weights 1x1x2x2 <- weights\n"
                                   "  %3 conv0.conv 1x3x4x4 = conv(%0, %1, %2) kh=3 kw=3\n"
                                   "  %4 act1.act 1x3x4x4 in %3[0] = act(%3)\n"
                                   "  %7 conv2.conv 1x2x2x2 = conv(%4, %5, %6) kh=3 kw=3\n"
                                   "  %10 softmax_loss3.softmax_loss 1x2x2x2, %11 "
                                   "softmax_loss3.softmax_loss.1 1x8x1x1 -> loss "
                                   "= softmax_loss(%7, %8, %9)\n";
    struct graph graph;
    open_small_graph(&graph);
    graph.nodes.items[1]->outputs[0]->storage = graph.nodes.items[0]->outputs[0];
    char *text = NULL;
    size_t size_bytes = 0;
    FILE *stream = open_memstream(&text, &size_bytes);
    graph_print(&graph, stream);
    fclose(stream);
    assert_string_equal(text, expected);
    free(text);
    close_graph(&graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph_check),
        cmocka_unit_test(test_remove_dead),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
