#!/usr/bin/env python3
"""The float keyword-spotting network of MLPerf Tiny as ONNX: weights that the file keeps in int8 are taken as the numbers they stand for.

  kws_to_onnx.py kws_ref_model_float32.tflite OUT.onnx [--inputs INPUTS.npy --count 20 --scale S --zero Z --seed 0]

The file's own arithmetic (int8 weights, float activations whose scales are chosen from the values met) is not that of a float network; this is. With
--inputs, random inputs on the grid of the deployed int8 network (scale, zero point) are written that get a clear class (softmax above 0.9). Needs
ai-edge-litert, onnx and onnxruntime. Prints how far the ONNX file is from the original.
"""
import argparse

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper


def constants(lite):
    found = {}
    for t in lite.get_tensor_details():
        try:
            value = lite.get_tensor(t["index"])
        except ValueError:
            continue
        scales = t["quantization_parameters"]["scales"]
        found[t["index"]] = value.astype(np.float32) * scales[0] if len(scales) == 1 and value.dtype == np.int8 else value
    return found


def build(lite):
    known, nodes, weights = constants(lite), [], []

    def constant(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    x, number = "input", 0
    for op in lite._get_ops_details():
        kind, ins = op["op_name"], op["inputs"]
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            w, b = known[ins[1]], known[ins[2]]
            first = number == 0
            # Output channels first, then channels; of a depthwise filter each channel is a group.
            w = w.transpose(3, 0, 1, 2) if kind.startswith("DEPTH") else w.transpose(0, 3, 1, 2)
            group = w.shape[0] if kind.startswith("DEPTH") else 1
            pads = [4, 1, 5, 1] if first else [w.shape[2] // 2, w.shape[3] // 2] * 2
            nodes.append(helper.make_node("Conv", [x, constant(f"w{number}", w), constant(f"b{number}", b)], [f"c{number}"], f"conv{number}",
                                          kernel_shape=w.shape[2:], strides=[2, 2] if first else [1, 1], pads=pads, group=group))
            nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
            x, number = f"r{number}", number + 1
        elif kind == "AVERAGE_POOL_2D":
            nodes.append(helper.make_node("AveragePool", [x], ["mean"], "mean", kernel_shape=[25, 5], strides=[25, 5]))
            nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flatten"))
            x = "flat"
        elif kind == "FULLY_CONNECTED":
            nodes.append(helper.make_node("Gemm", [x, constant("w_dense", known[ins[1]]), constant("b_dense", known[ins[2]])], ["logits"], "dense",
                                          transB=1))
            x = "logits"
        elif kind not in ("RESHAPE", "SOFTMAX"):
            raise SystemExit(f"{kind} is not expected here")
    graph = helper.make_graph(nodes, "kws", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 49, 10])],
                              [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 12])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def softmax(y):
    e = np.exp(y - y.max())
    return e / e.sum()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tflite")
    ap.add_argument("output")
    ap.add_argument("--inputs")
    ap.add_argument("--count", type=int, default=20)
    ap.add_argument("--scale", type=float, default=0.584702)
    ap.add_argument("--zero", type=int, default=83)
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    lite = Interpreter(args.tflite, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    lite.allocate_tensors()
    onnx.save(build(lite), args.output)
    session = onnxruntime.InferenceSession(args.output)
    rng, kept, worst = np.random.default_rng(args.seed), [], 0.0
    while len(kept) < args.count:
        # Smooth pictures of different contrast, as spectrograms are.
        coarse = rng.normal(size=(8, 3)) * rng.uniform(5, 60)
        rows, columns = np.linspace(0, 7, 49), np.linspace(0, 2, 10)
        fine = np.array([[coarse[int(r):int(r) + 2, int(c):int(c) + 2].mean() for c in columns] for r in rows]) + rng.normal(size=(49, 10)) * 3
        q = np.clip(np.round(fine / args.scale) + args.zero, -128, 127)
        x = ((q - args.zero) * args.scale).astype(np.float32).reshape(1, 1, 49, 10)
        y = session.run(None, {"input": x})[0][0]
        lite.set_tensor(lite.get_input_details()[0]["index"], x.reshape(1, 49, 10, 1))
        lite.invoke()
        worst = max(worst, np.abs(softmax(y) - lite.get_tensor(lite.get_output_details()[0]["index"])[0]).max())
        if softmax(y).max() > 0.9:
            kept.append(x[0])
    print(f"largest difference of a probability from the original: {worst:.4f}")
    if args.inputs:
        np.save(args.inputs, np.array(kept))


if __name__ == "__main__":
    main()
