/*
 * guard.c: see guard.h. The linker puts __wrap_vkFoo where the runtime calls vkFoo, and what is
 * called __real_vkFoo here is the loader's. The runtime makes a buffer, its memory, and binds the
 * two before it makes the next, from one thread.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/guards/guard.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vulkan/vulkan.h>

#include "common/base.h"

#define MAX_GUARDED 8192u
#define MAX_EXTENSIONS 16u

/* Pages: GUARD_BYTES without access, the memory, GUARD_BYTES without access. */
struct guarded {
    VkDeviceMemory memory; /* VK_NULL_HANDLE: freed */
    uint8_t *begin, *end;  /* of the memory */
    uint64_t place_bytes;  /* of the buffer in it */
    uint64_t size_bytes;   /* of the buffer */
    /* written by the handler of the signal, from any thread */
    volatile sig_atomic_t n_touched[2]; /* guards before and after: 0, 1 read, 2 written */
    uint8_t *volatile first_touch[2];
};

static struct guarded guarded[MAX_GUARDED];
static volatile sig_atomic_t n_guarded;
static enum guard_side guarded_side;
static bool is_possible = true;
static const char *volatile what_runs = "nothing";
static struct sigaction old_action;
/* The last buffer that was made. */
static VkBuffer new_buffer;
static uint64_t new_size_bytes;

/* ---- touched guards ---- */

static uint8_t *guard_of(const struct guarded *at, int side) {
    return side == 0 ? at->begin - GUARD_BYTES : at->end;
}

/* write() for which there is nothing to be done if it fails. */
static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

/* Opens the guard for reading, when it is touched once more for writing; then what touched it runs
   on. Everything else is a crash, as it was without this. */
static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    uint8_t *address = info->si_addr;
    for (int i = 0; i < n_guarded; i++) {
        for (int side = 0; side < 2; side++) {
            struct guarded *at = &guarded[i];
            uint8_t *guard = guard_of(at, side);
            if (at->memory == VK_NULL_HANDLE || address < guard || address >= guard + GUARD_BYTES)
                continue;
            if (at->n_touched[side] == 0)
                at->first_touch[side] = address;
            at->n_touched[side] = at->n_touched[side] == 0 ? 1 : 2;
            mprotect(guard, GUARD_BYTES,
                     at->n_touched[side] == 1 ? PROT_READ : PROT_READ | PROT_WRITE);
            return;
        }
    }
    say("guard: neither a tensor nor near one is what was touched by ");
    say(what_runs);
    say("\n");
    sigaction(SIGSEGV, &old_action, NULL); /* the same instruction again */
}

/* Each time: cmocka puts its own handler in place before each test. */
static void install_handler(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO}, before;
    action.sa_sigaction = on_fault;
    sigaction(SIGSEGV, &action, &before);
    if (before.sa_sigaction != on_fault)
        old_action = before;
}

void guard_begin(enum guard_side side) {
    install_handler();
    guarded_side = side;
    n_guarded = 0;
}

uint32_t guard_count(void) {
    return (uint32_t)n_guarded;
}

bool guard_is_possible(void) {
    return is_possible;
}

uint64_t guard_size_bytes(uint32_t buffer) {
    return guarded[buffer].size_bytes;
}

void guard_set_what(const char *what) {
    what_runs = what;
}

bool guard_take(struct guard_hit *hit) {
    for (uint32_t i = 0; i < guard_count(); i++) {
        struct guarded *at = &guarded[i];
        const uint8_t *first = at->begin + at->place_bytes;
        for (int side = 0; side < 2; side++) {
            const uint8_t *touched = at->first_touch[side];
            if (at->n_touched[side] == 0)
                continue;
            *hit = (struct guard_hit){.buffer = i,
                                      .after = side == 1,
                                      .is_write = at->n_touched[side] == 2,
                                      .beyond_bytes =
                                          side == 1 ? (size_t)(touched - first) - at->size_bytes
                                                    : (size_t)(first - touched)};
            at->n_touched[side] = 0;
            mprotect(guard_of(at, side), GUARD_BYTES, PROT_NONE);
            return true;
        }
    }
    return false;
}

/* ---- calls of the runtime ---- */

#define WRAPPED(type, name, ...)                                                                   \
    VKAPI_ATTR type VKAPI_CALL __real_##name(__VA_ARGS__);                                         \
    VKAPI_ATTR type VKAPI_CALL __wrap_##name(__VA_ARGS__);                                         \
    VKAPI_ATTR type VKAPI_CALL __wrap_##name(__VA_ARGS__)

static bool has_import(VkPhysicalDevice physical) {
    VkPhysicalDeviceProperties properties;
    VkExtensionProperties *extensions;
    uint32_t count = 0;
    bool found = false;
    vkGetPhysicalDeviceProperties(physical, &properties);
    if (properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU ||
        vkEnumerateDeviceExtensionProperties(physical, NULL, &count, NULL) != VK_SUCCESS)
        return false;
    extensions = calloc(count + (size_t)1, sizeof(*extensions));
    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, extensions);
    for (uint32_t i = 0; i < count; i++)
        found = found || strcmp(extensions[i].extensionName,
                                VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME) == 0;
    free(extensions);
    return found;
}

WRAPPED(VkResult, vkCreateDevice, VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
        const VkAllocationCallbacks *allocator, VkDevice *out) {
    VkDeviceCreateInfo more = *info;
    const char *names[MAX_EXTENSIONS];
    is_possible = has_import(physical) && info->enabledExtensionCount < MAX_EXTENSIONS;
    if (!is_possible)
        return __real_vkCreateDevice(physical, info, allocator, out);
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++)
        names[i] = info->ppEnabledExtensionNames[i];
    names[more.enabledExtensionCount++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
    more.ppEnabledExtensionNames = names;
    return __real_vkCreateDevice(physical, &more, allocator, out);
}

WRAPPED(VkResult, vkCreateBuffer, VkDevice device, const VkBufferCreateInfo *info,
        const VkAllocationCallbacks *allocator, VkBuffer *out) {
    const VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .pNext = info->pNext,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT};
    VkBufferCreateInfo more = *info;
    more.pNext = is_possible ? &external : info->pNext;
    const VkResult result = __real_vkCreateBuffer(device, &more, allocator, out);
    new_buffer = result == VK_SUCCESS ? *out : VK_NULL_HANDLE;
    new_size_bytes = info->size;
    return result;
}

static bool map_pages(struct guarded *at, uint64_t size_bytes) {
    const size_t pages_bytes = (size_t)align_up(size_bytes, (uint64_t)sysconf(_SC_PAGESIZE));
    uint8_t *whole = mmap(NULL, pages_bytes + 2 * GUARD_BYTES, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED)
        return false;
    *at = (struct guarded){.begin = whole + GUARD_BYTES,
                           .end = whole + GUARD_BYTES + pages_bytes,
                           .size_bytes = new_size_bytes};
    if (guarded_side == GUARD_AFTER)
        at->place_bytes =
            (pages_bytes - new_size_bytes) / GUARD_ALIGNMENT * (uint64_t)GUARD_ALIGNMENT;
    return mprotect(at->begin, pages_bytes, PROT_READ | PROT_WRITE) == 0;
}

static void unmap_pages(const struct guarded *at) {
    munmap(at->begin - GUARD_BYTES, (size_t)(at->end - at->begin) + 2 * GUARD_BYTES);
}

WRAPPED(VkResult, vkAllocateMemory, VkDevice device, const VkMemoryAllocateInfo *info,
        const VkAllocationCallbacks *allocator, VkDeviceMemory *out) {
    struct guarded *at = &guarded[n_guarded];
    if (!is_possible)
        return __real_vkAllocateMemory(device, info, allocator, out);
    if (guard_count() == MAX_GUARDED || !map_pages(at, info->allocationSize))
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    const VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .pNext = info->pNext,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
        .pHostPointer = at->begin};
    VkMemoryAllocateInfo more = *info;
    more.pNext = &import;
    more.allocationSize = (VkDeviceSize)(at->end - at->begin);
    const VkResult result = __real_vkAllocateMemory(device, &more, allocator, out);
    if (result != VK_SUCCESS) {
        unmap_pages(at);
        return result;
    }
    at->memory = *out;
    n_guarded++;
    return VK_SUCCESS;
}

static struct guarded *find(VkDeviceMemory memory) {
    for (int i = 0; i < n_guarded; i++)
        if (memory != VK_NULL_HANDLE && guarded[i].memory == memory)
            return &guarded[i];
    return NULL;
}

WRAPPED(VkResult, vkBindBufferMemory, VkDevice device, VkBuffer buffer, VkDeviceMemory memory,
        VkDeviceSize place_bytes) {
    const struct guarded *at = find(memory);
    if (at != NULL && (buffer != new_buffer || place_bytes != 0))
        return VK_ERROR_UNKNOWN; /* not as it says above */
    return __real_vkBindBufferMemory(device, buffer, memory, at != NULL ? at->place_bytes : 0);
}

WRAPPED(VkResult, vkMapMemory, VkDevice device, VkDeviceMemory memory, VkDeviceSize place_bytes,
        VkDeviceSize size_bytes, VkMemoryMapFlags flags, void **out) {
    const struct guarded *at = find(memory);
    return __real_vkMapMemory(device, memory, place_bytes + (at != NULL ? at->place_bytes : 0),
                              size_bytes, flags, out);
}

WRAPPED(void, vkFreeMemory, VkDevice device, VkDeviceMemory memory,
        const VkAllocationCallbacks *allocator) {
    struct guarded *at = find(memory);
    __real_vkFreeMemory(device, memory, allocator);
    if (at == NULL)
        return;
    at->memory = VK_NULL_HANDLE;
    unmap_pages(at);
}
