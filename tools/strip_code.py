#!/usr/bin/env python3
"""Takes the shaders' code out of a plan file: strip_code.py PLAN BASE OUTPUT

writes PLAN without its section "code", if that is the same, byte for byte, as that of the plan file
BASE, and as it is otherwise. Whoever reads OUTPUT tells the two apart by the length that the file's
head states, and puts the code of BASE where the section table has it (docs/plan.md).
"""
import struct
import sys

CODE = 1  # number of the section
HEADER_BYTES, ENTRY_BYTES = 32, 24


def split(path):
    """What is before the code, the code, what follows."""
    with open(path, "rb") as stream:
        plan = stream.read()
    at, size = struct.unpack_from("<QQ", plan, HEADER_BYTES + CODE * ENTRY_BYTES + 8)
    return plan[:at], plan[at:at + size], plan[at + size:]


def main():
    plan, base, output = sys.argv[1:4]
    before, code, after = split(plan)
    if code == split(base)[1]:
        code = b""
    with open(output, "wb") as stream:
        stream.write(before + code + after)


if __name__ == "__main__":
    main()
