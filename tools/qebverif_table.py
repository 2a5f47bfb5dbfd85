#!/usr/bin/env python3
"""Recomputes QEBVerif's intervals of the output difference and compares them with the published ones, row by row.

  qebverif_table.py FOLDER --inputs X.npy [--quaver target/release/quaver] [--radius 3] [--only P1]

FOLDER holds the float networks (*.onnx), samples.json and results/rq1_tidy.csv.gz and rq2_tidy.csv.gz, as published; X.npy holds the pixels 0 to 255 of the MNIST test images.
"""
import argparse
import csv
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

NETWORKS = {"P1": "mnist_1blk_100", "P3": "mnist_2blk_512_512", "P4": "mnist_3blk_100_100_100"}


def published(folder):
    """(network, bits, image) -> the tightest published interval of the predicted class, its seconds, and the smallest published width over all methods."""
    intervals, widths = {}, {}
    for row in csv.DictReader(gzip.open(folder / "results/rq2_tidy.csv.gz", "rt")):
        if row["interval"] not in ("NA", ""):
            key = (row["network"].split(":")[0], int(row["Q"]), int(row["test_id"]))
            lo, hi = json.loads(row["interval"])
            intervals[key] = (lo, hi)
    for row in csv.DictReader(gzip.open(folder / "results/rq1_tidy.csv.gz", "rt")):
        if row["output_diff"] not in ("NA", ""):
            key = (row["network"].split(":")[0], int(row["Q"]), int(row["test_id"]))
            best = widths.get(key)
            width = float(row["output_diff"])
            if best is None or width < best[0]:
                widths[key] = (width, float(row["time_s"]))
    return intervals, widths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--inputs", type=pathlib.Path, required=True)
    parser.add_argument("--quaver", default="target/release/quaver")
    parser.add_argument("--radius", type=int, default=3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    images = json.load(open(args.folder / "samples.json"))["mnist_test_ids"]
    pixels = np.load(args.inputs).reshape(-1, 784).astype(np.float64)[images]
    intervals, widths = published(args.folder)
    here = pathlib.Path(__file__).parent
    total, tighter, wider, seconds, theirs = 0, 0, 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        np.save(temporary / "lo.npy", (np.maximum(pixels - args.radius, 0) / 255).astype(np.float32))
        np.save(temporary / "hi.npy", (np.minimum(pixels + args.radius, 255) / 255).astype(np.float32))
        for short, name in NETWORKS.items():
            if args.only not in short:
                continue
            for bits in (4, 6, 8, 10):
                network = args.folder / f"{name}.onnx"
                quantized = temporary / f"{name}_{bits}.onnx"
                subprocess.run([sys.executable, here / "qebverif_to_onnx.py", network, quantized, "--bits", str(bits)], check=True)
                command = [args.quaver, "equivalence", network, quantized, "--epsilon", "1000000", "--bounds", "--profile", "real", "--json"]
                command += ["--lower", temporary / "lo.npy", "--upper", temporary / "hi.npy"]
                began = time.time()
                run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
                took = time.time() - began
                lines = [json.loads(line) for line in run.stdout.splitlines() if '"bounds"' in line]
                if len(lines) != len(images):
                    raise SystemExit(run.stderr)
                seconds += took
                ratios, inside, wide = [], 0, 0
                for line in lines:
                    image = images[line["index"]]
                    lo, hi = line["bounds"][line["class"]]
                    key = (short, bits, image)
                    if key in intervals:
                        their_lo, their_hi = intervals[key]
                        inside += lo >= their_lo and hi <= their_hi
                    if key in widths:
                        wide += hi - lo <= widths[key][0]
                        ratios.append((hi - lo) / widths[key][0])
                        theirs += widths[key][1]
                total += len(ratios)
                wider += len(ratios) - wide
                print(f"{short} {bits:2} bits: narrower than the best published {wide} of {len(ratios)}, inside the published {inside} of {sum((short, bits, i) in intervals for i in images)}, "
                      f"median width ratio {np.median(ratios) if ratios else float('nan'):.3f}, {took:.2f} s", flush=True)
    print(f"{total - wider} of {total} rows at least as narrow; {seconds:.1f} s, published {theirs:.0f} s")


if __name__ == "__main__":
    main()
