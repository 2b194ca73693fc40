/*
 * unetc_pictures.c: writes the pictures of a compilation, whole or not at all.
 */
#include "tools/unetc_pictures.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "compiler/report_picture.h"

bool unetc_pictures_open(struct unetc_pictures *pictures, const char *program,
                         const char *arena_path, const char *graph_path, struct err *err) {
    *pictures = (struct unetc_pictures){.program = program != NULL ? program : "train_step",
                                        .arena_path = arena_path,
                                        .graph_path = graph_path};
    if (program != NULL && arena_path == NULL && graph_path == NULL)
        return err_set(err, ERR_USAGE, "--program goes with --arena-svg or --graph");
    if (graph_path != NULL) {
        pictures->graph = open_memstream(&pictures->text, &pictures->size_bytes);
        if (pictures->graph == NULL)
            return err_set(err, ERR_IO, "out of memory for the graph");
    }
    return true;
}

bool unetc_pictures_check(const struct unetc_pictures *pictures, const struct plan *plan,
                          struct err *err) {
    char list[256] = "";
    if (plan_program_find(plan, pictures->program) != NULL)
        return true;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i > 0 ? ", " : "",
                 plan->programs[i].name);
    err_set(err, ERR_USAGE, "--program: the plan has no \"%s\"", pictures->program);
    return err_hint(err, "it has %s", list);
}

static bool write_arena(const struct unetc_pictures *pictures, const struct plan *plan,
                        struct err *err) {
    struct file_writer writer;
    if (!file_writer_open(&writer, pictures->arena_path, err))
        return false;
    report_arena_svg(plan, plan_program_find(plan, pictures->program), writer.stream);
    return file_writer_commit(&writer, err);
}

bool unetc_pictures_write(struct unetc_pictures *pictures, const struct plan *plan,
                          struct err *err) {
    if (pictures->arena_path != NULL && !write_arena(pictures, plan, err))
        return false;
    if (pictures->graph_path == NULL)
        return true;
    if (fflush(pictures->graph) != 0)
        return err_set(err, ERR_IO, "out of memory for the graph");
    return file_write(pictures->graph_path, pictures->text, pictures->size_bytes, err);
}

void unetc_pictures_close(struct unetc_pictures *pictures) {
    if (pictures->graph != NULL)
        fclose(pictures->graph);
    free(pictures->text);
}
