"""Runs the layers of a folder in the runtimes that are installed here.

    python3 runner.py probe          one JSON object: what is installed
    python3 runner.py run FOLDER     reads FOLDER/cases.json, writes FOLDER/ID.RUNTIME.npy
"""
import importlib
import importlib.metadata
import json
import sys
from pathlib import Path


def probe():
    found = {"python": sys.version.split()[0]}
    for module, package in (("numpy", "numpy"), ("ai_edge_litert", "ai-edge-litert"), ("tflite_micro", "tflite-micro"),
                            ("onnxruntime", "onnxruntime"), ("torch", "torch")):
        try:
            importlib.import_module(module)
            found[module] = importlib.metadata.version(package)
        except Exception:  # noqa: BLE001 (a package that does not load is not there)
            found[module] = None
    if found["torch"]:
        import torch
        found["torch_engines"] = [e for e in torch.backends.quantized.supported_engines if e != "none"]
    return found


def rows_of(inputs, shapes, np):
    """One row after the other, each as the list of the model's inputs."""
    return [[x[r].reshape(s) for x, s in zip(inputs, shapes)] for r in range(len(inputs[0]))]


def run_litert(path, inputs, reference, np):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    it = Interpreter(model_path=str(path), experimental_op_resolver_type=kind, num_threads=1)
    it.allocate_tensors()
    ins, out = it.get_input_details(), it.get_output_details()[0]["index"]
    result = []
    for row in rows_of(inputs, [i["shape"] for i in ins], np):
        for i, x in zip(ins, row):
            it.set_tensor(i["index"], x)
        it.invoke()
        result.append(it.get_tensor(out).copy())
    return np.stack(result)


def run_micro(path, inputs, np):
    from tflite_micro.python.tflite_micro import runtime
    it = runtime.Interpreter.from_file(str(path), arena_size=1 << 22)
    result = []
    for row in rows_of(inputs, [it.get_input_details(k)["shape"] for k in range(len(inputs))], np):
        for k, x in enumerate(row):
            it.set_input(x, k)
        it.invoke()
        result.append(it.get_output(0).copy())
    return np.stack(result)


def run_onnxruntime(path, inputs, np):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ins = session.get_inputs()
    return np.stack([session.run(None, {i.name: x for i, x in zip(ins, row)})[0]
                     for row in rows_of(inputs, [i.shape for i in ins], np)])


def run_torch(case, folder, engine, inputs, np):
    import torch
    torch.backends.quantized.engine = engine
    q, t = torch.ops.quantized, case["torch"]
    make = lambda x, s, z: torch._make_per_tensor_quantized_tensor(torch.from_numpy(x.copy()), s, z)
    x = make(inputs[0].reshape([-1] + t["shape"]), t["sx"], t["zx"])
    if t["kind"] == "add":
        y = make(inputs[1].reshape([-1] + t["shape"]), t["s2"], t["z2"])
        return (q.add_relu if t["relu"] else q.add)(x, y, t["sy"], t["zy"]).int_repr().numpy()
    w = torch.from_numpy(np.load(folder / f"{case['id']}.w.npy").reshape(t["weights"]))
    scales = np.load(folder / f"{case['id']}.sw.npy")
    bias = torch.from_numpy(np.load(folder / f"{case['id']}.b.npy"))
    if len(scales) == 1:
        w = torch._make_per_tensor_quantized_tensor(w, float(scales[0]), 0)
    else:
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        w = torch._make_per_channel_quantized_tensor(w, torch.from_numpy(scales.astype(np.float64)), zeros, 0)
    if t["kind"] == "dense":
        packed, run = q.linear_prepack(w, bias), (q.linear_relu if t["relu"] else q.linear)
    else:
        args = [t["stride"]] * 2, t["pad"], [1, 1], t["groups"]
        packed, run = q.conv2d_prepack(w, bias, *args), (q.conv2d_relu if t["relu"] else q.conv2d)
    return run(x, packed, t["sy"], t["zy"]).int_repr().numpy()


def run(folder):
    import numpy as np
    found = probe()
    for case in json.loads((folder / "cases.json").read_text()):
        name = case["id"]
        inputs = [np.load(folder / f"{name}.x{k}.npy") for k in range(case["inputs"])]
        jobs = {}
        if case["format"] == "tflite":
            path = folder / f"{name}.tflite"
            if found["ai_edge_litert"]:
                jobs["tflite-reference"] = lambda: run_litert(path, inputs, True, np)
                jobs["tflite-xnnpack"] = lambda: run_litert(path, inputs, False, np)
            if found["tflite_micro"]:
                jobs["tflite-micro"] = lambda: run_micro(path, inputs, np)
        else:
            path = folder / f"{name}.onnx"
            if found["onnxruntime"]:
                jobs["ort-fused"] = lambda: run_onnxruntime(path, inputs, np)
            for engine in found.get("torch_engines", []):
                jobs[f"torch-{engine}"] = lambda engine=engine: run_torch(case, folder, engine, inputs, np)
        for runtime, job in jobs.items():
            if runtime not in case["runtimes"]:
                continue
            try:
                result = job()
            except Exception as e:  # noqa: BLE001 (a runtime that refuses a layer is reported, and the others go on)
                (folder / f"{name}.{runtime}.txt").write_text(str(e))
                continue
            np.save(folder / f"{name}.{runtime}.npy", np.ascontiguousarray(result).reshape(len(result), -1))


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        print(json.dumps(probe()))
    else:
        run(Path(sys.argv[2]))
