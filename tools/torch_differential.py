#!/usr/bin/env python3
"""Run Quaver and PyTorch's quantized operators side by side on random layers and compare every output.

For each engine (fbgemm, onednn, x86, qnnpack) random layers of several kinds: Linear and Conv2d, with and without a fused ReLU, weights per tensor and per
channel, strides, pads, dilations, groups (depthwise too), 1 to 1100 products, random scales (a third of them powers of two: exact ties), random zero points;
biases that put accumulators near half-integers of the output; sums of two values, pools and concatenations. Each layer is written as an ONNX file in Q/DQ form with
float biases and uint8 ends, and

    quaver run LAYER.onnx --inputs X.npy --outputs Y.npy --profile torch-ENGINE

must give PyTorch's integers. A refusal is counted and listed with its reason; it is no failure. Exit status: 0 if every compared output is equal.
"""
import argparse
import collections
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

import torch_layers as tl

KINDS = ("linear", "linear_relu", "conv2d", "conv2d_relu", "depthwise", "depthwise_relu", "add", "add_relu", "relu6", "average", "global_average", "concat",
         "mlp", "cnn")


def run_quaver(exe, model, inputs, engine, folder):
    """The outputs, or the text of a refusal."""
    (folder / "m.onnx").write_bytes(model)
    command = [exe, "run", folder / "m.onnx", "--outputs", folder / "y.npy", "--profile", f"torch-{engine}"]
    for k, x in enumerate(inputs):
        np.save(folder / f"x{k}.npy", x)
        command += ["--inputs", folder / f"x{k}.npy"]
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode:
        if p.returncode < 0 or "panicked" in p.stderr:
            raise SystemExit(f"quaver crashed:\n{p.stderr}")
        return p.stderr.strip()
    return np.load(folder / "y.npy")


def reason(text):
    """The reason of a refusal without names and numbers."""
    line = text.split("\n  what to do")[0].split("): ", 1)[-1]
    return "".join("#" if c.isdigit() else c for c in line)[:120]


def compare(args, engine, kind, rng, folder, keep):
    """(outputs compared, outputs that differ, layers, refusals)."""
    total = bad = layers = 0
    refused = collections.Counter()
    torch.backends.quantized.engine = engine
    while total < args.outputs and layers + sum(refused.values()) < args.layers:
        if not layers and sum(refused.values()) >= 40:
            break  # nothing of this kind is accepted
        rows = int(rng.choice([1, 4, 16, 64, args.rows], p=[0.2, 0.3, 0.3, 0.15, 0.05]))
        try:
            net, output = tl.random_layer(kind, rng, rows)
        except RuntimeError as e:  # an engine may refuse a layer
            refused["PyTorch: " + str(e).splitlines()[0][:60]] += 1
            continue
        model, inputs, want = net.onnx([output]), net.rows, net.tensors[output].int_repr().numpy()
        got = run_quaver(args.quaver, model, inputs, engine, folder)
        if isinstance(got, str):
            refused[reason(got)] += 1
            continue
        differ = int((got.reshape(want.shape) != want).sum())
        if differ and keep:
            print(f"  {engine} {kind}: {differ} of {want.size} differ: {net.notes}", flush=True)
            keep.mkdir(parents=True, exist_ok=True)
            stem = keep / f"{engine}_{kind}_{layers}"
            stem.with_suffix(".onnx").write_bytes(model)
            np.savez(stem.with_suffix(".npz"), want=want, got=got.reshape(want.shape), **{f"x{k}": x for k, x in enumerate(inputs)})
        total, bad, layers = total + want.size, bad + differ, layers + 1
    return total, bad, layers, refused


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quaver", required=True, help="path of the quaver program")
    ap.add_argument("--engines", default="fbgemm,onednn,x86,qnnpack")
    ap.add_argument("--kinds", default=",".join(KINDS))
    ap.add_argument("--outputs", type=int, default=200_000, help="outputs for each engine and kind (default 200000)")
    ap.add_argument("--layers", type=int, default=10_000, help="at most this many layers for each engine and kind")
    ap.add_argument("--rows", type=int, default=256, help="at most this many rows for each layer (default 256)")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--keep", type=Path, help="folder for layers that differ")
    args = ap.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    failed, refusals, sums = False, collections.Counter(), collections.Counter()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{'engine':8s} {'kind':15s} {'layers':>7s} {'refused':>8s} {'outputs':>10s} {'differ':>7s}")
    with tempfile.TemporaryDirectory() as tmp:
        for engine in args.engines.split(","):
            for k, kind in enumerate(args.kinds.split(",")):
                rng = np.random.default_rng([args.seed, k, len(engine)])
                total, bad, layers, refused = compare(args, engine, kind, rng, Path(tmp), args.keep)
                print(f"{engine:8s} {kind:15s} {layers:7d} {sum(refused.values()):8d} {total:10d} {bad:7d}", flush=True)
                failed |= bad > 0
                sums[engine] += total
                refusals.update({f"{engine} {kind}: {r}": n for r, n in refused.items()})
    print("outputs: " + ", ".join(f"{e} {n}" for e, n in sums.items()))
    for r, n in sorted(refusals.items()):
        print(f"refused {n:5d}  {r}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
