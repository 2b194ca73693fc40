/*
 * layer.h: for programs that test through the layer of this folder (fault.h).
 */
#ifndef UNET_TESTS_FAULT_LAYER_H
#define UNET_TESTS_FAULT_LAYER_H

#include "tests/faults/fault.h"

extern fault_set *set_fault;
extern fault_get *get_fault;

/*
 * Puts the layer, whose library is the program's only argument, before Vulkan drivers, and finds
 * its functions. Returns 0, or what to exit with, and says why.
 */
int fault_layer_open(int argc, char **argv);

#endif
