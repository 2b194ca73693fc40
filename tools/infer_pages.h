/*
 * infer_pages.h: the list of pages that unetrun infer will work on, with the names of their
 * outputs, checked before anything runs.
 */
#ifndef UNET_INFER_PAGES_H
#define UNET_INFER_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "tools/cli.h"

/* One page of one image file. */
struct infer_page {
    const char *path; /* of the caller */
    size_t page;
    char *stem; /* of its outputs: "cell", or "stack-004" */
    double pixels;
    uint64_t device, inode; /* of the file */
};

struct infer_pages {
    struct infer_page *items;
    size_t count;
};

/*
 * Reads every page once: each must be an image that the model takes and that its tiles can cover,
 * and no two pages may have outputs of the same name. ERR_IO, ERR_INPUT, ERR_USAGE.
 */
bool infer_pages_list(const struct cli_list *paths, size_t first, const struct plan_model *model,
                      struct infer_pages *out, struct err *err);
void infer_pages_free(struct infer_pages *pages);

/*
 * That writing DIRECTORY/STEM SUFFIX.png for every page overwrites no file that is read. ERR_USAGE.
 */
bool infer_pages_check_directory(const struct infer_pages *pages, const char *directory,
                                 const char *suffix, struct err *err);

#endif
