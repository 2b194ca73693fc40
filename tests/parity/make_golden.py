#!/usr/bin/env python3
"""Makes unet-small.safetensors: what PyTorch computes for unet-small.yaml. Needs torch and numpy; the
tests read only the file it writes. Written with PyTorch 1.13; run it again only when the model changes:

    tests/parity/make_golden.py            writes the file for SEED
    tests/parity/make_golden.py search     looks for a seed to put there

The corners of ReLU and max-pooling make training discontinuous: where a value lies within rounding of
one, two correct programs take different gradients of that pixel, and part. So the seed is one where on
the whole way, SGD and Adam, no value comes nearer to a corner than MARGIN of the largest value of its
layer; rounding is about 1e-7 of it.

PyTorch runs in double on weights and inputs that are exact in 32 bits, results are stored as 32-bit
floats. Contents (batch 0 and 1; steps take them in turn):
  image.B labels.B weights.B    inputs; a tenth of the pixels have weight 0
  param/NAME                    weights and biases before training
  logits.0 probs.0 grad/NAME    of batch 0 at those weights (weight decay not included)
  sgd.losses sgd.param/NAME     20 steps of torch.optim.SGD with momentum and weight decay
  adam.losses adam.param/NAME   10 steps of torch.optim.Adam with weight decay
  sgd.lr adam.lr                learning rates
"""
import os
import sys

import numpy as np
import torch
from torch.nn import functional as F

here = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(here, "..", "..", "tools"))
from torch_checkpoint import UNet, save_safetensors  # noqa: E402

# As in unet-small.yaml.
BATCH, CHANNELS, HEIGHT, WIDTH, CLASSES, FILTERS = 2, 1, 44, 48, 2, 4
MOMENTUM, DECAY, BETAS, EPSILON = 0.9, 0.001, (0.9, 0.999), 1e-8
SGD_RATE, SGD_STEPS, ADAM_RATE, ADAM_STEPS = 0.05, 20, 0.01, 10
SEED, MARGIN = 86, 8e-7


def layer_shapes():
    """Weight shapes by layer, in the order of the model."""
    f = FILTERS
    return {
        "enc1/conv1": (f, CHANNELS, 3, 3), "enc1/conv2": (f, f, 3, 3),
        "enc2/conv1": (2 * f, f, 3, 3), "enc2/conv2": (2 * f, 2 * f, 3, 3),
        "bottom/conv1": (4 * f, 2 * f, 3, 3), "bottom/conv2": (4 * f, 4 * f, 3, 3),
        "dec2/up": (4 * f, 2 * f, 2, 2), "dec2/conv1": (2 * f, 4 * f, 3, 3),
        "dec2/conv2": (2 * f, 2 * f, 3, 3),
        "dec1/up": (2 * f, f, 2, 2), "dec1/conv1": (f, 2 * f, 3, 3), "dec1/conv2": (f, f, 3, 3),
        "score": (CLASSES, f, 1, 1),
    }


def initial_parameters(rng):
    params = {}
    for name, shape in layer_shapes().items():
        up = shape[2:] == (2, 2)
        fan_in = shape[0] if up else shape[1] * shape[2] * shape[3]
        params[name + ".weight"] = rng.normal(0, np.sqrt(2 / fan_in), shape).astype("<f4")
        params[name + ".bias"] = rng.normal(0, 0.1, shape[1 if up else 0]).astype("<f4")
    return params


def make_batch(rng, out_height, out_width):
    """Smooth blobs with noise; the label says whether the smooth part is above zero."""
    images = np.empty((BATCH, CHANNELS, HEIGHT, WIDTH))
    labels = np.empty((BATCH, 1, out_height, out_width), "<u4")
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    top, left = (HEIGHT - out_height) // 2, (WIDTH - out_width) // 2
    for b in range(BATCH):
        waves = rng.uniform(0.1, 0.5, (6, 2)) * rng.choice([-1, 1], (6, 2))
        smooth = sum(np.cos(wy * y + wx * x + rng.uniform(0, 6)) for wy, wx in waves)
        images[b] = 0.2 * smooth + 0.2 * rng.normal(size=(HEIGHT, WIDTH))
        labels[b, 0] = smooth[top:top + out_height, left:left + out_width] > 0
    weights = rng.uniform(0.5, 3.0, labels.shape)
    weights[rng.uniform(size=labels.shape) < 0.1] = 0
    return images.astype("<f4"), labels, weights.astype("<f4")


def loss_of(logits, batch):
    target = torch.from_numpy(batch[1][:, 0].astype("i8"))
    weight = torch.from_numpy(batch[2][:, 0].astype("f8"))
    return (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()


def new_model(params, dtype=torch.float64):
    model = UNet({n: p.shape for n, p in params.items()}).to(dtype)
    model.load_state_dict({n: torch.from_numpy(p).to(dtype) for n, p in params.items()})
    return model


def groups(model):
    """Weight decay for weights, none for biases: as the compiler does."""
    named = list(model.named_parameters())
    return [{"params": [p for n, p in named if n.endswith(".weight")], "weight_decay": DECAY},
            {"params": [p for n, p in named if n.endswith(".bias")], "weight_decay": 0.0}]


class Corners:
    """Watches how near the values of a network come to the corners of ReLU and max-pooling."""

    def __init__(self, model):
        self.margin = float("inf")
        convs = [n for n in model.order if n.split("/")[-1].startswith("conv")]
        for name in convs:
            pooled = name.startswith("enc") and name.endswith("conv2")
            model.get_submodule(name).register_forward_hook(
                lambda module, x, y, pooled=pooled: self.see(y.detach(), pooled))

    def see(self, values, pooled):
        scale = values.abs().max()
        self.margin = min(self.margin, float(values.abs().min() / scale))
        if pooled:
            windows = F.unfold(F.relu(values).flatten(0, 1)[:, None], 2, stride=2)
            top = windows.topk(2, dim=1).values
            gaps = (top[:, 0] - top[:, 1])[top[:, 0] > 0]
            self.margin = min(self.margin, float(gaps.min() / scale))


def train(model, optimiser, batches, steps, least_margin=0.0):
    """Losses of the steps, and the margin; stops early (losses None) below least_margin."""
    losses = []
    dtype = next(model.parameters()).dtype
    corners = Corners(model)
    for step in range(steps):
        batch = batches[step % len(batches)]
        optimiser.zero_grad()
        loss = loss_of(model(torch.from_numpy(batch[0]).to(dtype)), batch)
        if corners.margin < least_margin:
            return None, corners.margin
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return np.array(losses, "<f4"), corners.margin


def optimisers():
    return {
        "sgd": (SGD_RATE, SGD_STEPS, lambda g: torch.optim.SGD(g, SGD_RATE, MOMENTUM)),
        "adam": (ADAM_RATE, ADAM_STEPS, lambda g: torch.optim.Adam(g, ADAM_RATE, BETAS, EPSILON)),
    }


def start(seed):
    """Initial parameters and the batches."""
    rng = np.random.default_rng(seed)
    params = initial_parameters(rng)
    with torch.no_grad():
        out = new_model(params)(torch.zeros(1, CHANNELS, HEIGHT, WIDTH).double()).shape
    return params, [make_batch(rng, *out[2:]) for _ in range(2)]


def search():
    best = 0.0
    for seed in range(1, 100000):
        params, batches = start(seed)
        margin = 1.0
        for rate, steps, make in optimisers().values():
            model = new_model(params)
            losses, seen = train(model, make(groups(model)), batches, steps, max(best, MARGIN / 10))
            margin = min(margin, seen)
            if losses is None or losses[-1] > 0.8 * losses[0]:
                break
        else:
            best = margin
            print("seed %d: margin %.2g" % (seed, margin), flush=True)
            if margin > MARGIN:
                return


def single(x):
    return np.float32(x).reshape(1)


def parameters_of(model):
    return {n: p.detach().numpy().astype("<f4") for n, p in model.named_parameters()}


def main():
    if sys.argv[1:] == ["search"]:
        search()
        return
    params, batches = start(SEED)
    tensors = {}
    for i, (image, labels, weights) in enumerate(batches):
        tensors.update({"image.%d" % i: image, "labels.%d" % i: labels, "weights.%d" % i: weights})
    tensors.update({"param/" + n: p for n, p in params.items()})

    model = new_model(params)
    logits = model(torch.from_numpy(batches[0][0]).double())
    loss_of(logits, batches[0]).backward()
    tensors["logits.0"] = logits.detach().numpy().astype("<f4")
    tensors["probs.0"] = torch.softmax(logits, 1).detach().numpy().astype("<f4")
    tensors.update({"grad/" + n: p.grad.numpy().astype("<f4")
                    for n, p in model.named_parameters()})

    for name, (rate, steps, make) in optimisers().items():
        model = new_model(params)
        tensors[name + ".lr"] = single(rate)
        losses, margin = train(model, make(groups(model)), batches, steps)
        assert margin > MARGIN, "a value comes too near to a corner: %.2g" % margin
        tensors[name + ".losses"] = losses
        trained = parameters_of(model)
        tensors.update({"%s.param/%s" % (name, n): p for n, p in trained.items()})
        # How far PyTorch in 32 bits is from PyTorch in double, for scale.
        model = new_model(params, torch.float32)
        train(model, make(groups(model)), batches, steps)
        worst = max(np.abs(p - trained[n]).max() / np.abs(trained[n]).max()
                    for n, p in parameters_of(model).items())
        print("%s: loss %.4f -> %.4f, margin %.2g; 32-bit PyTorch differs by %.2g" %
              (name, losses[0], losses[-1], margin, worst))

    for name, tensor in tensors.items():
        assert np.isfinite(tensor).all(), name
    path = os.path.join(here, "unet-small.safetensors")
    save_safetensors(path, tensors, {"made_by": "tests/parity/make_golden.py",
                                     "torch": torch.__version__.split("+")[0]})
    print("%s: %d tensors, %d bytes" % (os.path.basename(path), len(tensors),
                                        os.path.getsize(path)))


if __name__ == "__main__":
    main()
