/*
 * checkpoint.c: weights and optimiser state as safetensors, in PyTorch's shapes. Tensors are
 * LAYER.weight, LAYER.bias, optimiser.LAYER.weight.STATE (momentum; exp_avg, exp_avg_sq), and in
 * mixed precision optimiser.loss_scale (LOSS_SCALE_WORDS numbers, common/kernel_contract.h). The
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
#include "runtime/train/checkpoint.h"

#define CHECKPOINT_VERSION "1"
#define CHECKPOINT_STATE_PREFIX "optimiser."
#define SCALE_NAME CHECKPOINT_STATE_PREFIX PLAN_LOSS_SCALE

/* The name of a parameter (state -1) or one of its states. */
static char *tensor_name(struct arena *arena, const struct plan_param *param, int state) {
    if (state < 0)
        return arena_strdup(arena, param->name);
    return arena_printf(arena, CHECKPOINT_STATE_PREFIX "%s.%s", param->name,
                        param->state_names[state]);
}

/* ---- saving ---- */

static void add_metadata(struct safetensors *file, const struct checkpoint_source *source,
                         const struct unet_checkpoint_info *info, struct arena *arena) {
    const struct plan *plan = source->plan;
    safetensors_add_metadata(file, "format", "unet checkpoint " CHECKPOINT_VERSION);
    safetensors_add_metadata(file, "step", arena_printf(arena, "%" PRIu32, info->step));
    safetensors_add_metadata(file, "total_steps",
                             arena_printf(arena, "%" PRIu32, info->total_steps));
    safetensors_add_metadata(file, "seed", arena_printf(arena, "%" PRIu64, info->seed));
    safetensors_add_metadata(file, "best_metric", unet_score_name(info->best_by));
    safetensors_add_metadata(file, "best_score", arena_printf(arena, "%.17g", info->best_score));
    safetensors_add_metadata(file, "best_step", arena_printf(arena, "%" PRIu32, info->best_step));
    safetensors_add_metadata(file, "validations_since_best",
                             arena_printf(arena, "%" PRIu32, info->idle_validations));
    if (info->owes_validation)
        safetensors_add_metadata(file, "owes_validation", "1");
    safetensors_add_metadata(file, "model", plan->model.name);
    safetensors_add_metadata(file, "model_hash",
                             arena_printf(arena, "%016" PRIx64, plan->model.hash));
    safetensors_add_metadata(file, "overrides",
                             plan->model.overrides != NULL ? plan->model.overrides : "");
    safetensors_add_metadata(file, "plan_hash", arena_printf(arena, "%016" PRIx64, plan->hash));
    safetensors_add_metadata(file, "device", source->device->name);
    safetensors_add_metadata(file, "driver", source->device->driver);
    if (source->methods[0] != '\0')
        safetensors_add_metadata(file, "methods", source->methods);
}

static bool add_tensor(struct safetensors *file, const struct checkpoint_source *source,
                       uint32_t index, int state, struct arena *arena, struct err *err) {
    const struct plan_param *param = &source->plan->params[index];
    uint64_t dims[SAFETENSORS_MAX_RANK];
    float *data = arena_alloc(arena, param_elements(param) * sizeof(float));
    if (!source->read(source->user, index, state, data, err))
        return false;
    for (uint32_t i = 0; i < param->rank; i++)
        dims[i] = param->dims[i];
    safetensors_add(file, tensor_name(arena, param, state), SAFETENSORS_F32, param->rank, dims,
                    data);
    return true;
}

static bool has_scale(const struct plan *plan, bool has_state) {
    return has_state && plan_loss_scale(plan) != PLAN_NONE;
}

static bool add_scale(struct safetensors *file, const struct checkpoint_source *source,
                      struct arena *arena, struct err *err) {
    const uint64_t dims[] = {LOSS_SCALE_WORDS};
    float *data = arena_alloc(arena, LOSS_SCALE_WORDS * sizeof(float));
    if (!source->read_tensor(source->user, plan_loss_scale(source->plan), data, err))
        return false;
    safetensors_add(file, SCALE_NAME, SAFETENSORS_F32, 1, dims, data);
    return true;
}

bool checkpoint_write(const struct checkpoint_source *source, const char *path,
                      const struct unet_checkpoint_info *info, struct err *err) {
    const struct plan *plan = source->plan;
    struct safetensors file = {.entries = NULL};
    struct arena arena = {.chunks = NULL};
    bool done = true;
    add_metadata(&file, source, info, &arena);
    for (uint32_t i = 0; done && i < plan->n_params; i++)
        done = add_tensor(&file, source, i, -1, &arena, err);
    for (uint32_t i = 0; done && source->has_state && i < plan->n_params; i++) {
        for (uint32_t j = 0; done && j < plan->params[i].n_states; j++)
            done = add_tensor(&file, source, i, (int)j, &arena, err);
    }
    done = done && (!has_scale(plan, source->has_state) || add_scale(&file, source, &arena, err));
    done = done && safetensors_save(&file, path, err);
    safetensors_free(&file);
    arena_free(&arena);
    return done;
}

static bool read_session(void *user, uint32_t index, int state, float *data, struct err *err) {
    return unet_session_read_param(user, index, state, data, err);
}

static bool read_session_tensor(void *user, uint32_t tensor, float *data, struct err *err) {
    return unet_session_read_tensor(user, tensor, data, err);
}

bool unet_checkpoint_save(struct unet_session *session, const char *path,
                          const struct unet_checkpoint_info *info, struct err *err) {
    char *methods = unet_session_choices_text(session);
    const struct checkpoint_source source = {.plan = unet_session_plan(session),
                                             .device =
                                                 unet_device_get_info(unet_session_device(session)),
                                             .methods = methods != NULL ? methods : "",
                                             .has_state = unet_session_has_state(session),
                                             .read = read_session,
                                             .read_tensor = read_session_tensor,
                                             .user = session};
    const bool done = checkpoint_write(&source, path, info, err);
    free(methods);
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

/* Whether a tensor has the shape of a parameter, but for the size along one axis; -1: none. */
static bool has_shape(const struct safetensors_entry *entry, const struct plan_param *param,
                      int free_axis) {
    bool same = entry->rank == param->rank;
    for (uint32_t i = 0; i < param->rank; i++)
        same = same && (entry->dims[i] == param->dims[i] || (int)i == free_axis);
    return same;
}

static const char *wanted_shape(struct loader *loader, const struct plan_param *param) {
    uint64_t dims[SAFETENSORS_MAX_RANK];
    for (uint32_t i = 0; i < param->rank; i++)
        dims[i] = param->dims[i];
    return shape_text(loader, param->rank, dims);
}

static bool check_tensor(struct loader *loader, const struct plan_param *param, int state) {
    const char *name = tensor_name(&loader->arena, param, state);
    const struct safetensors_entry *entry = safetensors_find(&loader->file, name);
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
    if (!has_shape(entry, param, -1))
        return err_set(loader->err, ERR_INPUT, "%s: tensor %s is %s, the model wants %s",
                       loader->path, name, shape_text(loader, entry->rank, entry->dims),
                       wanted_shape(loader, param));
    return check_values(loader, entry);
}

/* The scale of the loss is there when the run was in mixed precision. One that goes on in another
   precision begins with the scale of a new run, or has none. */
static bool check_scale(struct loader *loader, float scale[LOSS_SCALE_WORDS]) {
    const struct safetensors_entry *entry = safetensors_find(&loader->file, SCALE_NAME);
    memset(scale, 0, LOSS_SCALE_WORDS * sizeof(float));
    if (!loader->with_state || entry == NULL)
        return true;
    if (entry->type != SAFETENSORS_F32 || entry->rank != 1 || entry->dims[0] != LOSS_SCALE_WORDS)
        return err_set(loader->err, ERR_INPUT, "%s: tensor %s is not %d 32-bit floats",
                       loader->path, entry->name, LOSS_SCALE_WORDS);
    memcpy(scale, entry->data, LOSS_SCALE_WORDS * sizeof(float));
    const float s = scale[LOSS_SCALE_S];
    int exponent = 0;
    bool good = s == 0 || (frexpf(s, &exponent) == 0.5f && exponent > -126 && exponent <= 127);
    for (int i = LOSS_SCALE_GOOD; i < LOSS_SCALE_WORDS; i++)
        good = good && scale[i] >= 0 && scale[i] <= (float)LOSS_SCALE_MOST &&
               scale[i] == floorf(scale[i]);
    return good ||
           err_set(loader->err, ERR_INPUT, "%s: tensor %s: no power of two and counts of updates",
                   loader->path, entry->name);
}

static bool is_known(struct loader *loader, const char *name) {
    if (strcmp(name, SCALE_NAME) == 0)
        return true;
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
    const char *best_by = safetensors_metadata(&loader->file, "best_metric");
    const char *format = safetensors_metadata(&loader->file, "format");
    uint64_t step = 0, total_steps = 0, best_step = 0, idle = 0, owes = 0;
    *info = (struct unet_checkpoint_info){.best_score = INFINITY};
    if (loader->with_state && format == NULL)
        return err_set(loader->err, ERR_INPUT,
                       "%s: no metadata, so it does not say where training stands", loader->path);
    if (!read_number(loader, "seed", UINT64_MAX, &info->seed) ||
        !read_number(loader, "step", UINT32_MAX, &step) ||
        !read_number(loader, "total_steps", UINT32_MAX, &total_steps) ||
        !read_number(loader, "best_step", UINT32_MAX, &best_step) ||
        !read_number(loader, "validations_since_best", UINT32_MAX, &idle) ||
        !read_number(loader, "owes_validation", 1, &owes))
        return false;
    if (best_by != NULL && !unet_score_find(best_by, &info->best_by, NULL))
        return err_set(loader->err, ERR_INPUT,
                       "%s: metadata best_metric: \"%.40s\" is no score of validation",
                       loader->path, best_by);
    info->step = (uint32_t)step;
    info->total_steps = (uint32_t)total_steps;
    info->best_step = (uint32_t)best_step;
    info->idle_validations = (uint32_t)idle;
    info->owes_validation = owes == 1;
    char *end = NULL;
    if (score != NULL)
        info->best_score = strtod(score, &end);
    if (score != NULL && (end == score || *end != '\0' || isnan(info->best_score)))
        return err_set(loader->err, ERR_INPUT, "%s: metadata best_score: \"%.40s\" is no number",
                       loader->path, score);
    return true;
}

static bool write_tensor(struct loader *loader, uint32_t index, int state) {
    const struct plan_param *param = &loader->plan->params[index];
    const struct safetensors_entry *entry =
        safetensors_find(&loader->file, tensor_name(&loader->arena, param, state));
    /* the data of a file may lie at any address */
    float *data = malloc(entry->size_bytes);
    if (data == NULL)
        return err_set(loader->err, ERR_IO, "%s: out of memory for tensor %s", loader->path,
                       entry->name);
    memcpy(data, entry->data, entry->size_bytes);
    const bool done = unet_session_write_param(loader->session, index, state, data, loader->err);
    free(data);
    return done;
}

static bool write_tensors(struct loader *loader, const float scale[LOSS_SCALE_WORDS]) {
    for (uint32_t i = 0; i < loader->plan->n_params; i++) {
        const struct plan_param *param = &loader->plan->params[i];
        const int n_states = loader->with_state ? (int)param->n_states : 0;
        for (int state = -1; state < n_states; state++)
            if (!write_tensor(loader, i, state))
                return false;
    }
    return !loader->with_state ||
           !has_scale(loader->plan, unet_session_has_state(loader->session)) ||
           unet_session_write_tensor(loader->session, plan_loss_scale(loader->plan), scale,
                                     loader->err);
}

bool unet_checkpoint_load(struct unet_session *session, const char *path, bool with_state,
                          struct unet_checkpoint_info *info, struct err *err) {
    struct loader loader = {.session = session,
                            .plan = unet_session_plan(session),
                            .path = path,
                            .with_state = with_state,
                            .err = err};
    struct unet_checkpoint_info ignored;
    float scale[LOSS_SCALE_WORDS];
    if (with_state && !unet_session_has_state(session))
        return err_set(err, ERR_USAGE,
                       "%s: the session has no program that trains, so no optimiser state", path);
    if (!safetensors_load(path, &loader.file, err))
        return false;
    const bool done =
        check_model(&loader) && check_tensors(&loader) && check_scale(&loader, scale) &&
        read_info(&loader, info != NULL ? info : &ignored) && write_tensors(&loader, scale);
    safetensors_free(&loader.file);
    arena_free(&loader.arena);
    return done;
}

static bool is_said(const struct safetensors *file, const char *key, const char *value) {
    const char *text = safetensors_metadata(file, key);
    return text != NULL && strcmp(text, value) == 0;
}

bool unet_checkpoint_choices(const struct unet_device *device, const char *path, char **text_out,
                             struct err *err) {
    const struct unet_device_info *info = unet_device_get_info(device);
    struct safetensors file = {.entries = NULL};
    *text_out = NULL;
    if (!safetensors_load(path, &file, err))
        return false;
    const char *text = safetensors_metadata(&file, "methods");
    if (text != NULL && is_said(&file, "device", info->name) &&
        is_said(&file, "driver", info->driver))
        *text_out = strdup(text);
    safetensors_free(&file);
    return true;
}

/* ---- weights for another training ---- */

#define LISTED_DIFFERENCES 4

struct differences {
    const char *text; /* "; "-separated */
    uint32_t count;
};

static void add_difference(struct loader *loader, struct differences *all, const char *text) {
    if (all->count < LISTED_DIFFERENCES)
        all->text =
            arena_printf(&loader->arena, "%s%s%s", all->text, all->count > 0 ? "; " : "", text);
    all->count++;
}

/* "dec1/conv2" of "dec1/conv2.weight". */
static size_t layer_length(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL ? (size_t)(dot - name) : strlen(name);
}

/* Whether a parameter belongs to the layer that scores the classes: the model's last. */
static bool scores_classes(const struct plan *plan, const struct plan_param *param) {
    const char *last = plan->params[plan->n_params - 1].name;
    const size_t length = layer_length(last);
    const uint32_t out = param->rank > 1 && param->transposed ? param->dims[1] : param->dims[0];
    return layer_length(param->name) == length && memcmp(param->name, last, length) == 0 &&
           out == plan->model.n_classes;
}

/* Where the file has another number of classes in this parameter. */
static bool has_other_classes(struct loader *loader, const struct plan_param *param) {
    const struct safetensors_entry *entry = safetensors_find(&loader->file, param->name);
    return entry != NULL && entry->type == SAFETENSORS_F32 && scores_classes(loader->plan, param) &&
           !has_shape(entry, param, -1) &&
           has_shape(entry, param, param->rank > 1 && param->transposed ? 1 : 0);
}

static void compare_param(struct loader *loader, const struct plan_param *param,
                          struct differences *all) {
    const struct safetensors_entry *entry = safetensors_find(&loader->file, param->name);
    struct arena *arena = &loader->arena;
    if (entry == NULL)
        add_difference(
            loader, all,
            arena_printf(arena, "%s (%s) is missing", param->name, wanted_shape(loader, param)));
    else if (!has_shape(entry, param, -1))
        add_difference(loader, all,
                       arena_printf(arena, "%s is %s, the model wants %s", param->name,
                                    shape_text(loader, entry->rank, entry->dims),
                                    wanted_shape(loader, param)));
    else if (entry->type != SAFETENSORS_F32)
        add_difference(loader, all,
                       arena_printf(arena, "%s does not hold 32-bit floats", param->name));
}

static bool is_param(const struct plan *plan, const char *name) {
    for (uint32_t i = 0; i < plan->n_params; i++)
        if (strcmp(plan->params[i].name, name) == 0)
            return true;
    return false;
}

/* Compares the file's weights with the model's, but for another number of classes. */
static bool check_weights(struct loader *loader) {
    const struct plan *plan = loader->plan;
    struct differences all = {.text = ""};
    for (uint32_t i = 0; i < plan->n_params; i++)
        if (!has_other_classes(loader, &plan->params[i]))
            compare_param(loader, &plan->params[i], &all);
    for (size_t i = 0; i < loader->file.n_entries; i++) {
        const struct safetensors_entry *entry = &loader->file.entries[i];
        if (!is_state_name(entry->name) && !is_param(plan, entry->name))
            add_difference(loader, &all,
                           arena_printf(&loader->arena, "%.100s (%s) is none of the model's",
                                        entry->name, shape_text(loader, entry->rank, entry->dims)));
    }
    if (all.count == 0)
        return true;
    err_set(loader->err, ERR_INPUT, "%s: weights of another network: %s%s", loader->path, all.text,
            all.count > LISTED_DIFFERENCES ? "; ..." : "");
    return err_hint(loader->err,
                    "%u tensors differ; only the number of classes may, in the layer "
                    "that scores them",
                    all.count);
}

static bool load_weights(struct loader *loader, bool *fresh_scores_out) {
    const struct plan *plan = loader->plan;
    bool fresh = false;
    for (uint32_t i = 0; i < plan->n_params; i++)
        fresh = fresh || has_other_classes(loader, &plan->params[i]);
    *fresh_scores_out = fresh;
    if (!check_weights(loader))
        return false;
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_param *param = &plan->params[i];
        if ((!fresh || !scores_classes(plan, param)) &&
            !check_values(loader, safetensors_find(&loader->file, param->name)))
            return false;
    }
    for (uint32_t i = 0; i < plan->n_params; i++)
        if ((!fresh || !scores_classes(plan, &plan->params[i])) && !write_tensor(loader, i, -1))
            return false;
    return true;
}

bool unet_checkpoint_load_weights(struct unet_session *session, const char *path,
                                  char **fresh_layer_out, struct err *err) {
    struct loader loader = {
        .session = session, .plan = unet_session_plan(session), .path = path, .err = err};
    bool fresh = false;
    if (fresh_layer_out != NULL)
        *fresh_layer_out = NULL;
    if (!safetensors_load(path, &loader.file, err))
        return false;
    const bool done = load_weights(&loader, &fresh);
    if (done && fresh && fresh_layer_out != NULL) {
        const char *last = loader.plan->params[loader.plan->n_params - 1].name;
        *fresh_layer_out = strndup(last, layer_length(last));
    }
    safetensors_free(&loader.file);
    arena_free(&loader.arena);
    return done;
}
