/*
 * infer_pages.c: see infer_pages.h.
 */
#include "tools/infer_pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/vec.h"
#include "runtime/data/image.h"
#include "runtime/infer/infer.h"

struct page_list {
    VEC(struct infer_page) pages;
};

/* "stack-004": three digits, or as many as the last page needs. */
static char *name_page(const char *path, size_t page, size_t n_pages) {
    char *stem = file_stem(path);
    if (n_pages == 1 || stem == NULL)
        return stem;
    const int digits = snprintf(NULL, 0, "%zu", n_pages - 1);
    const size_t room = strlen(stem) + 32;
    char *name = malloc(room);
    if (name != NULL)
        snprintf(name, room, "%s-%0*zu", stem, digits > 3 ? digits : 3, page);
    free(stem);
    return name;
}

static bool check_page(struct image_file *file, const char *path, size_t page,
                       const struct plan_model *model, double *pixels_out, struct err *err) {
    struct image image;
    struct tile_grid grid;
    if (!image_file_read(file, page, IMAGE_PICTURE, &image, err))
        return false;
    bool good = true;
    *pixels_out = (double)image.width * image.height;
    if ((uint32_t)image.channels != model->channels) {
        good = err_set(err, ERR_INPUT, "%s: the model takes %s images, this one is %s", path,
                       model->channels == 1 ? "grey" : "RGB", image.channels == 1 ? "grey" : "RGB");
        err_hint(err, "convert the image, or use a model with %d channel%s", image.channels,
                 image.channels == 1 ? "" : "s");
    } else if (!infer_plan_grid(model, (uint32_t)image.height, (uint32_t)image.width, &grid, err)) {
        good = err_prefix(err, "%s", path);
    }
    image_free(&image);
    return good;
}

static bool add_file(const char *path, const struct plan_model *model, struct page_list *list,
                     struct err *err) {
    struct image_file *file;
    struct stat info;
    if (!image_file_open(path, &file, err))
        return false;
    const size_t n_pages = image_file_pages(file);
    bool good = stat(path, &info) == 0;
    if (!good)
        err_set(err, ERR_IO, "%s: cannot be found any more", path);
    for (size_t page = 0; good && page < n_pages; page++) {
        struct infer_page item = {.path = path,
                                  .page = page,
                                  .device = (uint64_t)info.st_dev,
                                  .inode = (uint64_t)info.st_ino};
        good = check_page(file, path, page, model, &item.pixels, err);
        item.stem = good ? name_page(path, page, n_pages) : NULL;
        if (good && item.stem == NULL)
            good = err_set(err, ERR_INPUT, "%s: no memory for the names of its pages", path);
        if (good)
            vec_push(&list->pages, item);
    }
    image_file_close(file);
    return good;
}

static int by_stem(const void *a, const void *b) {
    const struct infer_page *const *x = a, *const *y = b;
    return strcmp((*x)->stem, (*y)->stem);
}

static bool check_stems(const struct infer_pages *pages, struct err *err) {
    const struct infer_page **order = malloc((pages->count + 1) * sizeof(*order));
    if (order == NULL)
        return err_set(err, ERR_INPUT, "no memory for %zu pages", pages->count);
    for (size_t i = 0; i < pages->count; i++)
        order[i] = &pages->items[i];
    qsort(order, pages->count, sizeof(*order), by_stem);
    bool good = true;
    for (size_t i = 1; good && i < pages->count; i++)
        if (strcmp(order[i - 1]->stem, order[i]->stem) == 0) {
            good = err_set(err, ERR_USAGE, "%s and %s would both be written as %s.png",
                           order[i - 1]->path, order[i]->path, order[i]->stem);
            err_hint(err, "rename one, or run them one after the other with different --out");
        }
    free(order);
    return good;
}

bool infer_pages_list(const struct cli_list *paths, size_t first, const struct plan_model *model,
                      struct infer_pages *out, struct err *err) {
    struct page_list list = {0};
    bool good = true;
    for (size_t i = first; good && i < paths->count; i++)
        good = add_file(paths->items[i], model, &list, err);
    *out = (struct infer_pages){list.pages.items, list.pages.count};
    good = good && check_stems(out, err);
    if (!good)
        infer_pages_free(out);
    return good;
}

void infer_pages_free(struct infer_pages *pages) {
    for (size_t i = 0; i < pages->count; i++)
        free(pages->items[i].stem);
    vec_release(pages->items);
    *pages = (struct infer_pages){0};
}

bool infer_pages_check_directory(const struct infer_pages *pages, const char *directory,
                                 const char *suffix, struct err *err) {
    for (size_t i = 0; i < pages->count; i++) {
        char target[4096];
        struct stat info;
        snprintf(target, sizeof(target), "%s/%s%s.png", directory, pages->items[i].stem, suffix);
        if (stat(target, &info) != 0)
            continue;
        for (size_t k = 0; k < pages->count; k++)
            if (pages->items[k].device == (uint64_t)info.st_dev &&
                pages->items[k].inode == (uint64_t)info.st_ino) {
                err_set(err, ERR_USAGE, "%s: would be overwritten by %s", pages->items[k].path,
                        k == i ? "its own result" : "the result of another image");
                return err_hint(err, "write to another directory than the images'");
            }
    }
    return true;
}
