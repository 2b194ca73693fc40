/*
 * layer.c: see layer.h.
 */
#include "tests/faults/layer.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fault_set *set_fault;
fault_get *get_fault;

int fault_layer_open(int argc, char **argv) {
    char folder[1024];
    if (argc != 2 || strchr(argv[1], '/') == NULL) {
        fprintf(stderr, "usage: %s FOLDER/LAYER.so\n", argv[0]);
        return 2;
    }
    snprintf(folder, sizeof(folder), "%s", argv[1]);
    *strrchr(folder, '/') = '\0';
    setenv("VK_LAYER_PATH", folder, 1);
    setenv("VK_INSTANCE_LAYERS", "VK_LAYER_UNET_fault", 1);
    unsetenv("UNET_VALIDATION"); /* its layer is not in that folder */
    void *library = dlopen(argv[1], RTLD_NOW);
    if (library != NULL) {
        *(void **)&set_fault = dlsym(library, "unet_fault_set");
        *(void **)&get_fault = dlsym(library, "unet_fault_get");
    }
    if (set_fault != NULL && get_fault != NULL)
        return 0;
    fprintf(stderr, "%s: %s\n", argv[0], dlerror());
    return 1;
}
