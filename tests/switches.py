#!/usr/bin/env python3
"""docs/runtime.md against the code: every variable of the environment that the sources read has a
row, no row is of another one, and every fast path that `unetrun devices` lists has its row with the
variable that turns it off. Prints TAP.

    switches.py SOURCE_ROOT UNETRUN
"""
import json
import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import tap  # noqa: E402

ROOT, UNETRUN = sys.argv[1], sys.argv[2]


def read_by_code():
    names = set()
    for folder in ("common", "compiler", "runtime", "tools"):
        for path, _, files in os.walk(os.path.join(ROOT, folder)):
            for name in files:
                if name.endswith(".c"):
                    with open(os.path.join(path, name), encoding="utf-8") as stream:
                        names.update(re.findall(r'"(UNET_[A-Z_]+)"', stream.read()))
    return names


def rows(heading):
    """First and second cells of the table below a heading."""
    with open(os.path.join(ROOT, "docs", "runtime.md"), encoding="utf-8") as stream:
        section = stream.read().split("\n%s\n" % heading)[1].split("\n#")[0]
    cells = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return [(first.strip(), second.strip()) for first, second in cells]


def check_variables():
    in_page = {re.match(r"`(UNET_[A-Z_]+)", first).group(1) for first, _ in rows("## Environment")}
    in_code = read_by_code()
    assert in_page == in_code, "only in the page: %s; only in the code: %s" % (
        sorted(in_page - in_code), sorted(in_code - in_page))


def check_fast_paths():
    env = {**os.environ, "UNET_DEVICE": "cpu"}
    run = subprocess.run([UNETRUN, "devices", "--json"], capture_output=True, text=True, env=env)
    listed = json.loads(run.stdout)["fast_paths"]
    in_page = [first.strip("`") for first, _ in rows("### Fast paths")]
    assert in_page == listed, "the page has %s, unetrun devices lists %s" % (in_page, listed)
    for first, second in rows("### Fast paths"):
        assert "`UNET_DISABLE=%s`" % first.strip("`") in second, first


def check_refusals():
    """A word that no variable knows is refused, with the words it knows."""
    for name, words in {"UNET_DISABLE": ["winograd", "matrix"], "UNET_CPU": ["plain", "avx2"],
                        "UNET_CPU_CONV": ["direct", "winograd"], "UNET_STAGING": ["0", "1"],
                        "UNET_KNOWN_BAD": ["on", "off"], "UNET_PIPELINE_CACHE": ["on", "off"],
                        "UNET_WEIGHT_CACHE": ["on", "off"], "UNET_DEVICE_WAIT": ["seconds"],
                        "UNET_PREFER": ["direct", "winograd2", "matrix"],
                        "UNET_DEVICE_TIMEOUT": ["seconds"],
                        "UNET_SUBMISSION": ["milliseconds"]}.items():
        env = {**os.environ, "UNET_DEVICE": "cpu", name: "mistake"}
        run = subprocess.run([UNETRUN, "selftest", "-q"], capture_output=True, text=True, env=env)
        assert run.returncode == 2, "%s: exit status %d" % (name, run.returncode)
        for word in words + ["mistake", name]:
            assert word in run.stderr, "%s: no \"%s\" in: %s" % (name, word, run.stderr)


sys.exit(tap.run([("every variable has its row", check_variables),
                  ("every fast path has its variable", check_fast_paths),
                  ("mistakes are refused", check_refusals)]))
