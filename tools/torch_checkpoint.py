#!/usr/bin/env python3
"""Checkpoints of unetrun in PyTorch, and back. Needs torch and numpy.

    torch_checkpoint.py show CHECKPOINT
    torch_checkpoint.py compare CHECKPOINT IMAGE.png PROBABILITIES.png [--concat ...] [...]
    torch_checkpoint.py to-torch CHECKPOINT STATE.pt
    torch_checkpoint.py from-torch STATE.pt LIKE.safetensors OUT.safetensors

The network is built from the shapes in the checkpoint: a U-Net with valid 3x3 convolutions as in
models/unet.yaml, of any depth and width. Its modules carry the names of the checkpoint, so that
state_dict() has the checkpoint's names and shapes and load_state_dict() takes them as they are.

compare runs that network (order of concatenation and normalisation as in models/unet.yaml unless
options say otherwise) on the whole image at once (mirrored borders) and compares with what
`unetrun infer --probabilities DIR` wrote by overlapping tiles: 16-bit probabilities of the last class,
so that 0.5/65535 = 7.6e-6 is the rounding of the file. Where the probability is between 0.01 and
0.99 it also compares the logits (difference of the two class scores).

from-torch writes the tensors of a PyTorch state dict (keys as in the checkpoint) over those of the
checkpoint LIKE, which gives names, order, metadata and optimiser state; `unetrun infer --weights` and
`unetrun eval` load the result.
"""
import argparse
import json
import os
import struct
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import png  # noqa: E402  (tools/png.py)

DTYPES = {"F32": np.dtype("<f4"), "U32": np.dtype("<u4"), "I64": np.dtype("<i8")}


def load_safetensors(path):
    """Tensors by name in the order of the file, and the metadata."""
    with open(path, "rb") as stream:
        blob = stream.read()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        data = np.frombuffer(blob, DTYPES[entry["dtype"]], offset=8 + size + begin,
                             count=(end - begin) // DTYPES[entry["dtype"]].itemsize)
        tensors[name] = data.reshape(entry["shape"]).copy()
    return tensors, metadata


def save_safetensors(path, tensors, metadata=None):
    names = {v: k for k, v in DTYPES.items()}
    header, at, blobs = {}, 0, []
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        array = np.asarray(array)
        shape = list(array.shape)
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype.newbyteorder("<")], "shape": shape,
                        "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".tmp", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    os.replace(path + ".tmp", path)


class UNet(nn.Module):
    """The U-Net whose layers have these weights, in this order: two convolutions on each level down,
    up-convolution and two convolutions on each level up, scores."""

    def __init__(self, shapes, skip_first=True):
        super().__init__()
        self.skip_first = skip_first
        self.order = [n[:-len(".weight")] for n in shapes if n.endswith(".weight")]
        kernels = [tuple(shapes[n + ".weight"][2:]) for n in self.order]
        self.depth = kernels.count((2, 2))
        down, up = [(3, 3)] * 2, [(2, 2), (3, 3), (3, 3)]
        if kernels != down * (self.depth + 1) + up * self.depth + [(1, 1)]:
            raise ValueError("these layers are not those of models/unet.yaml: kernels %s" % kernels)
        for name in self.order:
            a, b, height, width = shapes[name + ".weight"]
            if (height, width) == (2, 2):
                self.add_module(name, nn.ConvTranspose2d(a, b, 2, stride=2))
            else:
                self.add_module(name, nn.Conv2d(b, a, (height, width)))

    def forward(self, x):
        layers = iter([self.get_submodule(n) for n in self.order])
        skips = []
        for level in range(self.depth + 1):
            x = F.relu(next(layers)(x))
            x = F.relu(next(layers)(x))
            if level < self.depth:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for skip in reversed(skips):
            x = next(layers)(x)
            top, left = ((skip.shape[d] - x.shape[d]) // 2 for d in (2, 3))
            skip = skip[:, :, top:top + x.shape[2], left:left + x.shape[3]]
            x = torch.cat([skip, x] if self.skip_first else [x, skip], 1)
            x = F.relu(next(layers)(x))
            x = F.relu(next(layers)(x))
        return next(layers)(x)

    def sizes(self, least):
        """The smallest legal input size whose output is at least `least`, and that output size."""
        bottom = 1
        while True:
            size = bottom
            for _ in range(self.depth):
                size = 2 * size - 4
            if size >= least:
                break
            bottom += 1
        whole = bottom + 4
        for _ in range(self.depth):
            whole = 2 * whole + 4
        return whole, size


def is_weight(name):
    return name.endswith((".weight", ".bias"))


def network(tensors, skip_first):
    weights = {n: t for n, t in tensors.items() if is_weight(n)}
    model = UNet({n: t.shape for n, t in weights.items()}, skip_first)
    model.load_state_dict({n: torch.from_numpy(t) for n, t in weights.items()}, strict=True)
    return model.eval()


def read_image(path, args):
    """1, channels, height, width: normalised as unetrun does (docs/data.md)."""
    image = png.read(path)
    samples = np.frombuffer(image.data, ">u2" if image.depth == 16 else np.uint8)
    samples = samples.reshape(image.height, image.width, image.channels).transpose(2, 0, 1)
    x = samples.astype(np.float64)
    if args.normalise == "none":
        x /= 65535 if image.depth == 16 else 255
    elif args.normalise == "unit":
        x = (x - x.min()) / max(x.max() - x.min(), 1)
    else:
        x = (x - x.mean()) / (x.std() or 1)
    return ((x - args.offset) * args.scale)[None]


def whole_image_logits(model, x):
    """Logits for every pixel, in one piece, borders mirrored without repeating the edge pixel."""
    height, width = x.shape[2:]
    pads = [(0, 0), (0, 0)]
    for size in (height, width):
        whole, out = model.sizes(size)
        margin = (whole - out) // 2
        pads.append((margin, whole - margin - size))
    padded = np.pad(x, pads, mode="reflect")
    with torch.no_grad():
        return model(torch.from_numpy(padded)).numpy()[:, :, :height, :width]


def show(args):
    tensors, metadata = load_safetensors(args.checkpoint)
    for name, tensor in tensors.items():
        print("%-40s %s" % (name, "x".join(map(str, tensor.shape))))
    for key, value in metadata.items():
        print("%s = %s" % (key, value))
    print("%d parameters" % sum(t.size for n, t in tensors.items() if is_weight(n)))
    return 0


def compare(args):
    tensors, _ = load_safetensors(args.checkpoint)
    model = network(tensors, args.concat == "skip-first").double()
    logits = whole_image_logits(model, read_image(args.image, args))[0]
    theirs = np.exp(logits - logits.max(0))
    theirs = theirs[-1] / theirs.sum(0)
    image = png.read(args.probabilities)
    if image.depth != 16 or (image.height, image.width) != theirs.shape:
        print("torch_checkpoint: %s is not the 16-bit map of this image" % args.probabilities,
              file=sys.stderr)
        return 1
    ours = np.frombuffer(image.data, ">u2").reshape(theirs.shape) / 65535.0
    difference = np.abs(ours - theirs).max()
    print("probabilities: largest difference %.3g (%.2f steps of the 16-bit file), mean %.3g"
          % (difference, difference * 65535, np.abs(ours - theirs).mean()))
    print("arg-max: %d of %d pixels differ" % (((ours > 0.5) != (theirs > 0.5)).sum(), ours.size))
    middle = (ours > 0.01) & (ours < 0.99) if len(logits) == 2 else np.zeros(ours.shape, bool)
    if middle.any():
        p = ours[middle]
        error = np.abs(np.log(p / (1 - p)) - (logits[1] - logits[0])[middle])
        print("logits: largest difference %.3g over %d pixels with 0.01 < p < 0.99 (rounding of the "
              "file: up to %.2g), largest logit %.3g"
              % (error.max(), middle.sum(), 0.5 / 65535 / (0.01 * 0.99),
                 np.abs(logits[1] - logits[0])[middle].max()))
    agreed = difference <= args.tolerance + 0.5 / 65535
    print("agree" if agreed else "DISAGREE: more than %g plus the rounding of the file"
          % args.tolerance)
    return 0 if agreed else 1


def to_torch(args):
    tensors, _ = load_safetensors(args.checkpoint)
    torch.save(network(tensors, True).state_dict(), args.state)
    return 0


def from_torch(args):
    state = torch.load(args.state, map_location="cpu")
    tensors, metadata = load_safetensors(args.like)
    wanted = {n for n in tensors if is_weight(n)}
    for problem, names in (("misses", wanted - set(state)), ("has unknown", set(state) - wanted)):
        if names:
            print("torch_checkpoint: %s %s %s" % (args.state, problem, ", ".join(sorted(names))),
                  file=sys.stderr)
            return 1
    for name in wanted:
        new = state[name].detach().cpu().numpy().astype("<f4")
        if new.shape != tensors[name].shape:
            print("torch_checkpoint: %s: %s has shape %s, %s has %s"
                  % (args.state, name, new.shape, args.like, tensors[name].shape), file=sys.stderr)
            return 1
        tensors[name] = new
    save_safetensors(args.out, tensors, metadata)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("show", help="tensors and metadata of a checkpoint")
    command.add_argument("checkpoint")
    command.set_defaults(run=show)
    command = commands.add_parser("compare", help="PyTorch against the output of unetrun infer")
    command.add_argument("checkpoint")
    command.add_argument("image")
    command.add_argument("probabilities")
    command.add_argument("--concat", choices=("skip-first", "up-first"), default="skip-first")
    command.add_argument("--normalise", choices=("none", "unit", "standard"), default="unit")
    command.add_argument("--offset", type=float, default=0.5)
    command.add_argument("--scale", type=float, default=2.0)
    command.add_argument("--tolerance", type=float, default=2e-5)
    command.set_defaults(run=compare)
    command = commands.add_parser("to-torch", help="writes the state dict")
    command.add_argument("checkpoint")
    command.add_argument("state")
    command.set_defaults(run=to_torch)
    command = commands.add_parser("from-torch", help="a state dict becomes a checkpoint")
    command.add_argument("state")
    command.add_argument("like")
    command.add_argument("out")
    command.set_defaults(run=from_torch)
    args = parser.parse_args()
    try:
        return args.run(args)
    except (ValueError, KeyError, RuntimeError) as error:
        print("torch_checkpoint: %s" % error, file=sys.stderr)
        return 1
    except OSError as error:
        print("torch_checkpoint: %s" % error, file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
