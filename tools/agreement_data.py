#!/usr/bin/env python3
"""Read the tables and images on which agreement thresholds are measured, as rows of integer multiples of 1/255.

Adult (14 features) and Credit (23 features): a category becomes its rank when categories are ordered by the share of class 1 among training rows;
features with heavy tails (weights, amounts) become their rank among the training values, capital gains and losses their logarithm. Every feature
is then scaled to [0,1] with the smallest and largest training value and rounded to k/255, as is a pixel of MNIST.

ACAS Xu has no rows: states are drawn from the box of distance, two angles and two speeds (a part of them with small distances), scaled to [0,1],
and labelled with the advisory of one of the published networks. They are not rounded.
"""
import csv
import gzip
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

F32 = np.float32
ADULT_CATEGORIES = (1, 3, 5, 6, 7, 8, 9, 13)  # workclass, education, marital status, occupation, relationship, race, sex, country
ADULT_RANKED, ADULT_LOG = (2,), (10, 11)  # fnlwgt; capital gain and loss
CREDIT_CATEGORIES = (1, 2, 3)  # sex, education, marriage
CREDIT_RANKED = (0, *range(11, 23))  # the limit, bills and payments
CREDIT_SEED = 20160126


@dataclass
class Data:
    """Rows k/255 as float32 [N,d] and classes as int64, to train and to test."""
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def on_grid(x):
    """The nearest float32(k)/float32(255)."""
    return (np.rint(np.clip(x, 0, 1) * 255).astype(F32) / F32(255)).astype(F32)


def category_codes(train, test, y):
    """Ranks of the categories by the share of class 1; a category that is not in the training rows gets the middle."""
    rate = {c: y[train == c].mean() for c in sorted(set(train))}
    rank = {c: i for i, c in enumerate(sorted(rate, key=lambda c: (rate[c], c)))}
    return [np.array([rank.get(c, len(rank) // 2) for c in column], float) for column in (train, test)]


def ranks(train, test):
    """The share of training values below each value, ties at their middle."""
    order = np.sort(train)
    return [(np.searchsorted(order, v, "left") + np.searchsorted(order, v, "right")) / (2 * len(order)) for v in (train, test)]


def table(train, y, test, test_y, categories, ranked, log):
    """Rows of strings as `Data`."""
    columns = []
    for i in range(train.shape[1]):
        a, b = train[:, i], test[:, i]
        if i in categories:
            a, b = category_codes(a, b, y)
        else:
            a, b = a.astype(float), b.astype(float)
            if i in log:
                a, b = np.log1p(a), np.log1p(b)
            if i in ranked:
                a, b = ranks(a, b)
        low, high = a.min(), a.max()
        columns.append([on_grid((v - low) / (high - low)) for v in (a, b)])
    x, test_x = (np.stack(part, 1) for part in zip(*columns))
    return Data(x, y, test_x, test_y)


def csv_rows(path):
    with gzip.open(path, "rt") as file:
        return [[f.strip() for f in row] for row in csv.reader(file) if len(row) > 1][1:]


def adult(folder):
    parts = []
    for name in ("adult.data.gz", "adult.test.gz"):
        rows = np.array(csv_rows(folder / name))
        parts += [rows[:, :14], (np.char.rstrip(rows[:, 14], ".") == ">50K").astype(np.int64)]
    return table(*parts, ADULT_CATEGORIES, ADULT_RANKED, ADULT_LOG)


def credit(folder):
    rows = np.array(csv_rows(folder / "UCI_Credit_Card.csv.gz"))
    rows = rows[np.random.default_rng(CREDIT_SEED).permutation(len(rows))]
    x, y, cut = rows[:, 1:24], rows[:, 24].astype(np.int64), len(rows) * 4 // 5
    return table(x[:cut], y[:cut], x[cut:], y[cut:], CREDIT_CATEGORIES, CREDIT_RANKED, ())


def idx(path, header):
    """The bytes of an idx.gz file behind its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def mnist(folder):
    part = [idx(folder / f"{p}-{kind}-ubyte.gz", header) for p in ("train", "t10k") for kind, header in (("images-idx3", 16), ("labels-idx1", 8))]
    x, test_x = ((p.reshape(-1, 784).astype(F32) / F32(255)).astype(F32) for p in part[::2])
    return Data(x, part[1].astype(np.int64), test_x, part[3].astype(np.int64))


READERS = {"adult": adult, "credit": credit, "mnist": mnist}

ACAS_LOW = np.array([0, -np.pi, -np.pi, 100, 0])  # distance, bearing and heading of the intruder, own speed, the intruder's speed
ACAS_HIGH = np.array([60760, np.pi, np.pi, 1200, 1200])
ACAS_MEAN = np.array([19791.091, 0, 0, 650, 600])
ACAS_RANGE = np.array([60261, 2 * np.pi, 2 * np.pi, 1100, 1200])
ACAS_TRAIN, ACAS_TEST = 400_000, 50_000


def acas_teacher(path):
    """The scores of a published network (the least one is its advisory) for rows in [0,1]^5."""
    par = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    weights, biases = ([v for k, v in par.items() if k.endswith(end)] for end in ("MatMul_W", "Add_B"))

    def scores(x):
        x = ((ACAS_LOW + x * (ACAS_HIGH - ACAS_LOW) - ACAS_MEAN) / ACAS_RANGE).astype(F32)
        for w, b in zip(weights, biases):
            x = x @ w + b
            x = x if b is biases[-1] else np.maximum(x, 0)
        return x
    return scores


def acas(folder, previous):
    """States for the network of the previous advisory 1..5. The first half of the test rows is uniform; of the others, distance is cubed."""
    rng = np.random.default_rng(previous)
    scores = acas_teacher(folder / "onnx" / f"ACASXU_run2a_{previous}_1_batch_2000.onnx")
    parts = []
    for count in (ACAS_TRAIN, ACAS_TEST):
        x = rng.random((count, 5))
        x[count // 2:, 0] **= 3
        x = x.astype(F32)
        parts += [x, scores(x).argmin(1).astype(np.int64)]
    return Data(*parts)


def read(data, name):
    """The data set `name` (adult, credit, mnist, or acas1 to acas5) below the folder `data`."""
    return acas(data / "acasxu", int(name[4:])) if name.startswith("acas") else READERS[name](data / name)
