#!/usr/bin/env python3
"""Write what three runtimes compute for a TensorFlow Lite file: X, y_reference, y_xnnpack and y_micro in an .npz.

y_reference: LiteRT with its reference kernels; y_xnnpack: LiteRT as it runs by default; y_micro: TensorFlow Lite Micro. Where the output is that of a
SOFTMAX, the output is moved to its input, the logits, in a copy of the file. Inputs: rows of --inputs (.npy, CIFAR-10 records or float32 features),
then random rows.

    tflite_goldens.py pretrainedResnet_quant.tflite resnet.npz --inputs test_first1000.bin.gz --rows 100 --count 20
"""
import argparse
from pathlib import Path

import numpy as np

import tflite_common as tc


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("golden", type=Path, help="the .npz to write")
    ap.add_argument("--inputs", type=Path, help="file with real inputs")
    ap.add_argument("--rows", type=int, default=100, help="largest number of real inputs (default 100)")
    ap.add_argument("--count", type=int, default=20, help="random inputs (default 20)")
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    model = tc.Model(args.model)
    rows = [tc.real_rows(model, args.inputs)[: args.rows]] if args.inputs else []
    if args.count:
        rows.append(tc.random_rows(model, args.count, np.random.default_rng(args.seed)))
    x, data = np.concatenate(rows), model.with_output(model.logits())
    y = {name: tc.run(name, model, data, x) for name in tc.RUNTIMES.values()}
    np.savez_compressed(args.golden, X=x, **{f"y_{name}": value for name, value in y.items()})
    different = ", ".join(f"{name} differs in {(value != y['reference']).sum()}" for name, value in y.items() if name != "reference")
    print(f"{args.golden}: {len(x)} rows, {y['reference'].size} outputs; from reference, {different}")


if __name__ == "__main__":
    main()
