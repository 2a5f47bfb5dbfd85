"""Runs a guard's ONNX file.

    python3 onnx_guard.py probe          nothing, if the packages are here
    python3 onnx_guard.py FOLDER         guard.onnx and float.onnx on rows.bin; the outputs of each size of batches
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

OUTPUTS = ["class", "stage", "accepted", "margin", "scores"]


def session(path, profile=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def executed(folder, rows, name):
    """The nodes that run for some rows: their names and their operators."""
    s = session(folder / "guard.onnx", folder / name)
    s.run(OUTPUTS, {s.get_inputs()[0].name: rows})
    events = json.loads(Path(s.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    return [[e["name"].removesuffix("_kernel_time"), e["args"]["op_name"]] for e in nodes]


def main(folder):
    guard, alone = session(folder / "guard.onnx"), session(folder / "float.onnx")
    shape = [d for d in guard.get_inputs()[0].shape[1:]]
    rows = np.fromfile(folder / "rows.bin", np.float32).reshape([-1, *shape])
    float_stage = int((folder / "stages.txt").read_text())
    differ, profiled = 0, {}
    for size in (1, 7, 256):
        made = []
        for i in range(0, len(rows), size):
            batch = rows[i:i + size]
            out = guard.run(OUTPUTS, {guard.get_inputs()[0].name: batch})
            made.append(out)
            asked = out[1] == float_stage
            if asked.any():
                own = alone.run(None, {alone.get_inputs()[0].name: batch[asked]})[0]
                differ += int((own.reshape(len(own), -1).view(np.uint32) != out[4][asked].view(np.uint32)).any(1).sum())
        for k, name in enumerate(OUTPUTS):
            np.concatenate([m[k] for m in made]).tofile(folder / f"{name}.{size}.bin")
    for k in range(float_stage + 1):
        own = np.concatenate([m[1] for m in made]) == k
        if own.any():
            profiled[str(k)] = executed(folder, rows[own][:5], f"profile{k}")
    (folder / "found.json").write_text(json.dumps({"differ": differ, "profiled": profiled}))


if __name__ == "__main__" and sys.argv[1] != "probe":
    main(Path(sys.argv[1]))
