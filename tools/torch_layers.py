"""Random quantized layers and small networks: run by PyTorch while they are written as ONNX files in Q/DQ form.

Rows are drawn first; every operation is run on them at once, so that scales can be chosen to fill the output's range and biases to put accumulators on half-integers
of it, where rounding rules differ.
"""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

F32 = np.float32
OPSET = [helper.make_opsetid("", 13)]


def random_scale(rng, low=-9, high=0):
    """Log-uniform, or a power of two in a third of the cases."""
    e = rng.uniform(low, high) if rng.random() < 2 / 3 else int(rng.integers(low, high + 1))
    return F32(2.0 ** e)


def zero_point(rng):
    return int(rng.choice([0, 255, 128, int(rng.integers(0, 256)), int(rng.integers(0, 256))]))


class Network:
    """A network under construction: `tensors` holds PyTorch's value of each integer ONNX value."""

    def __init__(self, rng):
        self.rng, self.nodes, self.initializers = rng, [], []
        self.inputs, self.rows, self.tensors, self.notes = [], [], {}, []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, **attributes):
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def input(self, rows, scale, zero):
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N"] + list(rows.shape[1:])))
        self.rows.append(rows)
        self.tensors[name] = torch._make_per_tensor_quantized_tensor(torch.from_numpy(rows), float(scale), zero)
        return name

    def dequantize(self, x):
        t = self.tensors[x]
        s = self.constant(f"s_{len(self.nodes)}", F32(t.q_scale()))
        z = self.constant(f"z_{len(self.nodes)}", np.uint8(t.q_zero_point()))
        return self.node("DequantizeLinear", [x, s, z])

    def quantize(self, value, tensor):
        """A QuantizeLinear with the parameters of PyTorch's result."""
        s = self.constant(f"s_{len(self.nodes)}", F32(tensor.q_scale()))
        z = self.constant(f"z_{len(self.nodes)}", np.uint8(tensor.q_zero_point()))
        out = self.node("QuantizeLinear", [value, s, z])
        self.tensors[out] = tensor
        return out

    def onnx(self, outputs):
        shape = lambda o: ["N"] + list(self.tensors[o].shape[1:])
        ends = [helper.make_tensor_value_info(o, TensorProto.UINT8, shape(o)) for o in outputs]
        graph = helper.make_graph(self.nodes, "layers", self.inputs, ends, self.initializers)
        return helper.make_model(graph, opset_imports=OPSET, ir_version=8).SerializeToString()

    # Products.

    def weights(self, shape, per_channel, heavy):
        rng, channels = self.rng, shape[0]
        largest = int(rng.choice([127, 127, 63, 20, 2]))
        w = rng.integers(-largest, largest + 1, shape)
        if heavy:
            w = rng.integers(105, 120, shape) * rng.choice([-1, 1], (channels,) + (1,) * (len(shape) - 1))
        if per_channel:
            power = rng.random() < 0.3
            scales = np.array([F32(2.0 ** (int(e) if power else e)) for e in rng.uniform(-10, -3, channels)], F32)
        else:
            scales = np.full(channels, random_scale(rng, -10, -2), F32)
        return w.astype(np.int8), scales

    def quantized_weights(self, w, scales, per_channel):
        t = torch.from_numpy(w)
        if not per_channel:
            return torch._make_per_tensor_quantized_tensor(t, float(scales[0]), 0)
        zeros = torch.zeros(len(w), dtype=torch.int64)
        return torch._make_per_channel_quantized_tensor(t, torch.from_numpy(scales.astype(np.float64)), zeros, 0)

    def parameters_of_result(self, acc, unit, relu):
        """Output scale and zero point, and a bias for each channel; acc is [rows, channels, places]."""
        rng = self.rng
        spread = float(np.median(np.std(acc * unit[None, :, None], axis=(0, 2)))) + float(unit.max())
        sy = F32(spread * rng.uniform(0.5, 4) / 60)
        if rng.random() < 0.4:
            sy = F32(2.0 ** round(np.log2(sy)))
        zy = zero_point(rng)
        # A result of about the middle of the range, on or near a half-integer for one of the accumulators.
        channels = acc.shape[1]
        flat = acc.transpose(1, 0, 2).reshape(channels, -1)
        chosen = flat[np.arange(channels), rng.integers(0, flat.shape[1], channels)]
        target = rng.integers(0, 256, channels) - zy + 0.5
        if relu:
            target = np.maximum(target, 0.5)
        bias = (target * float(sy) - chosen * unit).astype(F32)
        nudge = rng.integers(-2, 3, channels)
        for k in (1, 2):
            bias = np.where(np.abs(nudge) >= k, np.nextafter(bias, np.sign(nudge).astype(F32) * F32(np.inf)), bias)
        plain = (rng.integers(-128, 128, channels) * float(sy)).astype(F32)
        bias = np.where(rng.random(channels) < 0.8, bias, plain).astype(F32)
        return sy, zy, (None if rng.random() < 0.06 else bias)

    def product(self, x, w, scales, bias, relu, tensor, op, **attributes):
        per_channel = scales.ndim > 0
        real = self.dequantize(x)
        k = len(self.nodes)
        names = [self.constant(f"w_{k}", w), self.constant(f"sw_{k}", scales),
                 self.constant(f"zw_{k}", np.zeros(len(w) if per_channel else (), np.int8))]
        inputs = [real, self.node("DequantizeLinear", names, axis=0)]
        if bias is not None:
            inputs.append(self.constant(f"b_{k}", bias))
        y = self.node(op, inputs, **attributes)
        return self.quantize(self.node("Relu", [y]) if relu else y, tensor)

    def linear(self, x, n, relu=False, per_channel=None, heavy=False):
        t = self.tensors[x]
        per_channel = bool(self.rng.integers(0, 2)) if per_channel is None else per_channel
        w, scales = self.weights((n, t.shape[1]), per_channel, heavy)
        acc = ((t.int_repr().numpy().astype(float) - t.q_zero_point()) @ w.T.astype(float))[:, :, None]
        sy, zy, bias = self.parameters_of_result(acc, float(F32(t.q_scale())) * scales.astype(float), relu)
        packed = torch.ops.quantized.linear_prepack(self.quantized_weights(w, scales, per_channel), None if bias is None else torch.from_numpy(bias))
        run = torch.ops.quantized.linear_relu if relu else torch.ops.quantized.linear
        y = run(t, packed, float(sy), zy)
        self.notes.append(f"linear {t.shape[1]}-{n} rows {len(t)} per_channel {per_channel} bias {bias is not None} heavy {heavy} sx {t.q_scale()} sw {scales[0]} sy {sy} zy {zy}")
        return self.product(x, w, scales if per_channel else scales[0], bias, relu, y, "Gemm", transB=1)

    def conv(self, x, n, kernel, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1, relu=False, per_channel=None):
        t = self.tensors[x]
        per_channel = bool(self.rng.integers(0, 2)) if per_channel is None else per_channel
        w, scales = self.weights((n, t.shape[1] // groups) + tuple(kernel), per_channel, False)
        centred = torch.from_numpy(t.int_repr().numpy().astype(float) - t.q_zero_point())
        acc = torch.nn.functional.conv2d(centred, torch.from_numpy(w.astype(float)), None, stride, pad, dilation, groups).numpy()
        acc = acc.reshape(acc.shape[0], n, -1)
        sy, zy, bias = self.parameters_of_result(acc, float(F32(t.q_scale())) * scales.astype(float), relu)
        args = (list(stride), list(pad), list(dilation), groups)
        packed = torch.ops.quantized.conv2d_prepack(self.quantized_weights(w, scales, per_channel), None if bias is None else torch.from_numpy(bias), *args)
        run = torch.ops.quantized.conv2d_relu if relu else torch.ops.quantized.conv2d
        y = run(t, packed, float(sy), zy)
        self.notes.append(f"conv {tuple(t.shape)} {tuple(w.shape)} stride {stride} pad {pad} dilation {dilation} groups {groups} per_channel {per_channel} "
                          f"bias {bias is not None} sx {t.q_scale()} sw {scales[0]} sy {sy} zy {zy}")
        return self.product(x, w, scales if per_channel else scales[0], bias, relu, y, "Conv", kernel_shape=list(kernel), strides=list(stride),
                            pads=list(pad) * 2, dilations=list(dilation), group=groups)

    # Without weights.

    def add(self, a, b, relu=False):
        rng, (ta, tb) = self.rng, (self.tensors[a], self.tensors[b])
        scale = F32((ta.q_scale() + tb.q_scale()) * rng.uniform(0.3, 1.5)) if rng.random() < 0.6 else random_scale(rng)
        run = torch.ops.quantized.add_relu if relu else torch.ops.quantized.add
        y = run(ta, tb, float(scale), zero_point(rng))
        self.notes.append(f"add {tuple(ta.shape)} {ta.q_scale()} {ta.q_zero_point()} {tb.q_scale()} {tb.q_zero_point()} {y.q_scale()} {y.q_zero_point()}")
        s = self.node("Add", [self.dequantize(a), self.dequantize(b)])
        return self.quantize(self.node("Relu", [s]) if relu else s, y)

    def concat(self, parts):
        rng = self.rng
        first = self.tensors[parts[0]]
        scale, zero = (first.q_scale(), first.q_zero_point()) if rng.random() < 0.3 else (random_scale(rng), zero_point(rng))
        y = torch.ops.quantized.cat([self.tensors[p] for p in parts], 1, float(scale), int(zero))
        return self.quantize(self.node("Concat", [self.dequantize(p) for p in parts], axis=1), y)

    def average(self, x, kernel, stride, pad, include_pad):
        y = torch.nn.functional.avg_pool2d(self.tensors[x], kernel, stride, pad, False, include_pad)
        real = self.node("AveragePool", [self.dequantize(x)], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, count_include_pad=int(include_pad))
        return self.quantize(real, y)

    def global_average(self, x):
        y = torch.nn.functional.adaptive_avg_pool2d(self.tensors[x], 1)
        return self.quantize(self.node("GlobalAveragePool", [self.dequantize(x)]), y)

    def max_pool(self, x):
        y = torch.nn.functional.max_pool2d(self.tensors[x], 2)
        return self.quantize(self.node("MaxPool", [self.dequantize(x)], kernel_shape=[2, 2], strides=[2, 2]), y)

    def relu6(self, x):
        ends = [self.constant(f"lo_{len(self.nodes)}", F32(0)), self.constant(f"hi_{len(self.nodes)}", F32(6))]
        return self.quantize(self.node("Clip", [self.dequantize(x)] + ends), torch.ops.quantized.relu6(self.tensors[x]))

    def flatten(self, x):
        return self.quantize(self.node("Flatten", [self.dequantize(x)]), torch.flatten(self.tensors[x], 1))


def rows(rng, n, shape, zero):
    """uint8 rows: uniform, near the zero point, a single element that differs from it, the ends."""
    uniform = rng.integers(0, 256, (n,) + shape)
    near = np.clip(zero + rng.normal(0, 12, (n,) + shape).round().astype(int), 0, 255)
    single = np.where(rng.random((n,) + shape) < 1 / max(1, np.prod(shape)), uniform, zero)
    ends = rng.choice([0, 255], (n,) + shape)
    kind = rng.choice(4, n, p=[0.4, 0.4, 0.15, 0.05]).reshape((n,) + (1,) * len(shape))
    return np.choose(kind, [uniform, near, single, ends]).astype(np.uint8)


def image(net, rng, n, channels, size, memory=True):
    zero = zero_point(rng)
    x = net.input(rows(rng, n, (channels, size, size), zero), random_scale(rng), zero)
    if memory and rng.random() < 0.5:
        net.tensors[x] = net.tensors[x].contiguous(memory_format=torch.channels_last)
    return x


def random_conv(net, rng, n, kind):
    relu, depthwise = kind.endswith("_relu"), kind.startswith("depthwise")
    size, kernel = int(rng.integers(3, 10)), tuple(int(k) for k in rng.integers(1, 4, 2))
    stride, pad = tuple(int(k) for k in rng.integers(1, 3, 2)), tuple(int(rng.integers(0, k)) for k in kernel)
    dilation = (1, 1) if rng.random() < 0.8 else (2, 2)
    pad = tuple(p * d for p, d in zip(pad, dilation))
    if depthwise:
        channels = int(rng.choice([1, 3, 8, 16, 17, 32, 40, 64]))
        if rng.random() < 0.6:
            kernel, pad = ((3, 3), (1, 1)) if rng.random() < 0.7 else ((5, 5), (2, 2))
            size = max(size, 5)
        x = image(net, rng, n, channels, max(size, 7 if dilation == (2, 2) else size), True)
        k = net.conv(x, channels * int(rng.choice([1, 1, 1, 2])), kernel, stride, pad, (1, 1) if kernel == (5, 5) else dilation, channels, relu)
        return k
    if rng.random() < 0.25:  # the shapes that engines have kernels of their own for
        groups, depth = int(rng.choice([1, 2, 4, 8, 16, 32])), int(rng.choice([2, 4, 8, 16]))
        x, s = image(net, rng, n, groups * depth, int(rng.integers(5, 9))), int(rng.integers(1, 3))
        kernel = (3, 3) if rng.random() < 0.8 else (1, 1)
        return net.conv(x, groups * depth, kernel, (s, s), (kernel[0] // 2,) * 2, (1, 1), groups, relu)
    groups = int(rng.choice([1, 1, 1, 2, 4]))
    channels = groups * int(rng.choice([1, 2, 3, 4, 8, 16, 24]))
    out = groups * int(rng.choice([1, 2, 5, 8, 16, 33, 64]))
    x = image(net, rng, n, channels, max(size, 7 if dilation == (2, 2) else size))
    return net.conv(x, out, kernel, stride, pad, dilation, groups, relu)


def random_layer(kind, rng, n):
    """(network, name of its output) of a kind, on n rows."""
    net = Network(rng)
    if kind.startswith("linear"):
        heavy = rng.random() < 0.1
        k = int(rng.integers(900, 1080)) if heavy else int(rng.choice([1, 2, 3, 7, 16, 18, 64, 100, 255, 512, 784, 1000]))
        zero = int(rng.integers(126, 130)) if heavy else zero_point(rng)
        x = rows(rng, n, (k,), zero)
        if heavy:
            x = np.where(rng.random((n, 1)) < 0.7, rng.integers(235, 256, (n, k)), rng.integers(0, 20, (n, k))).astype(np.uint8)
        x = net.input(x, random_scale(rng), zero)
        return net, net.linear(x, int(rng.choice([1, 2, 5, 16, 31, 64, 100, 256, 500])), kind.endswith("_relu"), heavy=heavy)
    if kind.startswith(("conv2d", "depthwise")):
        return net, random_conv(net, rng, n, kind)
    if kind.startswith("add"):
        shape = (int(rng.choice([1, 3, 8, 16, 64])), int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        xs = []
        for _ in range(2):
            zero = zero_point(rng)
            xs.append(net.input(rows(rng, n, shape, zero), random_scale(rng), zero))
        return net, net.add(*xs, relu=kind.endswith("_relu"))
    if kind == "relu6":
        return net, net.relu6(random_conv(net, rng, n, "conv2d"))
    if kind == "average":
        k = int(rng.integers(1, 5))
        x = image(net, rng, n, int(rng.choice([1, 3, 16, 40])), int(rng.integers(k, 11)))
        return net, net.average(x, k, int(rng.integers(1, k + 1)), int(rng.integers(0, k // 2 + 1)), bool(rng.integers(0, 2)))
    if kind == "global_average":
        return net, net.global_average(image(net, rng, n, int(rng.choice([1, 3, 16, 40])), int(rng.integers(1, 9))))
    if kind == "concat":
        size = int(rng.integers(1, 6))
        return net, net.concat([image(net, rng, n, int(rng.choice([1, 3, 16])), size) for _ in range(2)])
    if kind == "mlp":
        zero = zero_point(rng)
        x = net.input(rows(rng, n, (64,), zero), random_scale(rng), zero)
        return net, net.linear(net.linear(net.linear(x, 32, True), 32, True), 10)
    if kind == "cnn":
        x = image(net, rng, n, int(rng.choice([1, 3])), 8)
        x = net.conv(x, 8, (3, 3), (1, 1), (1, 1), relu=True)
        y = net.conv(x, 8, (3, 3), (1, 1), (1, 1), groups=int(rng.choice([1, 2, 8])), relu=True)
        y = net.conv(y, 8, (1, 1))
        x = net.max_pool(net.add(x, y, relu=True) if rng.random() < 0.7 else y)
        return net, net.linear(net.flatten(x), 10)
    raise ValueError(kind)
