#!/usr/bin/env python3
"""tools/compare on a net of two channels: the table and the JSON hold what was measured, results
agree, what is missing is named, a wrong result and a reference BLAS are found. Prints TAP.

    test_compare.py BUILD SOURCE_ROOT

PyTorch is compared where this interpreter or Debian's has it; skipped with the reason otherwise.
No time is checked.
"""
import importlib.machinery
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
BUILD, ROOT = (os.path.abspath(p) for p in sys.argv[1:3])
TOOL = os.path.join(ROOT, "tools", "compare")
SMALL = ["--width", "2", "--tile", "188", "--rounds", "2", "--pause", "0", "--threads", "1",
         "--device", "cpu"]


class Skip(Exception):
    pass


def run(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        done = subprocess.run([sys.executable, TOOL, BUILD, *arguments, "--json", path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=280)
        results = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                results = json.load(stream)
        return done, results


def good(*arguments):
    done, results = run(*arguments)
    assert done.returncode == 0, "exit status %d\n%s%s" % (done.returncode, done.stdout,
                                                           done.stderr)
    return done, results


def load(name):
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(ROOT, "tools", name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def alone():
    """unetrun against nothing: two programs, every figure there, in text and in JSON."""
    done, results = good(*SMALL, "--engines", "none")
    assert [r["program"] for r in results["results"]] == ["infer", "train_step"], results
    for result in results["results"]:
        row, = result["rows"]
        assert row["engine"] == "unetrun" and len(row["seconds"]) == 2, row
        assert row["seconds_min"] > 0 and row["gflops"] > 0 and result["gflop"] > 0, row
        assert row["peak_rss_bytes"] >= row["base_rss_bytes"] > 1 << 20, row
    losses = results["results"][1]["rows"][0]["losses"]
    assert len(losses) == 3 and all(0.1 < loss < 10 for loss in losses), losses
    assert len(set(losses)) == 3, "weights do not change from step to step: %s" % losses
    assert "forward, width 2, tile 188" in done.stdout, done.stdout
    assert "multiply-add ceiling" in done.stdout, done.stdout


def torch_agrees():
    done, results = good(*SMALL, "--engines", "torch", "--any-blas", "--torch-variants", "eager")
    if results["missing"] and len(results["results"][0]["rows"]) == 1:
        raise Skip("no PyTorch: " + results["missing"][0]["reason"])
    for result in results["results"]:
        ours, theirs = result["rows"][:2]
        assert 0 < theirs["difference"] < 1e-3, theirs
        for a, b in zip(ours["losses"], theirs["losses"]):
            assert abs(a - b) < 1e-4 * abs(a), (ours["losses"], theirs["losses"])
    assert "unetrun cpu / it" in done.stdout, done.stdout


def names_missing():
    """An interpreter without any engine: each is named with what to install, and the rest runs."""
    with tempfile.TemporaryDirectory() as folder:
        python = os.path.join(folder, "python")
        with open(python, "w", encoding="utf-8") as stream:  # -S: no installed packages
            stream.write("#!/bin/sh\nexec '%s' -S -I \"$@\"\n" % sys.executable)
        os.chmod(python, 0o755)
        done, results = good(*SMALL, "--work", "infer", "--python", python)
    names = {m["name"] for m in results["missing"]}
    assert names == {"PyTorch", "ONNX Runtime", "ncnn on the CPU", "ncnn on Vulkan"}, names
    assert done.stdout.count("install") >= 4, done.stdout
    assert len(results["results"][0]["rows"]) == 1, results


def finds_differences():
    """Beyond the tolerance, not a number, or of another length: never taken for agreement."""
    tool = load("compare")
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, n) for n in "abcd"]
        for path, values in zip(paths, ([0.5, 0.25], [0.5, 0.75], [0.5, float("nan")], [0.5])):
            with open(path, "wb") as stream:
                stream.write(struct.pack("<%df" % len(values), *values))
        assert tool.compare_arrays(paths[0], paths[0]) == 0
        assert tool.compare_arrays(paths[1], paths[0]) == 0.5
        assert tool.compare_arrays(paths[2], paths[0]) == float("inf")
        hold = memoryview(struct.pack("<4f", 0, 0.5, 0.25, 0))[4:12]
        assert tool.largest(hold) == 0.5 and tool.largest(hold, hold) == 0
        assert tool.largest(hold, struct.pack("<2f", 1.5, 0.25)) == 1
        try:
            tool.compare_arrays(paths[3], paths[0])
        except tool.Failed:
            pass
        else:
            raise AssertionError("results of other lengths compare")
    row = {"label": "x", "difference": 0.5}
    case = {"program": "infer", "width": 2, "tile": 188, "rows": [row], "failed": {}}
    assert tool.verdict([case]) == 1
    assert tool.verdict([dict(case, rows=[dict(row, difference=1e-7)])]) == 0
    assert tool.verdict([dict(case, rows=[], failed={"x": "killed"})]) == 1


def judges_blas():
    """The library behind PyTorch from the files that a process has mapped."""
    engines = load("compare_engines.py")
    start = "7f00-7f01 r-xp 00000000 08:01 1 "
    debian = "/usr/lib/x86_64-linux-gnu/"
    for paths, wanted in (
            ([debian + "blas/libblas.so.3.11.0"], ("reference BLAS", False)),
            # numpy brings its own, which PyTorch does not use
            ([debian + "blas/libblas.so.3.11.0", "/venv/numpy.libs/libscipy_openblas64_.so"],
             ("reference BLAS", False)),
            ([debian + "openblas-pthread/libblas.so.3"], ("OpenBLAS pthread", True)),
            ([debian + "openblas-serial/libblas.so.3"], ("OpenBLAS serial", False)),
            ([debian + "blis-openmp/libblas.so.3"], ("BLIS", True))):
        found = engines.judge_blas("BLAS_INFO=generic", [start + p for p in paths])
        assert found == wanted, (paths, found)
    assert engines.judge_blas("Math Kernel Library Version 2024", []) == ("MKL", True)


def finds_peak():
    tool = load("compare")
    assert tool.find_peak({"device": "x", "multiply_add_gflops": 250.5}) == 250.5
    assert tool.find_peak({"devices": [{"peak": {"multiply_add_gflops": 9}}]}) == 9
    assert tool.find_peak(None) is None and tool.find_peak({"multiply_add_gflops": "?"}) is None


def refuses():
    for arguments, status, text in (
            (["--tile", "200"], 2, "--tile: legal are 188"),
            (["--engines", "tensorflow"], 2, "none of"),
            (["--python", "/no/such/python"], 2, "no program"),
            (["--rounds", "0"], 2, "at least 1")):
        done, results = run(*arguments)
        assert (done.returncode, results) == (status, None), (arguments, done.returncode)
        assert text in done.stderr, done.stderr
    done = subprocess.run([sys.executable, TOOL, "/"], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and "build it first" in done.stderr, done.stderr


CASES = [("unetrun alone is measured", alone), ("PyTorch computes the same", torch_agrees),
         ("missing engines are named with what to install", names_missing),
         ("differences are found", finds_differences),
         ("a reference BLAS is no baseline", judges_blas),
         ("the ceiling is found in the answer of bench --peak", finds_peak),
         ("bad arguments are refused", refuses)]


def main():
    failed = 0
    print("1..%d" % len(CASES))
    for number, (title, case) in enumerate(CASES, 1):
        try:
            case()
            print("ok %d - %s" % (number, title), flush=True)
        except Skip as reason:
            print("ok %d - %s # SKIP %s" % (number, title, reason), flush=True)
        except Exception as error:  # every failure is a case
            print("".join("# %s\n" % line for line in ("%s: %s" % (
                type(error).__name__, error)).splitlines()) +
                  "not ok %d - %s" % (number, title), flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
