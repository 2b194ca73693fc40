#!/usr/bin/env python3
"""GPUs that are not there (tools/fetch-drivers): their drivers meet the contract, the targets that
are built in are no more than they offer, and on one with little shared memory a plan takes the
tilings that fit. Nothing is executed. Prints TAP; skipped where the drivers cannot be fetched.

    test_pretended.py BUILD SOURCE_ROOT
"""
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
BUILD, ROOT = sys.argv[1], sys.argv[2]
sys.path.insert(0, os.path.join(ROOT, "tests"))
import tap  # noqa: E402

LOADER = importlib.machinery.SourceFileLoader("gpu_report",
                                              os.path.join(ROOT, "tools", "gpu-report"))
SPEC = importlib.util.spec_from_loader("gpu_report", LOADER)
gpu_report = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(gpu_report)

UNETC, UNETRUN = (os.path.join(BUILD, "tools", name) for name in ("unetc", "unetrun"))
TARGETS = {"amd": ("vega10", "navi21", "navi31", "gfx1201"), "nvidia": ("162", "172")}
BOUNDS = ("binding_bytes", "allocation_bytes", "shared_bytes", "group_invocations", "groups",
          "group_size", "push_bytes")
SMALL = {"UNET_LIMITS": "shared_bytes=16384,group_invocations=128"}


def read_limits(path):
    """Numbers of a limits file by name."""
    with open(path, encoding="utf-8") as stream:
        lines = re.findall(r"^(\w+): ([^#\n]+)", stream.read(), re.MULTILINE)
    return {name: [int(n) for n in re.findall(r"\d+", value)] for name, value in lines
            if name in BOUNDS}


def check_device(libraries, name):
    text = gpu_report.pretend(libraries, name, UNETRUN, ["devices", "--json"])
    device = json.loads(text)["devices"][0]
    assert device["usable"] and device["chosen"] and device["class"] == "GPU", device
    required = [line for line in device["contract"] if line["required"]]
    assert len(required) == 9 and all(line["met"] for line in required), required


def check_target(libraries, target, name, folder):
    path = os.path.join(folder, "limits.yaml")
    gpu_report.pretend(libraries, name, UNETRUN, ["devices", "--target", path])
    offered = read_limits(path)
    stated = read_limits(os.path.join(ROOT, "compiler", "targets", target + ".yaml"))
    assert sorted(offered) == sorted(stated) == sorted(BOUNDS), (offered, stated)
    for bound in BOUNDS:
        assert all(a <= b for a, b in zip(stated[bound], offered[bound])), (
            bound, stated[bound], offered[bound])


def check_tilings(libraries, name, folder):
    """A plan without a target takes its tilings of CPUs, one for target small those of GPUs."""
    model = os.path.join(ROOT, "models", "demo.yaml")
    for options, wanted in (([], "CPU"), (["--target", "small"], "GPU")):
        plan = os.path.join(folder, "demo.plan")
        subprocess.run([UNETC, model, "-q", "-o", plan] + options, check=True)
        report = gpu_report.compiled(libraries, name, UNETRUN, plan, **SMALL)
        assert report["class"] == wanted, (options, report["class"])
        sizes = [pipeline["constants"][0] for pipeline in report["pipelines"]]
        assert max(sizes) <= 128, sizes
        names = {pipeline["shader"] for pipeline in report["pipelines"]}
        assert ("conv_tile" in names) == (wanted == "GPU"), names


def cases(libraries, folder):
    for target, names in TARGETS.items():
        for name in names:
            yield "%s meets the contract" % name, check_device, libraries, name
            yield ("target %s is no more than %s offers" % (target, name), check_target,
                   libraries, target, name, folder)
    yield "tilings that fit on navi31", check_tilings, libraries, "navi31", folder


def main():
    try:
        libraries = gpu_report.fetch_drivers()
    except gpu_report.Failure as failure:
        print("1..1\nok 1 - GPUs that are not there # SKIP %s" % failure)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return tap.run(cases(libraries, folder),
                       (gpu_report.Failure, subprocess.CalledProcessError))


if __name__ == "__main__":
    sys.exit(main())
