#!/usr/bin/env python3
"""Write models/golden/<model>.npz: inputs X and what ONNX Runtime computes for them, one row at a time.

y_noopt: graph optimisation off (every node as the file states it); y_opt: the default level, in which QDQ groups are fused
into integer kernels. About 200 rows: test rows (where the folder has them), uniform, the corners of the input box, values outside
it, values half way between two input grid points and one ulp beside, and (quantised models) rows searched out of 8-bit grid
points on which the two outputs differ, if there are any.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx

import ort_common as oc

F32 = np.float32


def rows_for(model, sess, soft, test, rng, search):
    _, rest, dtype, _, _ = oc.input_spec(sess)
    n = int(np.prod(rest))
    if dtype != np.float32:
        info = np.iinfo(dtype)
        base = [rng.integers(info.min, info.max + 1, (120, n)), rng.choice([info.min, info.max], (40, n)),
                np.full((1, n), info.min), np.full((1, n), info.max)]
        smooth = rng.integers(info.min, info.max + 1, (40, 1)) + rng.integers(-9, 10, (40, n))
        base.append(np.clip(smooth, info.min, info.max))
        pool = rng.integers(info.min, info.max + 1, (search, n))
    else:
        base = [] if test is None else [test[:40].reshape(-1, n)]
        base += [rng.uniform(0, 1, (70, n)), rng.integers(0, 2, (30, n)), np.zeros((1, n)), np.ones((1, n)),
                 rng.uniform(-.5, 1.5, (20, n)), rng.normal(0, 100, (5, n))]
        grid = oc.input_scale(model)
        s, z, info = grid if grid else (1 / 255, 0, np.iinfo(np.uint8))
        k = rng.integers(info.min - z - 1, info.max - z + 2, (10, n))
        half = ((k + .5) * s).astype(F32)
        base += [half, np.nextafter(half, F32(np.inf)), np.nextafter(half, F32(-np.inf))]
        # rows that look like the data: blends of test rows, snapped to the input grid
        if test is not None:
            t = test.reshape(-1, n)
            mix = rng.uniform(0, 1, (search, 1))
            pool = mix * t[rng.integers(len(t), size=search)] + (1 - mix) * t[rng.integers(len(t), size=search)]
        else:
            pool = rng.uniform(0, 1, (search, n))
        pool = np.rint(pool / s) * s
    base = np.concatenate([np.asarray(b, dtype) for b in base])
    pool = pool.astype(dtype)
    if oc.is_quantized(model):
        hit = (oc.run_rows(sess, pool) != oc.run_rows(soft, pool)).any(1)
        base = np.concatenate([base, pool[hit][:30]])
        found = int(hit.sum())
    else:
        found = -1
    return base.reshape([-1] + rest), found


def main():
    here = Path(__file__).resolve().parent.parent / "models"
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--models", type=Path, default=here, help="folder with .onnx files and *_x.npy test inputs")
    ap.add_argument("--search", type=int, default=60000, help="grid rows searched for a difference")
    args = ap.parse_args()
    (args.models / "golden").mkdir(exist_ok=True)
    # Later files come last, so that the seeds of the others stay.
    for i, path in enumerate(sorted(args.models.glob("*.onnx"), key=lambda p: (p.stem.endswith("float16"), p))):
        rng = np.random.default_rng(1000 + i)
        model = onnx.load(path)
        data = path.read_bytes()
        sess, soft = oc.session(data), oc.session(data, False)
        tests = args.models / (path.stem.split("_")[0] + "_x.npy")
        x, found = rows_for(model, sess, soft, np.load(tests) if tests.exists() else None, rng, args.search)
        y_opt, y_noopt = oc.run_rows(sess, x), oc.run_rows(soft, x)
        np.savez_compressed(args.models / "golden" / (path.stem + ".npz"), X=x, y_noopt=y_noopt, y_opt=y_opt)
        more = "" if found < 0 else f", {found} of {args.search} searched rows differ"
        print(f"{path.stem:20s} rows {len(x)} {x.dtype}: {int((y_opt != y_noopt).any(1).sum())} rows differ by optimisation{more}")


if __name__ == "__main__":
    main()
