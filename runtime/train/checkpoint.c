/*
 * checkpoint.c: weights and optimiser state as safetensors, in PyTorch's shapes. Tensors are
 * LAYER.weight, LAYER.bias and optimiser.LAYER.weight.STATE (momentum; exp_avg, exp_avg_sq). The
 * metadata says where training stands and what the weights belong to; a file without it (written by
 * PyTorch, say) loads when names and shapes fit.
 *
 * Loading changes the session only after the whole file was found good.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/safetensors.h"
#include "runtime/param.h"
#include "runtime/runtime.h"

#define CHECKPOINT_VERSION "1"
#define CHECKPOINT_STATE_PREFIX "optimiser."

/* The name of a parameter (state -1) or one of its states. */
static char *tensor_name(struct arena *arena, const struct plan_param *param, int state) {
    if (state < 0)
        return arena_strdup(arena, param->name);
    return arena_printf(arena, CHECKPOINT_STATE_PREFIX "%s.%s", param->name,
                        param->state_names[state]);
}

/* ---- saving ---- */

static void add_metadata(struct safetensors *file, const struct unet_session *session,
                         const struct unet_checkpoint_info *info, struct arena *arena) {
    const struct plan *plan = unet_session_plan(session);
    const struct unet_device_info *device = unet_device_get_info(unet_session_device(session));
    safetensors_add_metadata(file, "format", "unet checkpoint " CHECKPOINT_VERSION);
    safetensors_add_metadata(file, "step", arena_printf(arena, "%" PRIu32, info->step));
    safetensors_add_metadata(file, "total_steps",
                             arena_printf(arena, "%" PRIu32, info->total_steps));
    safetensors_add_metadata(file, "seed", arena_printf(arena, "%" PRIu64, info->seed));
    safetensors_add_metadata(file, "best_score", arena_printf(arena, "%.17g", info->best_score));
    safetensors_add_metadata(file, "model", plan->model.name);
    safetensors_add_metadata(file, "model_hash",
                             arena_printf(arena, "%016" PRIx64, plan->model.hash));
    safetensors_add_metadata(file, "overrides",
                             plan->model.overrides != NULL ? plan->model.overrides : "");
    safetensors_add_metadata(file, "plan_hash", arena_printf(arena, "%016" PRIx64, plan->hash));
    safetensors_add_metadata(file, "device", device->name);
    safetensors_add_metadata(file, "driver", device->driver);
}

static bool add_tensor(struct safetensors *file, struct unet_session *session, uint32_t index,
                       int state, struct arena *arena, struct err *err) {
    const struct plan_param *param = &unet_session_plan(session)->params[index];
    uint64_t dims[SAFETENSORS_MAX_RANK];
    float *data = arena_alloc(arena, param_elements(param) * sizeof(float));
    if (!unet_session_read_param(session, index, state, data, err))
        return false;
    for (uint32_t i = 0; i < param->rank; i++)
        dims[i] = param->dims[i];
    safetensors_add(file, tensor_name(arena, param, state), SAFETENSORS_F32, param->rank, dims,
                    data);
    return true;
}

bool unet_checkpoint_save(struct unet_session *session, const char *path,
                          const struct unet_checkpoint_info *info, struct err *err) {
    const struct plan *plan = unet_session_plan(session);
    struct safetensors file = {.entries = NULL};
    struct arena arena = {.chunks = NULL};
    bool done = true;
    add_metadata(&file, session, info, &arena);
    for (uint32_t i = 0; done && i < plan->n_params; i++)
        done = add_tensor(&file, session, i, -1, &arena, err);
    for (uint32_t i = 0; done && unet_session_has_state(session) && i < plan->n_params; i++) {
        for (uint32_t j = 0; done && j < plan->params[i].n_states; j++)
            done = add_tensor(&file, session, i, (int)j, &arena, err);
    }
    done = done && safetensors_save(&file, path, err);
    safetensors_free(&file);
    arena_free(&arena);
    return done;
}

/* ---- loading ---- */

struct loader {
    struct unet_session *session;
    const struct plan *plan;
    const char *path;
    bool with_state;
    struct safetensors file;
    struct arena arena;
    struct err *err;
};

/* "64 x 3 x 3 x 3" */
static const char *shape_text(struct loader *loader, uint32_t rank, const uint64_t *dims) {
    const char *text = rank == 0 ? "a single number" : "";
    for (uint32_t i = 0; i < rank; i++)
        text = arena_printf(&loader->arena, "%s%s%" PRIu64, text, i > 0 ? " x " : "", dims[i]);
    return text;
}

static bool is_state_name(const char *name) {
    return strncmp(name, CHECKPOINT_STATE_PREFIX, strlen(CHECKPOINT_STATE_PREFIX)) == 0;
}

static bool check_model(struct loader *loader) {
    const struct plan_model *model = &loader->plan->model;
    const char *text = safetensors_metadata(&loader->file, "model_hash");
    const char *name = safetensors_metadata(&loader->file, "model");
    const char *overrides = safetensors_metadata(&loader->file, "overrides");
    if (text == NULL)
        return true;
    char *end;
    const uint64_t hash = strtoull(text, &end, 16);
    if (end == text || *end != '\0')
        return err_set(loader->err, ERR_INPUT, "%s: model hash \"%.40s\" is no number",
                       loader->path, text);
    if (hash == model->hash)
        return true;
    err_set(loader->err, ERR_INPUT,
            "%s: weights of another model: %.80s%s%.80s, hash %016" PRIx64
            ", but the plan is of %.80s%s%.80s, hash %016" PRIx64,
            loader->path, name != NULL ? name : "unnamed",
            overrides != NULL && overrides[0] != '\0' ? " with " : "",
            overrides != NULL ? overrides : "", hash, model->name,
            model->overrides != NULL && model->overrides[0] != '\0' ? " with " : "",
            model->overrides != NULL ? model->overrides : "", model->hash);
    return err_hint(loader->err, "compile the plan from the model and the --set values that the "
                                 "weights were trained with");
}

static bool check_values(struct loader *loader, const struct safetensors_entry *entry) {
    for (size_t i = 0; i < entry->size_bytes / sizeof(float); i++) {
        float value;
        memcpy(&value, (const uint8_t *)entry->data + i * sizeof(float), sizeof(value));
        if (!isfinite(value))
            return err_set(loader->err, ERR_INPUT, "%s: tensor %s: element %zu is not finite",
                           loader->path, entry->name, i);
    }
    return true;
}

static bool check_tensor(struct loader *loader, const struct plan_param *param, int state) {
    const char *name = tensor_name(&loader->arena, param, state);
    const struct safetensors_entry *entry = safetensors_find(&loader->file, name);
    uint64_t dims[SAFETENSORS_MAX_RANK];
    if (entry == NULL) {
        err_set(loader->err, ERR_INPUT, "%s: tensor %s is missing", loader->path, name);
        if (state >= 0)
            err_hint(loader->err, "the file holds weights only: it can be used, but training "
                                  "cannot go on from it");
        return false;
    }
    if (entry->type != SAFETENSORS_F32)
        return err_set(loader->err, ERR_INPUT, "%s: tensor %s does not hold 32-bit floats",
                       loader->path, name);
    bool same = entry->rank == param->rank;
    for (uint32_t i = 0; i < param->rank; i++) {
        dims[i] = param->dims[i];
        same = same && entry->dims[i] == dims[i];
    }
    if (!same)
        return err_set(loader->err, ERR_INPUT, "%s: tensor %s is %s, the model wants %s",
                       loader->path, name, shape_text(loader, entry->rank, entry->dims),
                       shape_text(loader, param->rank, dims));
    return check_values(loader, entry);
}

static bool is_known(struct loader *loader, const char *name) {
    for (uint32_t i = 0; i < loader->plan->n_params; i++) {
        const struct plan_param *param = &loader->plan->params[i];
        for (int state = -1; state < (int)param->n_states; state++) {
            if (strcmp(tensor_name(&loader->arena, param, state), name) == 0)
                return true;
        }
    }
    return false;
}

static bool check_tensors(struct loader *loader) {
    for (uint32_t i = 0; i < loader->plan->n_params; i++) {
        const struct plan_param *param = &loader->plan->params[i];
        const int n_states = loader->with_state ? (int)param->n_states : 0;
        for (int state = -1; state < n_states; state++) {
            if (!check_tensor(loader, param, state))
                return false;
        }
    }
    for (size_t i = 0; i < loader->file.n_entries; i++) {
        const char *name = loader->file.entries[i].name;
        if ((loader->with_state || !is_state_name(name)) && !is_known(loader, name))
            return err_set(loader->err, ERR_INPUT, "%s: tensor %.200s is none of the model's",
                           loader->path, name);
    }
    return true;
}

static bool read_number(struct loader *loader, const char *key, uint64_t most, uint64_t *out) {
    const char *text = safetensors_metadata(&loader->file, key);
    char *end;
    if (text == NULL)
        return true;
    *out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || *out > most)
        return err_set(loader->err, ERR_INPUT, "%s: metadata %s: \"%.40s\" is no such number",
                       loader->path, key, text);
    return true;
}

static bool read_info(struct loader *loader, struct unet_checkpoint_info *info) {
    const char *score = safetensors_metadata(&loader->file, "best_score");
    const char *format = safetensors_metadata(&loader->file, "format");
    uint64_t step = 0, total_steps = 0;
    *info = (struct unet_checkpoint_info){.best_score = INFINITY};
    if (loader->with_state && format == NULL)
        return err_set(loader->err, ERR_INPUT,
                       "%s: no metadata, so it does not say where training stands", loader->path);
    if (!read_number(loader, "seed", UINT64_MAX, &info->seed) ||
        !read_number(loader, "step", UINT32_MAX, &step) ||
        !read_number(loader, "total_steps", UINT32_MAX, &total_steps))
        return false;
    info->step = (uint32_t)step;
    info->total_steps = (uint32_t)total_steps;
    char *end = NULL;
    if (score != NULL)
        info->best_score = strtod(score, &end);
    if (score != NULL && (end == score || *end != '\0' || isnan(info->best_score)))
        return err_set(loader->err, ERR_INPUT, "%s: metadata best_score: \"%.40s\" is no number",
                       loader->path, score);
    return true;
}

static bool write_tensors(struct loader *loader) {
    for (uint32_t i = 0; i < loader->plan->n_params; i++) {
        const struct plan_param *param = &loader->plan->params[i];
        const int n_states = loader->with_state ? (int)param->n_states : 0;
        for (int state = -1; state < n_states; state++) {
            const struct safetensors_entry *entry =
                safetensors_find(&loader->file, tensor_name(&loader->arena, param, state));
            /* the data of a file may lie at any address */
            float *data = malloc(entry->size_bytes);
            if (data == NULL)
                return err_set(loader->err, ERR_IO, "%s: out of memory for tensor %s", loader->path,
                               entry->name);
            memcpy(data, entry->data, entry->size_bytes);
            const bool done =
                unet_session_write_param(loader->session, i, state, data, loader->err);
            free(data);
            if (!done)
                return false;
        }
    }
    return true;
}

bool unet_checkpoint_load(struct unet_session *session, const char *path, bool with_state,
                          struct unet_checkpoint_info *info, struct err *err) {
    struct loader loader = {.session = session,
                            .plan = unet_session_plan(session),
                            .path = path,
                            .with_state = with_state,
                            .err = err};
    struct unet_checkpoint_info ignored;
    if (with_state && !unet_session_has_state(session))
        return err_set(err, ERR_USAGE,
                       "%s: the session has no program that trains, so no optimiser state", path);
    if (!safetensors_load(path, &loader.file, err))
        return false;
    const bool done = check_model(&loader) && check_tensors(&loader) &&
                      read_info(&loader, info != NULL ? info : &ignored) && write_tensors(&loader);
    safetensors_free(&loader.file);
    arena_free(&loader.arena);
    return done;
}
