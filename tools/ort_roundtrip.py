#!/usr/bin/env python3
"""What Quaver reads and writes back is the same network: every .onnx(.gz) file below a folder is rewritten by the example
`onnx_roundtrip`, checked by onnx.checker, and run beside the original in ONNX Runtime with graph optimisation off; outputs must be equal to the
last bit, or within float32 rounding where the writer merged layers.
"""
import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import ort_common as oc


def outputs(data, rng_seed):
    sess = oc.session(data, optimise=False)
    rng, feed = np.random.default_rng(rng_seed), {}
    for i in sess.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in i.shape]
        if "float" in i.type:
            feed[i.name] = rng.uniform(0, 1, shape).astype(np.float32)
        else:
            feed[i.name] = rng.integers(0, 127, shape).astype({"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}[i.type])
    return sess.run(None, feed)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=Path)
    args = ap.parse_args()
    files = sorted(p.resolve() for p in args.folder.rglob("*") if re.search(r"\.onnx(\.gz)?$", p.name))
    root, equal, close, bad = Path(__file__).resolve().parent.parent, 0, 0, []
    with tempfile.TemporaryDirectory() as tmp:
        command = ["cargo", "run", "--quiet", "--release", "-p", "quaver", "--example", "onnx_roundtrip", "--", tmp, *map(str, files)]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
        for i, f in enumerate(files):
            try:
                written = Path(tmp, f"{i}.onnx").read_bytes()
                onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
                pairs = list(zip(outputs(oc.read_model_bytes(f), i), outputs(written, i), strict=True))
                if all(np.array_equal(a, b) for a, b in pairs):
                    equal += 1
                elif all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs):
                    close += 1
                else:
                    bad.append((f.name, "outputs differ"))
            except Exception as e:  # any failure of one file is a result
                bad.append((f.name, str(e).splitlines()[0][:100]))
    print(f"{len(files)} files: {equal} equal to the last bit, {close} within rounding, {len(bad)} failed")
    for name, why in bad:
        print(f"  {name}: {why}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
