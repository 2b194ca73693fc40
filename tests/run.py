#!/usr/bin/env python3
"""Runs the registered tests of a build folder and counts single test cases.

    run.py BUILD --suite NAME [--title TEXT] [--env NAME=VALUE]... [--only TEXT] [--jobs N]
                 [--wrap COMMAND] [--results FILE]
    run.py --sum FILE

`meson test` counts programs; this counts what is inside them. Programs are asked for TAP output
(cmocka and our scripts both can); a program without TAP counts as one case by its exit status (77:
skipped). A program that ends early, runs past its time, or exits non-zero with all cases fine
counts one failure more. --wrap puts the words of COMMAND, such as "tools/with-driver lavapipe",
before each program's own, and of a script before those of the programs that it is given. For the
suite "vulkan" any message of the validation layers is a failure.
Results are appended to FILE; --sum prints every failure and every skipped case with its reason,
then the line "N passed, N failed, N skipped", and exits 1 when anything failed or nothing ran.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

LAYER_MESSAGE = re.compile(r"validation (error|warning)|VUID-|SYNC-HAZARD|UNASSIGNED-", re.IGNORECASE)
CASE = re.compile(r"^\s*(not ok|ok)\s+(\d+)\s*(.*)$")
PLAN = re.compile(r"^\s*1\.\.(\d+)\s*(?:#.*)?$")
SKIP_REASON = re.compile(r"\b(?:skip|skipped|skipping):\s*(.+)$", re.IGNORECASE)


def read_tap(lines):
    """Cases as (name, verdict, reason), and how many were announced (None: not TAP at all)."""
    cases, announced, reason = [], None, ""
    for line in lines:
        plan, case, said = PLAN.match(line), CASE.match(line), SKIP_REASON.search(line)
        if plan:
            announced = (announced or 0) + int(plan.group(1))
        elif case:
            text = case.group(3).lstrip("- ").strip()
            if re.match(r"#\s*skip", text, re.IGNORECASE) or re.search(r"#\s*SKIP", text):
                before, _, after = text.partition("#")
                after = re.sub(r"^\s*skip\w*:?\s*", "", after, flags=re.IGNORECASE)
                name = before.strip() or after
                cases.append((name, "skipped", reason or (after if before.strip() else "")))
            else:
                cases.append((text, "passed" if case.group(1) == "ok" else "failed", ""))
            reason = ""
        elif said:
            reason = said.group(1).strip()
    return cases, announced


def stop(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def is_program(path):
    """Made by a compiler, in contrast to a script. Libraries are none."""
    try:
        with open(path, "rb") as stream:
            return (stream.read(4) == b"\x7fELF" and os.access(path, os.X_OK)
                    and not path.endswith(".so"))
    except OSError:
        return False


class Launchers:
    """Commands with words put before each program of ours in them. A script calls our programs
    itself, so it is given paths in a copy of the build folder that has launchers, scripts with
    those words in them, in the place of programs."""

    def __init__(self, words, build, folder):
        self.words, self.build, self.folder = words, os.path.realpath(build), folder
        for root, _, names in os.walk(self.build) if words else ():
            for name in names:
                if is_program(os.path.join(root, name)):
                    self.make(os.path.join(root, name))

    def make(self, program):
        path = self.counterpart(program)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("#!/bin/sh\nexec %s \"$@\"\n" % shlex.join(self.words + [program]))
        os.chmod(path, 0o755)

    def counterpart(self, path):
        return os.path.join(self.folder, os.path.relpath(os.path.realpath(path), self.build))

    def argument(self, word):
        """A program, or a folder with programs, is replaced; anything else stays."""
        inside = os.path.realpath(word).startswith(self.build + os.sep)
        return self.counterpart(word) if inside and os.path.exists(self.counterpart(word)) else word

    def command(self, command):
        if not self.words:
            return command
        if self.argument(command[0]) != command[0]:
            return self.words + command
        return [self.argument(word) for word in command]


def run_test(test, extra_env, check_layers):
    env = dict(os.environ)
    env.update(test["env"])
    env.update(extra_env)
    env["CMOCKA_MESSAGE_OUTPUT"] = "tap"
    begin = time.monotonic()
    process = subprocess.Popen(test["cmd"], cwd=test["workdir"], env=env, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, errors="replace",
                               start_new_session=True)
    late = False
    try:
        output, _ = process.communicate(timeout=test["timeout"] or None)
    except subprocess.TimeoutExpired:
        late = True
        stop(process)
        output, _ = process.communicate()
    except BaseException:
        stop(process)
        raise
    lines = output.splitlines()
    cases, announced = read_tap(lines)
    code = process.returncode
    if announced is None and not cases:
        verdict = "skipped" if code == 77 else "passed" if code == 0 else "failed"
        reasons = [m.group(1) for m in map(SKIP_REASON.search, lines) if m]
        cases = [("", verdict, reasons[-1] if reasons else "")]
        if verdict == "failed":
            cases = [("exit status %d" % code, verdict, "")]
    else:
        if announced is not None and announced != len(cases):
            cases.append(("announced %d cases, reported %d (exit status %d)"
                          % (announced, len(cases), code), "failed", ""))
        elif code not in (0, 77) and not any(c[1] == "failed" for c in cases):
            cases.append(("every case passed but the exit status is %d" % code, "failed", ""))
    if late:
        cases.append(("still running after %d s" % test["timeout"], "failed", ""))
    messages = [line for line in lines if LAYER_MESSAGE.search(line)] if check_layers else []
    if messages:
        cases.append(("%d messages of the validation layers" % len(messages), "failed", ""))
    return cases, output, time.monotonic() - begin


def registered(build, suite, only):
    text = subprocess.run(["meson", "introspect", "--tests", build], check=True,
                          capture_output=True, text=True).stdout
    for test in sorted(json.loads(text), key=lambda test: -test["priority"]):
        if any(s.split(":")[-1] == suite for s in test["suite"]) and only in test["name"]:
            yield test


def run_suite(args):
    extra_env = dict(pair.split("=", 1) for pair in args.env)
    title = args.title or args.suite
    wrap = shlex.split(args.wrap)
    if wrap:
        wrap[0] = os.path.abspath(wrap[0]) if os.path.exists(wrap[0]) else wrap[0]
    try:
        tests = [test for test in registered(args.build, args.suite, args.only)
                 if test["name"] not in args.leave_out]
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        print("run.py: %s: %s" % (args.build, error), file=sys.stderr)
        tests = []
    print("== %s: %d programs" % (title, len(tests)), flush=True)
    begin = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory() as folder, \
            concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        launchers = Launchers(wrap, args.build, folder)
        tests = [{**test, "cmd": launchers.command(test["cmd"])} for test in tests]
        work = {pool.submit(run_test, t, extra_env, args.suite == "vulkan"): t for t in tests}
        for future in concurrent.futures.as_completed(work):
            name = work[future]["name"]
            cases, output, seconds = future.result()
            counts = {v: sum(1 for c in cases if c[1] == v)
                      for v in ("passed", "failed", "skipped")}
            print("%-28s %4d passed, %d failed, %d skipped  (%.1f s)"
                  % (name, counts["passed"], counts["failed"], counts["skipped"], seconds),
                  flush=True)
            if counts["failed"]:
                print("---- output of %s" % name)
                print("\n".join(line[:400] for line in output.splitlines()[-200:]))
                print("----", flush=True)
            results += [(title, name) + c for c in cases]
    print("== %s: %.0f s" % (title, time.monotonic() - begin), flush=True)
    if not tests:
        results.append((title, "registration", "no test is registered in this suite", "failed", ""))
    if args.results:
        with open(args.results, "a", encoding="utf-8") as stream:
            for result in results:
                stream.write(json.dumps(result) + "\n")
    return 1 if any(r[3] == "failed" for r in results) else 0


def sum_results(path):
    with open(path, encoding="utf-8") as stream:
        results = [json.loads(line) for line in stream]
    count = {v: sum(1 for r in results if r[3] == v) for v in ("passed", "failed", "skipped")}
    for verdict in ("skipped", "failed"):
        for title, program, case, which, reason in results:
            if which == verdict:
                print("%s: %s: %s %s%s" % (verdict, title, program, case,
                                           ": " + reason if reason else ""))
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % count, flush=True)
    return 1 if count["failed"] or not count["passed"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?")
    parser.add_argument("--suite", default="cpu")
    parser.add_argument("--title")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--only", default="", help="programs with TEXT in their name")
    parser.add_argument("--leave-out", action="append", default=[], metavar="NAME",
                        help="a program not to run")
    parser.add_argument("--wrap", default="", metavar="COMMAND",
                        help="words to put before each program's own")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results")
    parser.add_argument("--sum", metavar="FILE")
    args = parser.parse_args()
    if args.sum:
        return sum_results(args.sum)
    if not args.build:
        parser.error("which build folder?")
    return run_suite(args)


if __name__ == "__main__":
    sys.exit(main())
