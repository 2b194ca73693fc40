/*
 * unetc_fit.c: what fits into a device's memory, on the command line; compiler/fit.c finds it.
 */
#include "tools/unetc_fit.h"

#include <string.h>

#include "compiler/fit.h"
#include "compiler/report_memory.h"

static struct fit_request make_request(const struct unetc_fit *fit) {
    return (struct fit_request){.variable = fit->variable,
                                .use_case = strcmp(fit->program, "infer") == 0 ? PLAN_FOR_INFERENCE
                                                                               : PLAN_FOR_TRAINING,
                                .memory_bytes = fit->memory_bytes};
}

bool unetc_fit_choose(const char *model, const struct unet_compile_options *options,
                      const struct unetc_fit *fit, char *text, size_t room, struct err *err) {
    const struct fit_request request = make_request(fit);
    struct fit_choice choice;
    char given[32], needed[32];
    if (!fit_choose(model, options, &request, &choice, err))
        return false;
    snprintf(text, room, "%s=%u", fit->variable, choice.size);
    printf("%s %u: %s needs %s of %s", fit->variable, choice.size,
           request.use_case == PLAN_FOR_INFERENCE ? "inference" : "training",
           report_bytes(choice.needed_bytes, needed, sizeof(needed)),
           report_bytes(fit->memory_bytes, given, sizeof(given)));
    if (choice.next_size > 0)
        printf("; the next larger, %u, would need %s\n", choice.next_size,
               report_bytes(choice.next_bytes, needed, sizeof(needed)));
    else
        printf("; no larger one can be compiled\n");
    return true;
}

bool unetc_fit_table(const char *model, const struct unet_compile_options *options,
                     const struct unetc_fit *fit, struct err *err) {
    const struct fit_request request = make_request(fit);
    return fit_frontier(model, options, &request, stdout, err);
}
