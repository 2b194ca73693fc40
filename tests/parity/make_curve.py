#!/usr/bin/env python3
"""Makes curve/initial.safetensors and curve/losses.csv: PyTorch's loss in 50 steps of training on the
pictures in curve/images and curve/labels, which `unetrun sample curve --count 4 --size 40x40 --seed 21`
drew. Needs torch and numpy; the test reads only the files. Written with PyTorch 1.13.

The network is unet-small.yaml with the settings below. A picture is as large as the output of a tile
and the batch holds all of them, so each step of a run of `unetrun train` sees the same four tiles,
mirrored at their borders, whatever its order. Everything here is PyTorch's and numpy's, in double:
reading of pictures, scaling, mirroring, class weights, loss, gradients, update.

Not every seed will do: the corners of ReLU and max-pooling make two correct programs part (as in
make_golden.py). With SEED, PyTorch in 32 bits stays within 2e-7 of these losses; with seed 1 or 3, 1e-4 and more.
"""
import os
import sys

import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "..", "tools"))
import make_golden  # noqa: E402
import png  # noqa: E402
from torch_checkpoint import save_safetensors  # noqa: E402

FILTERS, TILE, PICTURES, STEPS, BACKGROUND_WEIGHT, SEED = 4, 80, 4, 50, 2.0, 2
make_golden.FILTERS, make_golden.SGD_RATE, make_golden.ADAM_RATE = FILTERS, 0.01, 0.0005


def read_pictures(folder):
    found = []
    for name in sorted(os.listdir(os.path.join(here, "curve", folder))):
        picture = png.read(os.path.join(here, "curve", folder, name))
        found.append(np.frombuffer(bytes(picture.data), "u1").reshape(picture.height,
                                                                      picture.width))
    assert len(found) == PICTURES
    return np.stack(found)


def read_batch():
    images = read_pictures("images").astype("f8") / 255
    values = read_pictures("labels")
    margin = (TILE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    labels = (values == 255).astype("i8")
    return images[:, None], labels[:, None], np.where(labels == 0, BACKGROUND_WEIGHT, 1.0)[:, None]


def main():
    params = make_golden.initial_parameters(np.random.default_rng(SEED))
    batch = read_batch()
    curves = {}
    for name, (_, _, make) in make_golden.optimisers().items():
        model = make_golden.new_model(params)
        curves[name], _ = make_golden.train(model, make(make_golden.groups(model)), [batch], STEPS)
        single = make_golden.new_model(params, torch.float32)
        losses, _ = make_golden.train(single, make(make_golden.groups(single)), [batch], STEPS)
        print("%s: loss %.4f -> %.4f; 32-bit PyTorch differs by %.2g" % (
            name, curves[name][0], curves[name][-1],
            np.abs(losses.astype("f8") / curves[name] - 1).max()))
    save_safetensors(os.path.join(here, "curve", "initial.safetensors"), params, {})
    with open(os.path.join(here, "curve", "losses.csv"), "w", encoding="ascii") as stream:
        stream.write("step,%s\n" % ",".join(curves))
        for step in range(STEPS):
            stream.write("%d,%s\n" % (step + 1, ",".join("%.9g" % c[step] for c in curves.values())))


if __name__ == "__main__":
    main()
