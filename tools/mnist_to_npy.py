#!/usr/bin/env python3
"""Turn MNIST's own files into X.npy (float32 [N,784] = pixel / divisor) and Y.npy (int64 [N]) for `quaver robustness`.

The divisor is 255 for most networks, 256 for the AAAI'21 ones (see aaai21_to_onnx.py).
"""
import argparse
import gzip
from pathlib import Path

import numpy as np


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("images", type=Path, help="idx3-ubyte.gz")
    ap.add_argument("labels", type=Path, help="idx1-ubyte.gz")
    ap.add_argument("folder", type=Path)
    ap.add_argument("--divisor", type=int, default=255)
    ap.add_argument("--rows", type=int, default=10_000)
    args = ap.parse_args()
    pixels = np.frombuffer(gzip.decompress(args.images.read_bytes()), np.uint8, offset=16).reshape(-1, 784)[: args.rows]
    labels = np.frombuffer(gzip.decompress(args.labels.read_bytes()), np.uint8, offset=8)[: args.rows]
    args.folder.mkdir(parents=True, exist_ok=True)
    np.save(args.folder / "X.npy", (pixels / np.float32(args.divisor)).astype(np.float32))
    np.save(args.folder / "Y.npy", labels.astype(np.int64))
    print(f"wrote {len(labels)} rows to {args.folder}")


if __name__ == "__main__":
    main()
