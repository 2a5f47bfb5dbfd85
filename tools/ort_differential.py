#!/usr/bin/env python3
"""Run Quaver and ONNX Runtime side by side on every model below a folder and compare.

For each .onnx or .onnx.gz file: random rows of three kinds (uniform in [0,1], normal, and the 8-bit grid: the input quantiser's own grid, or k/255),
and, where <model>.golden.npz lies beside the file or golden/<model>.npz in its folder, the golden rows. ONNX Runtime runs one row at a time at its
default optimisation level on one thread; Quaver runs as

    quaver run MODEL --inputs X.npy --outputs Y.npy --lower L.npy --upper U.npy --profile P

Checks:
  float models      P = float32:   L <= ORT <= U for every element
  quantized models  P = ort-fused: Y == ORT for every element. If ORT's optimised graph keeps a float Gemm, MatMul or Conv, whose order of
                    summation no formula gives, L <= ORT <= U is accepted instead (status "bounds").
Refusals (non-zero exit with an error text) are counted and listed with their reason; they are no failure unless --no-refusals is given.
Exit status: 0 if nothing failed.
"""
import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

import ort_common as oc

FLOAT_KERNELS = {"Gemm", "MatMul", "Conv", "FusedGemm", "FusedMatMul", "FusedConv", "MatMulNBits", "ConvTranspose"}


def stem(path):
    return re.sub(r"\.onnx(\.gz)?$", "", path.name)


def optimised_has_float_kernel(data):
    """Does ONNX Runtime's optimised graph hold a float matrix or convolution kernel?"""
    import onnxruntime as ort
    with tempfile.TemporaryDirectory() as tmp:
        so = ort.SessionOptions()
        so.intra_op_num_threads = so.inter_op_num_threads = 1
        so.log_severity_level = 4
        so.optimized_model_filepath = str(Path(tmp, "o.onnx"))
        ort.InferenceSession(data, so, providers=["CPUExecutionProvider"])
        m = onnx.load(so.optimized_model_filepath)
    return any(n.op_type in FLOAT_KERNELS for n in m.graph.node)


def without_final_softmax(model):
    """The model's bytes with the graph ending at the logits, which is where Quaver ends it."""
    g = model.graph
    for out in g.output:
        node = next((n for n in g.node if n.op_type in ("Softmax", "LogSoftmax") and n.output[0] == out.name), None)
        if node is not None:
            out.name = node.input[0]
            g.node.remove(node)
    return model.SerializeToString()


def random_rows(model, sess, per_kind, rng):
    """{kind: rows} for the model's input type."""
    _, rest, dtype, _, _ = oc.input_spec(sess)
    shape = [per_kind] + rest
    if np.issubdtype(dtype, np.integer):
        i = np.iinfo(dtype)
        return {"integers": rng.integers(i.min, i.max + 1, shape).astype(dtype),
                "corners": rng.choice(np.array([i.min, i.max], dtype), shape)}
    s, z, info = oc.input_scale(model) or (1 / 255, 0, np.iinfo(np.uint8))
    return {"uniform": rng.uniform(0, 1, shape).astype(dtype),
            "normal": rng.normal(0, 1, shape).astype(dtype),
            "grid": ((rng.integers(info.min, info.max + 1, shape) - z) * np.float32(s)).astype(dtype)}


def run_quaver(exe, path, x, profile, timeout):
    """(Y, L, U) as [rows, outputs] arrays, or a string: the reason of a refusal, or None if it crashed or wrote nothing."""
    with tempfile.TemporaryDirectory() as tmp:
        f = {k: Path(tmp, k + ".npy") for k in "XYLU"}
        np.save(f["X"], x)
        try:
            p = subprocess.run([exe, "run", str(path), "--inputs", f["X"], "--outputs", f["Y"], "--lower", f["L"], "--upper", f["U"],
                                "--profile", profile], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"no answer in {timeout} s", False
        if p.returncode:
            text = (p.stderr.strip() or p.stdout.strip()).splitlines()
            refused = bool(text) and p.returncode > 0 and "panicked" not in p.stderr
            return (" ".join(t.strip() for t in text[-3:]) or f"exit status {p.returncode}"), refused
        if not f["Y"].exists():
            return "exit status 0 but no output file", False
        out = [np.load(f[k]).reshape(len(x), -1) if f[k].exists() else None for k in "YLU"]
        return out, True


def compare(exact, ort, y, lo, up):
    """(elements that fail, elements, status)."""
    if y.shape != ort.shape:
        return ort.size, ort.size, f"shape {y.shape} for {ort.shape}"
    inside = None if lo is None or up is None else (lo.astype(float) <= ort) & (ort <= up.astype(float))
    if exact == "exact":
        bad = ~((y == ort) | (np.isnan(y) & np.isnan(ort)))
        return int(bad.sum()), ort.size, "equal"
    if exact == "either" and (y == ort).all():
        return 0, ort.size, "equal"
    if inside is None:
        return ort.size, ort.size, "no bounds written"
    return int((~inside).sum()), ort.size, "bounds"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quaver", required=True, help="path of the quaver program")
    ap.add_argument("--data", type=Path, required=True, help="folder with models (searched recursively), or one model")
    ap.add_argument("--rows", type=int, default=30, help="random rows of each kind (default 30)")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--timeout", type=float, default=120, help="seconds for one run of quaver")
    ap.add_argument("--match", default="", help="only files whose path holds this text")
    ap.add_argument("--no-refusals", action="store_true", help="count a refusal as a failure")
    args = ap.parse_args()
    if args.data.is_file():
        paths, base = [args.data], args.data.parent
    else:
        base = args.data
        paths = sorted(p for p in base.rglob("*") if re.search(r"\.onnx(\.gz)?$", p.name) and args.match in str(p))
    tally, refusals, failures, skipped = Counter(), [], [], []
    elements = golden_rows = rows_run = 0
    print(f"{'model':60s} {'profile':9s} {'check':7s} {'rows':>5s} {'golden':>6s} {'elements':>9s} {'failing':>8s}  result")
    for path in paths:
        name = str(path.relative_to(base))
        try:
            data = oc.read_model_bytes(path)
            model = onnx.load_from_string(data)
            data = without_final_softmax(model)
            sess = oc.session(data)
            init = {t.name for t in model.graph.initializer}
            if len([i for i in model.graph.input if i.name not in init]) != 1:
                raise ValueError("more than one input")
            kinds = random_rows(model, sess, args.rows, np.random.default_rng(args.seed))
            x = np.concatenate(list(kinds.values()))
            want = oc.run_rows(sess, x)
        except Exception as e:  # a file ONNX Runtime cannot run is no subject of this comparison
            skipped.append((name, str(e).splitlines()[0][:120]))
            tally["skipped"] += 1
            continue
        quantized = oc.is_quantized(model)
        profile = "ort-fused" if quantized else "float32"
        mode = ("either" if optimised_has_float_kernel(data) else "exact") if quantized else "bounds"
        n_golden = 0
        for g in (path.with_name(stem(path) + ".golden.npz"), path.parent / "golden" / (stem(path) + ".npz")):
            if g.exists():
                z = np.load(g)
                gx = z["X"].reshape([-1] + list(x.shape[1:])).astype(x.dtype)
                x, want = np.concatenate([x, gx]), np.concatenate([want, z["y_opt"].reshape(len(gx), -1)])
                n_golden = len(gx)
                break
        got, ok = run_quaver(args.quaver, path, x, profile, args.timeout)
        if isinstance(got, str):
            kind = "refused" if ok else "failed"
            tally[kind] += 1
            (refusals if ok else failures).append((name, got))
            print(f"{name:60.60s} {profile:9s} {'-':7s} {len(x):5d} {n_golden:6d} {'-':>9s} {'-':>8s}  {kind}: {got[:90]}")
            continue
        bad, total, how = compare(mode, want, *got)
        elements += total
        rows_run += len(x)
        golden_rows += n_golden
        result = "ok" if not bad else "FAILED"
        tally["ok" if not bad else "failed"] += 1
        if bad:
            failures.append((name, f"{bad} of {total} elements ({how})"))
        print(f"{name:60.60s} {profile:9s} {how:7.7s} {len(x):5d} {n_golden:6d} {total:9d} {bad:8d}  {result}", flush=True)
    print(f"\n{len(paths)} models: {tally['ok']} ok, {tally['failed']} failed, {tally['refused']} refused, {tally['skipped']} skipped; "
          f"{rows_run} rows ({golden_rows} golden), {elements} elements compared")
    for title, items in (("failed", failures), ("refused", refusals), ("skipped (not run by ONNX Runtime or not one input)", skipped)):
        if items:
            print(f"{title}:")
            for n, why in items:
                print(f"  {n}: {why}")
    return int(bool(tally["failed"]) or not paths or (args.no_refusals and bool(tally["refused"])))


if __name__ == "__main__":
    raise SystemExit(main())
