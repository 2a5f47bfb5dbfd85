#!/usr/bin/env python3
"""Makes models/golden/torch/: small quantized layers and networks as Q/DQ files (float biases, uint8 ends), with PyTorch's outputs for each engine.

`layers.npz` holds for each file NAME the inputs `NAME_x0`, `NAME_x1` and the outputs `NAME_ENGINE` of every engine that runs the file. The same versions write
the same bytes; made with torch 2.15.0.
"""
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

import torch_layers as tl

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
# kind, rows, seed, engines
LAYERS = (("linear", 24, 3, ENGINES), ("linear_relu", 24, 11, ENGINES), ("linear", 24, 14, ENGINES), ("conv2d", 4, 3, ENGINES), ("conv2d_relu", 4, 12, ENGINES),
          ("depthwise", 4, 8, ("onednn", "x86", "qnnpack")), ("add", 8, 2, ENGINES[:3]), ("relu6", 4, 5, ENGINES[:3]), ("concat", 8, 6, ENGINES),
          ("global_average", 16, 1, ENGINES[:3]), ("mlp", 48, 0, ENGINES), ("cnn", 24, 0, ("onednn", "x86")))


def limited(net):
    return sum(i.raw_data.__len__() for i in net.initializers) < 20_000 and sum(x.size for x in net.rows) < 12_000


def draw(kind, rows, seed):
    """The first small network of this kind from this seed on, and how many seeds were passed."""
    for s in range(seed, seed + 100):
        net, output = tl.random_layer(kind, np.random.default_rng(s), rows)
        if limited(net) and net.tensors[output].numel() < 8_000:
            return net, output, s
    raise SystemExit(f"no small {kind}")


def save(path, arrays):
    """An .npz with fixed dates."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, a in arrays.items():
            data = io.BytesIO()
            np.save(data, a)
            z.writestr(zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0)), data.getvalue(), zipfile.ZIP_DEFLATED)


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folder = Path(__file__).parent.parent / "models" / "golden" / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for k, (kind, rows, seed, engines) in enumerate(LAYERS):
        name = f"{kind}_{k}"
        model = None
        for engine in engines:
            torch.backends.quantized.engine = engine
            net, output, seed = draw(kind, rows, seed)
            # Scales and biases do not depend on the engine, unless a layer's parameters were drawn from another layer's outputs.
            if model is None:
                model = net.onnx([output])
                (folder / f"{name}.onnx").write_bytes(model)
                arrays.update({f"{name}_x{i}": x for i, x in enumerate(net.rows)})
            elif net.onnx([output]) != model:
                print(f"{name}: {engine} left out, its parameters depend on the engine")
                continue
            arrays[f"{name}_{engine}"] = net.tensors[output].int_repr().numpy()
    save(folder / "layers.npz", arrays)
    print(f"{len(LAYERS)} files, {sum(f.stat().st_size for f in folder.iterdir())} bytes, "
          f"{sum(a.size for n, a in arrays.items() if n.split('_')[-1] in ENGINES)} outputs")


if __name__ == "__main__":
    main()
