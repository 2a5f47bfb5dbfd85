"""Thresholds by bounds and by the mixed-integer programs of CoMPAQt (OOPSLA 2025, section 5.1 and table 6), in one run.

    python3 tools/threshold_engines.py FLOAT.onnx Q8.onnx Q12.onnx Q16.onnx [--quaver target/release/quaver] [--highs LIB] [--timeout 60] [--plot FILE.svg]

For each quantized network: our bounds, and the programs in the paper's four variants; all on the whole box, for all classes. Prints the mean bound on a class
after 1, 10 and all seconds, and what HiGHS itself reports (no proof); draws the bounds over time.
"""
import argparse
import json
import math
import subprocess
import time
from pathlib import Path

ENGINES = [("bounds", []),
           ("programs (M0)", ["--engine", "milp", "--milp-variant", "programs"]),
           ("with relations (M0+R)", ["--engine", "milp", "--milp-variant", "relations"]),
           ("and parallelograms (M0+R+P)", ["--engine", "milp", "--milp-variant", "parallelogram"]),
           ("and trapezoids", ["--engine", "milp", "--milp-variant", "full"])]
COLOURS = ["#0b6e4f", "#c44900", "#7a4fbf", "#1f77b4", "#888888"]


def run(args, quantized, options):
    command = [args.quaver, "--json", "thresholds", args.float, quantized, "--timeout", str(args.timeout), *options]
    if "milp" in options:
        command += ["--milp-report", "--milp-relation-time", str(args.relation_time)]
        command += ["--highs", args.highs] if args.highs else []
    start = time.perf_counter()
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = json.loads(lines[-1])
    found["wall"] = time.perf_counter() - start
    return found


def at(steps, seconds):
    """The bound that is known at a time."""
    known = [d for t, d in steps if d is not None and t <= seconds]
    return min(known) if known else math.inf


def plot(path, curves, timeout):
    """Three panels side by side, log scales."""
    width, height, left, top = 300, 220, 50, 30
    finite = [d for _, parts in curves for _, steps in parts for _, d in steps if d]
    lo, hi = math.log10(min(finite)) - 0.1, math.log10(max(finite)) + 0.1
    first = math.log10(0.01)
    x = lambda t: (math.log10(max(t, 0.01)) - first) / (math.log10(timeout) - first) * width
    y = lambda d: (hi - math.log10(d)) / (hi - lo) * height
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(curves) * (width + left) + 20} {height + 120}" '
           'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for k, (title, parts) in enumerate(curves):
        out.append(f'<g transform="translate({left + k * (width + left)},{top})"><text x="0" y="-10">{title}</text>'
                   f'<rect width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for power in range(math.ceil(lo), math.floor(hi) + 1):
            out.append(f'<line x2="{width}" y1="{y(10 ** power):.1f}" y2="{y(10 ** power):.1f}" stroke="#ddd"/>'
                       f'<text x="-6" y="{y(10 ** power) + 4:.1f}" text-anchor="end">{10.0 ** power:g}</text>')
        for seconds in (0.01, 0.1, 1, 10, 100, 1000):
            if seconds <= timeout:
                out.append(f'<text x="{x(seconds):.1f}" y="{height + 14}" text-anchor="middle">{seconds:g} s</text>')
        for (name, steps), colour in zip(parts, COLOURS):
            points, last = [], None
            for t, d in [s for s in steps if s[1]]:
                points += ([f"{x(t):.1f},{y(last):.1f}"] if last else []) + [f"{x(t):.1f},{y(d):.1f}"]
                last = d
            points += [f"{width},{y(last):.1f}"] if last else []
            out.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        out.append("</g>")
    for i, (name, _) in enumerate(curves[0][1]):
        out.append(f'<g transform="translate({left + 200 * i},{height + top + 50})"><rect width="12" height="3" y="-4" fill="{COLOURS[i]}"/>'
                   f'<text x="18">{name}</text></g>')
    Path(path).write_text("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float")
    parser.add_argument("quantized", nargs="+")
    parser.add_argument("--quaver", default="target/release/quaver")
    parser.add_argument("--highs")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--relation-time", type=float, default=10.0)
    parser.add_argument("--plot")
    args = parser.parse_args()
    curves = []
    print("| network | engine | mean d after 1 s | after 10 s | at the end | HiGHS reports | seconds |\n|---|---|---|---|---|---|---|")
    for quantized in args.quantized:
        name, parts = Path(quantized).stem, []
        for engine, options in ENGINES:
            found = run(args, quantized, options)
            steps = found["over_time"]
            reported = found["reported"]
            reported = f"{sum(max(r, 0) for r in reported) / len(reported):.4g}" if reported and None not in reported else ""
            cells = [f"{at(steps, t):.4g}" for t in (1, 10, math.inf)]
            print(f"| {name} | {engine} | {' | '.join(cells)} | {reported} | {found['wall']:.1f} |", flush=True)
            parts.append((engine, steps))
        curves.append((name, parts))
    if args.plot:
        plot(args.plot, curves, args.timeout)


if __name__ == "__main__":
    main()
