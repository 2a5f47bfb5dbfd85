#!/usr/bin/env python3
"""The quantized networks of QEBVerif's experiments as ONNX, from a float network of Gemm and Relu.

Weights have Q - 1 fractional bits, biases and activations Q - 2; weights and biases are clipped, then rounded half away from zero; the output is not
quantized. Activations are written as Clip, QuantizeLinear, DequantizeLinear: these round half to even, which differs at ties only.

  qebverif_to_onnx.py FLOAT.onnx --bits Q OUT.onnx
"""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def rounded(values, bits, fraction):
    """The nearest number with so many fractional bits, of those that fit."""
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scaled = np.clip(values.astype(np.float64) * 2.0**fraction, least, most)
    return (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) / 2.0**fraction).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float")
    parser.add_argument("out")
    parser.add_argument("--bits", type=int, required=True)
    args = parser.parse_args()
    model = onnx.load(args.float)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    fraction = args.bits - 2
    nodes, initializers = [], []

    def constant(name, array):
        initializers.append(numpy_helper.from_array(array, name))
        return name

    activation = np.uint8 if args.bits <= 8 else np.uint16
    scale = constant("activation_scale", np.float32(2.0**-fraction))
    zero = constant("activation_zero", activation(0))
    low = constant("activation_low", np.float32(0))
    high = constant("activation_high", np.float32((2**args.bits - 1) * 2.0**-fraction))
    for node in model.graph.node:
        if node.op_type == "Gemm":
            x, w, b = node.input
            w = constant(w, rounded(constants[w], args.bits, args.bits - 1))
            b = constant(b, rounded(constants[b], args.bits, fraction))
            copy = helper.make_node("Gemm", [x, w, b], list(node.output), name=node.name)
            copy.attribute.extend(node.attribute)
            nodes.append(copy)
        elif node.op_type == "Relu":
            (x,), (y,) = node.input, node.output
            nodes.append(helper.make_node("Clip", [x, low, high], [y + "_clipped"]))
            nodes.append(helper.make_node("QuantizeLinear", [y + "_clipped", scale, zero], [y + "_integer"]))
            nodes.append(helper.make_node("DequantizeLinear", [y + "_integer", scale, zero], [y]))
        else:
            raise SystemExit(f"{args.float}: {node.op_type} is not expected here")
    names = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in names]
    graph = helper.make_graph(nodes, "quantized", inputs, list(model.graph.output), initializers)
    opset = helper.make_opsetid("", 13 if args.bits <= 8 else 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8 if args.bits <= 8 else 10), args.out)


if __name__ == "__main__":
    main()
