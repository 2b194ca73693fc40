"""Cases that need no device: the compiler, plans, mistakes on the command line, samples."""
import json
import os
import re
import shutil
import struct
import subprocess
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))


def set_up(lab):
    shutil.copy(os.path.join(HERE, "tiny.yaml"), lab.file("tiny.yaml"))
    lab.good("unetc tiny.yaml -o tiny.plan -q")
    lab.good("unetc tiny.yaml -o small.plan -q --target small")
    plan = lab.read("tiny.plan")
    lab.write("short.plan", plan[:1000])
    middle = len(plan) // 2
    lab.write("flipped.plan", plan[:middle] + bytes([plan[middle] ^ 1]) + plan[middle + 1:])
    lab.write("longer.plan", plan + b"more")
    lab.write("empty.plan", b"")
    lab.good("unetrun sample pictures --count 3 --size 40x36 -q")
    model = lab.read("tiny.yaml").decode()
    lab.write("wrong.yaml", model.replace("maxpool: 2", "maxpol: 2").replace(
        "${width * 2}", "${widht * 2}").encode())
    lab.write("idle.yaml", model.replace('tile: "${tile}"', "tile: 24").encode())
    lab.write("fixed.yaml", model.replace('tile: "${tile}"', "tile: 24").replace(
        "tile: 24, batch", "batch").encode())
    again = model.replace("accumulate: 1", "accumulate: 1, recompute: none").replace(
        'accumulate: "${accumulate}"', 'accumulate: "${accumulate}", recompute: "${recompute}"')
    lab.write("again.yaml", again.replace(
        "layers:\n", 'layers:\n  - conv: {name: first, channels: "${width}"}\n  - relu\n').replace(
            "tile: 24", "tile: 34").encode())
    lab.write("binary.yaml", b"model: x\0y")
    lab.write("wrong-limits.yaml", b"# typed by hand\nshard_bytes: 16384\ngroups: [4, 4]\n")
    lab.write("narrow.yaml", b"name: Narrow\nshared_bytes: 16384\nbinding_bytes: 1000\n")


# name, command, and "changes" where a failing command may leave files
GOLDEN = [
    ("unetc-help", "unetc --help"),
    ("unetc-no-model", "unetc"),
    ("unetc-missing-file", "unetc nothere.yaml"),
    ("unetc-two-models", "unetc tiny.yaml other.yaml"),
    ("unetc-set-unknown", "unetc tiny.yaml --set wdith=3"),
    ("unetc-set-no-value", "unetc tiny.yaml --set width"),
    ("unetc-set-bad-value", "unetc tiny.yaml --set width=-1"),
    ("unetc-tile-odd", "unetc tiny.yaml --set tile=25"),
    ("unetc-mistakes", "unetc wrong.yaml"),
    ("unetc-binary", "unetc binary.yaml"),
    ("unetc-dump-unknown", "unetc tiny.yaml --dump fusion"),
    ("unetc-disable-unknown", "unetc tiny.yaml --disable mask,fusion"),
    ("unetc-place-unknown", "unetc tiny.yaml --place size,worst-fit"),
    ("unetc-place-search-alone", "unetc tiny.yaml --place search"),
    ("unetc-max-allocation-word", "unetc tiny.yaml --max-allocation little"),
    ("unetc-max-allocation-tiny", "unetc tiny.yaml --max-allocation 100"),
    ("unetc-max-allocation-tensor", "unetc tiny.yaml -o x.plan --max-allocation 1KiB"),
    ("unetc-max-allocation-verify", "unetc --verify tiny.plan --max-allocation 1GiB"),
    ("unetc-target-list", "unetc --target ?"),
    ("unetc-target-none", "unetc tiny.yaml -o x.plan --target toaster"),
    ("unetc-target-mistakes", "unetc tiny.yaml -o x.plan --target wrong-limits.yaml"),
    ("unetc-target-tensor", "unetc tiny.yaml -o x.plan --target narrow.yaml"),
    ("unetc-target-verify", "unetc --verify tiny.plan --target small"),
    ("unetc-target-verify-refused", "unetc --verify tiny.plan --target narrow.yaml"),
    ("unetc-target-diff", "unetc --diff tiny.plan tiny.plan --target small"),
    ("unetc-unknown-option", "unetc tiny.yaml --explian"),
    ("unetc-short-option", "unetc tiny.yaml -x"),
    ("unetc-output-unwritable", "unetc tiny.yaml -o nowhere/tiny.plan"),
    ("unetc-program-alone", "unetc tiny.yaml -o x.plan --program infer"),
    ("unetc-program-unknown", "unetc tiny.yaml -o x.plan --graph x.dot --program trian"),
    ("unetc-svg-unwritable", "unetc tiny.yaml -o x.plan --arena-svg nowhere/x.svg"),
    ("unetc-explain-word", "unetc tiny.yaml -o x.plan --explain=memori"),
    ("unetc-memory-word", "unetc tiny.yaml -o x.plan --memory much"),
    ("unetc-memory-negative", "unetc tiny.yaml -o x.plan --memory=-4GiB"),
    ("unetc-memory-small", "unetc tiny.yaml -o x.plan --memory 2KiB"),
    ("unetc-memory-and-tile", "unetc tiny.yaml -o x.plan --memory 1MiB --set tile=24"),
    ("unetc-memory-variable", "unetc fixed.yaml -o x.plan --memory 1MiB"),
    ("unetc-memory-idle-variable", "unetc idle.yaml -o x.plan --memory 1MiB"),
    ("unetc-fit-word", "unetc tiny.yaml -o x.plan --memory 1MiB --fit width"),
    ("unetc-fit-recompute-variable", "unetc tiny.yaml -o x.plan --memory 1MiB --fit recompute"),
    ("unetc-fit-recompute-set",
     "unetc again.yaml -o x.plan --memory 1MiB --fit recompute --set recompute=first"),
    ("unetc-fit-recompute-small", "unetc again.yaml -o x.plan --memory 20KiB --fit recompute"),
    ("unetc-fit-recompute-infer",
     "unetc again.yaml -o x.plan --memory 1MiB --fit recompute --fit-program infer"),
    ("unetc-recompute-unkept", "unetc again.yaml -o x.plan --set recompute=enc"),
    ("unetc-diff-one", "unetc --diff tiny.plan"),
    ("unetc-diff-truncated", "unetc --diff tiny.plan short.plan"),
    ("unetc-diff-same", "unetc --diff tiny.plan tiny.plan"),
    ("unetc-diff-verify", "unetc --diff tiny.plan tiny.plan --verify tiny.plan"),
    ("unetc-verify", "unetc --verify tiny.plan"),
    ("unetc-verify-for-small", "unetc --verify small.plan"),
    ("unetc-verify-truncated", "unetc --verify short.plan"),
    ("unetc-verify-flipped", "unetc --verify flipped.plan"),
    ("unetc-verify-longer", "unetc --verify longer.plan"),
    ("unetc-verify-empty", "unetc --verify empty.plan"),
    ("unetc-verify-not-a-plan", "unetc --verify tiny.yaml"),
    ("unetc-verify-and-model", "unetc --verify tiny.plan tiny.yaml"),
    ("unetrun-help", "unetrun --help"),
    ("unetrun-train-help", "unetrun train --help"),
    ("unetrun-no-command", "unetrun"),
    ("unetrun-unknown-command", "unetrun trian tiny.plan"),
    ("unetrun-option-first", "unetrun --quiet info tiny.plan"),
    ("info-missing-plan", "unetrun info"),
    ("info-missing-file", "unetrun info nothere.plan"),
    ("info-truncated", "unetrun info short.plan"),
    ("info-two-plans", "unetrun info tiny.plan tiny.plan"),
    ("info-flag-value", "unetrun info tiny.plan --json=yes"),
    ("train-missing-out", "unetrun train tiny.plan --data data"),
    ("train-unknown-option", "unetrun train tiny.plan --data data --out out --stesp 5"),
    ("train-steps-zero", "unetrun train tiny.plan --data data --out out --steps 0"),
    ("train-steps-word", "unetrun train tiny.plan --data data --out out --steps many"),
    ("train-steps-no-value", "unetrun train tiny.plan --data data --out out --steps"),
    ("train-value-is-option", "unetrun train tiny.plan --data --out out"),
    ("train-option-twice", "unetrun train tiny.plan --data a --data b --out out"),
    ("train-two-validations",
     "unetrun train tiny.plan --data data --out out --val other --val-frames 01"),
    ("train-seed-negative", "unetrun train tiny.plan --data data --out out --seed -1"),
    ("infer-no-image", "unetrun infer tiny.plan --weights w.safetensors --out out"),
    ("infer-tta-three", "unetrun infer tiny.plan --weights w.safetensors --out out --tta 3 a.png"),
    ("infer-min-size-alone",
     "unetrun infer tiny.plan --weights w.safetensors --out out --min-size 9 a.png"),
    ("infer-fill-holes-alone",
     "unetrun infer tiny.plan --weights w.safetensors --out out --fill-holes a.png"),
    ("infer-min-size-zero", "unetrun infer tiny.plan --weights w.safetensors --out out "
     "--instances ids --min-size 0 a.png"),
    ("infer-help", "unetrun infer --help"),
    ("eval-metric-unknown",
     "unetrun eval tiny.plan --weights w.safetensors --data data --metric cells"),
    ("eval-option-of-objects",
     "unetrun eval tiny.plan --weights w.safetensors --data data --min-size 20"),
    ("bench-truncated", "unetrun bench short.plan"),
    ("bench-help", "unetrun bench --help"),
    ("tune-help", "unetrun tune --help"),
    ("tune-truncated", "unetrun tune short.plan"),
    ("bench-no-plan", "unetrun bench"),
    ("bench-profile-no-plan", "unetrun bench --peak --profile"),
    ("unetrun-augment-help", "unetrun augment --help"),
    ("augment-missing-data", "unetrun augment tiny.plan --data nowhere --out look"),
    ("augment-truncated", "unetrun augment short.plan --data pictures --out look"),
    ("augment-frames-unknown",
     "unetrun augment tiny.plan --data pictures --out look --frames 17"),
    ("augment-over-data", "unetrun augment tiny.plan --data pictures --out pictures/images"),
    ("augment-out-unwritable", "unetrun augment tiny.plan --data pictures --out tiny.plan/x"),
    ("train-threads-zero",
     "unetrun train tiny.plan --data data --out out --loader-threads 0"),
    ("sample-no-directory", "unetrun sample"),
    ("sample-kind-unknown", "unetrun sample out --kind membrne"),
    ("sample-size-word", "unetrun sample out --size 64"),
    ("sample-size-small", "unetrun sample out --size 8x8"),
    ("sample-unwritable", "unetrun sample tiny.plan/out --count 1 --size 32x32"),
]


def check_default_output(lab):
    """MODEL.plan in the current directory, the same bytes as with -o."""
    lab.good("unetc tiny.yaml -o again.plan")
    os.remove(lab.file("tiny.plan"))
    lab.good("unetc tiny.yaml")
    assert lab.read("tiny.plan") == lab.read("again.plan"), "two compilations differ"


def check_dump_all(lab):
    out = lab.good("unetc tiny.yaml -o dump.plan --dump all")
    for name in ("build", "autodiff", "fuse"):
        assert "after " + name in out, "no dump after pass " + name


def check_explain(lab):
    out = lab.good("unetc tiny.yaml -o explained.plan --explain")
    assert "210" in out, "the number of parameters is not in the report"


def check_certificate(lab):
    """Gap and bound for each program, "optimal" only beside a gap of 0; the sum of purposes."""
    out = lab.good("unetc tiny.yaml -o explained.plan --explain")
    programs = json.loads(lab.good("unetrun info explained.plan --json"))["programs"]
    for program in programs:
        part = out[out.index("  %s: " % program["name"]):].split("is alive at record")[0]
        equal = program["arena_bytes"] == program["lower_bound_bytes"]
        assert ("optimal" in part) == equal and "gap" in part, part
    for text in ("fullest moment: scratch", "optimiser state", "read and written"):
        assert text in out, text


def check_arena_svg(lab):
    """A rectangle with a title for each tensor, none outside the frame or over another."""
    lab.good("unetc tiny.yaml -o drawn.plan --arena-svg arena.svg --program infer")
    root = ElementTree.fromstring(lab.read("arena.svg"))
    space = "{http://www.w3.org/2000/svg}"
    boxes = []
    for rect in root.iter(space + "rect"):
        title = rect.find(space + "title")
        if title is None:
            continue
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        assert w > 0 and h > 0 and x >= 84 and y >= 83.9 and x + w <= 1256.2 and y + h <= 700.1
        for other, (a, b, c, d) in boxes:
            assert (x + w <= a + .2 or a + c <= x + .2 or y + h <= b + .2 or b + d <= y + .2), (
                "%s over %s" % (title.text, other))
        boxes.append((title.text, (x, y, w, h)))
    assert any(t.startswith("dec/") or "concat" in t for t, _ in boxes), boxes
    texts = [t.text or "" for t in root.iter(space + "text")]
    assert any("lower bound: " in t and "alive at record" in t for t in texts), texts
    assert any("address in the arena, " in t for t in texts) and any("infer" in t for t in texts)


def check_chunks(lab):
    """The arena in chunks: what info says of them, a line in the picture for each border."""
    lab.good("unetc tiny.yaml -o parts.plan --max-allocation 6KiB --arena-svg parts.svg")
    info = json.loads(lab.good("unetrun info parts.plan --json"))
    whole = json.loads(lab.good("unetrun info tiny.plan --json"))
    chunks = info["memory"]["chunks"]
    assert len(chunks["arena"]) > 2 and max(chunks["arena"]) <= 6144, chunks
    assert sum(chunks["arena"]) == info["memory"]["arena_bytes"], info["memory"]
    assert [len(c) for c in whole["memory"]["chunks"].values()] == [1] * 5, whole["memory"]
    for a, b in zip(info["programs"], whole["programs"]):
        assert a["lower_bound_bytes"] == b["lower_bound_bytes"] <= b["arena_bytes"], a
    root = ElementTree.fromstring(lab.read("parts.svg"))
    texts = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [t for t in texts if t.startswith("chunk ")] == [
        "chunk %d" % (i + 1) for i in range(len(chunks["arena"]) - 1)], texts
    out = lab.good("unetc tiny.yaml -o parts.plan --max-allocation 6KiB --explain")
    assert "in chunks of " in out and "in chunks of " not in lab.good(
        "unetc tiny.yaml -o tiny.plan --explain"), out
    lab.good("unetc --verify parts.plan")


def check_place(lab):
    """One strategy alone is never better than all of them."""
    lab.good("unetc tiny.yaml -o all.plan")
    best = json.loads(lab.good("unetrun info all.plan --json"))["programs"]
    for names in ("size", "breadth", "duration", "start", "best-fit", "stacks", "size,search"):
        lab.good("unetc tiny.yaml -o one.plan --place " + names)
        one = json.loads(lab.good("unetrun info one.plan --json"))["programs"]
        assert all(a["arena_bytes"] >= b["arena_bytes"] for a, b in zip(one, best)), names


def check_graph(lab):
    """Every layer is a node; every edge joins nodes that are there."""
    lab.good("unetc tiny.yaml -o drawn.plan --graph graph.dot")
    text = lab.read("graph.dot").decode()
    assert text.startswith('digraph "train_step" {') and text.endswith("}\n"), text
    nodes = set(re.findall(r"^  (\w+) \[label", text, re.MULTILINE))
    edges = re.findall(r"^  (\w+) -> (\w+)", text, re.MULTILINE)
    assert len(edges) >= len(nodes) - 1 and all(a in nodes and b in nodes for a, b in edges)
    for layer in ("enc", "bottom", "up", "dec", "score"):
        assert '[label="%s\\n' % layer in text, layer


def check_diff(lab):
    lab.good("unetc tiny.yaml -o wide.plan --set width=3 --set accumulate=2")
    out = lab.good("unetc --diff tiny.plan wide.plan")
    for text in ("with width=3 accumulate=2", "+ program accumulate\n", "~ tensor bottom.weight  288 bytes -> 864 bytes",
                 "enc forward: other parameters", "+ tensor enc.weight.accumulated"):
        assert text in out, "%r is not in\n%s" % (text, out)
    assert "- program accumulate" in lab.good("unetc --diff wide.plan tiny.plan")
    same = lab.good("unetc --diff tiny.plan tiny.plan").splitlines()
    assert same.count("  no difference") == 4, same


def needs(lab, plan, inference=False):
    """Bytes that a session allocates, from the blocks and programs of a plan."""
    info = json.loads(lab.good("unetrun info %s --json" % plan))
    return info["needs"]["inference_bytes" if inference else "training_bytes"]


def check_fit(lab):
    """What is chosen fits, the next larger legal size does not, and no size is made up."""
    for by, program, size, step in (("tile", "train_step", 300000, 2),
                                    ("tile", "infer", 300000, 2),
                                    ("batch", "train_step", 100000, 1)):
        inference = program == "infer"
        out = lab.good("unetc tiny.yaml -o fit.plan --memory %d --fit %s --fit-program %s" % (
            size, by, program))
        found = re.match(r"%s (\d+): .* needs .*; the next larger, (\d+), would need" % by, out)
        assert found, out
        chosen, larger = int(found.group(1)), int(found.group(2))
        assert larger == chosen + step, out
        assert needs(lab, "fit.plan", inference) <= size
        lab.good("unetc tiny.yaml -o chosen.plan --set %s=%d" % (by, chosen))
        assert lab.read("chosen.plan") == lab.read("fit.plan")
        lab.good("unetc tiny.yaml -o larger.plan --set %s=%d" % (by, larger))
        assert needs(lab, "larger.plan", inference) > size
    assert "no larger one can be compiled" in lab.good(
        "unetc tiny.yaml -o fit.plan --memory 100GiB --fit batch")


def check_recompute(lab):
    """The cheapest layers that are enough, said, set, and listed; none where nothing is missing."""
    out = lab.good("unetc again.yaml -o again.plan --explain=memory --fit recompute")
    rows = re.findall(r"^ +([\d.]+) KiB +[\d.]+ KiB +[\d.]+ +\+([\d.]+) %  (\S+)$", out, re.M)
    plain, sets = float(rows[0][0]), rows[1:]
    assert rows[0][1:] == ("0.00", "none") and sets, out
    assert [float(r[0]) for r in rows] == sorted((float(r[0]) for r in rows), reverse=True), out
    assert [float(r[1]) for r in rows] == sorted(float(r[1]) for r in rows), out
    least, layers = float(sets[-1][0]), sets[-1][2]
    fit = "unetc again.yaml -o fit.plan --memory %dB --fit recompute"
    out = lab.good(fit % int((least + 0.1) * 1024))
    assert "recomputing %s: +" % layers in out and "(otherwise %.1f KiB)" % plain in out, out
    lab.good("unetc again.yaml -o chosen.plan --set recompute=" + layers)
    assert lab.read("chosen.plan") == lab.read("fit.plan")
    assert "recompute    %s\n" % layers.replace(",", ", ") in lab.good(
        "unetc again.yaml -o chosen.plan --explain --set recompute=" + layers)
    out = lab.good(fit % int((plain + 0.1) * 1024))
    assert "nothing has to be recomputed" in out, out
    assert lab.read("again.plan") == lab.read("fit.plan")
    # A tile that fits only so; with recomputation left out it is smaller.
    size = int((least + 0.1) * 1024)
    tile = "unetc again.yaml -o fit.plan --memory %d" % size
    assert "recomputing" in lab.good(tile)
    assert needs(lab, "fit.plan") <= size
    larger, smaller = (int(re.match(r"tile (\d+)", lab.good(tile + more)).group(1))
                       for more in ("", " --set recompute=none"))
    assert larger > smaller, (larger, smaller)


def check_half(lab):
    """With mixed precision, maps in half precision are named and make training fit into less."""
    model = "unetc unet.yaml --set width=4 --set tile=316 --set precision=%s"
    shutil.copy(os.path.join(HERE, "..", "..", "models", "unet.yaml"), lab.file("unet.yaml"))
    out = lab.good(model % "mixed" + " -o half.plan --explain")
    found = re.search(r"in half precision while they wait: (\d+) tensors, ([\d.]+) MiB instead of "
                      r"([\d.]+) MiB:\n((?: {6}\S.*\n)+)", out)
    assert found, out
    names = re.split(r",\s*|\s+", found.group(4).strip())
    assert len(names) == int(found.group(1)) and "enc1/relu1.act" in names, names
    assert 0.48 < float(found.group(2)) / float(found.group(3)) < 0.52, out
    assert not re.search(r"^ +enc1/conv1 +half", out, re.M), out # of the layers' table
    single = lab.good(model % "single" + " -o single.plan --explain")
    assert "in half precision" not in single, single
    lab.good(model % "mixed" + " -o whole.plan --disable half")
    half, whole = needs(lab, "half.plan"), needs(lab, "whole.plan")
    assert half < whole, (half, whole)
    # The scale of the loss and the flags of its checks are all that is left of the precision.
    assert 0 <= whole - needs(lab, "single.plan") <= 1024, (whole, needs(lab, "single.plan"))
    fit = " -o fit.plan --set recompute=none --memory %d" % ((half + whole) // 2)
    fit = "unetc unet.yaml --set width=4 --set precision=%s" + fit
    tiles = [int(re.match(r"tile (\d+)", lab.good(fit % precision)).group(1))
             for precision in ("single", "mixed")]
    assert tiles[0] < 316 <= tiles[1], tiles


def check_frontier(lab):
    """Sizes rise, so do bytes; the row of the model's own tile is what its plan needs."""
    def table(options):
        out = lab.good("unetc tiny.yaml -o own.plan --explain=memory --set width=1 " + options)
        return out, [line.split() for line in out.splitlines()
                     if re.match(r" +\d+ +[\d.]+ [KM]iB ", line)]

    out, rows = table("--memory 25kB")
    assert "fits" in rows[0] and "fits" not in rows[-1], out
    out, rows = table("--set tile=28")
    sizes = [int(row[0]) for row in rows]
    assert len(sizes) > 4 and sizes == sorted(set(sizes)) and 28 in sizes, out
    training = [float(row[1]) for row in rows]
    assert training == sorted(training), out
    assert "%.1f" % (needs(lab, "own.plan") / 1024) == rows[sizes.index(28)][1], out


def check_info_fits(lab):
    """The device in hand is compared with what the plan needs."""
    info = json.loads(lab.good("unetrun info tiny.plan --json --device cpu"))
    memory = info["memory"]
    assert info["needs"]["training_bytes"] == sum(
        memory[k + "_bytes"] for k in ("weights", "state", "arena", "io", "control"))
    assert info["needs"]["inference_bytes"] < info["needs"]["training_bytes"]
    assert info["device"]["fits_training"] and info["device"]["fits_inference"], info["device"]
    assert info["device"]["memory_bytes"] > 1 << 24
    text = lab.good("unetrun info tiny.plan --device cpu")
    assert re.search(r"on CPU .*\n  training .* fits, .* to spare\n  inference .* fits, ", text), text


def check_info_json(lab):
    info = json.loads(lab.good("unetrun info tiny.plan --json"))
    assert info["parameters"] == 210, info["parameters"]
    assert info["input"] == [1, 1, 24, 24] and info["output"] == [1, 2, 16, 16]
    assert [p["name"] for p in info["programs"]] == ["train_step", "evaluate", "infer"]
    for program in info["programs"]:
        assert 0 < program["lower_bound_bytes"] <= program["arena_bytes"]
        assert program["arena_bytes"] <= program["naive_arena_bytes"]
    assert info["target"] is None, info["target"]
    target = json.loads(lab.good("unetrun info small.plan --json"))["target"]
    assert (target["name"], target["shared_bytes"], target["groups"]) == (
        "small", 16384, [65535] * 3), target
    assert "\ntarget       small\n" in lab.good("unetrun info small.plan")


def check_info_text(lab):
    out = lab.good("unetrun info tiny.plan")
    for text in ("model        tiny, from tiny.yaml\n", "1 channel, 24 x 24 pixels\n",
                 "target       any device\n", "parameters   210 in 10 tensors\n",
                 "0 = membrane (class 0, weight 2), 255 = cell",
                 "\ntrain_step  ", "  out  probs      1 x 2 x 16 x 16\n"):
        assert text in out, "%r is not in\n%s" % (text, out)


def check_set_changes_plan(lab):
    lab.good("unetc tiny.yaml -o wide.plan --set width=3 --set tile=28")
    info = json.loads(lab.good("unetrun info wide.plan --json"))
    assert info["overrides"] == "width=3 tile=28", info["overrides"]
    assert info["input"][2:] == [28, 28]


def check_sample_repeats(lab):
    for name in ("one", "two"):
        lab.good("unetrun sample %s --count 2 --size 40x36 --seed 7 -q" % name)
    for path in ("images/00.png", "images/01.png", "labels/00.png", "labels/01.png"):
        assert lab.read("one/" + path) == lab.read("two/" + path), path + " differs"
    lab.good("unetrun sample three --count 2 --size 40x36 --seed 8 -q")
    assert lab.read("one/images/00.png") != lab.read("three/images/00.png"), "the seed is ignored"


def size_of_png(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    return struct.unpack(">II", data[16:24])


def check_augment(lab):
    """Pictures of the tile, its output window and the sheet; a row of text for each sample; the
    same again with the same seed; only the frames that were asked for."""
    command = "unetrun augment tiny.plan --data pictures --count 4 --epoch 2 -q --out "
    table = lab.good(command + "look --seed 5").splitlines()
    assert [row.split()[0] for row in table] == ["sample", "000", "001", "002", "003"], table
    assert sorted(row.split()[1] for row in table[1:4]) == ["00", "01", "02"], table
    for number in range(4):
        for panel, side in (("image", 24), ("grid", 24), ("label", 16), ("weights", 16)):
            name = "look/%03d-%s.png" % (number, panel)
            assert size_of_png(lab.read(name)) == (side, side), name
    assert size_of_png(lab.read("look/overview.png")) == (4 * 24 + 3 * 4, 4 * 24 + 3 * 4)
    assert len(os.listdir(lab.file("look"))) == 17, os.listdir(lab.file("look"))
    assert lab.good(command + "again --seed 5").splitlines() == table
    for name in os.listdir(lab.file("look")):
        assert lab.read("look/" + name) == lab.read("again/" + name), name
    lab.good(command + "other --seed 6")
    assert lab.read("look/overview.png") != lab.read("other/overview.png"), "the seed is ignored"
    chosen = lab.good(command + "few --frames 01").splitlines()
    assert [row.split()[1] for row in chosen[1:]] == ["01"] * 4, chosen


def check_quiet(lab):
    code, out, err = lab.run("unetrun sample quiet --count 1 --size 32x32 --quiet")
    assert (code, out, err) == (0, "", ""), (code, out, err)


def check_full_disk(lab):
    """Results that cannot be written are exit status 4, not silence."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([lab.tools["unetrun"], "info", "tiny.plan"], cwd=lab.path,
                              stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4, done.returncode
    assert b"standard output" in done.stderr, done.stderr
    # A file larger than the user may write: told like a full disk, and nothing is left.
    done = subprocess.run(["sh", "-c", "ulimit -f 1; exec \"$0\" sample limited --count 1 -q",
                           lab.tools["unetrun"]], cwd=lab.path, stderr=subprocess.PIPE)
    assert done.returncode == 4, done.returncode
    assert b"limited/images/00.png" in done.stderr, done.stderr


CHECKS = [check_default_output, check_dump_all, check_explain, check_certificate, check_arena_svg,
          check_chunks, check_place, check_graph, check_diff, check_fit, check_recompute, check_half,
          check_frontier,
          check_info_fits, check_info_json, check_info_text,
          check_set_changes_plan, check_sample_repeats, check_augment, check_quiet,
          check_full_disk]
