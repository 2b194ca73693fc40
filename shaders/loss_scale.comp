#version 450
/*
 * loss_scale.comp: one workgroup sees whether any gradient was not finite, says so to the updates,
 * and changes the scale.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS LOSS_SCALE_PARAMS
#include "access.glsl"

TENSOR(0, readonly, float, flags)
TENSOR(1, , float, scale)
TENSOR(2, , float, loss)
TENSOR(3, writeonly, float, verdict)

shared uint found;

/* Powers of two, so that halves and doubles are exact. */
float halved(float s) {
    return floatBitsToUint(s) <= LOSS_SCALE_LEAST ? s : 0.5 * s;
}

float doubled(float s) {
    return floatBitsToUint(s) >= LOSS_SCALE_LARGEST ? s : 2.0 * s;
}

void conclude() {
    float s = AT(scale, LOSS_SCALE_S);
    float good = AT(scale, LOSS_SCALE_GOOD);
    float skipped = AT(scale, LOSS_SCALE_SKIPPED);
    s = s == 0.0 ? p.initial : s;
    AT(verdict, VERDICT_UNSCALE) = uintBitsToFloat(LOSS_SCALE_INVERSE - floatBitsToUint(s));
    AT(verdict, VERDICT_APPLY) = found != 0u ? 0.0 : 1.0;
    AT(verdict, VERDICT_SKIPPED) = skipped;
    AT(verdict, VERDICT_WORDS - 1) = 0.0;
    AT(loss, LOSS_WORD_SCALE) = s;
    good = found != 0u ? 0.0 : min(good + 1.0, LOSS_SCALE_MOST);
    skipped = found != 0u ? min(skipped + 1.0, LOSS_SCALE_MOST) : skipped;
    bool grows = p.interval != 0u && good >= float(p.interval);
    AT(scale, LOSS_SCALE_S) = p.interval == 0u ? s : found != 0u ? halved(s) : grows ? doubled(s) : s;
    AT(scale, LOSS_SCALE_GOOD) = grows ? 0.0 : good;
    AT(scale, LOSS_SCALE_SKIPPED) = skipped;
    AT(scale, LOSS_SCALE_WORDS - 1) = 0.0;
    AT(loss, LOSS_WORD_SKIPPED) = skipped;
    AT(loss, LOSS_WORD_FOUND) = found != 0u ? 1.0 : 0.0;
}

void main() {
    uint lane = gl_LocalInvocationID.x;
    if (flat_group() > 0u)
        return;
    if (lane == 0u)
        found = 0u;
    barrier();
    uint bad = 0u;
    for (uint at = lane; at < p.count; at += gl_WorkGroupSize.x)
        bad |= AT(flags, at) != 0.0 ? 1u : 0u;
    if (bad != 0u)
        atomicOr(found, 1u);
    barrier();
    if (lane == 0u)
        conclude();
}
