/*
 * report_memory.h: the part of "unetc --explain" about programs and memory: what each program does
 * and needs, how close its arena is to the least there can be and which tensors force that, and
 * device memory by purpose.
 */
#ifndef UNET_REPORT_MEMORY_H
#define UNET_REPORT_MEMORY_H

#include <stdio.h>

#include "common/plan.h"

/* plan must be one that plan_verify accepts. */
void report_programs(const struct plan *plan, FILE *stream);
void report_device_memory(const struct plan *plan, FILE *stream);

/* "671.3 MiB", "12.4 KiB" or "96 bytes" in a buffer of the caller. */
const char *report_bytes(uint64_t size_bytes, char *text, size_t room);

#endif
