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

static void set_texts(const struct unetc_fit *fit, const struct fit_choice *choice,
                      struct unetc_fit_settings *settings) {
    *settings = (struct unetc_fit_settings){.count = 0};
    if (choice->size > 0)
        snprintf(settings->texts[settings->count++], sizeof(settings->texts[0]), "%s=%u",
                 fit->variable, choice->size);
    if (choice->recompute[0] != '\0')
        snprintf(settings->texts[settings->count++], sizeof(settings->texts[0]), "recompute=%s",
                 choice->recompute);
}

bool unetc_fit_choose(const char *model, const struct unet_compile_options *options,
                      const struct unetc_fit *fit, struct unetc_fit_settings *settings,
                      struct err *err) {
    const struct fit_request request = make_request(fit);
    struct fit_choice choice;
    char given[32], needed[32];
    if (!fit_choose(model, options, &request, &choice, err))
        return false;
    set_texts(fit, &choice, settings);
    if (choice.size > 0)
        printf("%s %u: ", fit->variable, choice.size);
    printf("%s needs %s of %s", request.use_case == PLAN_FOR_INFERENCE ? "inference" : "training",
           report_bytes(choice.needed_bytes, needed, sizeof(needed)),
           report_bytes(fit->memory_bytes, given, sizeof(given)));
    if (choice.recomputes)
        printf(", recomputing %s: %+.2f %% operations (otherwise %s)", choice.recompute,
               choice.more_percent, report_bytes(choice.plain_bytes, needed, sizeof(needed)));
    if (choice.next_size > 0)
        printf("; the next larger, %u, would need %s", choice.next_size,
               report_bytes(choice.next_bytes, needed, sizeof(needed)));
    else if (choice.size > 0)
        printf("; no larger one can be compiled");
    else if (!choice.recomputes)
        printf("; nothing has to be recomputed");
    putchar('\n');
    return true;
}

bool unetc_fit_table(const char *model, const struct unet_compile_options *options,
                     const struct unetc_fit *fit, struct err *err) {
    const struct fit_request request = make_request(fit);
    return fit_frontier(model, options, &request, stdout, err);
}
