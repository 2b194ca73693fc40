#!/usr/bin/env python3
"""Compiles a shader that uses GL_NV_cooperative_matrix, and makes instructions of
SPV_KHR_cooperative_matrix, which every vendor has, of those of SPV_NV_cooperative_matrix. Compilers
older than 2023 know the NV form only; the two differ in that a KHR type says which factor of a
product it is, and that layouts are numbers instead of truth values.

    cooperative_matrix.py OUTPUT GLSLC ARGUMENT...

runs GLSLC ARGUMENT... -o FILE, and writes the words of FILE to OUTPUT as glslc -mfmt=c does.
"""
import os
import struct
import subprocess
import sys
import tempfile

OP_EXTENSION, OP_CAPABILITY, OP_TYPE_INT, OP_CONSTANT_TRUE, OP_CONSTANT_FALSE = 10, 17, 21, 41, 42
NV_TYPE, NV_LOAD, NV_STORE, NV_MUL_ADD, NV_LENGTH = 5358, 5359, 5360, 5361, 5362
KHR_TYPE, KHR_LOAD, KHR_STORE, KHR_MUL_ADD, KHR_LENGTH = 4456, 4457, 4458, 4459, 4460
NV_CAPABILITY, KHR_CAPABILITY = 5357, 6022
USES = 3  # A, B, accumulator: 0, 1, 2
# Instructions that say the type of their result, among what the front end makes of matrices.
HEADER_WORDS = 5


class Failure(Exception):
    pass


def instructions(words):
    at = HEADER_WORDS
    while at < len(words):
        count, opcode = words[at] >> 16, words[at] & 0xffff
        if count == 0 or at + count > len(words):
            raise Failure("word %d is no instruction" % at)
        yield opcode, words[at + 1:at + count]
        at += count


def encode(opcode, operands):
    return [(len(operands) + 1) << 16 | opcode] + list(operands)


def text_words(text):
    data = text.encode() + b"\0"
    data += b"\0" * (-len(data) % 4)
    return list(struct.unpack("<%dI" % (len(data) // 4), data))


def find_uses(body):
    """Which factor each matrix type is: from the products that values of the type go into."""
    matrix_types = {operands[0] for opcode, operands in body if opcode == NV_TYPE}
    type_of = {}
    for opcode, operands in body:
        if len(operands) >= 2 and operands[0] in matrix_types and opcode != NV_TYPE:
            type_of[operands[1]] = operands[0]
    uses = {}
    for opcode, operands in body:
        if opcode != NV_MUL_ADD:
            continue
        for use, value in enumerate(operands[2:2 + USES]):
            if uses.setdefault(type_of[value], use) != use:
                raise Failure("a matrix type is two factors of a product")
    missing = matrix_types - set(uses)
    if missing:
        raise Failure("matrix types in no product: %s" % sorted(missing))
    return uses


def translate(words):
    body = list(instructions(words))
    uses = find_uses(body)
    truths = {operands[1]: int(opcode == OP_CONSTANT_TRUE) for opcode, operands in body
              if opcode in (OP_CONSTANT_TRUE, OP_CONSTANT_FALSE)}
    bound = words[3]
    numbers = [bound + i for i in range(USES)]  # constants 0, 1, 2; layouts are 0, 1
    out = []
    for opcode, operands in body:
        if opcode == OP_CAPABILITY and operands == [NV_CAPABILITY]:
            out += encode(opcode, [KHR_CAPABILITY])
        elif opcode == OP_EXTENSION and operands == text_words("SPV_NV_cooperative_matrix"):
            out += encode(opcode, text_words("SPV_KHR_cooperative_matrix"))
        elif opcode == OP_TYPE_INT and operands[1:] == [32, 0]:
            out += encode(opcode, operands)
            for value, number in enumerate(numbers):
                out += encode(43, [operands[0], number, value])
        elif opcode == NV_TYPE:
            out += encode(KHR_TYPE, operands + [numbers[uses[operands[0]]]])
        elif opcode == NV_LOAD:
            result_type, result, pointer, stride, is_column_major = operands[:5]
            layout = numbers[truths[is_column_major]]
            out += encode(KHR_LOAD, [result_type, result, pointer, layout, stride] + operands[5:])
        elif opcode == NV_STORE:
            pointer, value, stride, is_column_major = operands[:4]
            layout = numbers[truths[is_column_major]]
            out += encode(KHR_STORE, [pointer, value, layout, stride] + operands[4:])
        elif opcode == NV_MUL_ADD:
            out += encode(KHR_MUL_ADD, operands)
        elif opcode == NV_LENGTH:
            out += encode(KHR_LENGTH, operands)
        else:
            out += encode(opcode, operands)
    return words[:3] + [bound + USES] + words[4:HEADER_WORDS] + out


def main():
    output, command = sys.argv[1], sys.argv[2:]
    folder = os.path.dirname(os.path.abspath(output))
    handle, path = tempfile.mkstemp(suffix=".spv", dir=folder)
    os.close(handle)
    try:
        code = subprocess.run(command + ["-o", path]).returncode
        if code != 0:
            return code
        with open(path, "rb") as stream:
            data = stream.read()
    finally:
        os.unlink(path)
    try:
        words = translate(list(struct.unpack("<%dI" % (len(data) // 4), data)))
    except Failure as failure:
        print("cooperative_matrix.py: %s: %s" % (output, failure), file=sys.stderr)
        return 1
    with open(output, "w", encoding="ascii") as stream:
        stream.write("{" + ",".join("0x%08x" % word for word in words) + "}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
