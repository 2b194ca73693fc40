/*
 * fault.h: what the test layer VkLayer_unet_fault does. It passes Vulkan calls on to the driver,
 * counts those that can fail, and makes a chosen one fail. For programs of their own it is told by
 * the environment:
 *
 *   UNET_FAULT=call=N[,name=vkNAME][,error=lost|device|host|never][,every=M][,refusals=K][,report]
 *
 * call: the number of the call, from 1, among all that can fail or among those of that name; every:
 * and each M-th after it; error: VK_ERROR_DEVICE_LOST (the default), VK_ERROR_OUT_OF_DEVICE_MEMORY,
 * VK_ERROR_OUT_OF_HOST_MEMORY. A lost device stays lost: every later call on it fails too. never:
 * from this call on the device gives no answer: no call fails, no fence is signalled any more, and
 * who waits for the device to be idle, or destroys it or something of it, waits for ever.
 * refusals: so many attempts to make a device fail after the first fault; "all": each. report: at
 * the end, "fault layer: N calls, M faults" on stderr.
 *
 *   UNET_FAULT_SLOW=NANOSECONDS
 *
 * Each work group of a dispatch takes so long, one after the other: fences are told to be signalled
 * when such a device would be done. Read at every submission.
 *
 *   UNET_FAULT_MEMORY=BYTES
 *
 * Devices say that they have so much memory, and refuse what exceeds it.
 *
 *   UNET_FAULT_DRIVER=NUMBER
 *
 * Devices say that their driver's version is NUMBER. Read whenever they are asked.
 *
 * What a program leaves undestroyed when it destroys a device or an instance, or ends, is said on
 * stderr, "fault layer: leak: ...". A program that is linked with nothing of this may load the
 * library and call the functions below by their names.
 */
#ifndef UNET_TESTS_FAULT_H
#define UNET_TESTS_FAULT_H

#include <stdint.h>

enum fault_error { FAULT_LOST, FAULT_DEVICE_MEMORY, FAULT_HOST_MEMORY, FAULT_NEVER };

struct fault_setting {
    const char *name; /* "vkQueueSubmit"; NULL: any that can fail */
    uint64_t call;    /* 0: none fails */
    uint64_t every;   /* 0: once */
    enum fault_error error;
    uint32_t refusals;
};

struct fault_report {
    uint64_t calls;     /* that can fail, since the setting */
    uint64_t hits;      /* that were made to fail; those of a lost device count once */
    const char *name;   /* of the first that was */
    uint32_t leaks;     /* objects left over, since the library was loaded */
    uint32_t n_devices; /* that are there now, without those that give no answer */
};

/* Starts counting afresh. */
typedef void fault_set(const struct fault_setting *setting); /* unet_fault_set */
typedef struct fault_report fault_get(void);                 /* unet_fault_get */

#endif
