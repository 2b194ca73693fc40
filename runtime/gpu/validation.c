/*
 * validation.c: see validation.h. Messages are passed over here and nowhere else; a row needs the
 * reason why the message is wrong for this program.
 */
#include "runtime/gpu/validation.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *part; /* of the message's name or text */
    const char *reason;
} known[] = {
    {"BestPractices-SpirvDeprecated_WorkgroupSize",
     "the built-in is deprecated from SPIR-V 1.6 on; its successor, LocalSizeId, needs Vulkan 1.3, "
     "and devices of 1.2 are to run the same plans"},
    {"BestPractices-vkAllocateMemory-small-allocation",
     "a block has one allocation of the size that the plan states, so that memory is what was "
     "promised; there are at most a few dozen for each session, none later"},
    {"-small-dedicated-allocation", "the same"},
    {"BestPractices-specialuse-extension",
     "VK_EXT_debug_utils, which is on only to receive these messages"},
    {"Internal Warning: ",
     "the layer turns features on that its checks of shaders need, or says that one of its own "
     "is not available"},
};

static const struct {
    const char *word;
    enum gpu_validation value;
} words[] = {
    {"0", GPU_VALIDATION_OFF},
    {"1", GPU_VALIDATION_SYNC},
    {"best", GPU_VALIDATION_BEST},
    {"gpu", GPU_VALIDATION_GPU},
};

bool gpu_validation_parse(enum gpu_validation *out, struct err *err) {
    const char *value = getenv("UNET_VALIDATION");
    *out = GPU_VALIDATION_OFF;
    if (value == NULL || value[0] == '\0')
        return true;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i].word, value) == 0) {
            *out = words[i].value;
            return true;
        }
    }
    err_set(err, ERR_USAGE, "UNET_VALIDATION=%s: no such checks", value);
    return err_hint(err, "UNET_VALIDATION is 0, 1, best or gpu, or not set");
}

VkValidationFeaturesEXT gpu_validation_features(enum gpu_validation validation) {
    static const VkValidationFeatureEnableEXT checks[] = {
        [GPU_VALIDATION_SYNC] = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
        [GPU_VALIDATION_BEST] = VK_VALIDATION_FEATURE_ENABLE_BEST_PRACTICES_EXT,
        [GPU_VALIDATION_GPU] = VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT,
    };
    /* The layer warns of both at once, which is slow, even before it knows where to. */
    static const VkValidationFeatureDisableEXT no_core[] = {
        VK_VALIDATION_FEATURE_DISABLE_CORE_CHECKS_EXT};
    return (VkValidationFeaturesEXT){
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = validation == GPU_VALIDATION_OFF ? 0 : 1,
        .pEnabledValidationFeatures = &checks[validation],
        .disabledValidationFeatureCount = validation == GPU_VALIDATION_GPU ? 1 : 0,
        .pDisabledValidationFeatures = no_core};
}

bool gpu_validation_is_known(const char *id, const char *text) {
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if ((id != NULL && strstr(id, known[i].part) != NULL) ||
            (text != NULL && strstr(text, known[i].part) != NULL))
            return true;
    }
    return false;
}
