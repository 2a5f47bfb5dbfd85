#!/usr/bin/env python3
"""EQV's ablation with our engine: programs alone (ILP), with bounds first (ILP+In), with attack and bounds first (full), beside our own search.

Runs `quaver robustness` on the first --count images that the model classifies correctly and prints a Markdown table. A radius counts steps of
--step, the width of the model's input quantization (1/128 for the network of eqv_to_onnx.py), and inputs are clipped to [0, 1]. "reported" counts
instances of --answers solver that the solver calls free of violations, which is no proof; seconds of undecided instances are counted in full.
"""
import argparse
import gzip
import json
import os
import statistics
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

ENGINES = {
    "ILP": ["--engine", "milp", "--milp-variant", "ilp"],
    "ILP+In": ["--engine", "milp", "--milp-variant", "ilp-in"],
    "full": ["--engine", "milp", "--milp-variant", "full"],
    "search": ["--engine", "search"],
}


def read(path, header):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def answers(args, folder, engine, radius):
    """One JSON object for each instance."""
    command = [args.quaver, "robustness", args.model, "--inputs", folder / "x.npy", "--labels", folder / "y.npy",
               "--radius", str(radius * args.step), "--clip", "0,1", "--timeout", str(args.timeout), "--json", *ENGINES[engine]]
    if engine != "search":
        command += ["--milp-answers", args.answers] + (["--highs", args.highs] if args.highs else [])
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.jobs))
    out = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    return [line for line in lines if "summary" not in line]


def classes(args, folder):
    """The model's own class of each image."""
    command = [args.quaver, "robustness", args.model, "--inputs", folder / "x.npy", "--radius", "0", "--timeout", "0.001", "--json"]
    out = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    return np.array([line["class"] for line in lines if "summary" not in line])


def save(folder, images, labels):
    np.save(folder / "x.npy", (images / np.float32(255)).astype(np.float32))
    np.save(folder / "y.npy", labels.astype(np.int64))


def row(engine, radius, found):
    verdicts = [f["verdict"] for f in found]
    reported = sum(f["verdict"] == "undecided" and "reports no violation" in f["why"] for f in found)
    seconds = [f["seconds"] for f in found]
    decided = len(found) - verdicts.count("undecided")
    cells = [radius, engine, len(found), decided, verdicts.count("holds"), verdicts.count("violated"), reported,
             f"{sum(seconds):.1f}", f"{statistics.median(seconds):.3f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("--quaver", type=Path, required=True, help="the program")
    ap.add_argument("--images", type=Path, required=True, help="idx3-ubyte.gz")
    ap.add_argument("--labels", type=Path, required=True, help="idx1-ubyte.gz")
    ap.add_argument("--highs", help="the HiGHS library [default: the one of python3's highspy]")
    ap.add_argument("--count", type=int, default=50, help="instances for each radius")
    ap.add_argument("--radius", type=int, nargs="+", default=[1, 2, 3, 4], help="in input steps")
    ap.add_argument("--step", type=Fraction, default=Fraction(1, 128))
    ap.add_argument("--timeout", type=float, default=300.0, help="seconds for each instance")
    ap.add_argument("--answers", choices=("solver", "proof", "both"), default="proof")
    ap.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    ap.add_argument("--jobs", type=int, default=1, help="instances at once; 1 for times that mean something")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # More than are asked for, because wrongly classified ones are left out.
        n = 2 * args.count + 10
        images, labels = read(args.images, 16).reshape(-1, 784)[:n], read(args.labels, 8)[:n]
        save(folder, images, labels)
        kept = np.flatnonzero(classes(args, folder) == labels)[: args.count]
        save(folder, images[kept], labels[kept])
        print(f"{args.model.name}, {args.count} instances, {args.timeout:g} s for each, answers: {args.answers}\n")
        print("| radius | engine | instances | decided | holds | violated | reported | seconds | median s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for radius in args.radius:
            for engine in args.engines:
                print(row(engine, radius, answers(args, folder, engine, radius)), flush=True)


if __name__ == "__main__":
    main()
