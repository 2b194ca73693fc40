/*
 * access.glsl: how a shader reaches its parameters and tensors; every kernel includes it, after
 * defining PARAMS as the kernel's parameter list of common/kernel_contract.h.
 *
 * Parameters are push constants from byte 0 on: p.NAME. TENSOR(binding, access, type, name)
 * declares a tensor, AT(name, index) is one element of it. The two access paths differ only here:
 * descriptors (set 0, the binding's number; the default), or, with ACCESS_ADDRESS, buffer device
 * addresses that follow the parameters at byte 4 * KERNEL_MAX_PARAMS, as pairs of 32-bit words, so
 * that no 64-bit integers are needed.
 *
 * Specialisation constants 0, 1, 2 are the workgroup size.
 */
#ifndef UNET_ACCESS_GLSL
#define UNET_ACCESS_GLSL

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

#define PARAM_WORD_U(name) uint name;
#define PARAM_WORD_F(name) float name;

#ifdef ACCESS_ADDRESS

#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require

layout(push_constant, std430) uniform push_block {
    PARAMS(PARAM_WORD_U, PARAM_WORD_F)
    layout(offset = 4 * KERNEL_MAX_PARAMS) uvec2 address[KERNEL_MAX_BINDINGS];
} p;

#define TENSOR(number, access, type, name)                                                         \
    const int name##_binding = number;                                                             \
    layout(buffer_reference, std430, buffer_reference_align = 16) access buffer name##_block {     \
        type data[];                                                                               \
    };
#define AT(name, index) name##_block(p.address[name##_binding]).data[index]

/* The address of the word `index` behind a base. What follows it at a constant distance, such as a
   member of a struct, is known to be its neighbour, unlike what a sum of 32-bit indices reaches,
   which may wrap round. */
uvec2 address_of_word(uvec2 base, uint index) {
    uint carry;
    uint low = uaddCarry(base.x, index << 2, carry);
    return uvec2(low, base.y + (index >> 30) + carry);
}

#else

layout(push_constant, std430) uniform push_block {
    PARAMS(PARAM_WORD_U, PARAM_WORD_F)
} p;

#define TENSOR(number, access, type, name)                                                         \
    layout(set = 0, binding = number, std430) access buffer name##_block {                         \
        type data[];                                                                               \
    } name;
#define AT(name, index) name.data[index]

#endif

/* The workgroup's number. A record may run as several dispatches along its slower axis, so that
   gl_NumWorkGroups is of no other use. The host folds counts above 65535 over x and y (tile.c); the product may
   then exceed the count wanted, so kernels check the number's range. */
uint flat_group() {
    return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
}

uint div_up(uint value, uint divisor) {
    return (value + divisor - 1u) / divisor;
}

#endif
