#!/usr/bin/env python3
"""Run Quaver and the TensorFlow Lite runtimes side by side and compare.

For each .tflite file (or every one below a folder): --count random inputs, half of them uniform, half noise around the zero point, and the rows of --inputs
(.npy, CIFAR-10 records, or float32 features; only with one file). Quaver runs as

    quaver run MODEL --profile P --inputs X.npy --outputs Y.npy [--lower L.npy --upper U.npy]

Checks:
  int8 files     tflite-reference == LiteRT with reference kernels, tflite-xnnpack == LiteRT by default, tflite-micro == TensorFlow Lite Micro,
                 for every element
  float32 files  P = float32: L <= y <= U for every element of every runtime
Where the output is that of a SOFTMAX, the runtimes' logits are compared, which is where Quaver ends the network. A runtime that does not run the file is
named and skipped. Refusals of Quaver are listed with their reason; they are failures only with --no-refusals. Exit status: 1 on any difference.
"""
import argparse
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import tflite_common as tc


def run_quaver(exe, path, x, profile, timeout, bounds):
    """[Y, L, U] as [rows, outputs] arrays (bounds only where asked for), or (reason, whether it is a refusal)."""
    with tempfile.TemporaryDirectory() as tmp:
        f = {k: Path(tmp, k + ".npy") for k in "XYLU"}
        np.save(f["X"], x)
        command = [exe, "run", path, "--profile", profile, "--inputs", f["X"], "--outputs", f["Y"]]
        if bounds:
            command += ["--lower", f["L"], "--upper", f["U"]]
        try:
            p = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"no answer in {timeout} s", False
        if p.returncode:
            text = " ".join(t.strip() for t in (p.stderr.strip() or p.stdout.strip()).splitlines()[-3:])
            return text or f"exit status {p.returncode}", p.returncode > 0 and "panicked" not in p.stderr
        return [np.load(f[k]).reshape(len(x), -1) if f[k].exists() else None for k in "YLU"]


def failing(got, want, bounds):
    """Number of elements that are not as they must be."""
    y, lower, upper = got
    if y is None or y.shape != want.shape or (bounds and (lower is None or upper is None)):
        return want.size
    if bounds:
        return int((~((lower.astype(float) <= want) & (want <= upper.astype(float)))).sum())
    return int((y != want).sum())


def check(args, path, tally, notes):
    """Compares one file under every profile."""
    model = tc.Model(path)
    x = tc.random_rows(model, args.count, np.random.default_rng(args.seed))
    if args.inputs:
        x = np.concatenate([tc.real_rows(model, args.inputs)[: args.rows], x])
    logits = model.logits()
    data, bounds = model.with_output(logits), model.dtype(logits) == np.float32 and model.dtype(model.input) == np.float32
    got = run_quaver(args.quaver, path, x, "float32", args.timeout, True) if bounds else None
    for profile, runtime in tc.RUNTIMES.items():
        line = f"{path.stem:32.32s} {runtime:10s} {'bounds' if bounds else 'equal':6s} {len(x):5d}"
        try:
            want = tc.run(runtime, model, data, x).astype(float)
        except Exception as e:  # a file that a runtime does not run is no subject of this comparison
            tally["skipped"] += 1
            notes.append(f"{path.stem}, {runtime} does not run it: {str(e).splitlines()[0][:140]}")
            print(f"{line} {'-':>9s} {'-':>8s}  skipped", flush=True)
            continue
        if not bounds:
            got = run_quaver(args.quaver, path, x, profile, args.timeout, False)
        if isinstance(got, tuple):
            kind = "refused" if got[1] else "failed"
            tally[kind] += 1
            notes.append(f"{path.stem}, {'float32' if bounds else profile} {kind}: {got[0][:300]}")
            print(f"{line} {want.size:9d} {'-':>8s}  {kind}", flush=True)
            continue
        bad = failing(got, want, bounds)
        tally["failed" if bad else "ok"] += 1
        tally["elements"] += want.size
        print(f"{line} {want.size:9d} {bad:8d}  {'FAILED' if bad else 'ok'}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", type=Path, nargs="+", help=".tflite files, or folders with them")
    ap.add_argument("--quaver", required=True, type=Path, help="path of the quaver program")
    ap.add_argument("--count", type=int, default=40, help="random inputs for each file (default 40)")
    ap.add_argument("--inputs", type=Path, help="file with real inputs")
    ap.add_argument("--rows", type=int, default=200, help="largest number of real inputs (default 200)")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--timeout", type=float, default=300, help="seconds for one run of quaver")
    ap.add_argument("--no-refusals", action="store_true", help="count a refusal as a failure")
    args = ap.parse_args()
    paths = [p for m in args.models for p in (sorted(m.rglob("*.tflite")) if m.is_dir() else [m])]
    if args.inputs and len(paths) != 1:
        ap.error("--inputs needs exactly one model")
    tally, notes = Counter(), []
    print(f"{'model':32s} {'runtime':10s} {'check':6s} {'rows':>5s} {'elements':>9s} {'failing':>8s}  result")
    for path in paths:
        try:
            check(args, path, tally, notes)
        except (ValueError, KeyError) as e:
            tally["skipped"] += 1
            notes.append(f"{path.stem}: {e}")
    print(f"\n{len(paths)} files: {tally['ok']} comparisons ok, {tally['failed']} failed, {tally['refused']} refused, {tally['skipped']} skipped; "
          f"{tally['elements']} elements compared")
    for note in dict.fromkeys(notes):
        print(f"  {note}")
    return int(bool(tally["failed"]) or not paths or (args.no_refusals and bool(tally["refused"])))


if __name__ == "__main__":
    raise SystemExit(main())
