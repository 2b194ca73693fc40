"""Cases that need a device: training, inference, scores, measurements."""
import csv
import io
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import pictures

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
import png  # noqa: E402


def edit_checkpoint(lab, name, old, new):
    """A copy of the trained weights with a text of the header replaced by one of equal length."""
    data = lab.read("run/last.safetensors")
    size = struct.unpack("<Q", data[:8])[0]
    header = data[8:8 + size]
    assert old in header and len(old) == len(new), "%r is not in %r" % (old, header)
    lab.write(name, data[:8] + header.replace(old, new) + data[8 + size:])


def make_plans(lab):
    shutil.copy(os.path.join(HERE, "tiny.yaml"), lab.file("tiny.yaml"))
    lab.good("unetc tiny.yaml -o tiny.plan -q")
    lab.good("unetc tiny.yaml -o large.plan -q --set tile=72 --set batch=1")
    lab.good("unetc tiny.yaml -o batch.plan -q --set batch=3")
    lab.good("unetc tiny.yaml -o three.plan -q --set accumulate=3")
    lab.good("unetc tiny.yaml -o steep.plan -q --set optimiser=sgd --set rate=1000 "
             "--set scale=1000000 --set steps=20")
    lab.good("unetc tiny.yaml -o wide.plan -q --set width=3")
    lab.write("short.plan", lab.read("tiny.plan")[:1000])


def make_data(lab):
    lab.good("unetrun sample data --count 4 --size 64x48 --seed 5 -q")
    lab.good("unetrun sample cells --count 1 --size 64x48 --kind cells -q")
    for name in ("alone", "sizes", "colour", "broken"):
        shutil.copytree(lab.file("data"), lab.file(name))
    os.remove(lab.file("alone/labels/02.png"))
    lab.write("sizes/labels/01.png", pictures.png(64, 40, 1, lambda x, y: 255))
    lab.write("colour/images/03.png", pictures.png(64, 48, 3, lambda x, y: (x, y, 9)))
    lab.write("broken/images/00.png", lab.read("data/images/00.png")[:600])
    for name in ("blank", "rare", "flat"):  # labels of one class, of few pixels; an image of one value
        shutil.copytree(lab.file("data"), lab.file(name))
    for stem in ("00", "01", "02", "03"):
        lab.write("blank/labels/%s.png" % stem, pictures.png(64, 48, 1, lambda x, y: 255))
        lab.write("rare/labels/%s.png" % stem,
                  pictures.png(64, 48, 1, lambda x, y: 0 if (x, y) == (9, 9) else 255))
    lab.write("flat/images/01.png", pictures.png(64, 48, 1, lambda x, y: 80))
    lab.write("broken.png", lab.read("data/images/00.png")[:600])
    lab.write("text.png", b"this is no picture\n")
    lab.write("colour.png", pictures.png(20, 20, 3, lambda x, y: (x, y, 9)))
    lab.write("other/00.png", pictures.png(33, 20, 1, pictures.texture))
    pages = [bytes(pictures.texture(x + page, y) for y in range(30) for x in range(41))
             for page in range(2)]
    lab.write("stack.tif", pictures.tiff(41, 30, pages))
    lab.write("odd.png", pictures.png(61, 47, 1, pictures.texture))
    lab.write("dot.png", pictures.png(1, 1, 1, lambda x, y: 7))


def one_class(lab, source, target):
    """A copy of weights with a score of the last class that is always the larger one."""
    data = lab.read(source)
    size = struct.unpack("<Q", data[:8])[0]
    at = 8 + size + json.loads(data[8:8 + size])["score.bias"]["data_offsets"][0]
    lab.write(target, data[:at] + struct.pack("<2f", -50, 50) + data[at + 8:])


def set_up(lab):
    make_plans(lab)
    make_data(lab)
    devices = json.loads(lab.good("unetrun devices --json"))["devices"]
    for device in devices:
        lab.replacements += [(device["name"], "DEVICE"), (device["driver"], "DRIVER")]
    lab.good("unetrun train tiny.plan --data data --out run --val-frames 03 --seed 9 -q")
    lab.good("unetrun train tiny.plan --data data --out apt --steps 150 --seed 9 -q")
    weights = lab.read("run/last.safetensors")
    lab.write("cut.safetensors", weights[:len(weights) - 40])
    marker = b'"model_hash":"'
    at = weights.index(marker) + len(marker)
    edit_checkpoint(lab, "stranger.safetensors", weights[at:at + 16], b"0123456789abcdef")
    edit_checkpoint(lab, "renamed.safetensors", b"score.bias", b"score.bios")
    one_class(lab, "run/last.safetensors", "run/one.safetensors")


INFER = "unetrun infer tiny.plan --weights run/last.safetensors --out out "

# Weights that have learnt enough to find objects.
FIND = "unetrun infer tiny.plan --weights apt/last.safetensors --out found "

# name, command, and "changes" where a failing command may leave files
GOLDEN = [
    ("devices-unknown-name", "unetrun devices --device no-such-device"),
    ("devices-pipelines-cpu", "unetrun devices --pipelines tiny.plan --device cpu"),
    ("devices-pipelines-missing", "unetrun devices --pipelines none.plan"),
    ("devices-target-cpu", "unetrun devices --target x.yaml --device cpu"),
    ("devices-unknown-number", "unetrun bench tiny.plan --device 99"),
    ("devices-threads-none", "unetrun bench tiny.plan --device cpu --threads 0"),
    ("devices-threads-many", "unetrun bench tiny.plan --device cpu --threads 1000"),
    ("train",
     "unetrun train tiny.plan --data data --out out-train --val-frames 00,02-03 --steps 1"),
    ("train-fold", "unetrun train tiny.plan --data data --out out-fold --folds 3 --fold 3 --steps 1"),
    ("train-fold-alone", "unetrun train tiny.plan --data data --out out --fold 3"),
    ("train-folds-alone", "unetrun train tiny.plan --data data --out out --folds 3"),
    ("train-fold-beyond", "unetrun train tiny.plan --data data --out out --folds 3 --fold 4"),
    ("train-folds-many", "unetrun train tiny.plan --data data --out out --folds 5 --fold 1"),
    ("train-fold-and-frames",
     "unetrun train tiny.plan --data data --out out --folds 3 --fold 1 --val-frames 1"),
    ("train-labels-one-class", "unetrun train tiny.plan --data blank --out out-blank --steps 1"),
    ("train-labels-rare",
     "unetrun train tiny.plan --data rare --out out-rare --steps 2 --val-frames 03"),
    ("train-image-flat", "unetrun train tiny.plan --data flat --out out-flat --steps 1"),
    ("train-best-unknown",
     "unetrun train tiny.plan --data data --out out --val-frames 3 --best accuracy"),
    ("train-best-unvalidated", "unetrun train tiny.plan --data data --out out --best iou"),
    ("train-patience-unvalidated", "unetrun train tiny.plan --data data --out out --patience 2"),
    ("train-init-from",
     "unetrun train tiny.plan --data data --out out-init --init-from run/best.safetensors --steps 1"),
    ("train-init-from-other",
     "unetrun train wide.plan --data data --out out --init-from run/best.safetensors"),
    ("train-init-from-missing",
     "unetrun train tiny.plan --data data --out out --init-from nothere.safetensors"),
    ("train-init-from-resume",
     "unetrun train tiny.plan --data data --out out --init-from a --resume b"),
    ("train-missing-plan", "unetrun train nothere.plan --data data --out out"),
    ("train-truncated-plan", "unetrun train short.plan --data data --out out"),
    ("train-no-data", "unetrun train tiny.plan --data nowhere --out out"),
    ("train-empty-data", "unetrun train tiny.plan --data run --out out"),
    ("train-partner-missing", "unetrun train tiny.plan --data alone --out out"),
    ("train-sizes-differ", "unetrun train tiny.plan --data sizes --out out"),
    ("train-colour", "unetrun train tiny.plan --data colour --out out"),
    ("train-broken-image", "unetrun train tiny.plan --data broken --out out"),
    ("train-label-values", "unetrun train tiny.plan --data cells --out out"),
    ("train-frames-unknown", "unetrun train tiny.plan --data data --out out --val-frames 02-07"),
    ("train-frames-backwards", "unetrun train tiny.plan --data data --out out --val-frames 2-1"),
    ("train-frames-all", "unetrun train tiny.plan --data data --out out --val-frames 0-3"),
    ("train-frames-empty-item", "unetrun train tiny.plan --data data --out out --val-frames 1,,2"),
    ("train-val-missing", "unetrun train tiny.plan --data data --out out --val nowhere"),
    ("train-out-is-file", "unetrun train tiny.plan --data data --out tiny.plan"),
    ("train-out-unwritable", "unetrun train tiny.plan --data data --out tiny.plan/out"),
    ("train-resume-missing", "unetrun train tiny.plan --data data --out out --resume nothere"),
    ("train-resume-stranger",
     "unetrun train tiny.plan --data data --out out --resume stranger.safetensors"),
    ("train-resume-seed",
     "unetrun train tiny.plan --data data --out run --resume run/last.safetensors --seed 8"),
    ("train-resume-complete",
     "unetrun train tiny.plan --data data --out run --resume run/last.safetensors"),
    ("train-diverges", "unetrun train steep.plan --data data --out out-steep -q", "changes"),
    ("infer", INFER + "data/images/00.png stack.tif dot.png"),
    ("infer-missing-weights",
     "unetrun infer tiny.plan --weights nothere.safetensors --out out data/images/00.png"),
    ("infer-weights-stranger",
     "unetrun infer tiny.plan --weights stranger.safetensors --out out data/images/00.png"),
    ("infer-weights-renamed",
     "unetrun infer tiny.plan --weights renamed.safetensors --out out data/images/00.png"),
    ("infer-weights-cut",
     "unetrun infer tiny.plan --weights cut.safetensors --out out data/images/00.png"),
    ("infer-weights-no-safetensors",
     "unetrun infer tiny.plan --weights tiny.yaml --out out data/images/00.png"),
    ("infer-missing-image", INFER + "data/images/00.png nothere.png"),
    ("infer-broken-image", INFER + "data/images/01.png broken.png"),
    ("infer-text", INFER + "text.png"),
    ("infer-colour", INFER + "colour.png"),
    ("infer-same-stem", INFER + "data/images/00.png other/00.png"),
    ("infer-over-input",
     "unetrun infer tiny.plan --weights run/last.safetensors --out other other/00.png"),
    ("infer-same-directory", INFER + "odd.png --overlay out"),
    ("infer-out-unwritable",
     "unetrun infer tiny.plan --weights run/last.safetensors --out tiny.plan/x odd.png"),
    ("infer-instances-same-directory", INFER + "odd.png --overlay made --instances ./made/"),
    ("infer-instances-unwritable", "unetrun infer tiny.plan --weights run/last.safetensors "
     "--out made/deep --instances tiny.plan/x odd.png"),
    ("infer-instances-over-input", INFER + "other/00.png --instances other"),
    ("eval-data-missing",
     "unetrun eval tiny.plan --weights run/last.safetensors --data nowhere"),
    ("eval-frames-unknown",
     "unetrun eval tiny.plan --weights run/last.safetensors --data data --frames 17"),
    ("devices-disable-unknown", "unetrun bench tiny.plan --disable turbo"),
    ("bench-program-unknown", "unetrun bench tiny.plan --program forward"),
    ("bench-trace-unwritable", "unetrun bench tiny.plan --trace tiny.plan/trace.json"),
    ("bench-trace-directory", "unetrun bench tiny.plan --trace data"),
    ("bench-trace-threads",
     "unetrun bench tiny.plan --trace trace.json --device cpu --threads 1000"),
]


def rows(lab, path):
    return list(csv.DictReader(io.StringIO(lab.read(path).decode())))


def without_times(table):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in table]


def check_metrics(lab):
    table = rows(lab, "run/metrics.csv")
    assert [int(r["step"]) for r in table] == [1, 2, 3, 4, 5, 6], table
    assert all(0 < float(r["loss"]) < 10 and 0 <= float(r["accuracy"]) <= 1 for r in table), table
    assert all(float(a["seconds"]) <= float(b["seconds"]) for a, b in zip(table, table[1:]))
    last = table[-1]
    assert 0 <= float(last["validation_pixel_error"]) <= 1, last
    best = min(float(r["validation_loss"]) for r in table if r["validation_loss"])
    size = struct.unpack("<Q", lab.read("run/best.safetensors")[:8])[0]
    header = json.loads(lab.read("run/best.safetensors")[8:8 + size])
    assert abs(float(header["__metadata__"]["best_score"]) - best) < 1e-6, header


def check_training_repeats(lab):
    lab.good("unetrun train tiny.plan --data data --out again --val-frames 03 --seed 9 -q")
    assert lab.read("again/last.safetensors") == lab.read("run/last.safetensors")
    assert without_times(rows(lab, "again/metrics.csv")) == \
        without_times(rows(lab, "run/metrics.csv"))
    lab.good("unetrun train tiny.plan --data data --out seed --val-frames 03 --seed 8 -q")
    assert lab.read("seed/last.safetensors") != lab.read("run/last.safetensors"), "seed ignored"


def check_resume(lab):
    """Continued from the checkpoint of step 4, the run ends as the one that was not interrupted;
    rows past the checkpoint, left by a run that was killed later, are dropped."""
    train = "unetrun train tiny.plan --data data --out part --val-frames 03 -q "
    lab.good(train + "--seed 9 --checkpoint-every 4")
    shutil.copy(lab.file("run/last.safetensors"), lab.file("part/last.safetensors"))
    lab.good("unetrun train tiny.plan --data data --out stop --val-frames 03 -q --seed 9 --steps 4")
    size = struct.unpack("<Q", lab.read("stop/last.safetensors")[:8])[0]
    header = lab.read("stop/last.safetensors")[8:8 + size]
    data = lab.read("stop/last.safetensors")[8 + size:]
    assert b'"total_steps":"4"' in header, header
    lab.write("part/four.safetensors", struct.pack("<Q", size) +
              header.replace(b'"total_steps":"4"', b'"total_steps":"6"') + data)
    lab.good(train + "--resume part/four.safetensors")
    assert lab.read("part/last.safetensors") == lab.read("run/last.safetensors"), "weights differ"
    table, whole = rows(lab, "part/metrics.csv"), rows(lab, "run/metrics.csv")
    assert [r["step"] for r in table] == [r["step"] for r in whole], table
    assert [r["loss"] for r in table] == [r["loss"] for r in whole], table


def check_accumulated(lab):
    """Three batches for each update: one row and one checkpoint step per update, other weights than
    from one batch, and a run continued after two updates ends as one that was not."""
    train = "unetrun train three.plan --data data --seed 9 -q "
    lab.good(train + "--out three --steps 4")
    table = rows(lab, "three/metrics.csv")
    assert [int(r["step"]) for r in table] == [1, 2, 3, 4], table
    assert all(0 < float(r["loss"]) < 10 and 0 <= float(r["accuracy"]) <= 1 for r in table), table
    assert table[0]["loss"] != rows(lab, "run/metrics.csv")[0]["loss"], "the loss of one batch"
    lab.good(train + "--out parts --steps 2")
    lab.good(train + "--out parts --steps 4 --resume parts/last.safetensors")
    assert lab.read("parts/last.safetensors") == lab.read("three/last.safetensors")
    assert [r["loss"] for r in rows(lab, "parts/metrics.csv")] == [r["loss"] for r in table]
    lab.good("unetrun infer tiny.plan --weights three/last.safetensors --out three-out odd.png -q")


def check_mixed(lab):
    """Mixed precision: metrics have the scale of the loss, which grows after 3 updates, and a run
    continued after two ends as one that was not interrupted, with the scale in its checkpoint."""
    text = lab.read("tiny.yaml").decode()
    lab.write("mixed.yaml", ("precision: mixed\nloss_scaling: {initial: 1024, interval: 3}\n" +
                             text).encode())
    lab.good("unetc mixed.yaml -o mixed.plan -q")
    out = lab.good("unetrun info mixed.plan")
    assert "multiplied by 1024 at first" in out and "after 3 updates" in out, out
    out = lab.good("unetrun info mixed.plan --json")
    assert json.loads(out)["loss_scaling"] == {"initial": 1024.0, "interval": 3}, out
    train = "unetrun train mixed.plan --data data --seed 9 "
    code, _, err = lab.run(train + "--out mixed --steps 5")
    assert code == 0, err
    assert "the loss was multiplied by 2048 in the end; 0 of 5 updates were left out" in err, err
    table = rows(lab, "mixed/metrics.csv")
    assert [float(r["loss_scale"]) for r in table] == [1024, 1024, 1024, 2048, 2048], table
    assert [r["skipped_updates"] for r in table] == ["0"] * 5, table
    lab.good(train + "--out mixed-parts --steps 2 -q")
    lab.good(train + "--out mixed-parts --steps 5 --resume mixed-parts/last.safetensors -q")
    assert lab.read("mixed-parts/last.safetensors") == lab.read("mixed/last.safetensors")
    assert without_times(rows(lab, "mixed-parts/metrics.csv")) == without_times(table)
    assert b'"optimiser.loss_scale"' in lab.read("mixed/last.safetensors")[:8000]
    lab.good("unetrun infer mixed.plan --weights mixed/last.safetensors --out mixed-out odd.png -q")
    assert "loss_scale" not in rows(lab, "run/metrics.csv")[0], "of single precision"
    code, _, err = lab.run("unetrun train tiny.plan --data data --out mixed --steps 6 -q "
                           "--resume mixed/last.safetensors")
    assert code == 1, err
    assert "is of a run in mixed precision, the plan is in single precision" in err, err


def wait_for_rows(lab, path, count):
    for _ in range(12000):
        if os.path.exists(lab.file(path)) and len(lab.read(path).splitlines()) > count:
            return
        time.sleep(0.01)
    raise AssertionError("%s: no %d rows after two minutes" % (path, count))


def check_interrupt(lab):
    """A signal ends the run after its step, with status 0 and a checkpoint to go on from."""
    process = lab.start("unetrun train tiny.plan --data data --out halt --steps 100000")
    wait_for_rows(lab, "halt/metrics.csv", 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopped after step" in err.decode(), err
    done = int(rows(lab, "halt/metrics.csv")[-1]["step"])
    assert "--resume halt/last.safetensors" in err.decode(), err
    lab.good("unetrun train tiny.plan --data data --out halt --steps %d -q "
             "--resume halt/last.safetensors" % (done + 2))
    assert [int(r["step"]) for r in rows(lab, "halt/metrics.csv")] == list(range(1, done + 3))


def check_terminate(lab):
    """SIGTERM likewise, as batch systems send it, also when a fold is held out, and SIGHUP, as a
    terminal that is closed does."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # programs started with nohup hand it on, ignored
    for number in signal.SIGHUP, signal.SIGTERM:
        shutil.rmtree(lab.file("term"), ignore_errors=True)
        process = lab.start("unetrun train tiny.plan --data data --out term --steps 100000 "
                            "--folds 2 --fold 1 --validate-every 100000")
        wait_for_rows(lab, "term/metrics.csv", 3)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert "--folds 2 --fold 1 --validate-every 100000 --resume term/last.safetensors" in err.decode(), err
    step = int(metadata(lab, "term/last.safetensors")["step"])
    assert step == int(rows(lab, "term/metrics.csv")[-1]["step"]), step


def check_interrupted_validation(lab):
    """A run stopped while it validates owes the scores to the run that goes on, also when the step was
    its last; in the end files are those of a run that was not stopped."""
    size = "700x700" if os.environ["UNET_DEVICE"] == "cpu" else "300x300"
    lab.good("unetrun sample wide --count 1 --size %s --seed 5 -q" % size)
    train = "unetrun train tiny.plan --data data --val wide --validate-every 1 "
    owing = {}
    for attempt in range(20):  # the step itself takes a small part of the time
        shutil.rmtree(lab.file("owe"), ignore_errors=True)
        process = lab.start(train + "--seed 4 --out owe --steps 1000")
        wait_for_rows(lab, "owe/metrics.csv", 2)
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "--validate-every 1 --resume" in err.decode(), err
        owing = metadata(lab, "owe/last.safetensors")
        if "owes_validation" in owing:
            break
    assert owing.get("owes_validation") == "1", owing
    step = int(owing["step"])
    code, _, err = lab.run("unetrun train tiny.plan --data data --out owe --steps %d -q "
                           "--resume owe/last.safetensors" % step)
    assert code == 1 and "its run is complete" in err, err
    assert rows(lab, "owe/metrics.csv")[-1]["validation_loss"] == "", "it was validated"
    for steps in step, step + 2:
        code, _, err = lab.run(train + "--out owe --steps %d --resume owe/last.safetensors" % steps)
        assert code == 0, err
        assert ("validation after step %d:" % step in err) == (steps == step), err
    lab.good(train + "--seed 4 --out owe-none --steps %d -q" % (step + 2))
    assert (without_times(rows(lab, "owe/metrics.csv")) ==
            without_times(rows(lab, "owe-none/metrics.csv")))
    for name in "last", "best":
        halves = [lab.read("%s/%s.safetensors" % (out, name)) for out in ("owe", "owe-none")]
        sizes = [8 + struct.unpack("<Q", half[:8])[0] for half in halves]
        assert halves[0][sizes[0]:] == halves[1][sizes[1]:], "%s: weights differ" % name
        first, second = (metadata(lab, "%s/%s.safetensors" % (out, name))
                         for out in ("owe", "owe-none"))
        assert {**first, "total_steps": second["total_steps"]} == second, (first, second)


def metadata(lab, name):
    """Of a checkpoint, which must be whole."""
    data = lab.read(name)
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    end = max(t["data_offsets"][1] for k, t in header.items() if k != "__metadata__")
    assert len(data) == 8 + size + end, "%s: %d bytes" % (name, len(data))
    return header["__metadata__"]


def check_kill(lab):
    """A run that is killed at any moment leaves the checkpoint before or the new one, whole, and can
    be continued. It writes one each step, so that many kills hit the writing."""
    train = "unetrun train tiny.plan --data data --out kill --steps 1000000 --checkpoint-every 1 -q"
    step = 0
    for i in range(12):
        more = " --resume kill/last.safetensors" if step > 0 else ""
        process = lab.start(train + more)
        wait_for_rows(lab, "kill/metrics.csv", step + 3)
        time.sleep(0.0017 * i)
        process.kill()
        process.communicate()
        now = int(metadata(lab, "kill/last.safetensors")["step"])
        assert now > step, (now, step)
        step = now
    lab.good("unetrun infer tiny.plan --weights kill/last.safetensors --out kill-out odd.png -q")


def check_patience(lab):
    """Without a better score the run ends early, with status 0."""
    process = lab.start("unetrun train tiny.plan --data data --out early --val-frames 03 "
                        "--steps 1000 --validate-every 1 --patience 2 --best pixel_error")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    scores = [float(r["validation_pixel_error"]) for r in rows(lab, "early/metrics.csv")]
    assert len(scores) < 1000 and min(scores[-2:]) >= min(scores[:-2]), scores
    assert metadata(lab, "early/best.safetensors")["best_metric"] == "pixel_error"
    assert int(metadata(lab, "early/best.safetensors")["step"]) == len(scores) - 2
    assert "2 validations without a better pixel_error" in err.decode(), err


def check_collapse_said_once(lab):
    """A rate of nothing keeps the output as it is: of one class, which is said once."""
    lab.good("unetc tiny.yaml -o still.plan -q --set rate=1e-12")
    _, _, err = lab.run("unetrun train still.plan --data data --out still --val-frames 03 --steps 4 "
                        "--validate-every 1 --init-from run/one.safetensors")
    assert err.count("collapsed output: cell takes nearly all predictions") == 1, err
    assert err.count("held-out pixels") == 1, err


def check_divergence_keeps_checkpoint(lab):
    lab.run("unetrun train steep.plan --data data --out steep --checkpoint-every 1 -q")
    table = rows(lab, "steep/metrics.csv") if os.path.exists(lab.file("steep/metrics.csv")) else []
    assert all(float(r["loss"]) == float(r["loss"]) for r in table), table
    if os.path.exists(lab.file("steep/last.safetensors")):
        lab.good("unetrun infer steep.plan --weights steep/last.safetensors --out steep-out "
                 "odd.png")


def check_infer_outputs(lab):
    lab.good(INFER + "data/images/00.png stack.tif dot.png -q")
    for name, size in (("00", (64, 48)), ("stack-000", (41, 30)), ("stack-001", (41, 30)),
                       ("dot", (1, 1))):
        header = pictures.png_header(lab.read("out/%s.png" % name))
        assert header == size + (8, 0), (name, header)


def infer(lab, plan, out, more=""):
    lab.good("unetrun infer %s --weights run/last.safetensors --out %s --probabilities %s-p -q %s "
             "odd.png data/images/01.png stack.tif" % (plan, out, out, more))
    names = ("odd", "01", "stack-000", "stack-001")
    return {name: lab.read("%s-p/%s.png" % (out, name)) for name in names}


def check_tiles_equal_whole(lab):
    """Plans of other tile sizes and batches give the same probabilities: the large tile holds each
    of these images whole, the small one needs up to twelve tiles."""
    small, large, batch = (infer(lab, "%s.plan" % name, "t-" + name)
                           for name in ("tiny", "large", "batch"))
    assert small == large, [k for k in small if small[k] != large[k]]
    assert small == batch, [k for k in small if small[k] != batch[k]]


def check_tta(lab):
    plain = infer(lab, "tiny.plan", "t-one")
    four = infer(lab, "tiny.plan", "t-four", "--tta 4")
    eight = infer(lab, "tiny.plan", "t-eight", "--tta 8")
    assert plain != four and four != eight, "averaging changes nothing"
    assert eight == infer(lab, "large.plan", "t-eight-large", "--tta 8"), "differs by tile size"


def check_probability_picture(lab):
    infer(lab, "tiny.plan", "t-picture")
    assert pictures.png_header(lab.read("t-picture-p/odd.png")) == (61, 47, 16, 0)


def flood(fields, start, eight):
    """The places connected to one, of the same value."""
    (height, width), found, todo = (len(fields), len(fields[0])), {start}, [start]
    while todo:
        y, x = todo.pop()
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            place = y + dy, x + dx
            if (eight or dy == 0 or dx == 0) and 0 <= place[0] < height and \
                    0 <= place[1] < width and place not in found and \
                    fields[place[0]][place[1]] == fields[y][x]:
                found.add(place)
                todo.append(place)
    return found


def regions(fields, eight=False):
    """Of equal values, in raster order."""
    seen, found = set(), []
    for y, row in enumerate(fields):
        for x in range(len(row)):
            if (y, x) not in seen:
                found.append(flood(fields, (y, x), eight))
                seen |= found[-1]
    return found


def objects_of(mask, min_size, fill):
    """Ids by definition (docs/data.md), slowly."""
    for region in regions(mask):
        y, x = min(region)
        if mask[y][x] and len(region) < min_size:
            for y, x in region:
                mask[y][x] = 0
    ids = [[0] * len(row) for row in mask]
    for number, region in enumerate((r for r in regions(mask) if mask[min(r)[0]][min(r)[1]]), 1):
        for y, x in region:
            ids[y][x] = number
    holes = [(r, min(r)) for r in regions(mask, True)] if fill else []
    for region, (y, x) in holes:
        if mask[y][x]:
            continue
        around = {ids[b][a] if 0 <= b < len(ids) and 0 <= a < len(ids[0]) else -1
                  for y, x in region for b in range(y - 1, y + 2) for a in range(x - 1, x + 2)}
        around.discard(0)
        if len(around) == 1 and -1 not in around:
            for y, x in region:
                ids[y][x] = next(iter(around))
    return ids


def picture_rows(lab, path):
    picture = png.read(lab.file(path))
    size = picture.depth // 8
    values = [int.from_bytes(picture.data[i:i + size], "big")
              for i in range(0, len(picture.data), size)]
    return [values[i:i + picture.width] for i in range(0, len(values), picture.width)]


def check_instances(lab):
    """Ids are numbered components of the label picture, which itself stays as it is."""
    images, results = "odd.png data/images/01.png stack.tif -q ", set()
    lab.good(FIND + images)
    plain = {name: lab.read("found/%s.png" % name) for name in ("odd", "01", "stack-001")}
    for min_size, fill in ((0, False), (6, False), (0, True), (20, True)):
        lab.good(FIND + images + "--instances ids" + (" --min-size %d" % min_size) *
                 (min_size > 0) + " --fill-holes" * fill)
        for name, before in plain.items():
            assert lab.read("found/%s.png" % name) == before, name + ": the labels changed"
            assert pictures.png_header(lab.read("ids/%s.png" % name))[2:] == (16, 0)
            mask = [[value == 255 for value in row]
                    for row in picture_rows(lab, "found/%s.png" % name)]
            ids = picture_rows(lab, "ids/%s.png" % name)
            assert ids == objects_of(mask, min_size, fill), (name, min_size, fill)
            results.add(str(ids))
    assert len(results) > len(plain), "no option changes anything"


def check_overlays(lab):
    """The image with lines in one colour, or with --instances in several."""
    for more, least in (("", 1), ("--instances ids", 2)):
        lab.good(FIND + "--overlay over odd.png -q " + more)
        assert pictures.png_header(lab.read("over/odd.png")) == (61, 47, 8, 2)
        data = png.read(lab.file("over/odd.png")).data
        pixels = [tuple(data[i:i + 3]) for i in range(0, len(data), 3)]
        colours = {p for p in pixels if not p[0] == p[1] == p[2]}
        assert least <= len(colours) <= (1 if more == "" else 8), colours
    lab.good("unetrun eval tiny.plan --weights run/last.safetensors --data data --overlay sides -q")
    assert pictures.png_header(lab.read("sides/00.png"))[0] > 3 * 64


def check_eval(lab):
    scores = json.loads(lab.good(
        "unetrun eval tiny.plan --weights run/last.safetensors --data data --frames 3 --json"))
    assert scores["images"] == 1 and scores["pixels"] == 64 * 48, scores
    last = rows(lab, "run/metrics.csv")[-1]
    assert abs(scores["pixel_error"] - float(last["validation_pixel_error"])) < 1e-6, scores
    assert abs(scores["iou"] - float(last["validation_iou"])) < 1e-6, scores
    assert [c["name"] for c in scores["classes"]] == ["membrane", "cell"], scores
    out = lab.good("unetrun eval tiny.plan --weights run/last.safetensors --data data")
    for text in ("pixel error", "misclassified", "pixel accuracy", "mean IoU", "IoU membrane",
                 "Rand error", "warping error", "V_Rand", "V_Info"):
        assert text in out, out


EVAL_KEYS = """metric images reference pixels ignored_pixels pixel_error pixel_threshold misclassified
    pixel_accuracy rand_error rand_threshold warping_error warping_threshold warping_error_local
    v_rand v_rand_threshold v_rand_split v_rand_merge v_info v_info_threshold v_info_split
    v_info_merge iou mean_iou dice mean_dice seg det f1 labelled_objects predicted_objects merged
    split classes frames""".split()
EM_KEYS = [k for k in EVAL_KEYS if k.startswith(("rand", "warping", "v_"))]
OBJECT_KEYS = ["seg", "det", "f1", "labelled_objects", "predicted_objects", "merged", "split"]


def check_eval_metrics(lab):
    command = "unetrun eval tiny.plan --weights run/last.safetensors --data data "
    em = json.loads(lab.good(command + "--json --csv em.csv"))
    assert list(em) == EVAL_KEYS, list(em)
    assert em["metric"] == "em" and em["reference"] is None
    assert all(em[k] is None for k in OBJECT_KEYS), em
    assert all(0 <= em[k] <= 1 for k in EM_KEYS), em
    assert abs(em["misclassified"] + em["pixel_accuracy"] - 1) < 1e-12, em
    table = rows(lab, "em.csv")
    assert [r["image"] for r in table] == [f["name"] for f in em["frames"]], table
    assert len(table) == em["images"] > 1, table
    for row, frame in zip(table, em["frames"]):
        for key in EM_KEYS + ["iou", "dice", "pixel_error"]:
            assert abs(float(row[key]) - frame[key]) < 1e-8, (key, row, frame)
        assert row["seg"] == "" and float(row["iou_class_1"]) == float(row["iou"]), row
    # V_Rand is a mean over images; no image alone can be worse at its own threshold.
    assert em["v_rand"] <= sum(f["v_rand"] for f in em["frames"]) / em["images"] + 1e-12, em

    objects = json.loads(lab.good(command + "--metric instances --json --csv objects.csv"))
    assert list(objects) == EVAL_KEYS, list(objects)
    assert objects["metric"] == "instances" and objects["reference"] == "components"
    assert all(objects[k] is None for k in EM_KEYS), objects
    for key in ("pixel_error", "misclassified", "iou", "mean_iou", "dice"):
        assert objects[key] == em[key], key
    assert objects["labelled_objects"] > 0 and 0 <= objects["seg"] <= 1, objects
    table = rows(lab, "objects.csv")
    for key in ("labelled_objects", "predicted_objects", "merged", "split"):
        assert sum(int(r[key]) for r in table) == objects[key], key
    few = json.loads(lab.good(command + "--metric instances --json --min-size 1000000"))
    assert few["predicted_objects"] == 0 and few["seg"] == 0 and few["det"] == 0, few
    out = lab.good(command + "--metric instances --fill-holes --min-size 5")
    for text in ("SEG", "DET", "F1", "merged", "split", "components", "IoU cell"):
        assert text in out, out


def check_bench(lab):
    for program in ("infer", "evaluate", "train_step"):
        result = json.loads(lab.good("unetrun bench tiny.plan --program %s --repeat 3 --json" %
                                     program))
        for key in ("device", "driver", "program", "seconds_median", "seconds_min", "gflop",
                    "gflops", "arena_bytes", "weight_bytes"):
            assert key in result, key
        assert result["program"] == program
        assert 0 < result["seconds_min"] <= result["seconds_median"], result
        assert abs(result["gflops"] * result["seconds_median"] / result["gflop"] - 1) < 1e-6


def check_precision(lab):
    """Half precision is a method of mixed models only, and a device without matrix units runs them
    as it runs others."""
    text = lab.read("tiny.yaml").decode()
    lab.write("mixed.yaml", ("precision: mixed\n" + text).encode())
    wide = " -q --set width=32 --dump plan"
    assert ", matrix" not in lab.good("unetc tiny.yaml -o single.plan" + wide)
    assert ", matrix" in lab.good("unetc mixed.yaml -o mixed.plan" + wide)
    devices = json.loads(lab.good("unetrun devices --json"))
    used = devices["devices"][devices["chosen"]]
    result = json.loads(lab.good("unetrun bench mixed.plan --program train_step --repeat 1 --json"))
    if used["limits"]["matrix"] == [0, 0, 0]:
        assert "matrix" not in result["methods"], result["methods"]
    single = json.loads(lab.good("unetrun bench single.plan --program train_step --repeat 1 --json"))
    assert result["gflop"] == single["gflop"], (result, single)
    # gradients of all weights, until the verdict over them
    assert 0 <= result["arena_bytes"] - single["arena_bytes"] <= 2 * single["weight_bytes"], result


def check_selftest(lab):
    """Every kernel of the device, by every method, against the native ones."""
    out = lab.good("unetrun selftest -q")
    lines = out.splitlines()
    assert re.fullmatch(r"selftest: passed: \d+ records on .+", lines[-1]), lines[-1]
    kernels = {line.split()[0] for line in lines if line.endswith("%")}
    for kernel in ("conv_fwd", "conv_dgrad", "conv_wgrad", "upconv_fwd", "maxpool_bwd", "sgd",
                   "adam_scaled", "gradient_check", "loss_scale", "accumulate", "softmax_loss",
                   "winograd_product"):
        assert kernel in kernels, kernel
    if chosen_device(lab)["backend"] != "vulkan":
        return
    assert "target small" not in out, out
    small = lab.good("unetrun selftest -q", UNET_TILING="gpu",
                     UNET_LIMITS="shared_bytes=16384,group_invocations=128,group_size=128")
    assert small.splitlines()[1].startswith("plans     compiled for target small"), small
    assert re.match(r"selftest: passed: \d+ records", small.splitlines()[-1]), small
    assert "conv_fwd             direct" in small, small


def check_tune(lab):
    """Methods are measured, kept and found; a run continued from a checkpoint keeps its own."""
    is_vulkan = json.loads(lab.good("unetrun bench tiny.plan --repeat 1 --json"))["access"] != \
        "pointers"
    wide = "unetc tiny.yaml -o wide32.plan -q --set width=32 --dump plan"
    assert ", winograd (" in lab.good(wide)
    # the methods that are left give the same bits
    assert "winograd" not in lab.good(wide + " --disable methods")
    bench = "unetrun bench wide32.plan --repeat 1 --json --program train_step"
    assert json.loads(lab.good(bench + " --disable narrow"))["methods"].startswith(
        "train_step: direct ")
    assert json.loads(lab.good(bench + " --disable direct"))["methods"].startswith(
        "train_step: narrow ")
    assert "direct" in json.loads(lab.good("unetrun devices --json"))["fast_paths"]
    tune = "unetrun tune wide32.plan --repeat 1 --out tuned.txt -q"
    if not is_vulkan:  # native kernels have one way for both
        code, out, err = lab.run(tune)
        assert code == 1 and "nothing in this plan" in err, (code, out, err)
        return
    code, out, err = lab.run("unetrun tune tiny.plan --out tuned.txt -q")
    assert code == 1 and "nothing in this plan" in err, (code, out, err)
    shapes = json.loads(lab.good(tune + " --json"))["shapes"]
    assert shapes and all(set(s["seconds"]) <= {"direct", "narrow"} for s in shapes), shapes
    text = lab.read("tuned.txt").decode()
    for shape in shapes:
        assert "%s: %s" % (shape["shape"], shape["chosen"]) in text, text
    # the other method of every shape, as if it had been measured so
    swapped = text.replace(": direct", ": x").replace(": narrow", ": direct").replace(": x",
                                                                                      ": narrow")
    lab.write("swapped.txt", swapped.encode())
    own = json.loads(lab.good(bench, UNET_TUNE=lab.file("tuned.txt")))["methods"]
    other = json.loads(lab.good(bench, UNET_TUNE=lab.file("swapped.txt")))["methods"]
    assert own != other, own
    train = "unetrun train wide32.plan --data data --seed 9 --steps 4 "
    lab.good(train + "--out tuned -q", UNET_TUNE=lab.file("tuned.txt"))
    header = lab.read("tuned/last.safetensors")[8:4000]
    assert ('"methods":"%s"' % own).encode() in header, header
    code, out, err = lab.run("unetrun train wide32.plan --data data --steps 5 --out tuned "
                             "--resume tuned/last.safetensors",
                             UNET_TUNE=lab.file("swapped.txt"))
    assert code == 0 and "methods as in the checkpoint" in err, err
    assert ('"methods":"%s"' % own).encode() in lab.read("tuned/last.safetensors")[8:4000]


def check_cpu_device(lab):
    """The CPU is always there, after all others; threads change no result."""
    listed = json.loads(lab.good("unetrun devices --json --device cpu"))
    last = listed["devices"][-1]
    assert last["backend"] == "cpu" and last["chosen"] and last["usable"], last
    assert listed["chosen"] == last["index"] == len(listed["devices"]) - 1, listed
    assert "unet native kernels" in lab.good("unetrun devices --device cpu")
    result = json.loads(lab.good("unetrun bench tiny.plan --device cpu --threads 3 --json"))
    assert result["device"].startswith("CPU (") and result["access"] == "pointers", result
    for threads in (1, 4):
        lab.good("unetrun train tiny.plan --data data --out threads-%d --seed 9 -q --device cpu "
                 "--threads %d" % (threads, threads))
    assert lab.read("threads-1/last.safetensors") == lab.read("threads-4/last.safetensors")


def check_pipelines(lab):
    """Every pipeline of the plan once, where the driver tells about them."""
    code, out, err = lab.run("unetrun devices --pipelines tiny.plan --json")
    if code == 3:
        assert "there are no pipelines" in err or "tells nothing about pipelines" in err, err
        return
    assert code == 0, err
    result = json.loads(out)
    kinds = [(p["shader"], tuple(p["constants"])) for p in result["pipelines"]]
    assert kinds and len(set(kinds)) == len(kinds), kinds
    info = json.loads(lab.good("unetrun info tiny.plan --json"))
    assert sum(p["records"] for p in result["pipelines"]) == sum(
        p["records"] for p in info["programs"]), result
    assert kinds[0][0] in lab.good("unetrun devices --pipelines tiny.plan")


def check_target(lab):
    """The limits that are written are those that are listed, and a plan can be made for them."""
    chosen = chosen_device(lab)
    if chosen["backend"] != "vulkan":
        return
    lab.good("unetrun devices --target limits.yaml")
    text = lab.read("limits.yaml").decode()
    assert text.startswith("# limits of a device") and chosen["driver"] in text, text
    for name, value in chosen["limits"].items():
        written = re.search(r"^%s: ([^#\n]*) #" % name, text, re.MULTILINE).group(1)
        assert written == str(value), (name, written, value)
    lab.good("unetc tiny.yaml -o own.plan -q --target limits.yaml")
    fits = lab.good("unetc --verify own.plan --target limits.yaml")
    assert "fits target %s" % chosen["name"] in fits, fits
    told = json.loads(lab.good("unetrun info own.plan --json"))["target"]
    assert told == {**chosen["limits"], "name": chosen["name"]}, told
    run = "unetrun bench own.plan --program infer --repeat 1"
    assert "compiled for target" not in lab.run(run)[2]
    code, _, err = lab.run(run, UNET_LIMITS="shared_bytes=16384")
    assert code == 0 and "compiled for target %s, which allows more than" % chosen["name"] in err, err
    assert "shared_bytes %d, here 16384" % chosen["limits"]["shared_bytes"] in err, err
    code, _, err = lab.run("unetrun devices --target nowhere/limits.yaml")
    assert code == 4 and "nowhere/limits.yaml" in err, err
    code, _, err = lab.run("unetrun devices", UNET_LIMITS="shared=3")
    assert code == 2 and "UNET_LIMITS" in err, err


def check_contract(lab):
    """Every line of the contract is printed; a device is usable exactly when all required ones are
    met; one held to less is refused by the same words."""
    listed = json.loads(lab.good("unetrun devices --json"))["devices"]
    text = lab.good("unetrun devices")
    for device in listed:
        assert device["usable"] == all(line["met"] for line in device["contract"]
                                       if line["required"]), device
        assert (device["backend"] == "vulkan") == bool(device["contract"]), device
        for line in device["contract"]:
            words = ["needed"] if line["required"] else ["use", "brings"]
            assert all(line[word] in text for word in ["name", "here"] + words), line
    if listed[0]["backend"] != "vulkan":
        return
    small = {"UNET_LIMITS": "shared_bytes=8192,group_invocations=64"}
    device = json.loads(lab.good("unetrun devices --json --device cpu", **small))["devices"][0]
    missing = [line["name"] for line in device["contract"] if line["required"] and not line["met"]]
    assert missing == ["shared memory of a workgroup", "invocations of a workgroup"], missing
    assert not device["usable"] and all(name in device["missing"] for name in missing), device
    assert lab.good("unetrun devices --device cpu", **small).count("MISSING") >= 2
    code, _, err = lab.run("unetrun bench tiny.plan --device vulkan", **small)
    assert code == 3 and "shared memory of a workgroup: 16 KiB needed, 8 KiB here" in err, err


def chosen_device(lab):
    devices = json.loads(lab.good("unetrun devices --json"))
    return devices["devices"][devices["chosen"]]


def check_peak_figures(result):
    for figure in ("multiply_add_gflops", "copy_gbytes_per_s"):
        assert math.isfinite(result[figure]), result
        assert 0 < result[figure + "_median"] <= result[figure], result


def check_peak(lab):
    """The device's ceilings, without a plan, with one, and with a number of threads."""
    result = json.loads(lab.good("unetrun bench --peak --json"))
    check_peak_figures(result)
    device = chosen_device(lab)
    assert (result["device"], result["driver"]) == (device["name"], device["driver"]), result
    check_peak_figures(json.loads(lab.good("unetrun bench --peak --json --device cpu --threads 1")))
    out = lab.good("unetrun bench --peak")
    assert "multiply-add" in out and "GFLOP/s" in out and "GB/s" in out, out
    result = json.loads(lab.good("unetrun bench tiny.plan --peak --repeat 1 --json"))
    before, after = result["ceilings_before"], result["ceilings_after"]
    for part in (result, before, after):
        check_peak_figures(part)
    for figure in ("multiply_add_gflops", "copy_gbytes_per_s"):
        assert result[figure] == max(before[figure], after[figure]), result
    assert result["program"] == "infer" and "records" not in result, result


def check_ceiling_holds(lab):
    """No direct sum multiplies and adds faster than the loop that does nothing else. Kernels by their
    median time, the loop by its best, and it is enough to see that once: a neighbour on the machine may
    slow either down. A loop that wastes or miscounts half of its work does not pass on the CPU, where
    the best kernels reach more than half of the ceiling."""
    if chosen_device(lab)["timestamp_period_ns"] == 0:
        return
    lab.good("unetc tiny.yaml -o heavy.plan -q --set width=64 --set tile=72")
    seen = []
    for _ in range(4):
        result = json.loads(lab.good("unetrun bench heavy.plan --profile --repeat 8 --json",
                                     UNET_CPU_CONV="direct"))
        best = max(r["gflops"] for r in result["records"]
                   if r["kernel"].startswith(("conv_", "upconv_")) and r["gflop"] > 0.05)
        seen.append((best, result["multiply_add_gflops"]))
        if 0 < best <= result["multiply_add_gflops"]:
            return
    raise AssertionError("best kernel, ceiling: %s" % seen)


def has_time_stamps(lab):
    if chosen_device(lab)["timestamp_period_ns"] > 0:
        return True
    for option in ("--profile", "--trace none.json"):
        code, _, err = lab.run("unetrun bench tiny.plan " + option)
        assert code == 3 and "time stamps" in err, err
    assert not os.path.exists(lab.file("none.json"))
    return False


def check_profile_record(record, result):
    """The figures follow from one another and from the ceilings."""
    compute = record["gflop"] / result["multiply_add_gflops"]
    copy = record["bytes"] * 1e-9 / result["copy_gbytes_per_s"]
    seconds = record["seconds"]
    assert seconds >= 0 and record["bytes"] > 0, record
    if seconds > 0:
        assert math.isclose(record["gflops"] * seconds, record["gflop"], abs_tol=1e-9), record
        assert math.isclose(record["gbytes_per_s"] * seconds, record["bytes"] * 1e-9,
                            rel_tol=1e-6), record
        assert math.isclose(record["ceiling_percent"] * seconds, 100 * max(compute, copy),
                            rel_tol=1e-6), record
    assert record["ceiling"] == ("multiply_add" if compute > copy else "copy"), record


def check_profile(lab):
    if not has_time_stamps(lab):
        return
    info = json.loads(lab.good("unetrun info tiny.plan --json"))
    result = json.loads(lab.good("unetrun bench tiny.plan --program train_step --profile --repeat 2 "
                                 "--json"))
    records = {p["name"]: p["records"] for p in info["programs"]}["train_step"]
    assert len(result["records"]) == records
    for record in result["records"]:
        check_profile_record(record, result)
    for table in ("kernels", "operations", "directions"):
        assert sum(row["dispatches"] for row in result[table]) == records, table
        for figure in ("seconds", "gflop", "bytes"):
            assert math.isclose(sum(row[figure] for row in result[table]), result["all"][figure],
                                rel_tol=1e-6), (table, figure)
    idle = [result["outside_seconds"], result["between_seconds"]]
    assert min(idle) >= 0 and sum(idle) < 2 * result["seconds_median"], idle
    parts = {(r["label"], r["operation"], r["direction"]) for r in result["records"]}
    for part in (("enc forward", "convolution", "forward"),
                 ("up data gradient", "up-convolution", "data gradient"),
                 ("up weights transposed", "up-convolution", "data gradient"),
                 ("enc weight gradient", "convolution", "weight gradient"),
                 ("up bias gradient", "up-convolution", "weight gradient"),
                 ("enc bias gradient", "convolution", "weight gradient"),
                 ("up.weight update", "optimiser", "update")):
        assert part in parts, "%s is not in %s" % (part, sorted(parts))
    out = lab.good("unetrun bench tiny.plan --profile --repeat 1")
    for text in ("enc forward", "before:", "after:", "convolution, forward", "of ceiling",
                 "before the first dispatch"):
        assert text in out, out


def check_trace(lab):
    """Trace events: every dispatch of every timed run, in order and without overlap on each row;
    its figures are those of the profile."""
    if chosen_device(lab)["timestamp_period_ns"] == 0:
        return
    lab.write("trace.json", b"old")
    result = json.loads(lab.good("unetrun bench tiny.plan --program train_step --repeat 3 --profile "
                                 "--json --trace trace.json"))
    events = json.loads(lab.read("trace.json"))
    names = {(e["name"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    spans = [e for e in events if e["ph"] == "X"]
    assert len(names) + len(spans) == len(events) and len(names) == 3, names
    rows = {tid: [e for e in spans if e["tid"] == tid] for (name, tid) in names}
    assert {len(rows[1]), len(rows[2])} == {3, 3 * len(result["records"])}, len(spans)
    assert result["device"] in names["thread_name", 2] and "train_step" in names["process_name", 1]
    for row in rows.values():
        for one, other in zip(row, row[1:]):
            assert one["dur"] >= 0 and one["ts"] + one["dur"] <= other["ts"] + 1e-4, (one, other)
    count = len(result["records"])
    for number, event in enumerate(rows[2]):
        record, args = result["records"][number % count], event["args"]
        assert event["name"] == record["label"] and args["kernel"] == record["kernel"], event
        assert args["bytes"] == record["bytes"] and "ceiling_percent" in args, event
        assert event["cat"] == "%s,%s" % (record["operation"], record["direction"]), event
        assert math.isclose(args["gflops"] * event["dur"] * 1e-6, args["gflop"], rel_tol=1e-6,
                            abs_tol=1e-12), event
    for number, record in enumerate(result["records"]):
        median = sorted(e["dur"] for e in rows[2][number::count])[1]
        assert math.isclose(median * 1e-6, record["seconds"], rel_tol=1e-6, abs_tol=1e-9), record
    assert rows[2][0]["args"]["shape"].startswith("x 1x1x24x24, w 2x1x3x3, "), rows[2][0]
    wall = sum(e["dur"] for e in rows[1])
    assert sum(e["dur"] for e in rows[2]) <= wall * 1.01, "dispatches take longer than their runs"
    assert not [name for name in lab.tree() if "trace.json" in name and name != "trace.json"]


def example(lab, name, *arguments):
    """Runs a program of examples/, which lies beside the tools in the build folder."""
    path = os.path.join(os.path.dirname(lab.tools["unetrun"]), "..", "examples", name)
    done = subprocess.run([path] + list(arguments), cwd=lab.path, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=240)
    assert done.returncode == 0, "%s: status %d\n%s" % (name, done.returncode,
                                                        done.stderr.decode())
    return done.stdout.decode()


def check_example_inspect_plan(lab):
    out = example(lab, "inspect_plan", "tiny.plan")
    assert "model tiny: 24 x 24 pixels in, 16 x 16 out, 2 classes" in out, out
    assert "program infer:" in out and "conv_fwd" in out, out


def check_example_segment(lab):
    """The library and the tool agree on every pixel."""
    example(lab, "segment", "tiny.plan", "run/last.safetensors", "odd.png", "segment.png")
    lab.good(INFER + "odd.png -q")
    ours, theirs = png.read(lab.file("out/odd.png")), png.read(lab.file("segment.png"))
    assert (ours.width, ours.height) == (theirs.width, theirs.height) == (61, 47)
    assert ours.data == theirs.data, "the pictures differ"


def check_example_train_arrays(lab):
    out = example(lab, "train_arrays", "discs.safetensors")
    assert "after 60 steps" in out, out
    assert os.path.exists(lab.file("discs.safetensors"))


CHECKS = [check_metrics, check_training_repeats, check_resume, check_accumulated, check_mixed,
          check_interrupt, check_terminate, check_interrupted_validation, check_kill,
          check_patience, check_collapse_said_once,
          check_divergence_keeps_checkpoint, check_infer_outputs, check_tiles_equal_whole,
          check_tta, check_probability_picture, check_instances, check_overlays, check_eval,
          check_eval_metrics, check_bench, check_selftest, check_precision, check_tune, check_cpu_device,
          check_pipelines, check_target, check_contract, check_peak, check_ceiling_holds, check_profile, check_trace,
          check_example_inspect_plan, check_example_segment, check_example_train_arrays]
