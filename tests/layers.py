#!/usr/bin/env python3
"""The layers of docs/architecture.md, checked on includes and on the linked tools. Prints TAP.

    layers.py SOURCE_ROOT UNETC UNETRUN
"""
import os
import re
import subprocess
import sys
import tempfile

# Folder -> the folders of ours it may include from.
ALLOWED = {
    "common": {"common"},
    "compiler": {"common", "compiler"},
    "runtime": {"common", "runtime"},
}
TOOLS = {"unetc.c": {"common", "compiler", "tools"}, "unetrun.c": {"common", "runtime", "tools"},
         "unetc_pictures.c": {"common", "compiler", "tools"},
         "unetc_fit.c": {"common", "compiler", "tools"}}
# External headers that belong to one place only.
BOUND = [
    (re.compile(r"^vulkan/"), re.compile(r"^runtime/gpu/"), "Vulkan only in runtime/gpu"),
    (re.compile(r"^yaml\.h$"), re.compile(r"^compiler/model"), "libyaml only in the model reader"),
    (re.compile(r"^png\.h$"), re.compile(r"^runtime/data/"), "libpng only in runtime/data"),
    (re.compile(r"^tiff(io)?\.h$"), re.compile(r"^runtime/data/"), "libtiff only in runtime/data"),
    (re.compile(r"^jansson\.h$"), re.compile(r"^(common/safetensors|tools/)"),
     "JSON only in safetensors and the tools"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
OURS = ("common", "compiler", "runtime", "shaders", "tools", "tests", "examples")


def source_files(root, top):
    for folder, _, names in os.walk(os.path.join(root, top)):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".def")):
                yield os.path.relpath(os.path.join(folder, name), root)


def includes(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1), match.group(2)


def folder_of(root, path, target):
    """The folder of ours a quoted include means; None: a header from outside."""
    if target.split("/")[0] in OURS and os.path.exists(os.path.join(root, target)):
        return target.split("/")[0]
    beside = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.exists(os.path.join(root, beside)):
        return beside.split("/")[0]
    return target.split("/")[0] if target.split("/")[0] in OURS else None


def layer_problems(root, top, allowed, only=None):
    for path in source_files(root, top):
        if only and os.path.basename(path) != only:
            continue
        for number, quote, target in includes(root, path):
            folder = folder_of(root, path, target) if quote == '"' else None
            if folder and folder not in allowed:
                yield "%s:%d: includes \"%s\"" % (path, number, target)


def bound_problems(root, header, home):
    for top in ("common", "compiler", "runtime", "tools"):
        for path in source_files(root, top):
            for number, _, target in includes(root, path):
                if header.search(target) and not home.search(path):
                    yield "%s:%d: includes <%s>" % (path, number, target)


def library_problems(program, banned):
    text = subprocess.run(["readelf", "--dynamic", program], check=True, capture_output=True,
                          text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+?)\]", text)
    if not any(n.startswith("libc.") for n in needed):
        yield "%s: readelf shows no libc, so this check sees nothing" % program
    for library in needed:
        if library.startswith(banned):
            yield "%s: needs %s" % (os.path.basename(program), library)


def number_problems(root):
    """A record may run as several dispatches, each of which sees its own gl_NumWorkGroups."""
    for name in sorted(os.listdir(os.path.join(root, "shaders"))):
        if not name.endswith((".comp", ".glsl")) or name == "access.glsl":
            continue
        with open(os.path.join(root, "shaders", name), encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if "gl_NumWorkGroups" in line:
                    yield "shaders/%s:%d: gl_NumWorkGroups is not the record's" % (name, number)


def self_check():
    """The checks must object to a tree that breaks them."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in (("common/a.c", '#include "runtime/r.h"\n'), ("runtime/r.h", ""),
                           ("compiler/b.c", '#  include <vulkan/vulkan.h>\n'),
                           ("shaders/s.comp", "uint all = gl_NumWorkGroups.x;\n")):
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as stream:
                stream.write(text)
        if not list(layer_problems(root, "common", {"common"})):
            yield "an include from common into runtime went unnoticed"
        if not list(bound_problems(root, *BOUND[0][:2])):
            yield "an include of Vulkan in the compiler went unnoticed"
        if not list(number_problems(root)):
            yield "a shader that counts workgroups went unnoticed"


def main():
    root, unetc, unetrun = sys.argv[1:4]
    checks = [("the checks themselves object to a broken tree", self_check())]
    for top, allowed in ALLOWED.items():
        checks.append(("%s includes only %s" % (top, " and ".join(sorted(allowed))),
                       layer_problems(root, top, allowed)))
    for name, allowed in TOOLS.items():
        checks.append(("%s stays on its side" % name, layer_problems(root, "tools", allowed, name)))
    for header, home, title in BOUND:
        checks.append((title, bound_problems(root, header, home)))
    checks.append(("shaders count workgroups only in flat_group", number_problems(root)))
    checks.append(("unetc does not link Vulkan", library_problems(unetc, "libvulkan")))
    checks.append(("unetrun does not link libyaml", library_problems(unetrun, "libyaml")))
    print("1..%d" % len(checks))
    failed = 0
    for number, (title, problems) in enumerate(checks, 1):
        found = list(problems)
        failed += bool(found)
        for problem in found:
            print("# %s" % problem)
        print("%sok %d - %s" % ("not " if found else "", number, title))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
