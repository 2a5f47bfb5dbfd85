#!/usr/bin/env python3
"""What `quaver quantize` writes runs in ONNX Runtime as Quaver says. Every model is quantized by every scheme, and executed at the default
optimisation level (profile `ort-fused`) and with optimisation off (profile `float32`). Each output must lie in the enclosure that `quaver run`
proves, and must equal it where the enclosure is one number. Weights that Quaver writes as integers must be those of the float format, bit for bit.
"""
import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import ort_common as oc

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"iris_float": "iris_x", "digits_mlp_float": "digits_x", "digits_conv_float": "digits_x"}
WEIGHTS = [("symmetric", "8", []), ("symmetric", "4", ["--per-channel"]), ("asymmetric", "8", []), ("asymmetric", "5", ["--per-channel"]),
           ("symmetric", "12", []), ("symmetric", "24", []), ("ceg4n", "6", []), ("power-of-two", "7", []), ("ceg4n", "32", [])]
ACTIVATIONS = [[], ["--activations", "8"], ["--activations", "8", "--activation-scheme", "symmetric"], ["--activations", "4"],
               ["--activations", "8", "--float-outputs"], ["--activations", "12"], ["--activations", "16"],
               ["--activations", "8", "--bias", "float"], ["--activations", "8", "--bias", "same"]]


def quaver(args):
    done = subprocess.run([ROOT / "target/release/quaver", *map(str, args)], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr.strip().splitlines()


def check(path, rows, data, profile, optimise, tmp):
    """(outputs, outputs with one proved number, failures), or a refusal."""
    low, high = Path(tmp, "low.npy"), Path(tmp, "high.npy")
    code, err = quaver(["run", path, "--inputs", data, "--profile", profile, "--lower", low, "--upper", high])
    if code:
        return err[0].split(": ", 2)[-1][:110]
    lo, hi = (np.load(p).reshape(len(rows), -1) for p in (low, high))
    try:
        y = oc.run_rows(oc.session(path.read_bytes(), optimise), rows)
    except Exception as e:  # a file that ONNX Runtime does not load
        return "ONNX Runtime: " + str(e).splitlines()[0][-100:]
    return y.size, int((lo == hi).sum()), int((~((lo <= y) & (y <= hi))).sum())


def dequantized(path):
    """All weights of a file as the float32 numbers they stand for."""
    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for n in graph.node:
        if n.op_type == "DequantizeLinear" and n.input[0] in constants:
            q, s = constants[n.input[0]], constants[n.input[1]]
            z = constants[n.input[2]] if len(n.input) > 2 else np.zeros_like(s, q.dtype)
            axis = next((a.i for a in n.attribute if a.name == "axis"), 0)
            if s.ndim:
                s, z = (v.reshape([-1 if d == axis else 1 for d in range(q.ndim)]) for v in (s, z))
            found[n.input[0].removesuffix("_quantized")] = (q.astype(np.int64) - z.astype(np.int64)).astype(np.float32) * s
    return constants, found


def same_weights(as_float, as_qdq):
    constants, found = dequantized(as_float)[0], dequantized(as_qdq)[1]
    return bool(found) and all(np.array_equal(constants[k], v) or np.array_equal(constants[k], v.T) for k, v in found.items())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rows", type=int, default=100)
    args = ap.parse_args()
    total, bad, refused = np.zeros(3, int), [], {}
    with tempfile.TemporaryDirectory() as tmp:
        for name, x in MODELS.items():
            rows = np.load(ROOT / f"models/{x}.npy")[:args.rows]
            data = Path(tmp, f"{x}.npy")
            np.save(data, rows)
            for (scheme, bits, more), act in itertools.product(WEIGHTS, ACTIVATIONS):
                label, out = f"{name} {scheme} {bits} {' '.join(more + act)}", Path(tmp, "out.onnx")
                base = ["quantize", ROOT / f"models/{name}.onnx", "--scheme", scheme, "--bits", bits, *more]
                written = [out]
                if act:
                    code, err = quaver([*base, *act, "--data", data, "--output", out])
                else:
                    code, err = quaver([*base, "--format", "qdq", "--output", out])
                    written.append(Path(tmp, "float.onnx"))
                    quaver([*base, "--output", written[1]])
                if code:
                    refused[err[0][:110]] = refused.get(err[0][:110], 0) + 1
                    continue
                if not act and not same_weights(written[1], out):
                    bad.append((label, "the formats differ"))
                for path, (profile, optimise) in itertools.product(written, [("ort-fused", True), ("float32", False)]):
                    onnx.checker.check_model(onnx.load(path), full_check=True)
                    result = check(path, rows, data, profile, optimise, tmp)
                    if isinstance(result, str) and result.startswith("ONNX Runtime"):
                        bad.append((f"{label} {profile}", result))
                    elif isinstance(result, str):
                        refused[result] = refused.get(result, 0) + 1
                    else:
                        total += result
                    if not isinstance(result, str) and result[2]:
                        bad.append((f"{label} {profile} {path.stem}", f"{result[2]} of {result[0]} outside"))
    print(f"{total[0]} outputs, {total[1]} with one proved number, {total[2]} outside")
    for why, n in refused.items():
        print(f"  refused {n} times: {why}")
    for label, why in bad:
        print(f"  FAILED {label}: {why}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
