#!/usr/bin/env python3
"""Train the networks of EQV (Huang et al., AAAI 2024, "Towards Efficient Verification of Quantized Neural Networks") on MNIST and quantise them.

Plain training in PyTorch: pixel/255, cross entropy, Adam with weight decay 1e-5, batches of 64, a cosine from the first learning rate to 0, no
augmentation. Batch normalisation is folded into the convolution. ONNX Runtime's static quantiser makes int8 weights per channel and uint8
activations (QDQ, MinMax on 1000 training images, which hold the pixels 0 and 255: the input scale is 1/255, the zero point 0).
Writes NAME.onnx for each network and images.npz (`x` float32 [40,784], `y` int64 [40]: the first test images) and prints the accuracies on the
10,000 test images. Seeds are fixed: the same versions on the same CPU write the same bytes.

Needs: numpy, torch, onnx, onnxruntime.
"""
import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import nn

import make_models as mm

F32 = np.float32
BATCH, WEIGHT_DECAY, CALIBRATION, IMAGES = 64, 1e-5, 1000, 40


@dataclass(frozen=True)
class Network:
    """An architecture (dense layers, or one convolution), the accuracy in EQV's Table 3 (percent) and how it is trained."""
    name: str
    paper: float
    hidden: tuple = ()
    channels: int = 0
    epochs: int = 10
    rate: float = 1e-3
    seed: int = 1

    @property
    def shape(self):
        return (1, 28, 28) if self.channels else (784,)


# EQV's text gives CNN1 four channels and CNN2 two; its accuracies fit two and four (models/eqv/README.md).
NETWORKS = (
    Network("fc1_100", 97.72, hidden=(100,), epochs=15),
    Network("fc2_100", 97.96, hidden=(100, 100), epochs=15),
    Network("fc2_256", 98.22, hidden=(256, 256), epochs=7),
    Network("fc2_512", 98.33, hidden=(512, 512), epochs=5),
    Network("fc3_100", 97.89, hidden=(100, 100, 100), epochs=15),
    Network("cnn1", 95.36, channels=4, epochs=4),
    Network("cnn2", 97.16, channels=4, epochs=20, rate=1e-2),
    Network("cnn_2ch", 95.36, channels=2, epochs=20, rate=1e-2, seed=2),
)


def idx(path, header):
    """The bytes of an idx.gz file behind its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def mnist(folder, part):
    """Images as float32 [N,784] in [0,1] and labels as int64."""
    x = idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    return (x / F32(255)).astype(F32), idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def untrained(net):
    """The network in PyTorch, freshly initialised."""
    if net.channels:
        return nn.Sequential(nn.Conv2d(1, net.channels, 4, stride=2, padding=1), nn.BatchNorm2d(net.channels), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(49 * net.channels, 10))
    widths = (784, *net.hidden, 10)
    layers = [m for i, o in zip(widths, widths[1:]) for m in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def train(net, x, y):
    """The network in PyTorch, trained and in evaluation mode."""
    torch.manual_seed(net.seed)
    model = untrained(net)
    x, y = torch.from_numpy(x).reshape(-1, *net.shape), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), net.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, net.epochs * -(-len(x) // BATCH))
    for _ in range(net.epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def dense_onnx(name, model):
    linear = [m for m in model if isinstance(m, nn.Linear)]
    return mm.mlp_model(name, [m.weight.detach().numpy().T for m in linear], [m.bias.detach().numpy() for m in linear])


def conv_onnx(name, model):
    conv = nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1])
    par = {"cw": conv.weight, "cb": conv.bias, "w": model[-1].weight.T, "b": model[-1].bias}
    nodes = [helper.make_node("Conv", ["x", "cw", "cb"], ["z"], name="conv", kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["z"], ["h"], name="relu"),
             helper.make_node("MaxPool", ["h"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
             helper.make_node("Reshape", ["p", "shape"], ["f"], name="reshape"),
             helper.make_node("Gemm", ["f", "w", "b"], ["logits"], name="gemm")]
    inits = {k: np.ascontiguousarray(v.detach().numpy()) for k, v in par.items()}
    return mm.make_float_model(name, (1, 1, 28, 28), nodes, inits | {"shape": np.array([1, -1])}, 10)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mnist", type=Path, help="folder with the four idx.gz files of MNIST (train-images-idx3-ubyte.gz, ...)")
    ap.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "models" / "eqv")
    ap.add_argument("--float", type=Path, help="folder for the float networks (4.9 MB), which are not kept otherwise")
    ap.add_argument("--only", nargs="+", choices=[n.name for n in NETWORKS], help="these networks only (default all)")
    args = ap.parse_args()
    torch.set_num_threads(1)
    for folder in filter(None, (args.out, args.float)):
        folder.mkdir(parents=True, exist_ok=True)
    (x, y), (tx, ty) = mnist(args.mnist, "train"), mnist(args.mnist, "t10k")
    print(f"{'network':10s} {'bytes':>7s} {'paper':>6s} {'float':>6s} {'int8':>6s}  (% of {len(ty)} test images)")
    for net in NETWORKS:
        if args.only and net.name not in args.only:
            continue
        full = (conv_onnx if net.channels else dense_onnx)(net.name, train(net, x, y))
        int8 = mm.quantize(full, x[:CALIBRATION].reshape(-1, *net.shape), False)
        right = [100 * mm.accuracy(model, tx.reshape(-1, *net.shape), ty) for model in (full, int8)]
        print(f"{net.name:10s} {int8.ByteSize():7d} {net.paper:6.2f} {right[0]:6.2f} {right[1]:6.2f}", flush=True)
        onnx.save(int8, args.out / f"{net.name}.onnx")
        if args.float:
            onnx.save(full, args.float / f"{net.name}.onnx")
    np.savez_compressed(args.out / "images.npz", x=tx[:IMAGES], y=ty[:IMAGES])


if __name__ == "__main__":
    main()
