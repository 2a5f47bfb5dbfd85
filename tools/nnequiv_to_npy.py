#!/usr/bin/env python3
"""Turn boxes {id: {"lower": [...], "upper": [...]}} into L.npy and U.npy (float64 [N, elements]) for `quaver equivalence --lower --upper`.

Numbers are kept as the file has them: the command itself takes the values of the models' input type that lie between them. Beside the corners
ROWS.txt names the box of each row. Boxes of another length than --elements are left out.
"""
import argparse
import gzip
import json
from pathlib import Path

import numpy as np


def read(path):
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("boxes", type=Path, help="input_boxes.json or input_boxes.json.gz")
    ap.add_argument("folder", type=Path)
    ap.add_argument("--elements", type=int, required=True, help="number of input elements, such as 64")
    ap.add_argument("--ids", nargs="*", help="only these boxes, in this order [default: all]")
    args = ap.parse_args()
    boxes = read(args.boxes)
    missing = [i for i in args.ids or [] if i not in boxes]
    if missing:
        ap.error(f"{args.boxes} has no box {', '.join(missing)}; it has {', '.join(boxes)}")
    corners = {i: [np.asarray(boxes[i][k], np.float64).reshape(-1) for k in ("lower", "upper")] for i in args.ids or boxes}
    fitting = {i: c for i, c in corners.items() if all(len(x) == args.elements for x in c)}
    if not fitting:
        ap.error(f"no box has {args.elements} elements")
    args.folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(["L.npy", "U.npy"]):
        np.save(args.folder / name, np.stack([c[k] for c in fitting.values()]))
    (args.folder / "ROWS.txt").write_text("".join(f"{row} {i}\n" for row, i in enumerate(fitting)))
    print(f"wrote {len(fitting)} of {len(corners)} boxes to {args.folder}")


if __name__ == "__main__":
    main()
