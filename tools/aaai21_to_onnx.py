#!/usr/bin/env python3
"""Turn an AAAI'21 (Henzinger et al.) quantised network (npz with W{i}_int, b{i}_int) into a float ONNX file.

Gemm weights are W_int / 2^(Q-1) and biases b_int / 2^(Q-2): exact in float32. Input: x8/256, x8 the 8-bit pixel. The file is meant to be run
under a fixed-point profile; in plain float arithmetic it is another function. The bit-exact rule (fixed_point below), Q = 6:
  x: 8 fractional bits, unsigned; W: Q-1; b and all activations: Q-2 fractional bits
  acc = W x + (b << shift); hidden = clip(floor(acc / 2^e + 1/2), 0, 2^Q - 1); output the same, signed, clip(-2^(Q-1), 2^(Q-1) - 1)
  e = (fractional bits of the input of the layer) + (Q-1) - (Q-2); shift = e
Prediction: first maximum over all outputs. With --images, --labels and --results the rule is checked against the published list
(test id, eps in pixels, robust | vulnerable | timeout | misclassified): the misclassified ids must be those the rule misclassifies.
"""
import argparse
import csv
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32 = np.float32


def layers(net):
    n = sum(k.startswith("W") and k.endswith("_int") for k in net)
    return [(net[f"W{i}_int"].astype(np.int64), net[f"b{i}_int"].astype(np.int64)) for i in range(n)]


def fixed_point(net, x8, q=6):
    """Integer outputs (Q-2 fractional bits) for integer pixels x8 (rows)."""
    h, frac = np.asarray(x8, np.int64), 8
    ls = layers(net)
    for i, (w, b) in enumerate(ls):
        e = frac + (q - 1) - (q - 2)
        acc = h @ w + (b << e)
        r = (acc + (1 << (e - 1))) >> e
        last = i == len(ls) - 1
        h = np.clip(r, -(1 << (q - 1)), (1 << (q - 1)) - 1) if last else np.clip(r, 0, (1 << q) - 1)
        frac = q - 2
    return h


def build(net, q=6, batch=1):
    nodes, inits, cur = [], {}, "x"
    ls = layers(net)
    for i, (w, b) in enumerate(ls):
        wf, bf = (w / 2.0 ** (q - 1)).astype(F32), (b / 2.0 ** (q - 2)).astype(F32)
        assert (wf * 2.0 ** (q - 1) == w).all() and (bf * 2.0 ** (q - 2) == b).all()
        inits.update({f"W{i}": wf, f"b{i}": bf})
        last = i == len(ls) - 1
        nodes.append(helper.make_node("Gemm", [cur, f"W{i}", f"b{i}"], ["y" if last else f"z{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [f"h{i}"]))
            cur = f"h{i}"
    graph = helper.make_graph(
        nodes, "aaai21", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, ls[0][0].shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, ls[-1][0].shape[1]])],
        [numpy_helper.from_array(a, n) for n, a in inits.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("npz", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--bits", type=int, default=6)
    ap.add_argument("--images", type=Path)
    ap.add_argument("--labels", type=Path)
    ap.add_argument("--results", type=Path, help="published results (csv: test_id,eps_pixels,published_result)")
    args = ap.parse_args()
    net = dict(np.load(args.npz))
    onnx.save(build(net, args.bits), args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size} bytes)")
    if not (args.images and args.labels):
        return 0
    x = np.frombuffer(gzip.decompress(args.images.read_bytes()), np.uint8, offset=16).reshape(-1, layers(net)[0][0].shape[0])
    y = np.frombuffer(gzip.decompress(args.labels.read_bytes()), np.uint8, offset=8)
    out = fixed_point(net, x, args.bits)
    wrong = out.argmax(1) != y
    print(f"fixed point: {int((~wrong).sum())} of {len(y)} right (first maximum of {out.shape[1]})")
    try:
        import ort_common as oc
        f = oc.session(build(net, args.bits, "n").SerializeToString()).run(None, {"x": (x / F32(256)).astype(F32)})[0]
        print(f"the same file in float32: {int((f.argmax(1) == y).sum())} right, argmax differs on {int((f.argmax(1) != out.argmax(1)).sum())} rows")
    except ImportError:
        pass
    if not args.results:
        return 0
    rows = list(csv.DictReader(args.results.open()))
    ids = np.array([int(r["test_id"]) for r in rows])
    published = {int(r["test_id"]) for r in rows if r["published_result"] == "misclassified"}
    ours = {int(i) for i in ids if wrong[i]}
    count = Counter((r["published_result"]) for r in rows)
    print("published:", dict(count), "eps:", dict(sorted(Counter(int(r["eps_pixels"]) for r in rows).items())))
    print("misclassified ids, published:", sorted(published))
    print("misclassified ids, ours     :", sorted(ours), "equal" if ours == published else "DIFFERENT")
    tie = [int(i) for i in ids if (out[i] == out[i].max()).sum() > 1]
    print(f"rows with a tie at the top: {len(tie)}")
    rng = np.random.default_rng(0)
    for r in (r for r in rows if r["published_result"] == "robust"):
        i, eps = int(r["test_id"]), int(r["eps_pixels"])
        d = np.clip(x[i].astype(int) + rng.choice([-eps, eps], (200, x.shape[1])), 0, 255)
        if (fixed_point(net, d, args.bits).argmax(1) != y[i]).any():
            print("a robust instance was broken by sampling:", i, eps)
            return 1
    print("sampling 200 corners of every box published as robust broke none")
    return int(ours != published)


if __name__ == "__main__":
    raise SystemExit(main())
