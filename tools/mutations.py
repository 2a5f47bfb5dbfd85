#!/usr/bin/env python3
"""Plants soundness bugs in the prover, one at a time, and counts what the checker lets pass.

For each bug the source is copied, changed and built with the attack switched off (which would find most counterexamples before a bug can say
`holds`), and asked about instances that the true program has refuted with an executed counterexample. Every `holds` among the answers is
wrong; the checker, built from the true source, must refuse its certificate. Needs an hour on two cores and a folder to build in.

    python3 tools/mutations.py --build /tmp/mutations > table.md
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "crates/quaver/src"

# Without these no witness is ever confirmed, so that wrong proofs are not hidden by true counterexamples.
WITHOUT_ATTACK = [("verify/decide.rs", "let confirm = |x: &[f64]| self.confirm(x);", "let confirm = |_: &[f64]| None;")]

# (what is wrong, file, text, text instead)
BUGS = [
    ("a walk forgets its error term", "bounds/backward.rs", "let bound = sub_down(self.constant[r], error);", "let bound = self.constant[r] + error - error;"),
    ("a walk adds its error term", "bounds/backward.rs", "let bound = sub_down(self.constant[r], error);", "let bound = self.constant[r] + 1e9 * error;"),
    ("lower and upper slopes are swapped", "bounds/backward.rs", "*c = up * lower.slope + down * upper.slope;", "*c = up * upper.slope + down * lower.slope;"),
    ("the tuned upper line's offset is left out", "bounds/tuned/lines.rs", "*sum += up * lo + down * uo;", "*sum += up * lo;"),
    ("the box's larger end is taken", "bounds/backward.rs", "*sum += if low < high { low } else { high };", "*sum += low;"),
    ("biases are left out of walks", "bounds/backward.rs", "sums.add(run, bias, gamma * bias.abs() + errors[i]);", "sums.add_error(run, gamma * bias.abs() + errors[i]);"),
    ("a lower line goes through the highest corner", "bounds/relax.rs", "let offset = points.iter().map(|p| sub_down(p.1, mul_up(slope, p.0))).fold(f64::INFINITY, f64::min);", "let offset = points.iter().map(|p| sub_down(p.1, mul_up(slope, p.0))).fold(f64::NEG_INFINITY, f64::max);"),
    ("an upper line goes through the lowest corner", "bounds/relax.rs", "let offset = points.iter().map(|p| sub_up(p.1, mul_down(slope, p.0))).fold(f64::NEG_INFINITY, f64::max);", "let offset = points.iter().map(|p| sub_up(p.1, mul_down(slope, p.0))).fold(f64::INFINITY, f64::min);"),
    ("a blend is moved inward", "bounds/relax.rs", "let offset = mix(a.offset, b.offset) + side * (8.0", "let offset = mix(a.offset, b.offset) - side * (8e12"),
    ("a constraint's constant has the wrong sign", "bounds/tuned/mod.rs", "sums.sum[*row] -= beta * split.side * split.at;", "sums.sum[*row] += beta * split.side * split.at;"),
    ("multipliers may be negative", "bounds/tuned/mod.rs", "bound.means.step(gradient, debias)).max(0.0) as f32);", "bound.means.step(gradient, debias)) as f32).abs() * -1.0;"),
    ("the second half of a split of a function is dropped", "verify/search/neurons.rs", "step.open.extend(halves);", "step.open.extend(halves.take(1));"),
    ("the second half of a split of the input is dropped", "verify/search/inputs.rs", "for (_, (region, number)) in halves {", "for (_, (region, number)) in halves.into_iter().take(1) {"),
    ("the halves of a split of a function leave a gap", "bounds/split.rs", "Some([split(1.0, below), split(-1.0, above)])", "Some([split(1.0, below - (below - l) / 4.0), split(-1.0, above + (u - above) / 4.0)])"),
    ("a bound on an element is the best part's", "bounds/sharpen.rs", "self.leaves.iter().map(|l| l.bound).fold(f64::INFINITY, f64::min)", "self.leaves.iter().map(|l| l.bound).fold(f64::NEG_INFINITY, f64::max)"),
    ("bounds on elements are a hundredth too narrow", "bounds/mod.rs", "let (lo, hi) = crate::net::onto_grid(grid, found[0], -found[1]);", "let (lo, hi) = crate::net::onto_grid(grid, found[0] + 0.02 * found[0].abs(), -found[1]);"),
    ("bounds on integers are a unit too narrow", "net/exec.rs", "Grid::Integer => (lo.ceil(), hi.floor()),", "Grid::Integer => (lo.ceil() + 1.0, hi.floor().max(lo.ceil() + 1.0)),"),
    ("a goal is excluded within a tolerance", "verify/goal.rs", "    pub fn excluded(&self, gap: f64) -> bool {\n        gap > 0.0", "    pub fn excluded(&self, gap: f64) -> bool {\n        gap > -0.5"),
    ("only the first goal must be excluded", "verify/decide.rs", "(0..self.goals.len()).collect()", "(0..1).collect()"),
    ("an interval ignores the radius", "net/exec.rs", "map.apply(Sign::Absolute, &spread, rows, &mut radius, true);\n    }\n    for (i, r)", "map.apply(Sign::Absolute, &spread.iter().map(|s| s * 0.5).collect::<Vec<f64>>(), rows, &mut radius, true);\n    }\n    for (i, r)"),
    ("a requantization's thresholds are off by eight", "model/profile/ort.rs", "let rounded = |a: i64| ((a as f32 * m)", "let rounded = |a: i64| (((a + 8) as f32 * m)"),
    ("a requantization truncates", "model/profile/ort.rs", "let rounded = |a: i64| ((a as f32 * m).round_ties_even()", "let rounded = |a: i64| ((a as f32 * m).trunc()"),
    ("a step's corner is one argument late", "net/scalar.rs", "(s.cuts[k].neighbours(grid).0.clamp(l, u), s.values[k])", "((s.cuts[k].neighbours(grid).0 - 40.0).clamp(l, u), s.values[k])"),
]

# Models, inputs, labels, profile and radii near which classes change.
WORK = [
    ("iris_float.onnx", "iris_x.npy", "iris_y.npy", "real", "0.1,0.3"),
    ("digits_mlp_float.onnx", "digits_x.npy", "digits_y.npy", "real", "0.05,0.08"),
    ("digits_conv_float.onnx", "digits_x.npy", "digits_y.npy", "real", "0.05,0.08"),
    ("digits_mlp_qdq.onnx", "digits_x.npy", "digits_y.npy", "ort-fused", "0.05,0.08"),
    ("digits_conv_qdq.onnx", "digits_x.npy", "digits_y.npy", "ort-fused", "0.05,0.08"),
]


def build(folder, changes):
    """The program with some changes; nothing if it does not compile."""
    for name in ("crates", "models"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, folder / name)
    for bug in BUGS:
        # A file that is as before again is older than what was built from it.
        os.utime(folder / SOURCE / bug[1])
    for file, old, new in changes:
        path = folder / SOURCE / file
        text = path.read_text()
        if text.count(old) != 1:
            sys.exit(f"{file}: `{old}` is there {text.count(old)} times")
        path.write_text(text.replace(old, new))
    environment = dict(os.environ, CARGO_PROFILE_RELEASE_DEBUG="0", CARGO_PROFILE_RELEASE_OPT_LEVEL="2",
                       CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16", CARGO_PROFILE_RELEASE_LTO="off", CARGO_INCREMENTAL="1", RUSTFLAGS="-Awarnings")
    done = subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "quaver-cli"], cwd=folder, env=environment)
    return folder / "target/release/quaver" if done.returncode == 0 else None


def answers(quaver, work, indices, seconds, certificates):
    """{(row, radius): verdict}; certificates go into a folder."""
    model, x, y, profile, radii = work
    command = [quaver, "robustness", model, "--inputs", x, "--labels", y, "--profile", profile, "--radius", radii, "--timeout", str(seconds),
               "--clip", "0,8" if "iris" in model else "0,1", "--json", "--indices", indices]
    if certificates:
        command += ["--certificate", certificates]
    out = subprocess.run([str(c) for c in command], cwd=ROOT / "models", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    names, found = {}, {}
    for line in map(json.loads, out.splitlines()):
        if "summary" not in line:
            radius = names.setdefault(line["radius"], len(names))
            found[line["index"], radius] = line["verdict"]
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", type=Path, required=True, help="a folder for the changed sources")
    ap.add_argument("--quaver", type=Path, default=ROOT / "target/release/quaver", help="the true program")
    ap.add_argument("--checker", type=Path, default=ROOT / "target/release/quaver-check")
    ap.add_argument("--indices", default="0..60", help="rows")
    ap.add_argument("--seconds", type=float, default=1.0, help="for each instance")
    ap.add_argument("--only", help="bugs whose description has this in it")
    args = ap.parse_args()
    args.build.mkdir(parents=True, exist_ok=True)
    truth = {work: answers(args.quaver, work, args.indices, 2, None) for work in WORK}
    violated = {work: {k for k, v in t.items() if v == "violated"} for work, t in truth.items()}
    # Only rows with a violated instance are asked about again.
    rows = {work: ",".join(str(r) for r in sorted({k[0] for k in v})[:14]) for work, v in violated.items()}
    print(f"{sum(map(len, violated.values()))} violated instances of {sum(map(len, truth.values()))}; 14 rows of each model are asked about\n")
    print("| bug | wrong `holds` | accepted by the checker |\n|---|---|---|", flush=True)
    for bug in BUGS:
        if args.only and args.only not in bug[0]:
            continue
        quaver = build(args.build, WITHOUT_ATTACK + [bug[1:]])
        if quaver is None:
            print(f"| {bug[0]} | does not compile | |", flush=True)
            continue
        wrong, accepted = 0, 0
        for work in WORK:
            with tempfile.TemporaryDirectory() as name:
                found = answers(quaver, work, rows[work], args.seconds, Path(name))
                bad = [k for k, v in found.items() if v == "holds" and k in violated[work]]
                files = [Path(name) / f"row{row}_radius{radius}" for row, radius in bad]

                def check(file):
                    certificate = file.with_suffix(".cert")
                    command = [args.checker, ROOT / "models" / work[0], file.with_suffix(".vnnlib"), certificate]
                    return certificate.exists() and subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

                with ThreadPoolExecutor(2) as pool:
                    accepted += sum(pool.map(check, files))
                wrong += len(bad)
        print(f"| {bug[0]} | {wrong} | {accepted} |", flush=True)


if __name__ == "__main__":
    main()
