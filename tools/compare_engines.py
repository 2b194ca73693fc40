#!/usr/bin/env python3
"""The other engines' side of tools/compare: the network of models/unet.yaml in PyTorch, ONNX
Runtime and ncnn, each in a process of its own and under the interpreter that has it.

    compare_engines.py probe ENGINE               what is installed, one JSON object
    compare_engines.py serve ENGINE CONFIGURATION keeps a network ready (see serve)

ENGINE is torch, onnxruntime, ncnn or ncnn-vulkan. The network is built from the names and shapes
in a checkpoint of unetrun: for ONNX Runtime and ncnn as their own model formats, so that nothing
has to be exported by a third program.
"""
import gc
import json
import os
import struct
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))


class Missing(Exception):
    """The engine is not installed here, or not usable; the text says what is wrong."""


# ---- the network, for all ----

def load_weights(path):
    """Weights and biases of a checkpoint by name, in its order."""
    import numpy
    with open(path, "rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            if name.endswith((".weight", ".bias")) and not name.startswith("optimiser."):
                stream.seek(8 + size + entry["data_offsets"][0])
                count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 4
                tensors[name] = numpy.fromfile(stream, "<f4", count).reshape(entry["shape"])
    return tensors


def describe_network(shapes, size):
    """The operations in order: (operation, name, inputs, details). Each name is also its result's;
    the input is called "image", the last result "probs"."""
    order = [n[:-len(".weight")] for n in shapes if n.endswith(".weight")]
    depth = sum(tuple(shapes[n + ".weight"][2:]) == (2, 2) for n in order)
    layers, nodes, skips = iter(order), [], []

    def add(operation, name, inputs, **details):
        nodes.append((operation, name, inputs, details))
        return name

    def double(last):
        for _ in range(2):
            name = next(layers)
            last = add("conv", name, [last], relu=True, channels=shapes[name + ".weight"][0])
        return last

    last, extent = "image", size
    for level in range(depth + 1):
        last = double(last)
        extent -= 4
        if level < depth:
            skips.append((last, extent, shapes[last + ".weight"][0]))
            last = add("pool", "pool%d" % (level + 1), [last])
            extent //= 2
    for skip, skip_extent, channels in reversed(skips):
        up = next(layers)
        add("up", up, [last], channels=shapes[up + ".weight"][1])
        extent *= 2
        start = (skip_extent - extent) // 2
        crop = add("crop", skip + "/crop", [skip], start=start, extent=extent, channels=channels)
        last = double(add("concat", up + "/concat", [crop, up]))
        extent -= 4
    score = next(layers)
    add("conv", score, [last], relu=False, channels=shapes[score + ".weight"][0])
    add("softmax", "probs", [score])
    return nodes


def read_image(config):
    import numpy
    return numpy.fromfile(config["image"], "<f4").reshape(config["image_shape"])


# ---- PyTorch ----

def judge_blas(configuration, maps):
    """(name, whether it is a baseline) from torch.__config__.show() and lines of /proc/self/maps.
    numpy and scipy may bring libraries of their own, which say nothing about PyTorch's."""
    if "Math Kernel Library" in configuration:
        return "MKL", True
    paths = {line.split(None, 5)[-1].strip() for line in maps}
    paths = sorted(p for p in paths if p.startswith("/") and "numpy.libs" not in p and
                   "scipy.libs" not in p)
    if any("/blas/libblas" in p for p in paths):
        return "reference BLAS", False
    for path in paths:
        if "openblas" in path:
            flavour = next((f for f in ("pthread", "openmp", "serial") if f in path), "")
            return ("OpenBLAS " + flavour).strip(), flavour != "serial"
        for part, name in (("/libmkl", "MKL"), ("blis", "BLIS"), ("/libatlas", "ATLAS")):
            if part in path:
                return name, True
    return "an unknown BLAS", True


def find_blas(torch):
    """What PyTorch multiplies matrices with in this process."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
        return judge_blas(torch.__config__.show(), list(stream))


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise Missing(str(error))
    torch.nn.functional.linear(torch.ones(4, 4), torch.ones(4, 4))
    return torch


def probe_torch():
    torch = import_torch()
    blas, is_baseline = find_blas(torch)
    return {"version": torch.__version__, "blas": blas, "baseline": is_baseline}


class Torch:
    """variant: eager, channels-last (memory order of pixels), jit (frozen and optimised for
    inference) or compile (torch.compile; wants a C++ compiler)."""

    def __init__(self, config):
        self.torch = torch = import_torch()
        torch.set_num_threads(config["threads"])
        self.config, self.variant = config, config["variant"]
        sys.path.insert(0, HERE)
        from torch_checkpoint import UNet
        weights = load_weights(config["weights"])
        self.model = UNet({n: w.shape for n, w in weights.items()})
        self.image = torch.from_numpy(read_image(config))
        self.trains = config["work"] == "train_step"
        if self.variant in ("channels-last", "compile"):
            self.model = self.model.to(memory_format=torch.channels_last)
            self.image = self.image.contiguous(memory_format=torch.channels_last)
        if self.trains:
            import numpy
            labels = numpy.fromfile(config["labels"], "<u4").astype("i8")
            self.labels = torch.from_numpy(labels.reshape(config["labels_shape"]))
        self.call = self.model
        self.fresh()
        if not self.trains:
            self.model.eval()
            if self.variant == "jit":
                with torch.no_grad():
                    self.call = torch.jit.optimize_for_inference(
                        torch.jit.freeze(torch.jit.trace(self.model, self.image)))
        if self.variant == "compile":
            if not self.trains:
                import torch._inductor.config as inductor
                inductor.freezing = True
            self.call = torch.compile(self.model)

    def versions(self):
        return {"threads": self.torch.get_num_threads()}

    def fresh(self):
        torch = self.torch
        weights = load_weights(self.config["weights"])
        self.model.load_state_dict({n: torch.from_numpy(w) for n, w in weights.items()})
        if self.trains:
            options = {"lr": self.config["rate"], "momentum": self.config["momentum"]}
            try:  # one pass over the parameters, from 2.6 on also without a GPU
                self.optimiser = torch.optim.SGD(self.model.parameters(), fused=True, **options)
            except (TypeError, RuntimeError):
                self.optimiser = torch.optim.SGD(self.model.parameters(), **options)

    def run(self):
        torch = self.torch
        if not self.trains:
            with torch.inference_mode():
                self.probs = torch.softmax(self.call(self.image), 1).contiguous()
            return None
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.call(self.image), self.labels)
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def save(self, path):
        if not self.trains:
            self.probs.numpy().astype("<f4").tofile(path)
            return
        from torch_checkpoint import save_safetensors
        state = self.optimiser.state
        save_safetensors(path, {
            "optimiser.%s.momentum" % n: state[p]["momentum_buffer"].contiguous().numpy()
            for n, p in self.model.named_parameters()})


# ---- ONNX Runtime ----

def import_onnxruntime():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise Missing(str(error))
    return onnx, onnxruntime


def probe_onnxruntime():
    _, onnxruntime = import_onnxruntime()
    return {"version": onnxruntime.__version__}


def make_onnx(onnx, weights, shape):
    """The network as an ONNX model, serialised; width and height of the input are fixed."""
    from onnx import TensorProto, helper, numpy_helper
    import numpy
    initialisers, nodes = [numpy_helper.from_array(w, n) for n, w in weights.items()], []

    def vector(name, *values):
        initialisers.append(numpy_helper.from_array(numpy.array(values, "i8"), name))
        return name

    for operation, name, inputs, details in describe_network(
            {n: w.shape for n, w in weights.items()}, shape[2]):
        if operation == "conv":
            out = name + "/sum" if details["relu"] else name
            nodes.append(helper.make_node("Conv", inputs + [name + ".weight", name + ".bias"],
                                          [out]))
            if details["relu"]:
                nodes.append(helper.make_node("Relu", [out], [name]))
        elif operation == "up":
            nodes.append(helper.make_node(
                "ConvTranspose", inputs + [name + ".weight", name + ".bias"], [name],
                strides=[2, 2]))
        elif operation == "pool":
            nodes.append(helper.make_node("MaxPool", inputs, [name], kernel_shape=[2, 2],
                                          strides=[2, 2]))
        elif operation == "crop":
            start, end = details["start"], details["start"] + details["extent"]
            nodes.append(helper.make_node("Slice", inputs + [
                vector(name + "/starts", start, start), vector(name + "/ends", end, end),
                vector(name + "/axes", 2, 3)], [name]))
        elif operation == "concat":
            nodes.append(helper.make_node("Concat", inputs, [name], axis=1))
        else:
            nodes.append(helper.make_node("Softmax", inputs, [name], axis=1))
    graph = helper.make_graph(
        nodes, "unet", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, None)], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8  # that of operator set 13's time: older runtimes read it too
    return model.SerializeToString()


class OnnxRuntime:
    def __init__(self, config):
        onnx, onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config["threads"]
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.image = read_image(config)
        model = make_onnx(onnx, load_weights(config["weights"]), config["image_shape"])
        self.session = onnxruntime.InferenceSession(model, options,
                                                    providers=["CPUExecutionProvider"])

    def run(self):
        self.probs = self.session.run(["probs"], {"image": self.image})[0]

    def save(self, path):
        self.probs.tofile(path)


# ---- ncnn ----

def import_ncnn():
    try:
        import ncnn
        import numpy  # noqa: F401  (images go in as its arrays)
    except ImportError as error:
        raise Missing(str(error))
    return ncnn


def find_gpu(ncnn, wanted):
    """Number and name of that Vulkan device (of the first, when wanted is empty) for ncnn."""
    names = [ncnn.get_gpu_info(i).device_name() for i in range(ncnn.get_gpu_count())]
    if not names:
        raise Missing("ncnn finds no Vulkan device")
    for number, name in enumerate(names):
        if not wanted or name == wanted:
            return number, name
    raise Missing("ncnn does not find the Vulkan device '%s', only %s"
                  % (wanted, ", ".join(names)))


def probe_ncnn():
    return {"version": import_ncnn().__version__}


def probe_ncnn_vulkan():
    ncnn = import_ncnn()
    _, name = find_gpu(ncnn, "")
    return {"version": ncnn.__version__, "device": name}


def make_ncnn(weights, size, folder):
    """The network in ncnn's own format: text of layers, and binary weights (32-bit floats; a
    deconvolution's as out, in, kh, kw). A result read twice goes through a Split layer."""
    nodes = describe_network({n: w.shape for n, w in weights.items()}, size)
    readers = {}
    for _, name, inputs, _ in nodes:
        for blob in inputs:
            readers.setdefault(blob, []).append(name)
    lines, blobs = ["Input image 0 1 image"], 1
    paths = [os.path.join(folder, "ncnn." + kind) for kind in ("param", "bin")]
    with open(paths[1], "wb") as stream:
        for operation, name, inputs, details in nodes:
            inputs = [b if len(readers[b]) == 1 else "%s:%d" % (b, readers[b].index(name))
                      for b in inputs]
            if operation in ("conv", "up"):
                weight, bias = weights[name + ".weight"], weights[name + ".bias"]
                kind = "Convolution"
                stride = 1
                if operation == "up":
                    kind, stride, weight = "Deconvolution", 2, weight.transpose(1, 0, 2, 3)
                stream.write(struct.pack("<I", 0) + weight.tobytes() + bias.tobytes())
                text = "0=%d 1=%d 3=%d 5=1 6=%d 9=%d" % (
                    details["channels"], weight.shape[2], stride, weight.size,
                    details.get("relu", False))
            elif operation == "pool":
                kind, text = "Pooling", "0=0 1=2 2=2 5=1"
            elif operation == "crop":
                kind, text = "Crop", "0={start} 1={start} 2=0 3={extent} 4={extent} 5={channels}"
                text = text.format(**details)
            elif operation == "concat":
                kind, text = "Concat", "0=0"
            else:
                kind, text = "Softmax", "0=0 1=1"
            lines.append("%s %s %d 1 %s %s %s" % (kind, name, len(inputs), " ".join(inputs), name,
                                                  text))
            blobs += 1
            parts = ["%s:%d" % (name, i) for i in range(len(readers.get(name, [])))]
            if len(parts) > 1:
                lines.append("Split %s:split 1 %d %s %s" % (name, len(parts), name,
                                                            " ".join(parts)))
                blobs += len(parts)
    with open(paths[0], "w", encoding="utf-8") as stream:
        stream.write("7767517\n%d %d\n%s\n" % (len(lines), blobs, "\n".join(lines)))
    return paths


class Ncnn:
    """On the processor as ncnn's own benchmark has it (Winograd, pooled memory), or through Vulkan;
    32-bit floats only."""

    def __init__(self, config):
        self.ncnn = ncnn = import_ncnn()
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = config["threads"]
        options.use_winograd_convolution = options.use_sgemm_convolution = True
        options.use_packing_layout = True
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage",
                     "bf16_packed", "int8_inference"):
            if hasattr(options, "use_" + name):
                setattr(options, "use_" + name, False)
        options.use_vulkan_compute = config["engine"] == "ncnn-vulkan"
        self.device = None
        if options.use_vulkan_compute:
            number, self.device = find_gpu(ncnn, config["vulkan_device"])
            self.net.set_vulkan_device(number)
        else:
            self.pools = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
            options.blob_allocator, options.workspace_allocator = self.pools
        param, weights = make_ncnn(load_weights(config["weights"]), config["image_shape"][2],
                                   config["folder"])
        if self.net.load_param(param) != 0 or self.net.load_model(weights) != 0:
            raise RuntimeError("ncnn does not load the network")
        self.pixels = read_image(config)[0]  # which the Mat only points to
        self.image = ncnn.Mat(self.pixels)

    def versions(self):
        return {"device": self.device} if self.device else {}

    def run(self):
        import numpy
        extractor = self.net.create_extractor()
        extractor.input("image", self.image)
        status, probs = extractor.extract("probs")
        if status != 0:
            raise RuntimeError("ncnn cannot run the network (status %d)" % status)
        self.probs = numpy.array(probs)

    def save(self, path):
        self.probs.tofile(path)


# ---- the process ----

ENGINES = {"torch": (probe_torch, Torch), "onnxruntime": (probe_onnxruntime, OnnxRuntime),
           "ncnn": (probe_ncnn, Ncnn), "ncnn-vulkan": (probe_ncnn_vulkan, Ncnn)}


def answer(**values):
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def serve(engine, config):
    """Says ready in one line of JSON, then answers each line: run, fresh, save FILE."""
    config["engine"] = engine
    network = ENGINES[engine][1](config)
    gc.collect()
    answer(**(network.versions() if hasattr(network, "versions") else {}))
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "run":
            start = time.perf_counter()
            loss = network.run()
            seconds = time.perf_counter() - start
            answer(seconds=seconds, **({} if loss is None else {"loss": loss}))
        elif command == "fresh":
            network.fresh()
            answer()
        elif command == "save":
            network.save(rest)
            answer()
        else:
            raise ValueError("'%s' is none of run, fresh, save FILE" % command)


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("probe", "serve") or sys.argv[2] not in ENGINES:
        sys.exit(__doc__)
    # What engines print on stdout goes to stderr: stdout carries the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = answers
    try:
        if sys.argv[1] == "probe":
            answer(**ENGINES[sys.argv[2]][0]())
        else:
            serve(sys.argv[2], json.loads(sys.argv[3]))
    except Missing as error:
        answer(missing=str(error))
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        sys.exit("compare_engines: %s: %s" % (sys.argv[2], str(error) or "no memory"))


if __name__ == "__main__":
    main()
