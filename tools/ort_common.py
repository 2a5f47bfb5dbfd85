"""Small helpers shared by the ONNX Runtime scripts in this folder (one thread, CPU provider)."""
import gzip
from pathlib import Path

import numpy as np


def read_model_bytes(path):
    """The bytes of an .onnx or .onnx.gz file."""
    data = Path(path).read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def has_vnni():
    """Does the processor multiply u8 and s8 without saturating in 16 bits? Yes where that is not known."""
    info = Path("/proc/cpuinfo")
    return not info.exists() or "vnni" in info.read_text()


def session(data, optimise=True):
    """A single-threaded CPU session at the default optimisation level, or with optimisation off."""
    import onnxruntime as ort
    so = ort.SessionOptions()
    so.intra_op_num_threads = so.inter_op_num_threads = 1
    so.log_severity_level = 3
    if not has_vnni():
        # Else products of u8 and s8 saturate in 16 bits, which the profile assumes away.
        so.add_session_config_entry("session.x64quantprecision", "1")
    level = ort.GraphOptimizationLevel
    so.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return ort.InferenceSession(data, so, providers=["CPUExecutionProvider"])


def input_spec(sess):
    """(name, shape of one row without the batch axis, numpy dtype, has a batch axis, batch is free)."""
    i = sess.get_inputs()[0]
    dtype = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
             "tensor(double)": np.float64, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16}[i.type]
    shape = list(i.shape)
    batched = bool(shape) and (not isinstance(shape[0], int) or shape[0] == 1) and len(shape) > 1
    free = batched and not isinstance(shape[0], int)
    rest = shape[1:] if batched else shape
    return i.name, [d if isinstance(d, int) and d > 0 else 1 for d in rest], dtype, batched, free


def run_rows(sess, rows):
    """Run the model once per row (batch 1, as the file states it); the first output, one row each."""
    name, rest, dtype, batched, _ = input_spec(sess)
    out = []
    for r in rows:
        r = np.ascontiguousarray(r, dtype).reshape(([1] if batched else []) + rest)
        out.append(np.asarray(sess.run(None, {name: r})[0]).reshape(-1))
    return np.stack(out)


QUANT_OPS = {"QuantizeLinear", "DequantizeLinear", "QGemm", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul",
             "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid",
             "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeLinear"}


def is_quantized(model):
    """Does the graph hold a quantise, dequantise or integer node?"""
    return any(n.op_type in QUANT_OPS for n in model.graph.node)


def input_scale(model):
    """Scale and zero point of the QuantizeLinear that reads the graph input (through shape-only nodes), or None."""
    from onnx import numpy_helper
    init = {t.name: t for t in model.graph.initializer}
    names = {i.name for i in model.graph.input if i.name not in init}
    for n in model.graph.node:
        if not n.input or n.input[0] not in names:
            continue
        if n.op_type == "QuantizeLinear" and n.input[1] in init:
            s = numpy_helper.to_array(init[n.input[1]]).reshape(-1)[0]
            z = numpy_helper.to_array(init[n.input[2]]).reshape(-1)[0] if len(n.input) > 2 and n.input[2] in init else np.uint8(0)
            return float(s), int(z), np.iinfo(z.dtype)
        if n.op_type in ("Flatten", "Reshape", "Transpose", "Identity"):
            names.add(n.output[0])
    return None
