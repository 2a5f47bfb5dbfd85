#!/usr/bin/env python3
"""Random small graphs: does Quaver's `ort-fused` (quantized) or `float32` (float) enclosure hold what ONNX Runtime computes?

Each seed makes one graph of 1 to 6 operators: mostly Q/DQ graphs with odd forms (missing or shared Q/DQ pairs, several readers, float biases
and weights, missing zero points, double pairs, outputs in the middle), also QOperator graphs and float nets. Scales are often powers of two, so
that ties happen; sums are short, so that the bound of a float sum does not hide a wrong rule. ONNX Runtime runs one row at a time at its default
optimisation level on one thread; Quaver runs as

    quaver run MODEL --inputs X.npy --outputs Y.npy --lower L.npy --upper U.npy

A graph passes if Quaver refuses it by name, or if lower <= runtime <= upper for every element of every output (so equal, where lower == upper).
Exit status: 0 if nothing failed.
"""
import argparse
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ort_common as oc

F32 = np.float32
TYPES = {"u8": np.uint8, "s8": np.int8, "u16": np.uint16, "s16": np.int16}
MS = "com.microsoft"
MOVES = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity", "MaxPool")


class Graph:
    """A graph under construction. A value is a name with a shape; its first axis is the batch."""

    def __init__(self, rng, shape, dtype=F32, symbolic=False, opset=13):
        self.rng, self.opset, self.dtype = rng, opset, dtype
        self.nodes, self.inits, self.shapes, self.outputs = [], {}, {"x": shape}, []
        self.symbolic, self.quantized = symbolic, {}
        self.power_of_two = rng.random() < 0.6
        self.rows = None

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, *items):
        return items[self.rng.integers(len(items))]

    def constant(self, array, hint="c"):
        name = f"{hint}{len(self.inits)}"
        self.inits[name] = np.asarray(array)
        return name

    def add(self, op, inputs, shape, domain="", **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n{len(self.nodes)}", domain=domain, **attributes))
        self.shapes[name] = list(shape)
        return name

    def model(self, outputs, types=None):
        batch = "N" if self.symbolic else 1
        as_info = lambda n, t, s: helper.make_tensor_value_info(n, t, s)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        types = types or {}
        graph = helper.make_graph(
            self.nodes, "random", [as_info("x", kind, [batch] + self.shapes["x"][1:])],
            [as_info(o, types.get(o, TensorProto.FLOAT), None) for o in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.inits.items()])
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8 if self.opset < 19 else 10)

    def sample(self, value, count=12):
        """Values of `value` for some rows, every node as written."""
        if value == "x":
            return self.rows[:count].astype(F32)
        sess = oc.session(self.model([value]).SerializeToString(), optimise=False)
        return np.stack([sess.run(None, {"x": r[None]})[0] for r in self.rows[:count]])

    def scale(self, width):
        """A scale near `width`: a power of two, or not."""
        width = max(float(width), 1e-6)
        return F32(2.0 ** round(np.log2(width))) if self.power_of_two else F32(width * self.rng.uniform(0.7, 1.3))


def quantizer(g, value, kind, relu=False):
    """(scale, zero point) that fits what the value takes."""
    v = g.sample(value)
    info = np.iinfo(TYPES[kind])
    lo, hi = min(float(v.min()), 0.0), max(float(v.max()), 0.0)
    s = g.scale((hi - lo or 1.0) / (info.max - info.min) * g.pick(1.0, 1.0, 1.0, 0.5, 4.0, 16.0))
    if relu or g.chance(0.3):
        z = info.min
    elif g.chance(0.3):
        z = (info.min + info.max + 1) // 2
    else:
        z = int(np.clip(round(info.min - lo / float(s)) + g.rng.integers(-1, 2), info.min, info.max))
    return s, TYPES[kind](z)


def q_inputs(g, s, z, missing=False):
    shape = [1] if g.chance(g.odd * 0.15) else []
    ins = [g.constant(np.full(shape, s, F32), "s")]
    return ins if missing else ins + [g.constant(np.full(shape, z, z.dtype), "z")]


def domain_of(g, kind):
    return MS if kind in ("u16", "s16") and g.opset < 21 else ""


def dequantize(g, q, ins, kind):
    return g.add("DequantizeLinear", [q] + ins, g.shapes[q], domain_of(g, kind))


def pair(g, value, kind, relu=False):
    """Q and DQ after a value, in one of many forms; returns the float value to go on with."""
    if g.chance(g.odd * 0.4):
        return value
    if g.chance(g.odd * 0.3):
        kind = g.pick("u8", "s8", "s16", "u8", "s8")
    s, z = quantizer(g, value, kind, relu)
    moved = g.nodes and g.nodes[-1].op_type in MOVES and g.nodes[-1].input[0] in g.quantized
    if moved and g.chance(0.8):
        s, z, kind = g.quantized[g.nodes[-1].input[0]]
        if g.chance(0.3):
            g.quantized[value] = (s, z, kind)
            return value
    missing = g.chance(g.odd * 0.06) and kind == "u8"
    if missing:
        z = np.uint8(0)
    ins = q_inputs(g, s, z, missing)
    q = g.add("QuantizeLinear", [value] + ins, g.shapes[value], domain_of(g, kind))
    if g.chance(g.odd * 0.2):
        g.outputs.append(q)
    d = dequantize(g, q, ins, kind)
    if g.chance(g.odd * 0.2):
        g.live.append(dequantize(g, q, q_inputs(g, s, z) if g.chance(0.5) else ins, kind))
    if g.chance(g.odd * 0.2):
        g.outputs.append(d)
    if g.chance(g.odd * 0.1):
        other = quantizer(g, value, kind) if g.chance(0.3) else (s, z)
        again = q_inputs(g, *other)
        d = dequantize(g, g.add("QuantizeLinear", [d] + again, g.shapes[d], domain_of(g, kind)), again, kind)
    g.quantized[d] = (s, z, kind)
    return d


def weights(g, shape, axis, fan_in):
    """(value, scales or None): a DequantizeLinear of constants, or float constants."""
    if g.chance(g.odd * 0.12) or g.all_float:
        return g.constant(g.rng.normal(0, 1 / np.sqrt(fan_in), shape).astype(F32), "w"), None
    kind = g.pick("s8", "s8", "s8", "u8")
    info = np.iinfo(TYPES[kind])
    top = g.pick(127, 20, 5)
    channels = shape[axis]
    many = g.chance(0.4)
    scales = np.array([g.scale(1.0 / top / np.sqrt(fan_in)) for _ in range(channels if many else 1)], F32)
    z = np.full(len(scales), 0 if kind == "s8" else 128, TYPES[kind])
    if g.chance(0.15):
        z = g.rng.integers(info.min, info.max + 1, len(scales)).astype(TYPES[kind])
    w = np.clip(g.rng.integers(-top, top + 1, shape) + (128 if kind == "u8" else 0), info.min, info.max).astype(TYPES[kind])
    wrong = g.chance(g.odd * 0.1) and len(shape) == 2 and shape[0] == shape[1]
    one = g.pick([], [1])
    shaped = (lambda a: a) if many else (lambda a: a.reshape(g.pick([], [1]) if g.chance(g.odd * 0.1) else one))
    ins = [g.constant(shaped(scales), "ws")] + ([] if g.chance(g.odd * 0.2) and kind == "u8" else [g.constant(shaped(z), "wz")])
    attributes = {"axis": 1 - axis if wrong else axis} if many else {}
    q = g.constant(w, "wq")
    g.shapes[q] = shape
    return g.add("DequantizeLinear", [q] + ins, shape, **attributes), scales


def bias(g, x, n, w_scales):
    """An int32 or float bias, or none, as a list of inputs."""
    how = g.pick("none", "int32", "int32", "float", "float")
    if how == "none":
        return []
    source = next((m for m in g.nodes if m.output[0] == x and m.op_type == "DequantizeLinear"), None)
    if how == "float" or source is None or w_scales is None or source.input[1] not in g.inits:
        shape = [1, n] if g.chance(g.odd * 0.2) else [n]
        return [g.constant(g.rng.normal(0, 0.5, shape).astype(F32), "b")]
    sx = F32(g.inits[source.input[1]].reshape(-1)[0])
    s = (sx * w_scales).astype(F32)
    s = s if len(s) > 1 else s.reshape(g.pick([], [1]))
    if g.chance(g.odd * 0.05):
        s = (s * F32(1.5)).astype(F32)
    bq = g.constant(g.rng.integers(-300, 300, n).astype(np.int32), "bq")
    g.shapes[bq] = [n]
    ins = [bq, g.constant(s, "bs")]
    if g.chance(0.5):
        ins.append(g.constant(np.zeros(s.shape, np.int32), "bz"))
    return [g.add("DequantizeLinear", ins, [n], **({"axis": 0} if s.shape else {}))]


def op_gemm(g, v):
    k, n = g.shapes[v][1], int(g.rng.integers(1, 7))
    trans = int(g.chance(0.5))
    w, scales = weights(g, [n, k] if trans else [k, n], 1 - trans, k)
    b = bias(g, v, n, scales)
    if len(b) and len(g.inits[b[0]].shape if b[0] in g.inits else [0]) == 2 and g.chance(0.5):
        b = []
    attributes = {"transB": trans}
    if g.chance(g.odd * 0.2):
        attributes["alpha"] = 0.5
    if g.chance(g.odd * 0.1) and b:
        attributes["beta"] = 0.5
    return g.add("Gemm", [v, w] + b, [1, n], **attributes)


def op_matmul(g, v):
    shape = g.shapes[v]
    k, n = shape[-1], int(g.rng.integers(1, 7))
    w, scales = weights(g, [k, n], 1, k)
    y = g.add("MatMul", [v, w], shape[:-1] + [n])
    if g.chance(0.5 if len(shape) == 2 or g.all_float else 0.1):
        b = g.constant(g.rng.normal(0, g.pick(0.5, 0.5, 30), g.pick([n], [n], [n], [1, n], [])).astype(F32), "b")
        extra = [y, b] if g.chance(0.7) else [b, y]
        y = g.add("Add", extra, g.shapes[y])
    return y


def op_conv(g, v):
    _, c, h, w = g.shapes[v]
    groups = c if g.chance(0.2) else 1
    out = groups * int(g.rng.integers(1, 4)) if groups > 1 else int(g.rng.integers(1, 5))
    kh, kw = min(h, int(g.rng.integers(1, 4))), min(w, int(g.rng.integers(1, 4)))
    pad = int(g.chance(0.3))
    stride = int(g.pick(1, 1, 2))
    wt, scales = weights(g, [out, c // groups, kh, kw], 0, c // groups * kh * kw)
    b = bias(g, v, out, scales)
    b = [x for x in b if x not in g.inits or g.inits[x].ndim == 1]
    shape = [1, out, (h + 2 * pad - kh) // stride + 1, (w + 2 * pad - kw) // stride + 1]
    return g.add("Conv", [v, wt] + b, shape, kernel_shape=[kh, kw], pads=[pad] * 4, strides=[stride] * 2, group=groups)


def op_pool(g, v):
    _, c, h, w = g.shapes[v]
    op = g.pick("MaxPool", "MaxPool", "AveragePool", "GlobalAveragePool")
    if op == "GlobalAveragePool":
        return g.add(op, [v], [1, c, 1, 1])
    kh, kw = min(h, int(g.rng.integers(1, 4))), min(w, int(g.rng.integers(1, 4)))
    pad = int(g.chance(0.2) and kh > 1 and kw > 1)
    stride = int(g.pick(1, 2))
    more = {"count_include_pad": int(g.chance(0.5))} if op == "AveragePool" and pad else {}
    shape = [1, c, (h + 2 * pad - kh) // stride + 1, (w + 2 * pad - kw) // stride + 1]
    return g.add(op, [v], shape, kernel_shape=[kh, kw], pads=[pad] * 4, strides=[stride] * 2, **more)


def op_shape(g, v):
    shape = g.shapes[v]
    total = int(np.prod(shape))
    what = g.pick("Flatten", "Reshape", "Transpose", "Squeeze", "Slice", "Reshape4", "Identity")
    if what == "Flatten":
        return g.add("Flatten", [v], [1, total], axis=1)
    if what == "Reshape":
        return g.add("Reshape", [v, g.constant(np.array([1 if not g.symbolic else -1, total], np.int64), "r")], [1, total])
    if what == "Reshape4" and total % 4 == 0:
        new = [1, total // 4, 2, 2]
        return g.add("Reshape", [v, g.constant(np.array(new if not g.symbolic else [-1] + new[1:], np.int64), "r")], new)
    if what == "Transpose" and len(shape) > 2:
        perm = [0] + [int(i) + 1 for i in g.rng.permutation(len(shape) - 1)]
        return g.add("Transpose", [v], [shape[p] for p in perm], perm=perm)
    if what == "Squeeze":
        up = g.add("Unsqueeze", [v, g.constant(np.array([1], np.int64), "r")], [1, 1] + shape[1:])
        return up if g.chance(0.5) else g.add("Squeeze", [up, g.constant(np.array([1], np.int64), "r")], shape)
    if what == "Slice" and shape[-1] > 2:
        axis, end = len(shape) - 1, shape[-1] - 1
        ints = [g.constant(np.array([i], np.int64), "r") for i in (0, end, axis)]
        return g.add("Slice", [v] + ints, shape[:-1] + [end])
    return g.add("Identity", [v], shape)


def op_elementwise(g, v):
    shape = g.shapes[v]
    others = [o for o in g.live if g.shapes[o] == shape]
    what = g.pick("add", "add", "constant", "concat", "LeakyRelu", "Relu", "Clip", "arith")
    if what == "add" and others:
        return g.add("Add", [v, others[g.rng.integers(len(others))]], shape)
    if what == "concat" and others:
        return g.add("Concat", [v, others[g.rng.integers(len(others))]], [1, 2 * shape[1]] + shape[2:], axis=1)
    if what == "constant" and not g.all_float:
        q = g.constant(g.rng.integers(0, 256, g.pick([1], shape[1:], [])).astype(np.uint8), "kq")
        g.shapes[q] = list(g.inits[q].shape)
        d = dequantize(g, q, q_inputs(g, g.scale(0.02), np.uint8(g.rng.integers(0, 256))), "u8")
        return g.add("Add", [v, d] if g.chance(0.5) else [d, v], shape)
    if what == "LeakyRelu":
        return g.add("LeakyRelu", [v], shape, alpha=float(g.pick(0.01, 0.1, 0.25)))
    if what == "arith":
        c = g.constant((g.rng.normal(0, 1, g.pick([], shape[1:])) * g.pick(1, 1e-3, 1e3)).astype(F32), "k")
        return g.add(g.pick("Add", "Sub", "Mul", "Div"), [v, c], shape)
    return activation(g, v)


def activation(g, v):
    if g.chance(0.6):
        return g.add("Relu", [v], g.shapes[v])
    hi = g.constant(F32(g.pick(1, 6, 0.3)), "hi")
    return g.add("Clip", [v, g.constant(F32(g.pick(0, 0, -1)), "lo"), hi], g.shapes[v])


def operator(g, v):
    shape = g.shapes[v]
    roll = g.rng.random()
    if len(shape) == 4 and max(shape[2:]) > 1 and roll < 0.6:
        return op_conv(g, v) if roll < 0.38 else op_pool(g, v)
    if len(shape) == 2 and roll < 0.55:
        return op_gemm(g, v) if roll < 0.35 else op_matmul(g, v)
    if len(shape) > 2 and roll < (0.55 if len(shape) == 3 else 0.7):
        return op_matmul(g, v)
    return op_elementwise(g, v) if roll < 0.85 else op_shape(g, v)


def input_shape(g):
    n = lambda a, b: int(g.rng.integers(a, b))
    return g.pick([1, n(2, 12)], [1, n(2, 12)], [1, n(2, 4), n(2, 6)], [1, n(1, 3), n(2, 6), n(2, 6)], [1, n(1, 3), n(2, 6), n(2, 6)])


def make_rows(g, count, scale=None):
    shape = [count] + g.shapes["x"][1:]
    if np.issubdtype(g.dtype, np.integer):
        i = np.iinfo(g.dtype)
        return g.rng.integers(i.min, i.max + 1, shape).astype(g.dtype)
    rows = g.rng.normal(0, 1, shape)
    half = count // 2
    rows[:half] = g.rng.integers(-128, 128, [half] + shape[1:]) * float(scale or 2.0**-6)
    return rows.astype(F32)


def qdq_graph(g, count):
    """A graph of Q/DQ pairs; `g.odd` is how often a form departs from the usual."""
    g.live, g.all_float = [], False
    g.odd = g.pick(0.0, 0.3, 0.3, 0.8)
    kind = g.pick("u8", "u8", "u8", "s8", "s8", "s16" if g.chance(0.4) else "u8")
    if np.issubdtype(g.dtype, np.integer):
        kind = {np.uint8: "u8", np.int8: "s8"}[g.dtype] if g.chance(0.8) else kind
        own = {np.uint8: "u8", np.int8: "s8"}[g.dtype]
        g.rows = make_rows(g, count)
        v = dequantize(g, "x", q_inputs(g, g.scale(2.0**-6), g.dtype(g.rng.integers(np.iinfo(g.dtype).min, 100))), own)
    else:
        g.rows = make_rows(g, count)
        odd, g.odd = g.odd, g.odd * 0.3
        v = pair(g, "x", kind)
        g.odd = odd
    last = None
    for _ in range(g.rng.integers(1, 7)):
        g.live.append(v)
        if g.chance(g.odd * 0.3):
            v = g.live[g.rng.integers(len(g.live))]
        y = operator(g, v)
        relu = g.chance(0.3)
        if relu:
            y = activation(g, y)
            if g.chance(g.odd * 0.2):
                y = activation(g, y)
        last = y
        v = pair(g, y, kind, relu and g.chance(0.7))
    g.outputs.append(g.pick(v, v, last))
    if g.chance(0.2):
        made = next(n for n in g.nodes if n.output[0] == v)
        if made.op_type == "DequantizeLinear" and made.input[0] in g.shapes:
            g.outputs[-1] = made.input[0]


def float_graph(g, count):
    """A float net: sums with normalizations, constants of very different size, residuals."""
    g.live, g.all_float, g.odd = [], True, 0.1
    if g.chance(0.15):
        g.shapes["x"] = [1, int(g.rng.integers(100, 800))]
    g.rows = make_rows(g, count)
    if g.chance(0.3):
        g.rows = (g.rows * g.pick(1e-5, 1e4)).astype(F32)
    v = "x"
    for _ in range(g.rng.integers(1, 7)):
        g.live.append(v)
        v = operator(g, v)
        if g.chance(0.3):
            c = g.shapes[v][1]
            if len(g.shapes[v]) in (2, 4):
                size = g.pick(1.0, 1e-3, 1e3)
                p = [g.constant(a.astype(F32), "bn") for a in (g.rng.normal(1, 0.5, c), g.rng.normal(0, size, c), g.rng.normal(0, size, c), g.rng.uniform(1e-3, 2, c))]
                v = g.add("BatchNormalization", [v] + p, g.shapes[v])
        if g.chance(0.4):
            shape = g.pick([], [g.shapes[v][-1]], [g.shapes[v][1]] + [1] * (len(g.shapes[v]) - 2))
            c = g.constant((g.rng.normal(0, 1, shape) * g.pick(1, 1e-4, 1e4)).astype(F32), "k")
            v = g.add(g.pick("Add", "Add", "Mul", "Div", "Sub"), [v, c] if g.chance(0.8) else [v, c], g.shapes[v])
        if g.chance(0.3):
            v = activation(g, v)
    g.outputs.append(v)


def qoperator_graph(g, count):
    """QLinear operators as the file states them."""
    g.live, g.all_float, g.odd = [], False, 0.0
    kind = g.pick("u8", "u8", "s8")
    t = TYPES[kind]
    g.rows = make_rows(g, count)
    s, z = quantizer(g, "x", kind)
    ins = q_inputs(g, s, z)
    v = g.add("QuantizeLinear", ["x"] + ins, g.shapes["x"])
    made = [(v, ins)]
    for _ in range(g.rng.integers(1, 6)):
        v, ins = qoperator(g, v, ins, t, made)
        made.append((v, ins))
    if g.chance(0.5):
        g.outputs.append(v)
    else:
        v = g.add("DequantizeLinear", [v] + ins, g.shapes[v])
        if g.chance(0.3):
            v = activation(g, v)
        g.outputs.append(v)


def qoperator(g, v, ins, t, made):
    shape, rank = g.shapes[v], len(g.shapes[v])
    i = np.iinfo(t)
    sy, zy = g.scale(0.03), t(g.pick(i.min, (i.min + i.max + 1) // 2, g.rng.integers(i.min, i.max + 1)))
    out = [g.constant(np.array(sy, F32), "s"), g.constant(np.array(zy, t), "z")]
    wt = np.int8 if t == np.int8 else g.pick(np.int8, np.uint8)
    wi = np.iinfo(wt)
    what = g.rng.random()
    others = [m for m in made if g.shapes[m[0]] == shape]
    scale_x = F32(g.inits[ins[0]].reshape(-1)[0])

    def wparams(n, many):
        scales = np.array([g.scale(0.02) for _ in range(n if many else 1)], F32)
        zeros = np.full(len(scales), g.pick(0, 0, 5) + (128 if wt == np.uint8 else 0), wt)
        fit = (lambda a: a) if many else (lambda a: a.reshape([]))
        return scales, [g.constant(fit(scales), "ws"), g.constant(fit(zeros), "wz")]
    draw = lambda dims: g.constant(g.rng.integers(wi.min, wi.max + 1, dims).astype(wt), "wq")
    if rank == 4 and max(shape[2:]) > 1 and what < 0.35:
        m, kh, kw = int(g.rng.integers(1, 5)), min(2, shape[2]), min(2, shape[3])
        _, w = wparams(m, g.chance(0.5))
        extra = [g.constant(g.rng.integers(-500, 500, m).astype(np.int32), "bq")] if g.chance(0.5) else []
        y = g.add("QLinearConv", [v] + ins + [draw([m, shape[1], kh, kw])] + w + out + extra,
                  [1, m, shape[2] - kh + 1, shape[3] - kw + 1], kernel_shape=[kh, kw])
        return y, out
    if rank == 4 and what < 0.7:
        if g.chance(0.4):
            y = g.add("QLinearGlobalAveragePool", [v] + ins + out, shape[:2] + [1, 1], MS, channels_last=0)
            return y, out
        kh, kw = min(2, shape[2]), min(2, shape[3])
        to = shape[:2] + [shape[2] - kh + 1, shape[3] - kw + 1]
        if g.chance(0.5):
            return g.add("MaxPool", [v], to, kernel_shape=[kh, kw]), ins
        return g.add("QLinearAveragePool", [v] + ins + out, to, MS, kernel_shape=[kh, kw]), out
    if rank < 4 and what < 0.5:
        k, n = shape[-1], int(g.rng.integers(1, 7))
        many = g.chance(0.4)
        scales, w = wparams(n, many)
        if rank == 2 and g.chance(0.5):
            b = [g.constant(g.rng.integers(-500, 500, n).astype(np.int32), "bq")] if g.chance(0.6) else [""]
            return g.add("QGemm", [v] + ins + [draw([k, n])] + w + b + out, [1, n], MS, alpha=float(g.pick(1.0, 1.0, 0.5))), out
        return g.add("QLinearMatMul", [v] + ins + [draw([k, n])] + w + out, shape[:-1] + [n]), out
    if what < 0.8 and others:
        o, oins = others[g.rng.integers(len(others))]
        if g.chance(0.6):
            return g.add("QLinearAdd", [v] + ins + [o] + oins + out, shape, MS), out
        return g.add("QLinearConcat", out + [v] + ins + [o] + oins, [1, 2 * shape[1]] + shape[2:], MS, axis=1), out
    if what < 0.9:
        return g.add("QLinearLeakyRelu", [v] + ins + out, shape, MS, alpha=0.1), out
    flat = int(np.prod(shape))
    return g.add("Reshape", [v, g.constant(np.array([-1, flat], np.int64), "r")], [1, flat]), ins


def build(seed, rows):
    """(graph kind, model, rows) of a seed."""
    rng = np.random.default_rng(seed)
    kind = ("qdq", "qdq", "qdq", "qdq", "qdq", "qdq", "qdq", "qoperator", "float", "float")[seed % 10]
    dtype = F32
    if kind == "qdq" and rng.random() < 0.15:
        dtype = np.uint8 if rng.random() < 0.5 else np.int8
    g = Graph(rng, None, dtype, symbolic=bool(rng.random() < 0.4), opset=int(rng.choice([13, 13, 19, 21])))
    g.shapes["x"] = input_shape(g)
    {"qdq": qdq_graph, "qoperator": qoperator_graph, "float": float_graph}[kind](g, rows)
    outputs = list(dict.fromkeys(g.outputs))
    outputs = [o for o in outputs if o != "x"]
    model = g.model(outputs or [g.add("Relu", ["x"], g.shapes["x"])])
    remove_dead(model.graph)
    by_node = {n.output[0]: n for n in g.nodes}
    for out in model.graph.output:
        node = by_node[out.name]
        fixed = None
        if node.op_type in ("QuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearConcat") or node.domain == MS or kind == "qoperator":
            fixed = integer_type(g, by_node, node)
        set_info(out, fixed or TensorProto.FLOAT, [("N" if g.symbolic else 1)] + g.shapes[out.name][1:])
    return kind, model, g.rows


def remove_dead(graph):
    """Drops the nodes that no output depends on."""
    needed = {o.name for o in graph.output}
    for node in reversed(list(graph.node)):
        if node.output[0] in needed:
            needed.update(node.input)
        else:
            graph.node.remove(node)
    for t in [t for t in graph.initializer if t.name not in needed]:
        graph.initializer.remove(t)


def set_info(out, elem, shape):
    out.CopyFrom(helper.make_tensor_value_info(out.name, elem, shape))


def integer_type(g, by_node, node):
    """Element type of a value that a quantized operator made."""
    if node.op_type in ("DequantizeLinear", "Relu", "Clip"):
        return TensorProto.FLOAT
    if node.op_type in ("MaxPool", "Reshape"):
        before = by_node.get(node.input[0])
        return integer_type(g, by_node, before)
    at = {"QLinearConcat": 1, "QuantizeLinear": 2}.get(node.op_type, {"QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8, "QLinearAdd": 7}.get(node.op_type, 4))
    if at >= len(node.input):
        return TensorProto.UINT8
    return helper.np_dtype_to_tensor_dtype(g.inits[node.input[at]].dtype)


def run_quaver(exe, folder, path, rows, outputs):
    """[(lower, upper)] for each output, or the reason of a refusal as text, or None if the program failed."""
    x = Path(folder, "x.npy")
    np.save(x, rows)
    names = {k: Path(folder, f"{k}.npy") for k in ("outputs", "lower", "upper")}
    args = [a for k, p in names.items() for a in (f"--{k}", str(p))]
    done = subprocess.run([exe, "run", str(path), "--inputs", str(x), *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "RAYON_NUM_THREADS": "1"})
    if done.returncode:
        refused = done.returncode > 0 and "panicked" not in done.stderr and done.stderr.strip()
        return reason(done.stderr) if refused else None
    numbered = lambda p, k: p if k == 0 else p.with_suffix(f".{k}.npy")
    load = lambda p, k: np.load(numbered(p, k)).reshape(len(rows), -1).astype(float)
    return [(load(names["lower"], k), load(names["upper"], k)) for k in range(outputs)]


def reason(text):
    """A refusal without the names of files and nodes, to count equal ones together."""
    lines = [t.strip() for t in text.strip().splitlines()]
    first = re.sub(r"^.*?`[^`]*` \((\w+)\): ", r"\1: ", lines[0])
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", re.sub(r"\S*\.onnx:? ?", "", first))[:110]


def compare(sess, rows, got):
    """(failing elements, elements, exactly determined elements)."""
    results = [sess.run(None, {"x": r[None]}) for r in rows]
    bad = total = exact = 0
    for k, (lower, upper) in enumerate(got):
        want = np.stack([np.asarray(r[k]).reshape(-1) for r in results]).astype(float)
        if want.shape != lower.shape:
            return want.size, want.size, 0
        inside = (lower <= want) & (want <= upper)
        bad += int((~inside & ~np.isnan(want)).sum())
        total += want.size
        exact += int((lower == upper).sum())
    return bad, total, exact


def failure(error):
    """The runtime's error without names, to count equal ones together."""
    return re.sub(r"Node \(\S*\) |\S*Name:'[^']*' ?", "", str(error).splitlines()[0])[:110]


def check(exe, seed, count, keep):
    """(graph kind, outcome, detail) of a seed."""
    try:
        kind, model, rows = build(seed, count)
        sess = oc.session(model.SerializeToString())
    except Exception as e:  # a graph that the runtime cannot load is no subject of this comparison
        return "any", "not runnable", failure(e)
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp, "model.onnx")
        onnx.save(model, path)
        got = run_quaver(exe, tmp, path, rows, len(model.graph.output))
        if isinstance(got, str):
            return kind, "refused", got
        try:
            bad, total, exact = (1, 1, 0) if got is None else compare(sess, rows, got)
        except RuntimeError as e:  # a kernel that refuses its parameters
            return kind, "not runnable", failure(e)
    if not bad:
        return kind, "exact" if exact == total else "enclosed", (total, exact)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        onnx.save(model, keep / f"{seed}.onnx")
        np.save(keep / f"{seed}.npy", rows)
    return kind, "FAILED", "the program failed" if got is None else f"{bad} of {total} elements ({exact} exactly determined)"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quaver", required=True, help="path of the quaver program")
    ap.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    ap.add_argument("--count", type=int, default=200, help="number of graphs (default 200)")
    ap.add_argument("--rows", type=int, default=96, help="rows for each graph (default 96)")
    ap.add_argument("--keep", type=Path, help="folder for models that fail, with their rows")
    args = ap.parse_args()
    tally, refusals, elements, failures = Counter(), Counter(), Counter(), []
    for seed in range(args.seed, args.seed + args.count):
        kind, outcome, detail = check(args.quaver, seed, args.rows, args.keep)
        tally[kind, outcome] += 1
        if outcome in ("refused", "not runnable"):
            refusals[outcome, detail] += 1
        elif outcome == "FAILED":
            failures.append((seed, kind, detail))
            print(f"seed {seed} ({kind}): {detail}", flush=True)
        else:
            elements["compared"] += detail[0]
            elements["exact"] += detail[1]
    print(f"\n{args.count} graphs; {elements['compared']} elements inside their bounds, {elements['exact']} of them exactly determined")
    for (kind, outcome), n in sorted(tally.items()):
        print(f"  {kind:10s} {outcome:13s} {n}")
    for (outcome, text), n in refusals.most_common(40):
        print(f"  {n:5d} {outcome}: {text}")
    print(f"{len(failures)} failed" + (": seeds " + " ".join(str(f[0]) for f in failures) if failures else ""))
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
