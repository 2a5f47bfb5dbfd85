#!/usr/bin/env python3
"""GPFQ beside bits that CEG4N found: accuracy and top-1 equivalence, as in tables 10 to 12 of the thesis.

  gpfq_table.py FOLDER --iris iris.csv --seeds seeds_dataset.txt [--mnist IMAGES.gz LABELS.gz] [--quaver target/release/quaver]

FOLDER holds networks/*.onnx and properties/*.json.gz, as CEG4N publishes them. Each network is quantized at the bits of the thesis's table for a radius, by rounding
(scheme ceg4n) and by GPFQ on the centres of the properties; both are compared with the original on the regions. Accuracy is that of all rows of iris and seeds and of the MNIST test
images. Needs numpy and onnxruntime.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime

from ceg4n_refine import regions

# network, radius: bits of a published success, the thesis's accuracies in percent (original, GPFQ, CEG4N by NNEQUIV) or None.
ROWS = [
    ("iris_4x2", 0.01, "3,3,3", (86.667, 60.0, 86.667)),
    ("iris_4x2", 0.05, "4,2,3", (86.667, 40.0, 93.333)),
    ("iris_15x2", 0.01, "2,2,3", (90.0, 93.333, 86.667)),
    ("iris_15x2", 0.03, "2,2,3", (90.0, 93.333, 86.667)),
    ("iris_15x2", 0.05, "2,2,3", (90.0, 93.333, 86.667)),
    ("seeds_4x1", 0.01, "3,3", None),
    ("seeds_4x1", 0.03, "3,3", None),
    ("seeds_4x1", 0.05, "4,4", None),
    ("seeds_10x1", 0.01, "3,4", None),
    ("seeds_10x1", 0.03, "4,3", None),
    ("seeds_10x1", 0.05, "4,4", None),
    ("seeds_15x1", 0.01, "5,2", None),
    ("seeds_15x1", 0.03, "4,4", None),
    ("seeds_15x1", 0.05, "5,3", None),
    ("mnist_784_10x1", 0.01, "3,4", (90.26, 86.85, 89.17)),
    ("mnist_784_10x1", 0.03, "3,6", (90.26, 86.85, 89.94)),
    ("mnist_784_10x1", 0.05, "17,21", (90.26, 90.33, 90.26)),
    ("mnist_784_50x1", 0.01, "3,2", (92.15, 91.24, 85.95)),
]


def scaled(rows):
    least, most = rows.min(0), rows.max(0)
    return ((rows - least) / (most - least)).astype(np.float32)


def data(args):
    iris = np.loadtxt(args.iris, delimiter=",", skiprows=1)
    seeds = np.loadtxt(args.seeds)
    found = {"iris": (scaled(iris[:, :-1]), iris[:, -1].astype(int)), "seeds": (scaled(seeds[:, :-1]), seeds[:, -1].astype(int) - 1)}
    if args.mnist:
        images, labels = (np.frombuffer(gzip.open(f).read(), np.uint8) for f in args.mnist)
        found["mnist"] = (images[16:].reshape(-1, 784).astype(np.float32) / 255, labels[8:].astype(int))
    return found


def accuracy(model, rows, labels):
    session = onnxruntime.InferenceSession(str(model))
    x = session.get_inputs()[0]
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in x.shape]
    classes = [int(np.argmax(session.run(None, {x.name: row.reshape(shape)})[0])) for row in rows]
    return 100 * float(np.mean(np.array(classes) == labels))


def equivalence(quaver, original, model, folder):
    command = [quaver, "equivalence", original, model, "--top1", "--lower", folder / "lower.npy", "--upper", folder / "upper.npy", "--timeout", "10", "--json"]
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    verdicts = [line.get("verdict") for line in map(json.loads, run.stdout.splitlines()) if "index" in line]
    if not verdicts:
        raise SystemExit(run.stderr)
    return "no" if "violated" in verdicts else "yes" if set(verdicts) == {"holds"} else "open"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--iris", required=True)
    parser.add_argument("--seeds", required=True)
    parser.add_argument("--mnist", nargs=2)
    parser.add_argument("--quaver", default="target/release/quaver")
    args = parser.parse_args()
    known = data(args)
    print("| network | radius | bits | float | GPFQ | rounded | GPFQ equivalent | rounded equivalent | thesis: float, GPFQ, CEG4N |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, radius, bits, thesis in ROWS:
            if name.split("_")[0] not in known:
                continue
            rows, labels = known[name.split("_")[0]]
            network = args.folder / "networks" / f"{name}.onnx"
            x, lower, upper = regions(args.folder / "properties" / f"{name}.json.gz")[radius]
            np.save(folder / "x.npy", x)
            np.save(folder / "lower.npy", np.minimum(lower, upper))
            np.save(folder / "upper.npy", np.maximum(lower, upper))
            made = {}
            for how, more in (("gpfq", ["--method", "gpfq", "--data", folder / "x.npy"]), ("round", ["--scheme", "ceg4n"])):
                out = folder / f"{how}.onnx"
                command = [args.quaver, "quantize", network, "--bits", bits, "--output", out, *more]
                subprocess.run([str(c) for c in command], check=True, capture_output=True)
                made[how] = (accuracy(out, rows, labels), equivalence(args.quaver, network, out, folder))
            theirs = ", ".join(f"{t:.1f}" for t in thesis) if thesis else "-"
            print(f"| {name} | {radius} | {bits} | {accuracy(network, rows, labels):.1f} | {made['gpfq'][0]:.1f} | {made['round'][0]:.1f} | {made['gpfq'][1]} | {made['round'][1]} | {theirs} |", flush=True)


if __name__ == "__main__":
    main()
