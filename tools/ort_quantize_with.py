#!/usr/bin/env python3
"""Quantize a float model with ONNX Runtime as the file of `quaver sensitivity --config` says, and measure both.

The file holds arguments of onnxruntime.quantization.quantize_static by their names; types are strings. Activations get 8 bits, calibrated by
smallest and largest value. Inputs and labels are .npy files as for `quaver run`.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class Rows(CalibrationDataReader):
    """One row at a time, in the shape of the model's input."""

    def __init__(self, session, rows):
        self.name, self.shape = session.get_inputs()[0].name, row_shape(session)
        self.rows = iter(rows)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {self.name: row.reshape(self.shape)}


def row_shape(session):
    return [d if isinstance(d, int) else 1 for d in session.get_inputs()[0].shape]


def load(path):
    """The arguments of quantize_static, and its extra options."""
    config = json.loads(path.read_text())
    extra = {key: config.pop(key) for key in ("TensorQuantOverrides", "UseQDQContribOps")}
    overrides = extra["TensorQuantOverrides"]
    for entry in (e for entries in overrides.values() for e in entries):
        entry["quant_type"] = QuantType[entry["quant_type"]]
        if "scale" in entry:
            kind = np.int16 if entry["quant_type"] == QuantType.QInt16 else np.int8
            entry |= {"scale": np.array(entry["scale"], np.float32), "zero_point": np.array(entry["zero_point"], kind)}
    for key in ("weight_type", "activation_type"):
        config[key] = QuantType[config[key]]
    return config, extra


def accuracy(session, rows, labels):
    name, shape = session.get_inputs()[0].name, row_shape(session)
    right = sum(int(np.argmax(session.run(None, {name: x.reshape(shape)})[0]) == y) for x, y in zip(rows, labels))
    return right / len(labels)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("config", type=Path)
    ap.add_argument("output", type=Path)
    ap.add_argument("--calibrate", type=Path, required=True, help="rows that ranges of activations come from")
    ap.add_argument("--data", type=Path, required=True, help="rows that accuracy is measured on")
    ap.add_argument("--labels", type=Path, required=True)
    ap.add_argument("--activations", choices=["QUInt8", "QInt8", "QUInt16", "QInt16"], help="type of activations [default: that of the file]")
    args = ap.parse_args()
    rows, labels = np.load(args.data), np.load(args.labels)
    config, extra = load(args.config)
    if args.activations:
        config["activation_type"] = QuantType[args.activations]
    float_session = ort.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    reader = Rows(float_session, np.load(args.calibrate))
    quantize_static(args.model, args.output, reader, quant_format=QuantFormat.QDQ, extra_options=extra, **config)
    session = ort.InferenceSession(args.output, providers=["CPUExecutionProvider"])
    size = {p: p.stat().st_size for p in (args.model, args.output)}
    print(f"float: accuracy {100 * accuracy(float_session, rows, labels):.2f} %, {size[args.model]} bytes")
    print(f"quantized: accuracy {100 * accuracy(session, rows, labels):.2f} %, {size[args.output]} bytes")


if __name__ == "__main__":
    main()
