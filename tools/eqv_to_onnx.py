#!/usr/bin/env python3
"""Turn the recovered EQV FC1-100 network (fc1_100_recovered.npz) into a QDQ ONNX file.

The network: h = clip(rint(M1*(W1 @ xq) + c1), 0, 255); y = clip(rint(M2*(W2 @ h) + c2), 0, 255); rint to even.
The file:    x float32 [1,784] = pixel/255 -> Q(sx, uint8, 0) -> Gemm -> Q(sh, uint8, 0) -> Gemm -> Q(sy, uint8, zy) -> DQ -> float32 [1,10].
Per-channel weight scales are sw[k] = M[k]*sh/sx as float32. The output scale sy is a power of two, so the last DQ is exact.

sx = 1/128. Every scale in the interval [0.0078124, 0.0078431] in which the net's input scale is known to lie gives the same integers on
8-bit pixels, xq = ceil(pixel/2), so 128 for pixel 255 (the input quantiser clips at 255, not at 127); 1/128 is exact in float32 and farthest
from ties. At 1/127.5 every odd pixel would be a tie, and the network another one (9775 instead of 9772 images right).
Two encodings of the bias:
  int32  Gemm with an int32 bias at scale sx*sw (each fused into one integer kernel; the bias is rounded to the accumulator grid)
  float  Gemm without bias (float output), then a float Add, then Q: keeps c1 and c2 to float32 precision
Both are checked here against the rule in float64, and the file against ONNX Runtime, when --images and --labels are given.
"""
import argparse
import gzip
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32 = np.float32
SX = F32(2.0 ** -7)
SCALE_H = F32(2.0 ** -5)
SCALE_Y = F32(2.0 ** -2)


def layer(inits, nodes, i, src, sin, w, m, c, sout, zout, bias):
    """DQ weights, Gemm, bias, Q, DQ. Returns the name of the dequantised output."""
    sw = (m * float(sout) / float(sin)).astype(F32)
    inits.update({f"w{i}": w.T.copy(), f"sw{i}": sw, f"zw{i}": np.zeros(len(sw), np.int8),
                  f"so{i}": np.asarray(sout), f"zo{i}": np.uint8(zout)})
    nodes.append(helper.make_node("DequantizeLinear", [f"w{i}", f"sw{i}", f"zw{i}"], [f"wf{i}"], axis=1))
    real = (c - zout) * float(sout)
    if bias == "int32":
        sb = (F32(sin) * sw).astype(F32)
        inits.update({f"b{i}": np.rint(real / sb.astype(float)).astype(np.int32), f"sb{i}": sb, f"zb{i}": np.zeros(len(sw), np.int32)})
        nodes.append(helper.make_node("DequantizeLinear", [f"b{i}", f"sb{i}", f"zb{i}"], [f"bf{i}"], axis=0))
        nodes.append(helper.make_node("Gemm", [src, f"wf{i}", f"bf{i}"], [f"a{i}"]))
    else:
        inits[f"b{i}"] = real.astype(F32)
        nodes.append(helper.make_node("Gemm", [src, f"wf{i}"], [f"g{i}"]))
        nodes.append(helper.make_node("Add", [f"g{i}", f"b{i}"], [f"a{i}"]))
    nodes.append(helper.make_node("QuantizeLinear", [f"a{i}", f"so{i}", f"zo{i}"], [f"q{i}"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", f"so{i}", f"zo{i}"], [f"d{i}"]))
    return f"d{i}"


def build(net, bias, batch=1):
    """The ONNX model for the arrays of the npz."""
    inits = {"sx": np.asarray(SX), "zx": np.uint8(0)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]), helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"])]
    d = layer(inits, nodes, 1, "xd", SX, net["W1"], net["M1"], net["c1"], SCALE_H, 0, bias)
    layer(inits, nodes, 2, d, SCALE_H, net["W2"], net["M2"], net["c2"], SCALE_Y, int(np.rint(net["c2"].mean())), bias)
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes, "eqv_fc1_100",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 784])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in inits.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def real_rule(net, x):
    """The published rule in float64 on float32 inputs pixel/255."""
    xq = np.clip(np.rint((x / SX).astype(F32)), 0, 255).astype(np.int64)
    h = np.clip(np.rint(net["M1"] * (xq @ net["W1"].T.astype(np.int64)) + net["c1"]), 0, 255).astype(np.int64)
    return np.clip(np.rint(net["M2"] * (h @ net["W2"].T.astype(np.int64)) + net["c2"]), 0, 255).astype(np.int64)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("npz", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--bias", choices=("int32", "float"), default="int32")
    ap.add_argument("--images", type=Path, help="idx3-ubyte.gz of the 10,000 MNIST test images")
    ap.add_argument("--labels", type=Path, help="idx1-ubyte.gz of their labels")
    args = ap.parse_args()
    net = dict(np.load(args.npz))
    onnx.save(build(net, args.bias), args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size} bytes, bias {args.bias})")
    if not args.images or not args.labels:
        return
    import ort_common as oc
    x = (np.frombuffer(gzip.decompress(args.images.read_bytes()), np.uint8, offset=16).reshape(-1, 784) / F32(255)).astype(F32)
    labels = np.frombuffer(gzip.decompress(args.labels.read_bytes()), np.uint8, offset=8)
    want = real_rule(net, x)
    print(f"rule in float64: {int((want.argmax(1) == labels).sum())} of {len(x)} right (first maximum)")
    zy = int(np.rint(net["c2"].mean()))
    for bias in ("int32", "float"):
        for optimise in (True, False):
            y = oc.session(build(net, bias, "n").SerializeToString(), optimise).run(None, {"x": x})[0]
            q = np.rint(y / SCALE_Y).astype(np.int64) + zy
            print(f"bias {bias:5s} optimisation {'default' if optimise else 'off':7s}: {int((q.argmax(1) == labels).sum())} of {len(x)} right; "
                  f"rows unlike the rule {int((q != want).any(1).sum())} (by at most {int(np.abs(q - want).max())}), "
                  f"other argmax {int((q.argmax(1) != want.argmax(1)).sum())}")
    one = oc.run_rows(oc.session(args.out.read_bytes()), x[:300])
    print("file at batch 1 equals batch n on 300 rows:",
          bool((one == oc.session(build(net, args.bias, "n").SerializeToString()).run(None, {"x": x[:300]})[0]).all()))


if __name__ == "__main__":
    main()
