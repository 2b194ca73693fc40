/*
 * winograd_store.glsl: the end of winograd_product, whichever way its sums came about. After the
 * tensors aux and y.
 */
#ifndef UNET_WINOGRAD_STORE_GLSL
#define UNET_WINOGRAD_STORE_GLSL

layout(constant_id = 3) const uint EPILOGUE = 0;

/* The epilogue of conv_roles.glsl for one element of y. The mask is read by the invocation that
   writes the same element, and before: y may be aux. */
void store(uint image, uint channel, uint at, float bias, float value) {
    if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
        value += bias;
    if ((EPILOGUE & EPILOGUE_ACT) != 0u)
        value = value > 0.0 ? value : p.slope * value;
    if ((EPILOGUE & EPILOGUE_MASK) != 0u && !(channel - p.plain_first < p.plain_count))
        value = AT(aux, image * p.aux_stride_n + at) > 0.0 ? value : p.slope * value;
    AT(y, image * p.y_stride_n + at) = value;
}

#endif
