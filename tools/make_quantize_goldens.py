#!/usr/bin/env python3
"""Reference results for the quantizers, written to models/golden/quantize: CEG4N's rule as PyTorch computes it, and greedy path following
quantization in plain numpy, on the example models. Needs numpy, onnx and torch.
"""
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "models/golden/quantize"


def ceg4n(u, bits):
    """One tensor, its scale from its own largest magnitude."""
    x = torch.from_numpy(u)
    scale = 2 * x.abs().max().item() / (2 ** bits - 1)
    q = x / scale
    q = torch.where(q < 0, q - 0.5, q + 0.5).to(torch.int32).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (q * scale).to(torch.float32).numpy()


def dense_layers(path):
    """[(weights [inputs, neurons], biases)] of a chain of Gemm and Relu."""
    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    layers = []
    for n in graph.node:
        if n.op_type == "Gemm":
            turned = any(a.name == "transB" and a.i for a in n.attribute)
            w = constants[n.input[1]]
            layers.append((w.T if turned else w, constants[n.input[2]], turned))
    return layers


def gpfq(path, x, bits, radius, factor):
    """The integers of each layer, in the layout of the file."""
    layers, analog, digital, chosen = dense_layers(path), x.astype(np.float64), x.astype(np.float64), []
    for k, (w, b, turned) in enumerate(layers):
        largest = 2 ** (bits - 1) - 1
        r = factor * (np.abs(w).max(axis=0).mean() if radius == "maxima" else np.median(np.abs(w)))
        s = np.float32(r / largest)
        if float(s) < r / largest:
            s = np.nextafter(s, np.float32(np.inf))
        q, u = np.zeros(w.shape), np.zeros((len(x), w.shape[1]))
        for t in range(w.shape[0]):
            u += np.outer(analog[:, t], w[t])
            norm = digital[:, t] @ digital[:, t]
            aim = digital[:, t] @ u / norm if norm > 0 else np.zeros(w.shape[1])
            q[t] = np.clip(np.floor(aim / float(s) + 0.5), -largest, largest)
            u -= np.outer(digital[:, t], (q[t].astype(np.float32) * s).astype(np.float64))
        values = (q.astype(np.float32) * s).astype(np.float64)
        chosen.append((q.T if turned else q).astype(np.int8))
        analog, digital = analog @ w + b, digital @ values + b
        if k + 1 < len(layers):
            analog, digital = np.maximum(analog, 0), np.maximum(digital, 0)
    return chosen


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    u = np.concatenate([rng.normal(0, 0.3, 400), [0, 0.75, -0.75]]).astype(np.float32)
    # At 32 bits the conversion to int32 overflows at the largest magnitude; Quaver saturates there instead.
    arrays = {"u": u} | {f"bits_{b}": ceg4n(u, b) for b in range(2, 32)}
    np.savez_compressed(OUT / "ceg4n.npz", **arrays)
    arrays = {}
    for model, data, bits in [("iris_float", "iris_x", 4), ("iris_float", "iris_x", 3), ("digits_mlp_float", "digits_x", 4)]:
        x = np.load(ROOT / f"models/{data}.npy")[:100]
        for radius, factor in [("maxima", 1.16), ("median", 3.0)]:
            for k, q in enumerate(gpfq(ROOT / f"models/{model}.onnx", x, bits, radius, factor)):
                arrays[f"{model}_{bits}_{radius}_{k}"] = q
    np.savez_compressed(OUT / "gpfq.npz", **arrays)


if __name__ == "__main__":
    main()
