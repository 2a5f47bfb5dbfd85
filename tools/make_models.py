#!/usr/bin/env python3
"""Train and write the small example models under models/.

Digits (scikit-learn's copy of the UCI optical digits, 8x8 pixels, 1797 rows) and iris, with fixed seeds.
Writes float, QDQ, QOperator and integer-input ONNX files plus test inputs and labels as .npy.
The golden outputs are written by make_goldens.py, which is to be run afterwards.

Needs: numpy, scikit-learn, onnx, onnxruntime.
"""
import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 13, 8
F32 = np.float32


def make_float_model(name, in_shape, nodes, inits, n_out):
    """Assemble a float model with input `x`, output `logits` and no metadata."""
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(in_shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, n_out])],
        [numpy_helper.from_array(a, n) for n, a in inits.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    return strip(model)


def strip(model):
    """Drop producer strings, metadata, documentation, value infos and opset imports that no node uses."""
    used = {n.domain for n in model.graph.node}
    keep = [(o.domain, o.version) for o in model.opset_import if o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(d, v) for d, v in keep)
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.producer_name = model.producer_version = model.domain = model.doc_string = ""
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    model.ir_version = IR
    onnx.checker.check_model(model)
    return model


def mlp_model(name, weights, biases):
    nodes, inits, cur = [], {}, "x"
    for i, (w, b) in enumerate(zip(weights, biases)):
        inits[f"w{i}"], inits[f"b{i}"] = w.astype(F32), b.astype(F32)
        last = i == len(weights) - 1
        out = "logits" if last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [cur, f"w{i}", f"b{i}"], [out], name=f"gemm{i}"))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"h{i}"], name=f"relu{i}"))
            cur = f"h{i}"
    return make_float_model(name, (1, weights[0].shape[0]), nodes, inits, weights[-1].shape[1])


def train_mlp(x, y, hidden, seed, epochs):
    from sklearn.neural_network import MLPClassifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = MLPClassifier(hidden, activation="relu", alpha=1e-3, random_state=seed, max_iter=epochs, tol=0,
                          n_iter_no_change=epochs).fit(x, y)
    return [c.astype(F32) for c in m.coefs_], [c.astype(F32) for c in m.intercepts_]


# --- a small convolutional net, trained by hand-written backpropagation -------------------------------------------------------------

def im2col(x, k, s, p):
    n, c, h, w = x.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    oh, ow = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
    cols = np.empty((n, c, k, k, oh, ow), x.dtype)
    for i in range(k):
        for j in range(k):
            cols[:, :, i, j] = xp[:, :, i:i + s * oh:s, j:j + s * ow:s]
    return cols.transpose(0, 4, 5, 1, 2, 3).reshape(n, oh, ow, c * k * k)


def col2im(dcols, shape, k, s, p):
    n, c, h, w = shape
    oh, ow = dcols.shape[1:3]
    d = dcols.reshape(n, oh, ow, c, k, k).transpose(0, 3, 4, 5, 1, 2)
    out = np.zeros((n, c, h + 2 * p, w + 2 * p), dcols.dtype)
    for i in range(k):
        for j in range(k):
            out[:, :, i:i + s * oh:s, j:j + s * ow:s] += d[:, :, i, j]
    return out[:, :, p:p + h, p:p + w]


def train_conv(x, y, seed, epochs):
    """conv3x3/2 (8) - relu - conv3x3/2 (16) - relu - dense 10, Adam, batch 64."""
    rng = np.random.default_rng(seed)
    par = {"cw0": rng.normal(0, (2 / 9) ** .5, (8, 1, 3, 3)), "cb0": np.zeros(8),
           "cw1": rng.normal(0, (2 / 72) ** .5, (16, 8, 3, 3)), "cb1": np.zeros(16),
           "w": rng.normal(0, (2 / 64) ** .5, (64, 10)), "b": np.zeros(10)}
    mom = {k: np.zeros_like(v) for k, v in par.items()}
    var = {k: np.zeros_like(v) for k, v in par.items()}
    step = 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        lr = 3e-3 * (0.5 * (1 + np.cos(np.pi * epoch / epochs)) + 0.01)
        for at in range(0, len(x), 64):
            xb, yb = x[order[at:at + 64]], y[order[at:at + 64]]
            n = len(xb)
            c0 = im2col(xb, 3, 2, 1)
            z0 = c0 @ par["cw0"].reshape(8, -1).T + par["cb0"]
            a0 = np.maximum(z0, 0).transpose(0, 3, 1, 2)
            c1 = im2col(a0, 3, 2, 1)
            z1 = c1 @ par["cw1"].reshape(16, -1).T + par["cb1"]
            a1 = np.maximum(z1, 0).transpose(0, 3, 1, 2).reshape(n, -1)
            lo = a1 @ par["w"] + par["b"]
            pr = np.exp(lo - lo.max(1, keepdims=True))
            pr /= pr.sum(1, keepdims=True)
            pr[np.arange(n), yb] -= 1
            pr /= n
            g = {"w": a1.T @ pr, "b": pr.sum(0)}
            d1 = (pr @ par["w"].T).reshape(n, 16, 2, 2).transpose(0, 2, 3, 1) * (z1 > 0)
            g["cw1"] = np.tensordot(d1, c1, ([0, 1, 2], [0, 1, 2])).reshape(16, 8, 3, 3)
            g["cb1"] = d1.sum((0, 1, 2))
            d0 = col2im(d1 @ par["cw1"].reshape(16, -1), a0.shape, 3, 2, 1).transpose(0, 2, 3, 1) * (z0 > 0)
            g["cw0"] = np.tensordot(d0, c0, ([0, 1, 2], [0, 1, 2])).reshape(8, 1, 3, 3)
            g["cb0"] = d0.sum((0, 1, 2))
            step += 1
            for k in par:
                gk = g[k] + 1e-4 * par[k]
                mom[k] = .9 * mom[k] + .1 * gk
                var[k] = .999 * var[k] + .001 * gk * gk
                par[k] -= lr * (mom[k] / (1 - .9 ** step)) / (np.sqrt(var[k] / (1 - .999 ** step)) + 1e-8)
    return {k: v.astype(F32) for k, v in par.items()}


def conv_model(par):
    conv = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    nodes = [helper.make_node("Conv", ["x", "cw0", "cb0"], ["z0"], name="conv0", **conv),
             helper.make_node("Relu", ["z0"], ["h0"], name="relu0"),
             helper.make_node("Conv", ["h0", "cw1", "cb1"], ["z1"], name="conv1", **conv),
             helper.make_node("Relu", ["z1"], ["h1"], name="relu1"),
             helper.make_node("Flatten", ["h1"], ["f"], name="flatten", axis=1),
             helper.make_node("Gemm", ["f", "w", "b"], ["logits"], name="gemm")]
    return make_float_model("digits_conv", (1, 1, 8, 8), nodes, par, 10)


# --- quantisation -------------------------------------------------------------------------------------------------------------------

def quantize(model, rows, qop):
    """onnxruntime's static quantiser: uint8 activations, int8 weights, MinMax; QDQ per channel or QOperator per tensor."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.it = iter(rows)

        def get_next(self):
            r = next(self.it, None)
            return None if r is None else {"x": r[None]}

    with tempfile.TemporaryDirectory() as tmp:
        src, dst = Path(tmp, "a.onnx"), Path(tmp, "b.onnx")
        onnx.save(model, src)
        quantize_static(src, dst, Reader(), quant_format=QuantFormat.QOperator if qop else QuantFormat.QDQ,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=not qop)
        return strip(onnx.load(dst))


def integer_input(model):
    """Cut the leading QuantizeLinear off a QOperator model: the graph input becomes the uint8 tensor."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    q = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    assert q.input[0] == "x"
    model.graph.node.remove(q)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(q.output[0], TensorProto.UINT8, shape))
    used = {i for n in model.graph.node for i in n.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return strip(model)


def accuracy(model, x, y):
    import onnxruntime as ort
    so = ort.SessionOptions()
    so.intra_op_num_threads = so.inter_op_num_threads = 1
    so.log_severity_level = 3
    s = ort.InferenceSession(model.SerializeToString(), so, providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    pred = [int(np.argmax(s.run(None, {name: r[None]})[0])) for r in x]
    return float(np.mean(np.array(pred) == y))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "models")
    out = ap.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    from sklearn.datasets import load_digits, load_iris

    d = load_digits()
    perm = np.random.default_rng(0).permutation(len(d.target))
    x, y = (d.data[perm] / 16).astype(F32), d.target[perm].astype(np.int64)
    xt, yt, xv, yv = x[:1297], y[:1297], x[1297:], y[1297:]
    ir = load_iris()
    perm = np.random.default_rng(1).permutation(150)
    ix, iy = (ir.data[perm] / 10).astype(F32), ir.target[perm].astype(np.int64)
    it, jt, iv, jv = ix[:100], iy[:100], ix[100:], iy[100:]

    mlp = mlp_model("digits_mlp", *train_mlp(xt, yt, (32, 32), 3, 200))
    conv = conv_model(train_conv(xt.reshape(-1, 1, 8, 8), yt, 4, 60))
    iris = mlp_model("iris", *train_mlp(it, jt, (8, 8), 5, 2000))
    mlp_qop = quantize(mlp, xt[:200], True)
    mlp_int = integer_input(mlp_qop)
    made = {
        "digits_mlp_float": (mlp, xv, yv),
        "digits_mlp_qdq": (quantize(mlp, xt[:200], False), xv, yv),
        "digits_mlp_qop": (mlp_qop, xv, yv),
        "digits_mlp_int": (mlp_int, None, yv),
        "digits_conv_float": (conv, xv.reshape(-1, 1, 8, 8), yv),
        "digits_conv_qdq": (quantize(conv, xt[:200].reshape(-1, 1, 8, 8), False), xv.reshape(-1, 1, 8, 8), yv),
        "iris_float": (iris, iv, jv),
        "iris_qdq": (quantize(iris, it, False), iv, jv),
    }
    q = next(n for n in mlp_qop.graph.node if n.op_type == "QuantizeLinear")
    par = {t.name: numpy_helper.to_array(t) for t in mlp_qop.graph.initializer}
    scale, zero = par[q.input[1]].reshape(()), par[q.input[2]].reshape(())
    xq = np.clip(np.rint(xv / scale) + int(zero), 0, 255).astype(np.uint8)
    made["digits_mlp_int"] = (mlp_int, xq, yv)
    print(f"{'model':20s} {'bytes':>7s} {'test accuracy':>14s}")
    for name, (m, tx, ty) in made.items():
        data = m.SerializeToString()
        (out / f"{name}.onnx").write_bytes(data)
        print(f"{name:20s} {len(data):7d} {accuracy(m, tx, ty):14.4f}  ({len(ty)} rows)")
    np.save(out / "digits_x.npy", xv[:100])
    np.save(out / "digits_y.npy", yv[:100])
    np.save(out / "iris_x.npy", iv)
    np.save(out / "iris_y.npy", jv)


if __name__ == "__main__":
    main()
