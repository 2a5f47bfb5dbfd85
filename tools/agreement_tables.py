"""Tables of agreement thresholds and guards, beside those of CoMPAQt (OOPSLA 2025).

    python3 tools/agreement_tables.py NETWORKS [--quaver target/release/quaver] [--work FOLDER] [--only PART]

NETWORKS is what tools/train_agreement.py wrote: NAME.onnx, NAME_train.npz and NAME_test.npz (x, y). For each network and scheme of the paper's Table 1 it
quantizes with 8, 12 and 16 bits, proves thresholds for all classes, counts the test rows whose class is guaranteed, and builds and runs guards.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# (network, schemes, rows of the paper's Table 1: guaranteed test rows in percent at 8, 12 and 16 bits, where it has them)
ROWS = [("adult_2x50", "W"), ("adult_2x50", "A"), ("adult_2x50", "D"), ("adult_conv", "W"), ("adult_conv", "D"),
        ("credit_2x50", "W"), ("credit_2x50", "A"), ("credit_conv", "W"), ("credit_conv", "D"),
        ("mnist_2x50", "W"), ("mnist_2x50", "D"), ("mnist_conv", "W")]
TRAINED = [("adult_2x50_qat8", "W", (8,)), ("adult_2x50_qat8", "A", (8,)), ("adult_2x50_qat8", "D", (8,)), ("adult_conv_qat8", "W", (8,)),
           ("adult_conv_qat8", "D", (8,)), ("credit_conv_qat8", "W", (8,)), ("credit_conv_qat8", "D", (8,))]
# Trained through float16, and what 4 bits give without any training for them.
FLOAT16 = [("adult_2x50_f16", "F", (16,)), ("credit_conv_f16", "F", (16,)), ("adult_conv_f16", "F", (16,))]
INT4 = [(name, scheme, (4,)) for name, scheme in ROWS if scheme == "W"]
ENSEMBLES = ["adult_2x50", "credit_conv"]
BITS = (8, 12, 16)
GRID = ["--domain", "grid:1/255"]


def run(arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(a) for a in arguments)}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Tables:
    def __init__(self, args):
        self.quaver, self.networks, self.work = args.quaver, Path(args.networks), Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)

    def data(self, name, part):
        return f"{self.networks / name}_{part}.npz:x"

    def quantize(self, name, scheme, bits):
        """CoMPAQt's schemes: activations unsigned from 0 to their largest value over all inputs (W), 0.8 of it (A), or over the training data (D); F is float16."""
        output = self.work / f"{name}_{scheme}{bits}.onnx"
        if scheme == "F":
            run([self.quaver, "quantize", self.networks / f"{name}.onnx", "--output", output, "--format", "float16", "--json"])
            return output
        ranges = {"W": ["--ranges", "proved", "--box", "0,1"], "A": ["--ranges", "proved", "--box", "0,1", "--alpha", "0.8"],
                  "D": ["--ranges", "data", "--data", self.data(name, "train")]}[scheme]
        run([self.quaver, "quantize", self.networks / f"{name}.onnx", "--output", output, "--bits", bits, "--scheme", "fitted", "--activations", bits,
             "--activation-scheme", "symmetric", *ranges, "--input-step", "1/255", "--float-outputs", "--bias", "accumulator" if bits <= 8 else "float",
             "--json"])
        return output

    def thresholds(self, name, scheme, bits):
        quantized = self.quantize(name, scheme, bits)
        start = time.time()
        found = run([self.quaver, "thresholds", self.networks / f"{name}.onnx", quantized, *GRID, "--data", self.data(name, "test"), "--timeout", "0",
                     "--json"])[-1]
        return found, time.time() - start

    def table_of_thresholds(self, rows):
        print("| network | scheme | bits | seconds, all classes | mean D | guaranteed % | same class % |\n|---|---|---|---|---|---|---|")
        means = {}
        for name, scheme, widths in rows:
            for bits in widths:
                found, seconds = self.thresholds(name, scheme, bits)
                guaranteed = 100 * found["guaranteed"] / found["rows"]
                means.setdefault(bits, []).append(guaranteed)
                print(f"| {name} | {scheme} | {bits} | {seconds:.2f} | {found['mean_proved']:.4g} | {guaranteed:.2f} | "
                      f"{100 * found['same'] / found['rows']:.2f} |", flush=True)
        for bits, all_rows in means.items():
            print(f"| mean | | {bits} | | | {np.mean(all_rows):.2f} | |")

    def guard(self, name, scheme, bits=BITS):
        folder = self.work / f"guard_{name}_{scheme}"
        stages = [self.quantize(name, scheme, b) for b in bits]
        run([self.quaver, "guard", "build", self.networks / f"{name}.onnx", *stages, *GRID, "--data", self.data(name, "test"), "--output", folder, "--json"])
        return folder

    def table_of_guards(self):
        print("| network | scheme | by 8 / 12 / 16 bits / float32, % | effective bits | rows of other class |\n|---|---|---|---|---|")
        effective = []
        for name, scheme in ROWS:
            found = run([self.quaver, "guard", "run", self.guard(name, scheme), "--inputs", self.data(name, "test"), "--check", "--json"])[-1]
            shares = " / ".join(f"{100 * a / found['rows']:.2f}" for a in found["answers"])
            effective.append(found["effective_bits"])
            print(f"| {name} | {scheme} | {shares} | {found['effective_bits']:.2f} | {found['differ']} of {found['rows']} |", flush=True)
        print(f"| mean | | | {np.mean(effective):.2f} | |")

    def table_of_ensembles(self):
        print("| network | bits | members asked | sure % | effective bits |\n|---|---|---|---|---|")
        for name in ENSEMBLES:
            members = [name] + [f"{name}_s{i}" for i in (2, 3, 4)]
            for bits in BITS:
                folder = self.work / f"ensemble_{name}_{bits}"
                first, *others = [(self.networks / f"{m}.onnx", self.quantize(m, "W", bits)) for m in members]
                for count in range(2, len(members) + 1):
                    more = [a for pair in others[:count - 1] for a in ("--member", f"{pair[0]},{pair[1]}")]
                    run([self.quaver, "guard", "build", *first, *GRID, "--data", self.data(name, "test"), *more, "--output", folder, "--json"])
                    found = run([self.quaver, "guard", "run", folder, "--inputs", self.data(name, "test"), "--json"])[-1]
                    if count == 2:
                        print(f"| {name} | {bits} | 1 | {100 * found['answers'][0] / found['rows']:.3f} | {bits:.2f} |")
                    print(f"| {name} | {bits} | {count} | {100 * found['sure'] / found['rows']:.3f} | {found['effective_bits']:.2f} |", flush=True)


def corruptions(x, rng):
    """Images in [0, 1] as multiples of 1/255, corrupted in the ways of the paper's Figure 5."""
    images = x.reshape(-1, 28, 28)
    def blur(kernel):
        k = kernel / kernel.sum()
        n = k.shape[0] // 2
        padded = np.pad(images, ((0, 0), (n, n), (n, n)), mode="edge")
        return sum(k[i, j] * padded[:, i:i + 28, j:j + 28] for i in range(k.shape[0]) for j in range(k.shape[1]))
    def impulse():
        y, noise = images.copy(), rng.random(images.shape)
        y[noise < 0.05], y[noise > 0.95] = 0, 1
        return y
    def snow():
        return np.clip(0.8 * images + 0.5 * (rng.random(images.shape) > 0.93) + 0.08, 0, 1)
    def jpeg():
        """8x8 blocks of the cosine transform with coarse steps: what JPEG loses."""
        t = np.array([[np.cos(np.pi * (j + .5) * i / 8) * (np.sqrt(1 / 8) if i == 0 else .5) for j in range(8)] for i in range(8)])
        y = np.pad(images, ((0, 0), (2, 2), (2, 2)), mode="edge") * 255 - 128
        y = y.reshape(-1, 4, 8, 4, 8).transpose(0, 1, 3, 2, 4)
        step = 30 + 12 * np.add.outer(np.arange(8), np.arange(8))
        y = t.T @ (np.round(t @ y @ t.T / step) * step) @ t
        y = (y.transpose(0, 1, 3, 2, 4).reshape(-1, 32, 32)[:, 2:-2, 2:-2] + 128) / 255
        return np.clip(y, 0, 1)
    disk = (np.add.outer(np.arange(-2, 3) ** 2, np.arange(-2, 3) ** 2) <= 5).astype(float)
    made = {"defocus blur": blur(disk), "motion blur": blur(np.eye(5)), "impulse noise": impulse(), "snow": snow(), "JPEG": jpeg()}
    return {name: (np.round(y * 255) / 255).reshape(x.shape).astype(np.float32) for name, y in made.items()}


def corrupted(tables):
    print("| network | scheme | corruption | by 8 / 12 / 16 bits / float32, % | effective bits | rows of other class |\n|---|---|---|---|---|---|")
    for name, scheme in [r for r in ROWS if r[0].startswith("mnist")]:
        x = np.load(tables.networks / f"{name}_test.npz")["x"]
        folder = tables.guard(name, scheme)
        for kind, y in corruptions(x, np.random.default_rng(0)).items():
            path = tables.work / "corrupted.npy"
            np.save(path, y)
            found = run([tables.quaver, "guard", "run", folder, "--inputs", path, "--check", "--json"])[-1]
            shares = " / ".join(f"{100 * a / found['rows']:.2f}" for a in found["answers"])
            print(f"| {name} | {scheme} | {kind} | {shares} | {found['effective_bits']:.2f} | {found['differ']} of {found['rows']} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks")
    parser.add_argument("--quaver", default="target/release/quaver")
    parser.add_argument("--work", default="agreement_tables")
    parser.add_argument("--only", choices=["thresholds", "trained", "float16", "int4", "guards", "ensembles", "corrupted"])
    args = parser.parse_args()
    tables = Tables(args)
    parts = {"thresholds": lambda: tables.table_of_thresholds([(n, s, BITS) for n, s in ROWS]), "trained": lambda: tables.table_of_thresholds(TRAINED),
             "float16": lambda: tables.table_of_thresholds(FLOAT16), "int4": lambda: tables.table_of_thresholds(INT4),
             "guards": tables.table_of_guards, "ensembles": tables.table_of_ensembles, "corrupted": lambda: corrupted(tables)}
    for name, part in parts.items():
        if args.only in (None, name):
            print(f"\n## {name}\n")
            part()


if __name__ == "__main__":
    main()
