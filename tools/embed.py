#!/usr/bin/env python3
"""Writes an assembler file that puts files into a program: embed.py OUTPUT NAME FILE...

defines NAME_0 and NAME_0_end around the bytes of the first FILE, and so on.
"""
import sys


def main():
    output, name, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(output, "w", encoding="utf-8") as stream:
        stream.write('    .section .rodata\n')
        for i, file in enumerate(files):
            for line in (".balign 16", ".globl {0}_{1}, {0}_{1}_end", ".hidden {0}_{1}, {0}_{1}_end",
                         "{0}_{1}:", '.incbin "{2}"', "{0}_{1}_end:"):
                stream.write("    " * (line[0] == ".") + line.format(name, i, file) + "\n")
        stream.write('    .section .note.GNU-stack,"",%progbits\n')


if __name__ == "__main__":
    main()
