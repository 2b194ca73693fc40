#!/usr/bin/env python3
"""Scores of random segmentations against scikit-image, to 1e-9. Prints TAP.

    test_scores.py SCORE_MAPS

Rand error against adapted_rand_error, V_Rand against the squares of contingency_table, V_Info
against variation_of_information and shannon_entropy, objects and classes against their definitions
over regionprops and arrays. scikit-image takes the proposal's 0 for one segment where we count each
of its pixels as a region of its own: it is given such ids. Skipped where scikit-image (Debian:
python3-skimage) is missing.
"""
import math
import os
import subprocess
import sys

DEBIAN_PYTHON = "/usr/bin/python3"  # the one that Debian's packages belong to
TOLERANCE = 1e-9
N_CASES = 120

try:
    import numpy
    from skimage.measure import label, regionprops, shannon_entropy
    from skimage.metrics import (adapted_rand_error, contingency_table,
                                 variation_of_information)
    MISSING = False
except ImportError:
    if os.path.exists(DEBIAN_PYTHON) and os.environ.get("UNET_TEST_PYTHON") != DEBIAN_PYTHON:
        os.environ["UNET_TEST_PYTHON"] = DEBIAN_PYTHON
        os.execv(DEBIAN_PYTHON, [DEBIAN_PYTHON] + sys.argv)
    MISSING = True


def random_maps(rng):
    """A truth of blobs, and a proposal: it moved, merged, drawn anew from noise, or nonsense."""
    height, width = rng.integers(5, 60, 2)
    field = rng.random((height, width))
    for _ in range(int(rng.integers(1, 4))):
        field = (field + numpy.roll(field, 1, 0) + numpy.roll(field, 1, 1)) / 3
    truth = label(field > numpy.quantile(field, 0.1 + 0.5 * rng.random()), connectivity=1)
    kind = rng.integers(0, 4)
    if kind == 0:
        proposal = numpy.roll(truth, int(rng.integers(0, 3)), int(rng.integers(0, 2)))
    elif kind == 1:
        proposal = truth // int(rng.integers(1, 4))
    elif kind == 2:
        noisy = field + 0.05 * rng.standard_normal(field.shape)
        proposal = label(noisy > numpy.quantile(noisy, 0.3), connectivity=1)
    else:
        proposal = rng.integers(0, 6, truth.shape)
    names = rng.permutation(5 * (int(truth.max()) + 1)) + 1  # ids need not follow each other
    names[0] = 0
    return names[truth], proposal


def our_scores(program, maps):
    text = []
    for truth, proposal in maps:
        text.append("%d %d" % (truth.shape[1], truth.shape[0]))
        text += [" ".join(map(str, ids.ravel())) for ids in (truth, proposal)]
    out = subprocess.run([program], input="\n".join(text), check=True, capture_output=True,
                         text=True).stdout
    for line in out.splitlines():
        words = line.split()
        yield dict(zip(words[::2], map(float, words[1::2])))


def singled(truth, proposal):
    """The proposal with an id of its own for every pixel 0 inside the truth's foreground."""
    proposal = proposal.copy()
    alone = (proposal == 0) & (truth != 0)
    proposal[alone] = proposal.max() + 1 + numpy.arange(alone.sum())
    return proposal


def squares(truth, proposal):
    """Sums of squares of the table's cells, rows (truth) and columns (proposal)."""
    table = contingency_table(truth, singled(truth, proposal), ignore_labels=(0,)).toarray()
    table = table.astype(numpy.int64)
    return (table ** 2).sum(), (table.sum(1) ** 2).sum(), (table.sum(0) ** 2).sum()


def check_rand_error(truth, proposal, ours):
    error, first, second = adapted_rand_error(truth, singled(truth, proposal), ignore_labels=(0,))
    pairs = ours["truth_pairs"] + ours["proposal_pairs"]
    yield 1 - 2 * ours["common_pairs"] / pairs, error
    # Which of the two parts is which depends on the version.
    parts = (ours["common_pairs"] / ours["truth_pairs"],
             ours["common_pairs"] / ours["proposal_pairs"])
    yield min(parts), min(first, second)
    yield max(parts), max(first, second)


def check_v_rand(truth, proposal, ours):
    both, by_truth, by_proposal = map(float, squares(truth, proposal))
    yield ours["rand_split"], both / by_truth
    yield ours["rand_merge"], both / by_proposal
    yield ours["rand"], 2 * both / (by_truth + by_proposal)


def check_v_info(truth, proposal, ours):
    inside = truth != 0
    t, p = truth[inside], singled(truth, proposal)[inside]
    splits, merges = variation_of_information(t, p)  # H(p|t), H(t|p), in bits
    h_t, h_p = shannon_entropy(t, 2), shannon_entropy(p, 2)
    assert abs((h_t - merges) - (h_p - splits)) < 1e-6, "these are no conditional entropies"
    yield ours["info"], ((h_t - merges) + (h_p - splits)) / (h_t + h_p)
    yield ours["info_split"], (h_p - splits) / h_p
    yield ours["info_merge"], (h_t - merges) / h_t


def matches(truth, proposal):
    """(reference, prediction, Jaccard index) of every majority match."""
    for region in regionprops(truth):
        inside = proposal[tuple(region.coords.T)]
        for found in numpy.unique(inside[inside != 0]):
            shared = (inside == found).sum()
            if 2 * shared > region.area:
                yield (region.label, found,
                       shared / float(region.area + (proposal == found).sum() - shared))


def check_seg(truth, proposal, ours):
    found = list(matches(truth, proposal))
    yield ours["seg"], sum(m[2] for m in found) / len(regionprops(truth))


def check_det(truth, proposal, ours):
    found = [m[1] for m in matches(truth, proposal)]
    n_truth, ids = len(regionprops(truth)), set(numpy.unique(proposal)) - {0}
    cost = (5 * (len(found) - len(set(found))) + 10 * (n_truth - len(found)) +
            len(ids - set(found)))
    yield ours["det"], 1 - min(cost, 10 * n_truth) / (10.0 * n_truth)


def check_f1(truth, proposal, ours):
    n_objects = len(regionprops(truth)) + len(set(numpy.unique(proposal)) - {0})
    good = sum(1 for m in matches(truth, proposal) if m[2] > 0.5)
    yield ours["f1"], 2.0 * good / n_objects


def check_merged_and_split(truth, proposal, ours):
    found = [m[1] for m in matches(truth, proposal)]
    torn = [m[1] for m in matches(proposal, truth)]
    yield ours["merged"], sum(1 for k in set(found) if found.count(k) > 1)
    yield ours["split"], sum(1 for k in set(torn) if torn.count(k) > 1)


def check_classes(truth, proposal, ours):
    t, p = truth % 3, proposal % 3
    values = []
    for k in range(3):
        shared, united = ((t == k) & (p == k)).sum(), ((t == k) | (p == k)).sum()
        if united:
            values.append(shared / float(united))
            yield ours["iou_%d" % k], values[-1]
            yield ours["dice_%d" % k], 2 * shared / float((t == k).sum() + (p == k).sum())
        else:
            yield float(math.isnan(ours["iou_%d" % k])), 1
    yield ours["mean_iou"], numpy.mean(values)


def check_pixels(truth, proposal, ours):
    t, p = truth % 3 == 2, proposal % 3 == 2
    yield ours["misclassified"], (truth % 3 != proposal % 3).mean()
    # Without labelled foreground the threshold 1, above which nothing lies, is right.
    yield ours["pixel_error"], 1 - 2.0 * (t & p).sum() / (t.sum() + p.sum()) if t.any() else 0


CHECKS = [("the Rand error is adapted_rand_error", check_rand_error),
          ("V_Rand comes from the squares of contingency_table", check_v_rand),
          ("V_Info comes from variation_of_information", check_v_info),
          ("SEG is the mean Jaccard index of majority matches", check_seg),
          ("DET comes from the counts of matches", check_det),
          ("F1 counts pairs with IoU above 0.5", check_f1),
          ("merged and split objects", check_merged_and_split),
          ("IoU and Dice of classes", check_classes),
          ("pixel error and misclassified share", check_pixels)]


def main():
    print("1..%d" % len(CHECKS))
    if MISSING:
        for number, (title, _) in enumerate(CHECKS, 1):
            print("ok %d - %s # SKIP scikit-image (python3-skimage) is not installed" %
                  (number, title))
        return 0
    rng = numpy.random.default_rng(20150518)
    maps = [random_maps(rng) for _ in range(N_CASES)]
    # scikit-image divides by zero where a side has no pairs or a single region.
    maps = [(t, p) for t, p in maps
            if squares(t, p)[1] > (t != 0).sum() and squares(t, p)[2] > (t != 0).sum() and
            len(numpy.unique(t[t != 0])) > 1 and len(numpy.unique(singled(t, p)[t != 0])) > 1]
    assert len(maps) > N_CASES / 2, "only %d cases" % len(maps)
    scores = list(our_scores(sys.argv[1], maps))
    assert len(scores) == len(maps), "%d of %d cases scored" % (len(scores), len(maps))
    failed = 0
    for number, (title, check) in enumerate(CHECKS, 1):
        worst = max(abs(a - b) for (t, p), s in zip(maps, scores) for a, b in check(t, p, s))
        good = worst <= TOLERANCE
        failed += not good
        print("%sok %d - %s" % ("" if good else "not ", number, title))
        print("# %d cases, largest difference %.1e" % (len(maps), worst))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
