/*
 * instance.c: loader, validation layer with synchronisation checks, result codes. The layer's
 * messages go to stderr and are counted; tests demand a count of zero.
 */
#include "runtime/gpu/instance.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/validation.h"

static const char *const validation_layer = "VK_LAYER_KHRONOS_validation";

const char *gpu_result_name(VkResult result) {
    switch (result) {
#define CASE(name)                                                                                 \
    case name:                                                                                     \
        return #name
        CASE(VK_NOT_READY);
        CASE(VK_TIMEOUT);
        CASE(VK_INCOMPLETE);
        CASE(VK_ERROR_OUT_OF_HOST_MEMORY);
        CASE(VK_ERROR_OUT_OF_DEVICE_MEMORY);
        CASE(VK_ERROR_INITIALIZATION_FAILED);
        CASE(VK_ERROR_DEVICE_LOST);
        CASE(VK_ERROR_MEMORY_MAP_FAILED);
        CASE(VK_ERROR_LAYER_NOT_PRESENT);
        CASE(VK_ERROR_EXTENSION_NOT_PRESENT);
        CASE(VK_ERROR_FEATURE_NOT_PRESENT);
        CASE(VK_ERROR_INCOMPATIBLE_DRIVER);
        CASE(VK_ERROR_TOO_MANY_OBJECTS);
        CASE(VK_ERROR_OUT_OF_POOL_MEMORY);
        CASE(VK_ERROR_FRAGMENTATION);
        CASE(VK_ERROR_INVALID_SHADER_NV);
        CASE(VK_ERROR_UNKNOWN);
#undef CASE
    default:
        return "an unnamed Vulkan error";
    }
}

bool gpu_check(VkResult result, struct err *err, const char *format, ...) {
    if (result == VK_SUCCESS)
        return true;
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    err_set(err, ERR_DEVICE, "%s: %s (%d)", what, gpu_result_name(result), (int)result);
    if (err != NULL)
        err->device_lost = result == VK_ERROR_DEVICE_LOST;
    if (result == VK_ERROR_DEVICE_LOST)
        err_hint(err,
                 "the driver gave up on the device, often because a dispatch ran too long; the "
                 "kernel log (dmesg) names the cause; a smaller tile or batch shortens "
                 "dispatches");
    else if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        err_hint(err, "close other programs that use the device, or compile the model with a "
                      "smaller batch, tile or width");
    return false;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL report_message(
    VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
    const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)types;
    struct gpu_instance *instance = user;
    if (gpu_validation_is_known(data->pMessageIdName, data->pMessage))
        return VK_FALSE;
    atomic_fetch_add(&instance->messages, 1);
    fprintf(stderr, "validation %s: %s\n",
            severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT ? "error" : "warning",
            data->pMessage);
    return VK_FALSE;
}

static bool has_layer(const char *name) {
    uint32_t count = 0;
    if (vkEnumerateInstanceLayerProperties(&count, NULL) != VK_SUCCESS || count == 0)
        return false;
    VkLayerProperties *layers = calloc(count, sizeof(*layers));
    bool found = false;
    if (layers != NULL && vkEnumerateInstanceLayerProperties(&count, layers) >= VK_SUCCESS) {
        for (uint32_t i = 0; i < count; i++)
            found = found || strcmp(layers[i].layerName, name) == 0;
    }
    free(layers);
    return found;
}

static bool has_extension(const char *layer, const char *name) {
    uint32_t count = 0;
    if (vkEnumerateInstanceExtensionProperties(layer, &count, NULL) != VK_SUCCESS || count == 0)
        return false;
    VkExtensionProperties *extensions = calloc(count, sizeof(*extensions));
    bool found = false;
    if (extensions != NULL &&
        vkEnumerateInstanceExtensionProperties(layer, &count, extensions) >= VK_SUCCESS) {
        for (uint32_t i = 0; i < count; i++)
            found = found || strcmp(extensions[i].extensionName, name) == 0;
    }
    free(extensions);
    return found;
}

static bool validation_wanted(enum gpu_validation *wanted, struct err *err) {
    if (!gpu_validation_parse(wanted, err))
        return false;
    if (*wanted == GPU_VALIDATION_OFF || has_layer(validation_layer))
        return true;
    err_set(err, ERR_DEVICE, "UNET_VALIDATION asks for %s, which is not installed",
            validation_layer);
    return err_hint(err, "install the package vulkan-validationlayers, or unset UNET_VALIDATION");
}

static bool no_driver(VkResult result, struct err *err) {
    err_set(err, ERR_DEVICE, "no Vulkan driver found (%s)",
            result == VK_SUCCESS ? "the loader lists no device" : gpu_result_name(result));
    return err_hint(err,
                    "install the package mesa-vulkan-drivers (AMD and Intel GPUs, and a driver "
                    "for the CPU) or the driver of your GPU's maker");
}

static bool create(struct gpu_instance *instance, enum gpu_validation validation, struct err *err) {
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .pApplicationName = "unet",
                                           .pEngineName = "unet",
                                           .apiVersion = instance->api_version};
    const VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = report_message,
        .pUserData = instance};
    const VkValidationFeaturesEXT features = gpu_validation_features(validation);
    const char *extensions[2];
    uint32_t n_extensions = 0;
    VkInstanceCreateFlags flags = 0;
    if (validation != GPU_VALIDATION_OFF)
        extensions[n_extensions++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (has_extension(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[n_extensions++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                       .pNext = validation ? &features : NULL,
                                       .flags = flags,
                                       .pApplicationInfo = &application,
                                       .enabledLayerCount = validation ? 1 : 0,
                                       .ppEnabledLayerNames = &validation_layer,
                                       .enabledExtensionCount = n_extensions,
                                       .ppEnabledExtensionNames = extensions};
    const VkResult result = vkCreateInstance(&info, NULL, &instance->handle);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER || result == VK_ERROR_INITIALIZATION_FAILED)
        return no_driver(result, err);
    if (!gpu_check(result, err, "Vulkan instance"))
        return false;
    if (validation == GPU_VALIDATION_OFF)
        return true;
    const PFN_vkCreateDebugUtilsMessengerEXT create_messenger =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance->handle,
                                                                  "vkCreateDebugUtilsMessengerEXT");
    return gpu_check(create_messenger == NULL ? VK_ERROR_EXTENSION_NOT_PRESENT
                                              : create_messenger(instance->handle, &messenger, NULL,
                                                                 &instance->messenger),
                     err, "validation messenger");
}

/*
 * Drivers stay loaded while the process lives: one instance of its own sees to that. With NVIDIA's
 * driver 580.159 a process found no driver any more after some openings and closings of devices,
 * each of which loaded and unloaded it.
 */
static VkInstance keeper;
static atomic_bool keeps_all;

static void release_drivers(void) {
    if (!atomic_load(&keeps_all))
        vkDestroyInstance(keeper, NULL);
}

void gpu_instance_keep_all(void) {
    atomic_store(&keeps_all, true);
}

static void keep_drivers(void) {
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_2};
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                       .pApplicationInfo = &application};
    if (vkCreateInstance(&info, NULL, &keeper) == VK_SUCCESS)
        atexit(release_drivers);
}

bool gpu_instance_open(struct gpu_instance *instance, struct err *err) {
    *instance = (struct gpu_instance){.handle = VK_NULL_HANDLE};
    enum gpu_validation validation;
    if (!validation_wanted(&validation, err))
        return false;
    uint32_t version = VK_API_VERSION_1_0;
    if (!gpu_check(vkEnumerateInstanceVersion(&version), err, "Vulkan loader"))
        return false;
    if (version < VK_API_VERSION_1_2) {
        err_set(err, ERR_DEVICE, "the Vulkan loader offers version %u.%u, 1.2 is needed",
                VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
        return err_hint(err, "update the package libvulkan1");
    }
    instance->api_version = MIN(version, VK_API_VERSION_1_3);
    if (create(instance, validation, err)) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        pthread_once(&once, keep_drivers);
        return true;
    }
    gpu_instance_close(instance);
    return false;
}

void gpu_instance_close(struct gpu_instance *instance) {
    if (instance->handle == VK_NULL_HANDLE)
        return;
    if (instance->messenger != VK_NULL_HANDLE) {
        const PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger =
            (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
                instance->handle, "vkDestroyDebugUtilsMessengerEXT");
        destroy_messenger(instance->handle, instance->messenger, NULL);
    }
    vkDestroyInstance(instance->handle, NULL);
    instance->handle = VK_NULL_HANDLE;
    instance->messenger = VK_NULL_HANDLE;
}

bool gpu_instance_devices(const struct gpu_instance *instance, VkPhysicalDevice **devices_out,
                          uint32_t *count_out, struct err *err) {
    uint32_t count = 0;
    VkResult result = vkEnumeratePhysicalDevices(instance->handle, &count, NULL);
    if (result != VK_SUCCESS || count == 0)
        return no_driver(result, err);
    VkPhysicalDevice *devices = calloc(count, sizeof(*devices));
    if (devices == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a list of %u devices", count);
    result = vkEnumeratePhysicalDevices(instance->handle, &count, devices);
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) {
        free(devices);
        return no_driver(result, err);
    }
    *devices_out = devices;
    *count_out = count;
    return true;
}
