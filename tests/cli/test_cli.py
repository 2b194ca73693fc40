#!/usr/bin/env python3
"""The command lines of unetc and unetrun: exit status, stdout and stderr against golden files, what
is left on disk, and what the results must satisfy. Prints TAP.

    test_cli.py cpu|device UNETC UNETRUN [--update] [--only TEXT]

"cpu" needs no device; "device" runs on the one that UNET_DEVICE names, or the best. --update writes the golden files instead of comparing.
"""
import argparse
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import cases_cpu  # noqa: E402
import cases_device  # noqa: E402

GOLDEN = os.path.join(HERE, "golden")
SECONDS = 240  # of one command


class Lab:
    """A temporary directory with the tools in reach."""

    def __init__(self, suite, unetc, unetrun):
        self.suite = suite
        self.tools = {"unetc": os.path.abspath(unetc), "unetrun": os.path.abspath(unetrun)}
        self.path = tempfile.mkdtemp(prefix="unet-cli-")
        self.replacements = [(self.path, "TMP"), (HERE, "TESTS")]

    def start(self, command, **more):
        """command: one line; the first word is unetc or unetrun."""
        words = shlex.split(command)
        words[0] = self.tools[words[0]]
        return subprocess.Popen(words, cwd=self.path, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **more)

    def run(self, command, **environment):
        process = self.start(command, env={**os.environ, **environment})
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise AssertionError("%s: not done after %d s" % (command, SECONDS))
        out, err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        if re.search(r"^validation(:| error| warning)", err, re.MULTILINE):
            raise AssertionError("%s: messages of the validation layers\n%s" % (command, err))
        return process.returncode, out, err

    def good(self, command, **environment):
        """Runs a command that must succeed; its stdout."""
        code, out, err = self.run(command, **environment)
        if code != 0:
            raise AssertionError("%s: exit status %d\n%s" % (command, code, err))
        return out

    def file(self, name):
        return os.path.join(self.path, name)

    def read(self, name):
        with open(self.file(name), "rb") as stream:
            return stream.read()

    def write(self, name, data):
        os.makedirs(os.path.dirname(self.file(name)), exist_ok=True)
        with open(self.file(name), "wb") as stream:
            stream.write(data)

    def tree(self):
        """Every path below the directory, with the size of files."""
        found = {}
        for folder, folders, files in os.walk(self.path):
            for name in folders:
                found[os.path.relpath(os.path.join(folder, name), self.path)] = None
            for name in files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.path)] = os.lstat(path).st_size
        return found

    def close(self):
        shutil.rmtree(self.path)


def normalise(lab, text):
    for old, new in lab.replacements:
        text = text.replace(old, new)
    # What depends on the machine, the driver or how well the compiler does: measured numbers,
    # sizes of plans.
    text = re.sub(r"\b\d+\.\d+(e[-+]?\d+)?\b", "N", text)
    text = re.sub(r" +<?N %", " N %", text)
    text = re.sub(r"\b\d{4,} bytes", "N bytes", text)
    text = re.sub(r"\d+ records, \d+ tensors", "N records, N tensors", text)
    text = re.sub(r"\d+ s left", "N s left", text)
    text = re.sub(r"\b\d+ pixels\)", "N pixels)", text)
    text = re.sub(r"\bhash [0-9a-f]{16}", "hash H", text)
    text = re.sub(r"devices here: .*", "devices here: ...", text)
    return text


def golden_text(lab, command, code, out, err):
    return "$ %s\nexit %d\n--- stdout\n%s--- stderr\n%s" % (
        command, code, normalise(lab, out), normalise(lab, err))


def check_golden(lab, name, command, update, changes):
    before = lab.tree()
    code, out, err = lab.run(command)
    text = golden_text(lab, command, code, out, err)
    path = os.path.join(GOLDEN, name + ".txt")
    if update:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    with open(path, encoding="utf-8") as stream:
        wanted = stream.read()
    if text != wanted:
        raise AssertionError("".join(difflib.unified_diff(
            wanted.splitlines(True), text.splitlines(True), "golden/%s.txt" % name, "now")))
    after = lab.tree()
    if code != 0 and not changes and before != after:
        touched = sorted(p for p in set(before) | set(after) if before.get(p, 0) != after.get(p, 0))
        raise AssertionError("failed, but left changes behind: %s" % ", ".join(touched))


def report(number, name, action):
    try:
        action()
    except AssertionError as error:
        print("not ok %d - %s" % (number, name))
        for line in str(error).splitlines():
            print("# " + line)
        return False
    except OSError as error:
        print("not ok %d - %s\n# %s" % (number, name, error))
        return False
    print("ok %d - %s" % (number, name))
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", choices=["cpu", "device"])
    parser.add_argument("unetc")
    parser.add_argument("unetrun")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    module = cases_cpu if arguments.suite == "cpu" else cases_device
    lab = Lab(arguments.suite, arguments.unetc, arguments.unetrun)
    actions = [("set up", lambda: module.set_up(lab))]
    for case in module.GOLDEN:
        name, command = case[:2]
        changes = len(case) > 2 and case[2] == "changes"
        actions.append((name, lambda n=name, c=command, k=changes: check_golden(
            lab, n, c, arguments.update, k)))
    for check in module.CHECKS:
        actions.append((check.__name__, lambda c=check: c(lab)))
    actions = [a for a in actions if a[0] == "set up" or arguments.only in a[0]]
    print("1..%d" % len(actions))
    good = True
    try:
        for number, (name, action) in enumerate(actions, 1):
            passed = report(number, name, action)
            good = good and passed
            if not passed and name == "set up":
                break
    finally:
        lab.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
