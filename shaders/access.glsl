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
 *
 * A shader that defines SHARED_NUMBERS has SHARED_LOADS, which the runtime sets for the driver, and,
 * by descriptors, shared_number(). SHARED(x) is x, which all invocations of a workgroup have to have
 * in common, in the form that makes loads at such addresses cheap where SHARED_LOADS is set.
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

#define SHARED(x) (x)

#else

layout(push_constant, std430) uniform push_block {
    PARAMS(PARAM_WORD_U, PARAM_WORD_F)
#ifdef SHARED_NUMBERS
    layout(offset = 4 * KERNEL_MAX_PARAMS) uint digits[KERNEL_DIGITS];
#endif
} p;

#ifdef SHARED_NUMBERS
layout(constant_id = KERNEL_SPEC_SHARED_LOADS) const bool SHARED_LOADS = false;

/*
 * x, of which only the lowest 3 * n_digits bits are set, and which is the same for all invocations
 * of the workgroup. Nothing tells a compiler so of a number that a loop counts or a workgroup's
 * number, but an array of push constants may be read at such indices only: Mesa 25 takes what is
 * computed of elements and constants for shared, and loads at such an index once for all lanes.
 */
uint shared_number(uint x, uint n_digits) {
    uint number = p.digits[x & 7u];
    [[unroll]] for (uint i = 1u; i < n_digits; i++)
        number |= p.digits[x >> (3u * i) & 7u] << (3u * i);
    return number;
}

#define SHARED(x) (SHARED_LOADS ? shared_number(x, 11u) : (x))
#endif

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
