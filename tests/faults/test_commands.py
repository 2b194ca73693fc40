#!/usr/bin/env python3
"""unetrun on a device that fails (fault.h): what stays, what is said, the exit status.

    test_commands.py UNETC UNETRUN LAYER.so MODEL.yaml

Calls to fail are drawn at random; UNET_FAULT_SEED sets another seed than the printed one. TAP.
"""
import filecmp
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

POINTS = 20  # for each command
SEED = int(os.environ.get("UNET_FAULT_SEED", "20261128"))


class Failed(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Failed(text)


class Bench:
    """A plan, pictures and trained weights in a folder of their own."""

    def __init__(self, root, unetc, unetrun, layer, model):
        self.root, self.unetc, self.unetrun, self.model = root, unetc, unetrun, model
        self.env = dict(os.environ, VK_LAYER_PATH=os.path.dirname(layer), UNET_DEVICE_WAIT="0",
                        VK_INSTANCE_LAYERS="VK_LAYER_UNET_fault", UNET_DEVICE="vulkan",
                        XDG_CACHE_HOME=self.path("cache"))
        self.env.pop("UNET_VALIDATION", None)
        self.compile("tiny")
        self.run("sample", self.path("data"), "--count", "4", "--size", "40x40", "--seed", "3")
        self.images = [self.path("data/images/%02d.png" % i) for i in range(4)]
        self.run("train", self.path("tiny.plan"), "--data", self.path("data"), "--out",
                 self.path("plain"), "--val-frames", "03")

    def compile(self, name, *more):
        subprocess.run([self.unetc, self.model, "-o", self.path(name + ".plan")] + list(more),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def path(self, name):
        return os.path.join(self.root, name)

    def run(self, *args, fault="call=0", status=0, memory=2**62):
        """stdout, stderr, exit status; the status must be among those given."""
        env = dict(self.env, UNET_FAULT=fault, UNET_FAULT_MEMORY=str(memory))
        done = subprocess.run([self.unetrun] + list(args), env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=100)
        wanted = status if isinstance(status, tuple) else (status,)
        need(done.returncode in wanted, "%s with %s: status %d\n%s"
             % (args[0], fault, done.returncode, done.stderr))
        need("leak" not in done.stderr, "%s with %s: %s" % (args[0], fault, done.stderr))
        return done.stdout, done.stderr, done.returncode

    def count_calls(self, *args):
        return int(re.search(r"fault layer: (\d+) calls", self.run(*args, fault="call=0,report")[1])
                   .group(1))

    def infer(self, out, images):
        return ["infer", self.path("tiny.plan"), "--weights", self.path("plain/last.safetensors"),
                "--out", self.path(out)] + images

    def train(self, out, *more):
        return ["train", self.path("tiny.plan"), "--data", self.path("data"), "--out",
                self.path(out), "--val-frames", "03", "--restore-every", "2"] + list(more)

    def clear(self, name):
        shutil.rmtree(self.path(name), ignore_errors=True)


def draw(rng, calls):
    return "call=%d,error=%s,every=%d,refusals=%s" % (
        rng.randint(1, calls), rng.choice(["lost", "lost", "device", "host"]),
        rng.choice([0, 0, 60]), rng.choice(["0", "0", "all"]))


def same_pictures(bench, out, names):
    for name in names:
        need(filecmp.cmp(bench.path("pictures/" + name), bench.path(out + "/" + name), False),
             "%s differs" % name)


def infer_points(bench):
    rng = random.Random(SEED)
    calls = bench.count_calls(*bench.infer("pictures", bench.images))
    names = sorted(os.listdir(bench.path("pictures")))
    need(names == ["%02d.png" % i for i in range(4)], "pictures: %s" % names)
    ends = set()
    for _ in range(POINTS):
        fault = draw(rng, calls)
        bench.clear("out")
        _, said, status = bench.run(*bench.infer("out", bench.images), fault=fault, status=(0, 3))
        there = sorted(os.listdir(bench.path("out"))) if os.path.isdir(bench.path("out")) else []
        try:
            same_pictures(bench, "out", there)
            need(there == names[:len(there)] and (status == 3 or there == names),
                 "there: %s" % there)
            if status == 3 and "images are done" in said:
                need("%d of 4 images are done" % len(there) in said and
                     "with those from %02d on" % len(there) in said, said)
                ends.add("midway")
                bench.run(*bench.infer("out", bench.images[len(there):]))
                same_pictures(bench, "out", names)
            else:
                need(status == 0 or not there, "pictures, but no word of them: " + said)
                ends.add("whole" if status == 0 else "not begun")
        except Failed as why:
            raise Failed("%s: %s" % (fault, why))
    need(ends == {"midway", "whole", "not begun"}, "seen only: %s" % ends)


def infer_midway(bench):
    """The third image loses the device for good."""
    bench.clear("out")
    fault = "name=vkWaitForFences,call=25,refusals=all"  # nine tiles an image, after three waits
    _, said, _ = bench.run(*bench.infer("out", bench.images), fault=fault, status=3)
    need(sorted(os.listdir(bench.path("out"))) == ["00.png", "01.png"], "what is there")
    need("error: 02: " in said and "VK_ERROR_DEVICE_LOST" in said, said)


def train_points(bench):
    rng = random.Random(SEED + 1)
    calls = bench.count_calls(*bench.train("run"))
    ends = set()
    for _ in range(POINTS):
        fault = draw(rng, calls)
        bench.clear("run")
        _, said, status = bench.run(*bench.train("run"), fault=fault, status=(0, 3))
        ends.add(status)
        if status == 3:
            resume = re.search(r"--resume (\S+)", said)
            bench.run(*bench.train("run", *(["--resume", resume.group(1)] if resume else [])))
        for name in ("last.safetensors", "best.safetensors"):
            need(filecmp.cmp(bench.path("plain/" + name), bench.path("run/" + name), False),
                 "%s: %s differs" % (fault, name))
        need(sorted(os.listdir(bench.path("run"))) ==
             ["best.safetensors", "last.safetensors", "metrics.csv"], "%s: files" % fault)
    need(ends == {0, 3}, "seen only: %s" % ends)


def eval_repeats(bench):
    args = ["eval", bench.path("tiny.plan"), "--weights", bench.path("plain/last.safetensors"),
            "--data", bench.path("data"), "--json"]
    plain = bench.run(*args)[0]
    for call in (1, 3, 4, 6):
        out, said, _ = bench.run(*args, fault="name=vkWaitForFences,call=%d" % call)
        need(out == plain, "other scores")
        need("opening the device again" in said, said)


def no_answer(bench):
    """From some submission on no fence is signalled, and closing the device would not return."""
    wanted = ["no answer for 60", "try shorter submissions (UNET_SUBMISSION=20)"]
    for name, call, args in (
            ("out", 25, bench.infer("out", bench.images)), ("run", 25, bench.train("run")),
            ("bench", 4, ["bench", bench.path("tiny.plan"), "--program", "infer"]),
            ("peak", 2, ["bench", "--peak"])):
        bench.clear(name)
        _, said, _ = bench.run(*args, fault="name=vkQueueSubmit,call=%d,error=never" % call,
                               status=3)
        need(all(text in said for text in wanted) and "device again" not in said, said)
        if name == "out":
            need("2 of 4 images are done" in said, said)
            same_pictures(bench, "out", ["00.png", "01.png"])
        if name == "run":
            need("--resume " in said, said)
            bench.run(*bench.train("run", "--resume", re.search(r"--resume (\S+)", said).group(1)))
            need(filecmp.cmp(bench.path("plain/last.safetensors"),
                             bench.path("run/last.safetensors"), False), "other weights")


def at_once(bench):
    """Three trainings on one device, with an empty pipeline cache; one of them loses it."""
    bench.clear("cache")
    names = ["first", "second", "third"]
    runs = []
    for name in names:
        fault = "name=vkQueueSubmit,call=5" if name == "third" else "call=0"
        runs.append(subprocess.Popen([bench.unetrun] + bench.train(name),
                                     env=dict(bench.env, UNET_FAULT=fault), text=True,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for name, run in zip(names, runs):
        said = run.communicate(timeout=300)[1]
        need(run.returncode == 0, "%s: %s" % (name, said))
        need(("device again" in said) == (name == "third"), "%s: %s" % (name, said))
        for file in ("last.safetensors", "best.safetensors"):
            need(filecmp.cmp(bench.path("plain/" + file), bench.path(name + "/" + file), False),
                 "%s: %s differs" % (name, file))


def memory_that_fits(bench):
    """A plan for a larger device; the message's own command makes one that runs here."""
    bench.compile("large", "--set", "tile=152")
    for program, memory in (("train_step", 700000), ("infer", 500000)):
        args = ["--repeat", "1", "--program", program]
        said = bench.run("bench", bench.path("large.plan"), *args, status=3, memory=memory)[1]
        need(re.search(r"block: [0-9.]+ MiB asked for, of [0-9.]+ MiB that the session needs",
                       said), said)
        hint = re.search(r"unetc MODEL.yaml --memory (\d+)KiB -o FILE.plan", said)
        need(hint and memory * 0.7 < int(hint.group(1)) * 1024 < memory, said)
        bench.compile("fitted", "--memory", hint.group(1) + "KiB", "--fit-program", program)
        bench.run("bench", bench.path("fitted.plan"), *args, memory=memory)


def main():
    checks = [("infer at %d calls that fail (seed %d)" % (POINTS, SEED), infer_points),
              ("infer names the image at which no device was left", infer_midway),
              ("train at %d calls that fail" % POINTS, train_points),
              ("eval repeats an image", eval_repeats),
              ("a device that gives no answer", no_answer),
              ("trainings at once do not disturb each other", at_once),
              ("without memory, the message makes a plan that fits", memory_that_fits)]
    print("1..%d" % len(checks))
    failed = 0
    with tempfile.TemporaryDirectory(prefix="unet-test-") as root:
        bench = Bench(root, *map(os.path.abspath, sys.argv[1:5]))
        for number, (title, check) in enumerate(checks, 1):
            try:
                check(bench)
                print("ok %d - %s" % (number, title), flush=True)
            except (Failed, subprocess.TimeoutExpired, OSError) as why:
                failed += 1
                print("not ok %d - %s" % (number, title))
                print("\n".join("# " + line for line in str(why).splitlines()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
