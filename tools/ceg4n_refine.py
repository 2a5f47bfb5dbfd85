#!/usr/bin/env python3
"""Runs `quaver quantize --method refine` on the networks and properties of the CEG4N experiments and prints a table.

  ceg4n_refine.py FOLDER [--quaver target/release/quaver] [--only NAME] [--timeout 60] [--acas FOLDER] [--csv FILE]

FOLDER holds networks/*.onnx and properties/*.json.gz, as CEG4N publishes them; --acas is a folder with the ACAS Xu networks. Classifiers are kept top-1
equivalent, ACAS Xu within 0.05 of every output.
"""
import argparse
import collections
import csv
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np


def regions(path):
    """For each ball size: centres, lower and upper corners."""
    found = collections.defaultdict(list)
    for entry in json.load(gzip.open(path)):
        found[entry["ball_size"]].append([np.array(entry[k], np.float32).reshape(-1) for k in ("x", "lower_bounds", "upper_bounds")])
    return {size: [np.stack(column) for column in zip(*rows)] for size, rows in sorted(found.items())}


def refine(args, network, lower, upper, relation, folder):
    np.save(folder / "lower.npy", np.minimum(lower, upper))
    np.save(folder / "upper.npy", np.maximum(lower, upper))
    command = [args.quaver, "quantize", network, "--method", "refine", "--scheme", "ceg4n", *relation]
    command += ["--lower", folder / "lower.npy", "--upper", folder / "upper.npy", "--output", folder / "out.onnx"]
    command += ["--timeout", str(args.timeout), "--json", *args.more.split()]
    began = time.time()
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=args.timeout + 120)
    took = time.time() - began
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    answer = next((line for line in lines if "equivalent" in line), None)
    return answer, took, run.stderr.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--quaver", default="target/release/quaver")
    parser.add_argument("--acas", type=pathlib.Path)
    parser.add_argument("--only", default="", help="networks whose name begins so")
    parser.add_argument("--timeout", type=float, default=50)
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("--more", default="", help="further options of quaver quantize, in one word")
    args = parser.parse_args()
    rows = []
    for path in sorted((args.folder / "properties").glob("*.json.gz")):
        name = path.name.removesuffix(".json.gz")
        if not name.startswith(args.only):
            continue
        is_acas = name.startswith("ACAS")
        network = (args.acas or args.folder) / ("" if is_acas and args.acas else "networks") / f"{name}.onnx"
        if not network.exists():
            print(f"{name}: no network", file=sys.stderr)
            continue
        relation = ["--epsilon", "0.05"] if is_acas else ["--top1"]
        for size, (_, lower, upper) in regions(path).items():
            with tempfile.TemporaryDirectory() as folder:
                answer, took, error = refine(args, network, lower, upper, relation, pathlib.Path(folder))
            bits = ",".join(map(str, answer["bits"])) if answer else "-"
            state = "-" if answer is None else "optimal" if answer["complete"] and answer["search"] == "exact" else "complete" if answer["complete"] else "time"
            rows.append([name, size, bits, state, answer and answer["verified"], f"{took:.2f}"])
            print(*rows[-1], "" if answer else error.splitlines()[:1], flush=True)
    times = sorted(float(r[-1]) for r in rows)
    if times:
        done = sum(r[2] != "-" for r in rows)
        print(f"{done} of {len(rows)} proved; median {times[len(times) // 2]:.2f} s, longest {times[-1]:.2f} s")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            csv.writer(file).writerows([["network", "ball", "bits", "search", "verified", "seconds"], *rows])


if __name__ == "__main__":
    main()
