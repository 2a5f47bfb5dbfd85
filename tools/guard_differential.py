"""Exported guards in ONNX Runtime beside `quaver guard run`, row by row, and the time of an inference.

    python3 tools/guard_differential.py GUARD X.npz|X.npy [...] [--quaver target/release/quaver] [--rows 10000] [--time]

Rows are those of X (array x), and changed ones: NaN, infinities, elements outside of the box, off the grid or a few float32 neighbours away from it. Class,
stage and acceptance have to be the same for batches of 1, 7 and 256; scores have to be, bit for bit, those of the network that answered when ONNX Runtime runs
it alone (the 8-bit and the float network). Nodes of branches that no row needs must not run, which ONNX Runtime's profile says.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from ort_common import session

OUTPUTS = ["class", "stage", "accepted", "margin", "scores"]
BATCHES = (1, 7, 256)


def any_rows(path):
    """A network's bytes, for any number of rows."""
    model = onnx.load(path)
    graph = model.graph
    del graph.value_info[:]
    for value in list(graph.input) + list(graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = onnx.numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(shape, tensor.name))
    return model.SerializeToString()


def rows_of(data, domain, count, seed):
    """Inputs as they come, and changed ones."""
    rng = np.random.default_rng(seed)
    lo, hi = float(domain["lo"]), float(domain["hi"])
    step = float(Fraction(domain["step"])) if domain.get("step") else None
    x = data[rng.integers(len(data), size=count)].astype(np.float64)
    noise = np.array([0.0, 0.02, 0.1, 2.0])[np.arange(count) % 4, None]
    x = np.clip(x + noise * rng.uniform(-1, 1, x.shape), lo, hi)
    x = (np.rint(x / step) * step if step else x).astype(np.float32)
    at = rng.integers(x.shape[1], size=count)
    special = {4: np.nan, 5: np.inf, 6: -np.inf, 7: 1e30, 8: lo - 1e-3, 9: hi + 1e-6}
    for i in range(count):
        kind, one = i % 16, (i, at[i])
        if kind in special:
            x[one] = special[kind]
        elif kind == 10:
            x[one] += (step or 1.0) / 4
        elif kind in (11, 12):
            for _ in range(rng.integers(1, 7)):
                x[one] = np.nextafter(x[one], np.float32(np.inf if kind == 11 else -np.inf))
        elif kind == 13:
            x[i] = np.nextafter(x[i], np.float32(np.inf))
        elif kind == 14:
            x[i, 0], x[i, -1] = np.inf, -np.inf
    return x


def same_bits(a, b):
    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    return ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all(1)


class Guard:
    def __init__(self, folder, quaver, work):
        self.folder, self.quaver, self.work = Path(folder), quaver, Path(work)
        self.plan = json.loads((self.folder / "guard.json").read_text())
        self.file = self.work / "guard.onnx"
        subprocess.run([quaver, "guard", "export", self.folder, "-o", self.file], check=True, stdout=subprocess.DEVNULL)
        stages = self.plan["stages"]
        networks = [s["network"]["file"] for s in stages] + [stages[0]["float"]["file"]]
        self.networks = [any_rows(self.folder / name) for name in networks]
        self.session = session(self.file.read_bytes())
        self.name, self.shape = self.session.get_inputs()[0].name, self.session.get_inputs()[0].shape[1:]

    def ours(self, x):
        """Class and stage by the guard in Rust."""
        files = [self.work / name for name in ("x.npy", "class.npy", "stage.npy")]
        np.save(files[0], x)
        command = [self.quaver, "guard", "run", self.folder, "--inputs", files[0], "--output", files[1], "--stages", files[2]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return np.load(files[1]), np.load(files[2])

    def run(self, run_session, x, batch, outputs=None):
        name = run_session.get_inputs()[0].name
        parts = [run_session.run(outputs, {name: x[i:i + batch].reshape(-1, *self.shape)}) for i in range(0, len(x), batch)]
        return [np.concatenate(p) for p in zip(*parts)]

    def compare(self, x):
        """Rows that are unlike, of all; and the stage of each row."""
        ours, stage = self.ours(x)
        last = len(self.plan["stages"])
        # Wider networks are no integers in ONNX Runtime.
        alone = {k: self.run(session(self.networks[k]), x[stage == k], 256)[0] for k in {0, last} if (stage == k).any()}
        unlike = {"class": 0, "stage": 0, "accepted": 0, "scores": 0}
        for batch in BATCHES:
            found = dict(zip(OUTPUTS, self.run(self.session, x, batch, OUTPUTS)))
            unlike["class"] += int((found["class"] != ours).sum())
            unlike["stage"] += int((found["stage"] != stage).sum())
            unlike["accepted"] += int((found["accepted"] != (stage < last)).sum())
            if batch == 256:
                for k, own in alone.items():
                    unlike["scores"] += int((~same_bits(found["scores"][stage == k], own)).sum())
        return unlike, stage

    def astray(self, x, stage):
        """Nodes in branches that ran although the first network is sure of the rows, and how many nodes there are in branches."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling, options.profile_file_prefix = True, str(self.work / "profile")
        profiled = ort.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
        profiled.run(OUTPUTS, {self.name: x[stage == 0][:64].reshape(-1, *self.shape)})
        events = json.loads(Path(profiled.end_profiling()).read_text())
        ran = {e["name"].removesuffix("_kernel_time") for e in events if e.get("cat") == "Node"}
        inner = set()
        branches(onnx.load(self.file).graph, False, inner)
        return len(ran & inner), len(inner)


def branches(graph, taken, inner):
    """Names of nodes within branches that run networks."""
    for node in graph.node:
        if taken:
            inner.add(node.name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                branches(attribute.g, taken or attribute.name == "then_branch", inner)


def seconds(run, x, batch):
    """Seconds for one row, the least of five rounds."""
    best, count = np.inf, 2000 if batch == 1 else 8 * batch
    for _ in range(5):
        start = time.perf_counter()
        for i in range(0, count, batch):
            at = i % (len(x) - batch + 1)
            run(x[at:at + batch])
        best = min(best, (time.perf_counter() - start) / count)
    return best


def times(guard, x):
    """Microseconds for one row: ONNX Runtime's float32 and 8-bit network, the exported guard, and ours."""
    x = x.astype(np.float32)
    found = {}
    named = [("ort float32", session(guard.networks[-1])), ("ort int8", session(guard.networks[0])), ("ort guard", guard.session)]
    for batch in (1, 256):
        for name, s in named:
            key = s.get_inputs()[0].name
            found[name, batch] = seconds(lambda part: s.run(None, {key: part.reshape(-1, *guard.shape)}), x, batch)
    np.save(guard.work / "x.npy", x)
    command = [guard.quaver, "--json", "guard", "bench", guard.folder, "--inputs", guard.work / "x.npy"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        made = json.loads(line)
        found["guard", made["batch"]], found["int8", made["batch"]] = made["seconds"][:2]
        found["float32", made["batch"]] = made["seconds"][-1]
    names = ["ort float32", "ort int8", "ort guard", "float32", "int8", "guard"]
    return " | ".join(f"{n} {found[n, 1] * 1e6:.2f} / {found[n, 256] * 1e6:.2f}" for n in names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", help="GUARD X.npz, one pair after the other")
    parser.add_argument("--quaver", default="target/release/quaver")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--time", action="store_true", help="measure only: microseconds a row, batch 1 / 256, one thread")
    args = parser.parse_args()
    bad = 0
    for folder, data in zip(args.pairs[::2], args.pairs[1::2]):
        with tempfile.TemporaryDirectory() as work:
            guard, loaded = Guard(folder, args.quaver, work), np.load(data)
            data = loaded if isinstance(loaded, np.ndarray) else loaded["x"]
            data = data.reshape(len(data), -1)
            if args.time:
                print(f"{Path(folder).name}: {times(guard, data)}", flush=True)
                continue
            x = rows_of(data, guard.plan["domain"], args.rows, 1)
            unlike, stage = guard.compare(x)
            astray, inner = guard.astray(x, stage)
            stages = np.bincount(stage, minlength=len(guard.plan["stages"]) + 1)
            bad += sum(unlike.values()) + astray
            print(f"{Path(folder).name}: {len(BATCHES)} x {len(x)} rows, by network {stages.tolist()}, unlike {unlike}, "
                  f"nodes of untaken branches that ran {astray} of {inner}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
