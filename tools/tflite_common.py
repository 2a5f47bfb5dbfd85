"""Small helpers shared by the TensorFlow Lite scripts in this folder: tables of a file by slot number, inputs, and three runtimes (one thread)."""
import gzip
import struct
from pathlib import Path

import numpy as np

TYPES = {0: np.float32, 2: np.int32, 4: np.int64, 9: np.int8}
SOFTMAX = 25
# profile of Quaver -> runtime of this file
RUNTIMES = {"tflite-reference": "reference", "tflite-xnnpack": "xnnpack", "tflite-micro": "micro"}


class Table:
    """A table of a flatbuffer; fields are found by slot number."""

    def __init__(self, data, pos):
        self.data, self.pos = data, pos

    def _int(self, fmt, at):
        return struct.unpack_from("<" + fmt, self.data, at)[0]

    def at(self, slot):
        """Position of a field, or None."""
        vtable = self.pos - self._int("i", self.pos)
        entry = 4 + 2 * slot
        offset = self._int("H", vtable + entry) if entry < self._int("H", vtable) else 0
        return self.pos + offset if offset else None

    def number(self, slot, fmt, default=0):
        at = self.at(slot)
        return default if at is None else self._int(fmt, at)

    def _link(self, slot):
        at = self.at(slot)
        return None if at is None else at + self._int("I", at)

    def table(self, slot):
        at = self._link(slot)
        return None if at is None else Table(self.data, at)

    def vector(self, slot):
        """(position of the first element, length)."""
        at = self._link(slot)
        return (0, 0) if at is None else (at + 4, self._int("I", at))

    def numbers(self, slot, fmt):
        at, n = self.vector(slot)
        return list(struct.unpack_from(f"<{n}{fmt}", self.data, at))

    def tables(self, slot):
        at, n = self.vector(slot)
        return [Table(self.data, p + self._int("I", p)) for p in range(at, at + 4 * n, 4)]


class Model:
    """What the scripts need to know of a file with one graph, one input and one output."""

    def __init__(self, path):
        data = Path(path).read_bytes()
        self.data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if self.data[4:8] != b"TFL3":
            raise ValueError("not a TensorFlow Lite model")
        self.root = Table(self.data, struct.unpack_from("<I", self.data)[0])
        graphs = self.root.tables(2)
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} subgraphs")
        self.graph = graphs[0]
        self.tensors = self.graph.tables(0)
        inputs, outputs = self.graph.numbers(1, "i"), self.graph.numbers(2, "i")
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError("not one input and one output")
        self.input, self.output = inputs[0], outputs[0]

    def dtype(self, tensor):
        return TYPES[self.tensors[tensor].number(1, "b")]

    def shape(self, tensor):
        return self.tensors[tensor].numbers(0, "i")

    def quantization(self, tensor):
        """(scale, zero point) or None."""
        q = self.tensors[tensor].table(4)
        scales = [] if q is None else q.numbers(2, "f")
        return (np.float32(scales[0]), q.numbers(3, "q")[0]) if scales else None

    def logits(self):
        """The output, or the input of the SOFTMAX that makes it."""
        codes = self.root.tables(1)
        for op in self.graph.tables(3):
            code = codes[op.number(0, "I")]
            number = max(code.number(0, "b"), code.number(3, "i"))
            if number == SOFTMAX and op.numbers(2, "i") == [self.output]:
                return op.numbers(1, "i")[0]
        return self.output

    def with_output(self, tensor):
        """The bytes of the file with another tensor as its output."""
        (at, _), (other, _) = self.graph.vector(2), self.graph.vector(1)
        if at == other:
            raise ValueError("inputs and outputs share their list")
        data = bytearray(self.data)
        struct.pack_into("<i", data, at, tensor)
        return bytes(data)


def run_litert(data, rows, reference):
    """Runs LiteRT with its reference kernels, or as it runs by default (XNNPACK where it applies)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    x, y = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    out = []
    for row in rows:
        interpreter.set_tensor(x["index"], np.ascontiguousarray(row, x["dtype"]).reshape(x["shape"]))
        interpreter.invoke()
        out.append(interpreter.get_tensor(y["index"]).reshape(-1).copy())
    return np.stack(out)


def run_micro(data, rows, shape):
    """Runs TensorFlow Lite Micro."""
    from tflite_micro.python.tflite_micro import runtime
    interpreter = runtime.Interpreter.from_bytes(data)
    out = []
    for row in rows:
        interpreter.set_input(np.ascontiguousarray(row).reshape(shape), 0)
        interpreter.invoke()
        out.append(interpreter.get_output(0).reshape(-1).copy())
    return np.stack(out)


def run(runtime, model, data, rows):
    """Rows of outputs of one runtime: reference, xnnpack or micro."""
    if runtime == "micro":
        return run_micro(data, rows, model.shape(model.input))
    return run_litert(data, rows, runtime == "reference")


def random_rows(model, count, rng):
    """Half uniform, half noise around the zero point, some of it smoothed along the last axis but one."""
    shape = [count] + model.shape(model.input)[1:]
    if model.dtype(model.input) != np.int8:
        x = rng.normal(0, 1, shape)
        x[: count // 2] = rng.uniform(0, 1, [count // 2] + shape[1:])
        return x.astype(np.float32)
    uniform = rng.integers(-128, 128, [count - count // 2] + shape[1:])
    zero_point = (model.quantization(model.input) or (1, 0))[1]
    noise = rng.normal(0, 1, [count // 2] + shape[1:]) * rng.choice([4, 16, 48], (count // 2,) + (1,) * (len(shape) - 1))
    if len(shape) > 2:
        noise[::2] = (noise[::2] + np.roll(noise[::2], 1, axis=-2) + np.roll(noise[::2], 2, axis=-2)) / 1.7
    return np.concatenate([uniform, np.clip(np.rint(noise + zero_point), -128, 127)]).astype(np.int8)


def real_rows(model, path):
    """Rows from a file: .npy as they are; CIFAR-10 records (.bin, .bin.gz) and float32 features (.bin), quantized as the input says."""
    path, shape, dtype = Path(path), model.shape(model.input)[1:], model.dtype(model.input)
    n = int(np.prod(shape))
    if path.suffix == ".npy":
        return np.load(path).reshape([-1] + shape).astype(dtype)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if n == 3072 and len(data) % 3073 == 0:
        pixels = np.frombuffer(data, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return (pixels.astype(np.int16) - 128).astype(np.int8) if dtype == np.int8 else pixels.astype(np.float32)
    values = np.frombuffer(data, "<f4").reshape([-1] + shape)
    if dtype != np.int8:
        return values.astype(np.float32)
    scale, zero_point = model.quantization(model.input)
    return np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
