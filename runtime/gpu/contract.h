/*
 * contract.h: what a device must offer, and what it may: one table, from which comes whether a
 * device can be used and what "unetrun devices" says about it, line by line.
 */
#ifndef UNET_GPU_CONTRACT_H
#define UNET_GPU_CONTRACT_H

#include "runtime/gpu/device.h"

/* Fills info->contract, and info->missing with the required lines that are not met, from facts,
   limits, access and class. */
void gpu_contract_fill(const struct gpu_facts *facts, struct unet_device_info *info);

#endif
