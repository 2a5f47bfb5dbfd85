#!/usr/bin/env python3
"""Inferences a second of ONNX Runtime and of Quaver's exact execution, each on one thread, as a table.

Both are measured in this run, model by model; Quaver's figures come from `cargo bench --bench execution` (leave them out with
--no-quaver). A model with a fixed batch of 1 is given a free batch axis in memory for the second column; "-" where it then does not run.
"""
import argparse
import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx

import ort_common as oc


def free_batch(model):
    m = onnx.ModelProto.FromString(model.SerializeToString())
    init = {t.name for t in m.graph.initializer}
    for v in list(m.graph.input) + list(m.graph.output):
        d = v.type.tensor_type.shape.dim
        if v.name not in init and len(d) > 1:
            d[0].Clear()
            d[0].dim_param = "batch"
    del m.graph.value_info[:]
    return m


def rate(sess, x, seconds):
    """Best of five windows, in inferences a second."""
    name = sess.get_inputs()[0].name
    feed = {name: x}
    for _ in range(20):
        sess.run(None, feed)
    best = 0.0
    for _ in range(5):
        n, start = 0, time.perf_counter()
        while True:
            for _ in range(10):
                sess.run(None, feed)
            n += 10
            took = time.perf_counter() - start
            if took > seconds / 5:
                break
        best = max(best, n * len(x) / took)
    return best


def quaver_rates(path):
    """Batch size -> inferences a second of exact execution, from the project's own benchmark."""
    root = Path(__file__).resolve().parent.parent
    command = ["cargo", "bench", "--quiet", "-p", "quaver", "--bench", "execution", "--", str(path.resolve())]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {row["batch"]: row["inferences_per_second"] for row in rows}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+", type=Path, help=".onnx or .onnx.gz files, or folders of them")
    ap.add_argument("--batch", type=int, default=256)
    ap.add_argument("--seconds", type=float, default=1.0, help="time for each figure (default 1)")
    ap.add_argument("--no-quaver", action="store_true", help="ONNX Runtime only")
    args = ap.parse_args()
    import onnxruntime
    files = [f for p in args.models for f in (sorted(q for q in p.rglob("*") if re.search(r"\.onnx(\.gz)?$", q.name)) if p.is_dir() else [p])]
    print(f"onnxruntime {onnxruntime.__version__}, one thread, default optimisation; inferences a second")
    print(f"{'model':40s} {'batch 1':>12s} {'batch ' + str(args.batch):>14s} {'Quaver 1':>12s} {'Quaver 256':>12s}")
    rng = np.random.default_rng(0)
    for f in files:
        try:
            data = oc.read_model_bytes(f)
            sess = oc.session(data)
            _, rest, dtype, batched, _ = oc.input_spec(sess)
            make = (lambda n: rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, [n] + rest).astype(dtype)) \
                if np.issubdtype(dtype, np.integer) else (lambda n: rng.uniform(0, 1, [n] + rest).astype(dtype))
            one = rate(sess, make(1) if batched else make(1)[0], args.seconds)
            if not batched:
                one /= max(1, rest[0])  # rate() counts the length of the leading axis
        except Exception as e:
            print(f"{f.name:40.40s} not run: {str(e).splitlines()[0][:70]}")
            continue
        try:
            many = f"{rate(oc.session(free_batch(onnx.load_from_string(data)).SerializeToString()), make(args.batch), args.seconds):14.0f}" if batched else "-".rjust(14)
        except Exception:
            many = "-".rjust(14)
        own = {} if args.no_quaver else quaver_rates(f)
        columns = "".join(f" {own[b]:12.0f}" if b in own else f" {'-':>12s}" for b in (1, 256))
        print(f"{f.name:40.40s} {one:12.0f} {many}{columns}", flush=True)


if __name__ == "__main__":
    main()
