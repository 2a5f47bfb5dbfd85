#!/usr/bin/env python3
"""Quadapter's backdoor tasks (Fig. 4 of the paper): every place, size and target class of a trigger, one strategy each.

  quadapter_backdoor.py MODEL.onnx INPUTS.npy [--place 0,0 3,19 4,4 6,12 9,9] [--size 3 5] [--method direct] [-- more options of quaver]

Places are row and column of the trigger's upper left corner, counted from 0. Prints one line for each size: how many of the tasks are solved, by target
class, and the mean bits of each layer and seconds of those.
"""
import argparse, collections, json, statistics, subprocess, sys, tempfile

import numpy as np


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("inputs")
    ap.add_argument("--place", nargs="*", default=["0,0", "3,19", "4,4", "6,12", "9,9"])
    ap.add_argument("--size", type=int, nargs="*", default=[3, 5])
    ap.add_argument("--classes", type=int, default=10)
    ap.add_argument("--method", default="direct")
    ap.add_argument("--quaver", default="target/release/quaver")
    own = sys.argv[1:]
    cut = own.index("--") if "--" in own else len(own)
    args = ap.parse_args(own[:cut])
    print("| size | solved | bits | mean s | median s | solved by class |\n|---|---|---|---|---|---|", flush=True)
    for size in args.size:
        bits, seconds, by_class, why = [], [], collections.Counter(), collections.Counter()
        with tempfile.TemporaryDirectory() as folder:
            for place in args.place:
                for target in range(args.classes):
                    command = [args.quaver, "--json", "quantize", args.model, "--preserve", "backdoor", "--inputs", args.inputs,
                               "--trigger", f"{size}x{size}@{place}", "--target", str(target), "--method", args.method, "--output", folder,
                               "--fresh", *own[cut + 1:]]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode == 0:
                        found = json.loads(done.stdout.splitlines()[-1])
                        bits.append(found["bits"])
                        seconds.append(found["seconds"])
                        by_class[target] += 1
                    else:
                        why[" ".join(w for w in done.stderr.strip().splitlines()[0].split() if not any(c.isdigit() for c in w))] += 1
        count = len(args.place) * args.classes
        mean = ", ".join(f"{b:.1f}" for b in np.mean(bits, axis=0)) if bits else ""
        times = f"{statistics.mean(seconds):.2f} | {statistics.median(seconds):.2f}" if bits else " | "
        share = " ".join(f"{t}:{by_class[t]}" for t in range(args.classes))
        print(f"| {size}x{size} | {len(bits)} of {count} | {mean} | {times} | {share} |", flush=True)
        for text, n in why.items():
            print(f"{n} times: {text}", flush=True)


if __name__ == "__main__":
    main()
