/*
 * scaled.glsl: what optimisers do with the verdict of loss_scale (kernel_contract.h), their last
 * binding, number VERDICT_BINDING; nothing unless SCALED is defined.
 */
#ifndef UNET_SCALED_GLSL
#define UNET_SCALED_GLSL

#ifdef SCALED
TENSOR(VERDICT_BINDING, readonly, float, verdict)
/* At the start of main: nothing is written when a gradient was not finite. */
#define UNLESS_SKIPPED                                                                             \
    if (AT(verdict, VERDICT_APPLY) == 0.0)                                                         \
        return;                                                                                    \
    float unscale = AT(verdict, VERDICT_UNSCALE);
#define UNSCALED(gradient) ((gradient) * unscale)
#else
#define UNLESS_SKIPPED
#define UNSCALED(gradient) gradient
#endif

#endif
