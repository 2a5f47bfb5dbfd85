#!/usr/bin/env python3
"""A differentiable upper bound on how far a quantised network's outputs drift from the float network's, over the whole box [0,1]^d.

The quantised network rounds weights (symmetric, scale 2 max|w| / (2^b - 1) per layer) and clamps and rounds inputs and hidden activations
(unsigned, scale top / (2^b - 1)). With D[c][k] >= (q_c - q_k) - (f_c - f_k) for every x of the box, q's class c is f's class whenever q's lead
over each k exceeds D[c][k].

The bound goes backward. The difference at a ReLU's output is a factor in [0,1] times that at its input (1 or 0 where the sign is known), so the
weight with which an error of a neuron reaches q_c - q_k lies in an interval that interval arithmetic carries back layer by layer. Each source of
error (rounding half a step, clamping, a weight's rounding times its largest input) counts with the worst weight.
"""
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Conv:
    channels: int
    kernel: tuple
    stride: tuple


class Net(nn.Module):
    """Convolutions without padding, then dense layers, with ReLU between all of them."""

    def __init__(self, shape, convs, hidden, classes):
        super().__init__()
        self.shapes, self.convs, layers = [tuple(shape)], convs, []
        for c in convs:
            channels, h, w = self.shapes[-1]
            layers.append(nn.Conv2d(channels, c.channels, c.kernel, c.stride))
            self.shapes.append((c.channels, (h - c.kernel[0]) // c.stride[0] + 1, (w - c.kernel[1]) // c.stride[1] + 1))
        for width in (*hidden, classes):
            layers.append(nn.Linear(int(torch.tensor(self.shapes[-1]).prod()), width))
            self.shapes.append((width,))
        self.layers = nn.ModuleList(layers)

    def apply_layer(self, i, x, w, b=None):
        return F.conv2d(x, w, b, self.convs[i].stride) if i < len(self.convs) else F.linear(x.flatten(1), w, b)

    def transpose(self, i, a, w):
        """The weights of layer i's inputs from the weights `a` [pairs, ...] of its outputs."""
        if i >= len(self.convs):
            return (a @ w).reshape(-1, *self.shapes[i])
        c = self.convs[i]
        rest = [(n - k) % s for n, k, s in zip(self.shapes[i][1:], c.kernel, c.stride)]
        return F.conv_transpose2d(a, w, stride=c.stride, output_padding=rest)

    def forward(self, x):
        return self.hidden(x)[1]

    def hidden(self, x):
        """The hidden layers' activations and the outputs."""
        x, acts = x.reshape(-1, *self.shapes[0]), []
        for i, layer in enumerate(self.layers):
            x = self.apply_layer(i, x, layer.weight, layer.bias)
            if i + 1 < len(self.layers):
                x = F.relu(x)
                acts.append(x)
        return acts, x

    def quantized(self, x, bits, tops):
        """The outputs of the quantised network."""
        x, levels = x.reshape(-1, *self.shapes[0]), 2 ** bits - 1
        for i, layer in enumerate(self.layers):
            step = tops[i] / levels
            x = step * torch.round(F.relu(x) / step).clamp(0, levels)
            x = self.apply_layer(i, x, rounded(layer.weight, bits), layer.bias)
        return x


def rounded(w, bits):
    """The weights on their grid; the gradient passes through the rounding to the scale only."""
    step = 2 * w.abs().max() / (2 ** bits - 1)
    return step * torch.round(w / step).clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1).detach()


def largest(values, budget):
    """max of values . x over 0 <= x <= 1 with sum x <= budget (values >= 0, last axis; None: no budget): the fractional knapsack."""
    if budget is None or budget >= values.shape[-1]:
        return values.sum(-1)
    ordered, whole = values.sort(-1, descending=True).values, int(budget)
    return ordered[..., :whole].sum(-1) + (budget - whole) * ordered[..., whole]


def ranges(net, budget=None):
    """Lower and upper bounds before each ReLU, over the box (whose rows sum to at most `budget`)."""
    low, high, out = None, torch.ones(1, *net.shapes[0]), []
    for i, layer in enumerate(net.layers[:-1]):
        w, b = layer.weight, layer.bias
        if i == 0 and budget is not None and not net.convs:
            lo, hi = b[None] - largest(F.relu(-w), budget), b[None] + largest(F.relu(w), budget)
        else:
            low = torch.zeros_like(high) if low is None else low
            lo = net.apply_layer(i, low, F.relu(w), b) - net.apply_layer(i, high, F.relu(-w))
            hi = net.apply_layer(i, high, F.relu(w), b) - net.apply_layer(i, low, F.relu(-w))
        out.append((lo, hi))
        low, high = F.relu(lo), F.relu(hi)
    return out


def tops(net, scheme, acts=None):
    """The largest value of inputs and of each hidden layer that the scheme represents: W (over the box), A (0.8 of that), D (over the data)."""
    if scheme == "D":
        return [torch.tensor(1.)] + [a.max() for a in acts]
    return [torch.tensor(1.)] + [(0.8 if scheme == "A" else 1.) * F.relu(hi).max() for _, hi in ranges(net)]


def worst(lo, hi, t_lo, t_hi):
    """The largest product of a weight in [lo, hi] and an error in [t_lo, t_hi] (t_lo <= 0 <= t_hi)."""
    return torch.maximum(torch.maximum(hi * t_hi, lo * t_lo), torch.maximum(lo * t_hi, hi * t_lo))


def drift(net, bits, top, bounds, pairs, input_step=1., budget=None):
    """For each pair (c, k) the bound on (q_c - q_k) - (f_c - f_k). `top`: as `tops`; `bounds`: as `ranges`; `input_step`: which part of half a
    step the inputs may be off by (0: the inputs lie on the grid)."""
    levels, (c, k), last = 2 ** bits - 1, pairs, len(net.layers) - 1
    wq = [rounded(layer.weight, bits) for layer in net.layers]
    off = [q - layer.weight for q, layer in zip(wq, net.layers)]
    highs = [torch.ones(1, *net.shapes[0])] + [F.relu(hi) for _, hi in bounds]
    total = (F.relu(off[last][c] - off[last][k]) * highs[last].flatten(1)).sum(1)
    lo = hi = (wq[last][c] - wq[last][k]).reshape(-1, *net.shapes[last])
    for i in range(last - 1, -2, -1):  # layer i's outputs carry the weights [lo, hi]
        step = top[i + 1] / levels
        half = step / 2 * (input_step if i < 0 else 1.)
        total = total + worst(lo, hi, -half - F.relu(highs[i + 1] - top[i + 1]), half).flatten(1).sum(1)
        if i < 0:
            return total
        z_lo, z_hi = bounds[i]
        lo = torch.where(z_lo >= 0, lo, lo.clamp(max=0)) * (z_hi > 0)
        hi = torch.where(z_lo >= 0, hi, hi.clamp(min=0)) * (z_hi > 0)
        plus, minus = F.relu(off[i]), F.relu(-off[i])
        if i == 0 and budget is not None and not net.convs:
            up, down = largest(plus, budget)[None], largest(minus, budget)[None]
        else:
            up, down = net.apply_layer(i, highs[i], plus), net.apply_layer(i, highs[i], minus)
        term = worst(lo, hi, -down, up).flatten(1).sum(1)
        if i == 0 and budget is not None:
            joint = net.transpose(i, F.relu(hi), plus) + net.transpose(i, F.relu(-lo), minus)
            if not bool(((lo > 0) | (hi < 0)).any()):
                term = torch.minimum(term, largest(joint.flatten(1), budget))
        total = total + term
        p, n = F.relu(wq[i]), F.relu(-wq[i])
        lo, hi = net.transpose(i, lo, p) - net.transpose(i, hi, n), net.transpose(i, hi, p) - net.transpose(i, lo, n)


def ordered_pairs(classes):
    """All (c, k) with c != k as two index vectors."""
    return torch.tensor([(c, k) for c in range(classes) for k in range(classes) if c != k]).T


def thresholds(net, bits, scheme, acts=None, input_step=1., budget=None):
    """The matrix D of a scheme, zeros on the diagonal; `budget`: for rows whose sum is at most this."""
    classes = net.shapes[-1][0]
    pairs = ordered_pairs(classes)
    d = drift(net, bits, tops(net, scheme, acts), ranges(net, budget), pairs, input_step, budget)
    return torch.zeros(classes, classes).index_put((pairs[0], pairs[1]), d)


def accepted(outputs, d):
    """Which rows the guard accepts: the lead over each class exceeds the threshold."""
    c = outputs.argmax(1)
    lead = outputs.gather(1, c[:, None]) - outputs - d[c]
    return (lead.scatter(1, c[:, None], torch.inf) > 0).all(1)
