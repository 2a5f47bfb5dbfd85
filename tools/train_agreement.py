#!/usr/bin/env python3
"""Train the float networks on which agreement thresholds are measured, so that their quantised versions provably stay close to them.

Cross entropy plus `penalty` times the mean of an upper bound of the thresholds D[c][k] at 8 bits (agreement_bound.py), which is differentiated:
it counts the rounding of weights, inputs and activations in the worst case over the whole box [0,1]^d. The penalty also draws weights to the
points of their 8-bit grid, where their rounding costs nothing. Neuron (channel) 0 of a hidden layer may be a constant that nothing reads and that
alone sets the layer's range (`anchor`). Adam with decoupled weight decay, a cosine from the first learning rate to 0, gradients clipped to norm 1.

Networks: two hidden layers of 50 neurons or two convolutions for Adult, Credit and MNIST; NAME_plain (no penalty, no constant neuron), NAME_qat8 and
NAME_f16 (float weights trained through 8-bit rounding of weights and activations, or through float16), NAME_s2 to NAME_s4 (other seeds); acas_1 to
acas_5 (two hidden layers of 25 neurons that imitate the ACAS Xu networks of previous advisory 1 to 5).

Writes NAME.onnx, NAME_train.npz (at most 20000 rows) and NAME_test.npz (`x` in the model's shape, `y`), and a line of summary.tsv: accuracies and the
share of test rows (%) accepted by thresholds from the bound. W, A, D: ranges proved over the box, 0.8 of those, ranges of the training rows. one: one
threshold per pair of classes; cell: one for each of eight ranges of the row's sum; grid: that, for inputs k/255 only (exact at 8 and 16 bits).

Needs: numpy, torch, onnx. Fixed seeds: the same versions on the same CPU train the same networks.
"""
import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

import agreement_bound as ab
import agreement_data as ad
import make_models as mm

F32 = np.float32
WIDTHS = {"adult": 14, "credit": 23, "mnist": 784}
TRAIN_ROWS, CELLS = 20000, 8


@dataclass(frozen=True)
class Spec:
    """A network and how it is trained."""
    name: str
    data: str
    convs: tuple = ()
    hidden: tuple = (50, 50)
    seed: int = 1
    epochs: int = 30
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-4
    penalty: float = 0.  # the factor of the mean threshold
    anchor: float = 0.  # the constant neuron's part of the largest value of the others (0: no such neuron)
    input_step: float = 1.  # the part of half a step by which inputs may be off
    budget: float = 0.  # bound the thresholds for rows that sum to at most this (0: the whole box)
    mode: str = ""  # qat8 or f16: the arithmetic of the forward pass

    @property
    def shape(self):
        size = WIDTHS.get(self.data, 5)
        return ((1, 28, 28) if size == 784 else (1, 1, size)) if self.convs else (size,)

    @property
    def classes(self):
        return {"adult": 2, "credit": 2, "mnist": 10}.get(self.data, 5)


TABLE_CONV = {"convs": (ab.Conv(8, (1, 3), (1, 1)), ab.Conv(8, (1, 3), (1, 2))), "hidden": ()}
IMAGE_CONV = {"convs": (ab.Conv(8, (4, 4), (2, 2)), ab.Conv(16, (4, 4), (2, 2))), "hidden": ()}
BASE = (
    Spec("adult_2x50", "adult", penalty=0.006, anchor=1.26),
    Spec("credit_2x50", "credit", penalty=0.004, anchor=1.26),
    Spec("mnist_2x50", "mnist", penalty=0.008, anchor=1., input_step=0.25, budget=200.),
    Spec("adult_conv", "adult", **TABLE_CONV, penalty=0.003, anchor=1.),
    Spec("credit_conv", "credit", **TABLE_CONV, penalty=0.002, anchor=1.),
    Spec("mnist_conv", "mnist", **IMAGE_CONV, penalty=0.004, input_step=0.25, budget=200., epochs=14),
)
ACAS = tuple(Spec(f"acas_{k}", f"acas{k}", hidden=(25, 25), epochs=20, batch=1024, rate=1e-2, penalty=0.001) for k in range(1, 6))


def variants(base):
    named = {s.name: s for s in base}
    yield from (replace(s, name=f"{s.name}_plain", penalty=0., anchor=0.) for s in base)
    for mode in ("qat8", "f16"):
        yield from (replace(named[n], name=f"{n}_{mode}", mode=mode) for n in ("adult_2x50", "adult_conv", "credit_conv"))
    yield from (replace(named[n], name=f"{n}_s{seed}", seed=seed) for n in ("adult_2x50", "credit_conv") for seed in (2, 3, 4))


SPECS = BASE + ACAS + tuple(variants(BASE))


def straight(x, rounded):
    """The value `rounded` with the gradient of `x`."""
    return x + (rounded - x).detach()


def forward(net, x, mode):
    """Hidden activations and outputs in the arithmetic of `mode`."""
    if not mode:
        return net.hidden(x)
    half = mode == "f16"
    x, acts = x.reshape(-1, *net.shapes[0]), []
    for i, layer in enumerate(net.layers):
        w, b = layer.weight, layer.bias
        step = (x.max() / 255).clamp(min=1e-9)
        x = straight(x, x.half().float() if half else torch.round(x / step) * step)
        w = straight(w, w.half().float() if half else ab.rounded(w, 8))
        x = net.apply_layer(i, x, w, b)
        x = straight(x, x.half().float()) if half else x
        if i + 1 < len(net.layers):
            x = F.relu(x)
            acts.append(x)
    return acts, x


def loss_of(net, spec, x, y, ramp):
    """CE(z, y) + penalty mean(D); the penalty grows with `ramp` from 0 to 1."""
    loss = F.cross_entropy(forward(net, x, spec.mode)[1], y)
    if ramp * spec.penalty > 0:
        d = ab.thresholds(net, 8, "W", None, spec.input_step, spec.budget or None)
        loss = loss + ramp * spec.penalty * d.sum() / (len(d) * (len(d) - 1))
    return loss


@torch.no_grad()
def hold_anchors(net, factor):
    """Keep the first neuron (channel) of each hidden layer at a constant, `factor` times the largest value of the others over the box, that nothing
    reads: it alone sets the layer's range, so neither a range from data nor (with 1.25 or more) 0.8 of it clamps the others."""
    for i, layer in enumerate(net.layers[:-1]):
        following = net.layers[i + 1].weight
        layer.weight[0] = 0.
        following[:, :following[0].numel() // layer.weight.shape[0] if following.dim() == 2 else 1] = 0.
    for i in range(len(net.layers) - 1):
        net.layers[i].bias[0] = factor * ab.ranges(net)[i][1].transpose(0, 1)[1:].max()


def train(spec, data):
    """The network, trained; the penalty begins after a twentieth of the steps and is whole after two fifths."""
    torch.manual_seed(spec.seed)
    net = ab.Net(spec.shape, spec.convs, spec.hidden, spec.classes)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    steps, step = spec.epochs * -(-len(x) // spec.batch), 0
    optimizer = torch.optim.AdamW(net.parameters(), spec.rate, weight_decay=spec.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(spec.epochs):
        for rows in torch.randperm(len(x)).split(spec.batch):
            ramp = min(1., max(0., step / steps - 0.05) / 0.35)
            optimizer.zero_grad()
            loss_of(net, spec, x[rows], y[rows], ramp).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
            optimizer.step()
            schedule.step()
            step += 1
            if spec.anchor:
                hold_anchors(net, spec.anchor)
    return net.eval()


def percent(flags):
    return 100 * flags.double().mean().item()


def accuracy(net, x, y):
    return percent(torch.cat([net(p).argmax(1) for p in torch.from_numpy(x).split(4096)]) == torch.from_numpy(y))


def accepted_by_cell(net, q, sums, cuts, bits, scheme, acts, input_step):
    """Accepted rows with a threshold of its own for each range of the row's sum."""
    out, before = torch.zeros(len(q), dtype=torch.bool), -1.
    for cut in cuts + [None]:
        here = (sums > before) & (sums <= (np.inf if cut is None else cut))
        out[here] = ab.accepted(q[here], ab.thresholds(net, bits, scheme, acts, input_step, cut))
        before = cut
    return out


def grid_part(bits):
    """The largest error of rounding k/255, in halves of a step."""
    x = np.arange(256) / 255 * (2 ** bits - 1)
    return float(2 * np.abs(x - np.rint(x)).max())


@torch.no_grad()
def report(net, data, on_grid, bits=(8, 12, 16)):
    """Accuracies and shares of accepted test rows, by name of column."""
    out = {"train_acc": accuracy(net, data.x, data.y), "test_acc": accuracy(net, data.test_x, data.test_y)}
    tx = torch.from_numpy(data.test_x)
    acts = [torch.stack(column) for column in zip(*([a.max() for a in net.hidden(p)[0]] for p in torch.from_numpy(data.x).split(4096)))]
    sums, f = tx.sum(1), net(tx).argmax(1)
    cuts = [float(v) for v in torch.quantile(sums, torch.linspace(0, 1, CELLS + 1)[1:-1])]
    for scheme in "WAD":
        for b in bits:
            q = net.quantized(tx, b, ab.tops(net, scheme, acts))
            out[f"{scheme}{b}_same"] = percent(q.argmax(1) == f)
            d = ab.thresholds(net, b, scheme, acts)
            out[f"{scheme}{b}_d"] = (d.sum() / (len(d) * (len(d) - 1))).item()
            out[f"{scheme}{b}_one"] = percent(ab.accepted(q, d))
            for tag, part in (("cell", 1.), ("grid", grid_part(b) if on_grid else 1.)):
                out[f"{scheme}{b}_{tag}"] = percent(accepted_by_cell(net, q, sums, cuts, b, scheme, acts, part))
    return out


def to_onnx(net, name):
    nodes, inits, cur = [], {}, "x"
    for i, layer in enumerate(net.layers):
        last = i + 1 == len(net.layers)
        inits[f"w{i}"], inits[f"b{i}"] = (p.detach().numpy().astype(F32) for p in (layer.weight, layer.bias))
        out = "logits" if last else f"z{i}"
        if i < len(net.convs):
            c = net.convs[i]
            nodes.append(helper.make_node("Conv", [cur, f"w{i}", f"b{i}"], [out], name=f"conv{i}", kernel_shape=c.kernel, strides=c.stride))
        else:
            if i and i == len(net.convs):
                inits["flat"] = np.array([1, -1])
                nodes.append(helper.make_node("Reshape", [cur, "flat"], ["f"], name="reshape"))
                cur = "f"
            nodes.append(helper.make_node("Gemm", [cur, f"w{i}", f"b{i}"], [out], name=f"gemm{i}", transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"h{i}"], name=f"relu{i}"))
            cur = f"h{i}"
    return mm.make_float_model(name, (1, *net.shapes[0]), nodes, inits, net.shapes[-1][0])


@torch.no_grad()
def from_onnx(spec, path):
    """The network of a file that `to_onnx` made."""
    net = ab.Net(spec.shape, spec.convs, spec.hidden, spec.classes)
    par = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for i, layer in enumerate(net.layers):
        layer.weight.copy_(torch.tensor(par[f"w{i}"]))
        layer.bias.copy_(torch.tensor(par[f"b{i}"]))
    return net.eval()


def write(path, put):
    """Write under a name that starts with a dot, then rename."""
    part = path.with_name("." + path.name)  # keeps the ending, which numpy would add
    put(part)
    os.replace(part, path)


def add_line(path, spec, line):
    """Replace or append the network's line of the table."""
    head = "\t".join(("name", "seed", "penalty", "anchor", *line))
    rows = {r.split("\t")[0]: r for r in path.read_text().splitlines()[1:]} if path.exists() else {}
    rows[spec.name] = "\t".join((spec.name, str(spec.seed), f"{spec.penalty:g}", f"{spec.anchor:g}", *(f"{v:.3f}" for v in line.values())))
    write(path, lambda p: p.write_text("\n".join((head, *rows.values())) + "\n"))


def with_fields(spec, fields):
    """The specification with FIELD=VALUE for each of `fields`."""
    for field in fields:
        key, value = field.split("=")
        spec = replace(spec, **{key: type(getattr(spec, key))(value)})
    return spec


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True, help="folder that has adult/, credit/, mnist/ and acasxu/")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--only", nargs="+", choices=[s.name for s in SPECS], metavar="NAME", help="these networks only (default all)")
    ap.add_argument("--quick", action="store_true", help="one epoch each, to see that all works")
    ap.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="other hyperparameters (fields of Spec)")
    ap.add_argument("--measure", action="store_true", help="do not train: measure the networks that are in OUT")
    args = ap.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for spec in (s for s in SPECS if not args.only or s.name in args.only):
        spec = with_fields(spec, args.set + ["epochs=1"] * args.quick)
        data, began = ad.read(args.data, spec.data), time.time()
        net = from_onnx(spec, args.out / f"{spec.name}.onnx") if args.measure else train(spec, data)
        line = report(net, data, spec.data in WIDTHS)
        shares = [f"{s}_{t}" for s in ("W8", "W12", "W16", "A16", "D16") for t in ("one", "grid")]
        shown = " ".join(f"{k}={line[k]:.2f}" for k in ("test_acc", *shares))
        print(f"{spec.name:18s} {time.time() - began:4.0f} s  {shown}", flush=True)
        add_line(args.out / "summary.tsv", spec, line)
        if args.measure:
            continue
        write(args.out / f"{spec.name}.onnx", lambda p: onnx.save(to_onnx(net, spec.name), p))
        for part, x, y in (("train", data.x[:TRAIN_ROWS], data.y[:TRAIN_ROWS]), ("test", data.test_x, data.test_y)):
            write(args.out / f"{spec.name}_{part}.npz", lambda p: np.savez_compressed(p, x=x.reshape(-1, *net.shapes[0]), y=y))


if __name__ == "__main__":
    main()
