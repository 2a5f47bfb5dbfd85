#!/usr/bin/env python3
"""Quadapter's robustness tasks (Table 2 of the paper): one task for each input and radius, each with a strategy of its own.

  quadapter_table.py MODEL.onnx INPUTS.npy LABELS.npy [--radius 1 2 3 4 5] [--method direct] [--test X.npy Y.npy] [-- more options of quaver]

INPUTS are float32 pixels divided by 255. A task counts where the model gives the input its label and keeps it in the ball. With --test, the accuracy
of every network that is found is measured (numpy, float64, dense layers with ReLU between them). Prints one line for each radius and one for all:
solved, mean bits of each layer, mean accuracy, mean and median seconds of a task.
"""
import argparse, json, statistics, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def layers(path):
    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    out = []
    for node in graph.node:
        if node.op_type == "Gemm":
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            w = constants[node.input[1]]
            out.append((w.T if turned else w, constants[node.input[2]]))
        elif node.op_type not in ("Relu", "Flatten"):
            sys.exit(f"{path}: {node.op_type}: only Gemm and Relu are known here")
    return out


def accuracy(path, x, y):
    h = x
    for k, (w, b) in enumerate(made := layers(path)):
        h = h @ w + b
        h = h if k + 1 == len(made) else np.maximum(h, 0)
    return float((h.argmax(1) == y).mean())


def solve(args, row, radius, folder):
    command = [args.quaver, "--json", "quantize", args.model, "--preserve", "robustness", "--inputs", args.inputs, "--labels", args.labels,
               "--radius", f"{radius}/255", "--clip", "0,1", "--indices", str(row), "--method", args.method, "--output", folder, "--fresh",
               *args.more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip().splitlines()[0]
    return json.loads(done.stdout.splitlines()[-1]), ""


def line(name, tasks):
    solved = [t for t in tasks if t["bits"]]
    if not solved:
        return f"| {name} | 0 of {len(tasks)} | | | | |"
    bits = ", ".join(f"{b:.1f}" for b in np.mean([t["bits"] for t in solved], axis=0))
    accuracies = [t["accuracy"] for t in solved if t["accuracy"] is not None]
    mean = f"{100 * statistics.mean(accuracies):.2f} %" if accuracies else ""
    seconds = [t["seconds"] for t in solved]
    more = " ".join(f"{k} {statistics.mean(t[k] for t in solved):.3f}" for k in ("preimage_seconds", "choice_seconds") if solved[0].get(k) is not None)
    return f"| {name} | {len(solved)} of {len(tasks)} | {bits} | {mean} | {statistics.mean(seconds):.3f} | {statistics.median(seconds):.3f} | {more}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("inputs")
    ap.add_argument("labels")
    ap.add_argument("--radius", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    ap.add_argument("--method", default="direct")
    ap.add_argument("--test", nargs=2)
    ap.add_argument("--rows", type=int)
    ap.add_argument("--quaver", default="target/release/quaver")
    own = sys.argv[1:]
    cut = own.index("--") if "--" in own else len(own)
    args = ap.parse_args(own[:cut])
    args.more = own[cut + 1:]
    test = [np.load(p) for p in args.test] if args.test else None
    rows = args.rows or len(np.load(args.labels))
    print("| radius | solved | bits | accuracy | mean s | median s |\n|---|---|---|---|---|---|", flush=True)
    every, why = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for radius in args.radius:
            tasks = []
            for row in range(rows):
                found, problem = solve(args, row, radius, folder)
                task = {"bits": None, "accuracy": None, "seconds": 0.0}
                if found:
                    task = {k: found.get(k) for k in ("bits", "seconds", "preimage_seconds", "choice_seconds")}
                    task["accuracy"] = accuracy(Path(folder) / "model.onnx", test[0], test[1]) if test else None
                else:
                    why.setdefault(problem[:100], []).append((row, radius))
                tasks.append(task)
            every += tasks
            print(line(f"{radius}/255", tasks), flush=True)
    print(line("all", every))
    for problem, where in why.items():
        print(f"{len(where)} times: {problem} (first: row {where[0][0]}, radius {where[0][1]})")


if __name__ == "__main__":
    main()
