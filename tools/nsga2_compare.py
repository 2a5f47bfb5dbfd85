#!/usr/bin/env python3
"""Quaver's NSGA-II beside pymoo's (0.6.2): `pip install pymoo==0.6.2`.

    python tools/nsga2_compare.py --goldens crates/quaver/tests/golden/nsga2.json
        writes what pymoo's non-dominated sorting, crowding distance and constrained domination say of random populations
    cargo build --release -p quaver --example nsga2
    python tools/nsga2_compare.py --runs 100 --binary target/release/examples/nsga2
        runs both on the same problems with many seeds and prints tables (docs/quantize-search.md)

Random numbers differ, so shares and distributions are compared: shares of runs that end at the optimum by Fisher's exact test, hypervolumes of the
last population by the Mann-Whitney test.
"""
import argparse
import json
import struct
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.optimize import minimize
from pymoo.util.dominator import Dominator
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from scipy.stats import fisher_exact, mannwhitneyu

# Reported shares of the thesis's table 1.
TABLE = {(2, 50): 30, (2, 150): 96, (2, 200): 100, (2, 250): 100, (7, 50): 0, (7, 700): 98, (7, 750): 100, (7, 800): 100}


def bits_of(x):
    return struct.unpack("<Q", struct.pack("<d", float(x)))[0]


def golden(rng):
    points, objectives = int(rng.integers(1, 25)), int(rng.integers(1, 4))
    if rng.random() < 0.5:
        values = rng.integers(0, rng.integers(2, 12), (points, objectives)).astype(float)
    else:
        values = rng.normal(size=(points, objectives))
    violations = np.where(rng.random(points) < 0.5, 0.0, rng.integers(1, 5, points) / 4)
    fronts = NonDominatedSorting().do(values)
    distance = get_crowding_function("cd")
    relation = [[Dominator.get_relation(a, b, va, vb) for b, vb in zip(values, violations)] for a, va in zip(values, violations)]
    return {
        "values": [[bits_of(v) for v in row] for row in values],
        "violations": [bits_of(v) for v in violations],
        "fronts": [[int(i) for i in front] for front in fronts],
        "crowding": [[bits_of(d) for d in distance.do(values[front])] for front in fronts],
        "relation": relation,
    }


class Needs(Problem):
    """Layer l needs needs[l] bits; the objective is the sum, and with `pareto` also a smooth loss of accuracy."""

    def __init__(self, needs, least, most, pareto):
        self.needs, self.pareto = np.array(needs), pareto
        constrained = int(self.needs.max() > least)
        super().__init__(n_var=len(needs), n_obj=1 + pareto, n_ieq_constr=constrained, xl=least, xu=most, vtype=int)

    def _evaluate(self, x, out, *args, **kwargs):
        total = x.sum(axis=1).astype(float)
        loss = (np.arange(1, x.shape[1] + 1) * 2.0 ** -x.astype(float)).sum(axis=1) / 16
        out["F"] = np.column_stack([total, loss] if self.pareto else [total])
        if self.n_ieq_constr:
            out["G"] = np.maximum(self.needs - x, 0).sum(axis=1, keepdims=True)


def algorithm(population, wide):
    p, (eta_c, eta_m), pm = (1.0, (3.0, 3.0), 1.0) if wide else (0.9, (15, 20), 0.9)
    rounded = {"vtype": float, "repair": RoundingRepair()}
    return NSGA2(population, sampling=IntegerRandomSampling(), crossover=SBX(prob=p, eta=eta_c, **rounded),
                 mutation=PM(prob=pm, eta=eta_m, **rounded), eliminate_duplicates=True)


def hypervolume(values, case):
    needs, least, most = case["needs"], case["least"], case["most"]
    span = len(needs) * (most - least)
    loss = sum(l * 2.0 ** -least for l in range(1, len(needs) + 1)) / 16
    scaled = (np.array(values) - [len(needs) * least, 0]) / [span, loss]
    return float(HV(ref_point=np.array([1.0, 1.0])).do(scaled))


def run_pymoo(job):
    case, seed = job
    problem = Needs(case["needs"], case["least"], case["most"], case["pareto"])
    result = minimize(problem, algorithm(case["population"], case["wide"]), ("n_gen", case["generations"]), seed=seed)
    population = [i for i in result.pop if i.FEAS[0]]
    if case["pareto"]:
        return hypervolume([i.F for i in population], case) if population else 0.0
    return any(np.array_equal(i.X, case["needs"]) for i in population)


def run_quaver(binary, case, runs):
    argv = [binary, ",".join(map(str, case["needs"])), f"{case['least']}..{case['most']}", str(case["population"]), str(case["generations"]),
            "wide" if case["wide"] else "narrow", "pareto" if case["pareto"] else "single", str(runs)]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    populations = [json.loads(line) for line in lines]
    if case["pareto"]:
        return [hypervolume([m["values"] for m in p], case) if p else 0.0 for p in populations]
    return [any(m["bits"] == case["needs"] for m in p) for p in populations]


def cases():
    """Cheap ones first."""
    needs = {2: [5, 9], 7: [5, 9, 3, 12, 4, 7, 6]}
    for layers, generations, population, wide in [(2, 5, 5, 0), (2, 10, 5, 0), (2, 20, 5, 0), (7, 40, 5, 0), (7, 40, 5, 1), (7, 80, 5, 0),
                                                  (7, 20, 50, 0)]:
        yield {"name": f"needs {needs[layers]}, 2..32", "needs": needs[layers], "least": 2, "most": 32, "population": population,
               "generations": generations, "wide": wide, "pareto": 0}
    for generations, population, wide in [(10, 20, 0), (30, 20, 0), (30, 50, 1)]:
        yield {"name": "bits and accuracy, 5 layers", "needs": [3, 2, 4, 2, 2], "least": 2, "most": 16, "population": population,
               "generations": generations, "wide": wide, "pareto": 1}
    for (layers, generations), reported in TABLE.items():
        base = {"population": 5, "generations": generations, "wide": False, "pareto": 0, "reported": reported}
        yield {**base, "name": f"no constraint, {layers} layers, 1..52", "needs": [1] * layers, "least": 1, "most": 52}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", metavar="FILE")
    parser.add_argument("--binary", metavar="PROGRAM")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--filter", default="", metavar="TEXT", help="only problems whose name has this text")
    parser.add_argument("--most-generations", type=int, default=1000, help="only runs with at most so many generations")
    parser.add_argument("--keep", metavar="FILE", help="pymoo's results: read from there if it exists, and written there")
    options = parser.parse_args()
    if options.goldens:
        rng = np.random.default_rng(20)
        goldens = [golden(rng) for _ in range(40)]
        with open(options.goldens, "w", encoding="utf-8") as file:
            file.write("[" + ",\n".join(json.dumps(g, separators=(",", ":")) for g in goldens) + "]\n")
    if options.binary:
        with ProcessPoolExecutor(options.jobs) as pool:
            compare(options, pool)


def compare(options, pool):
    print("| problem | population | generations | operators | thesis | pymoo | Quaver | p |\n|---|---|---|---|---|---|---|---|")
    kept = json.loads(Path(options.keep).read_text(encoding="utf-8")) if options.keep and Path(options.keep).exists() else {}
    for case in cases():
        if options.filter not in case["name"] or case["generations"] > options.most_generations:
            continue
        key = json.dumps([case, options.runs])
        if key not in kept:
            kept[key] = list(pool.map(run_pymoo, [(case, seed) for seed in range(options.runs)], chunksize=5))
            if options.keep:
                Path(options.keep).write_text(json.dumps(kept), encoding="utf-8")
        theirs = kept[key]
        ours = run_quaver(options.binary, case, options.runs)
        if case["pareto"]:
            p = mannwhitneyu(theirs, ours).pvalue
            shown = [f"{np.mean(v):.4f} +- {np.std(v):.4f}" for v in (theirs, ours)]
        else:
            counts = [[sum(v), options.runs - sum(v)] for v in (theirs, ours)]
            p = fisher_exact(counts).pvalue
            shown = [f"{100 * c[0] / options.runs:.0f} %" for c in counts]
        reported = f"{case['reported']} %" if "reported" in case else ""
        operators = "wide" if case["wide"] else "default"
        print(f"| {case['name']} | {case['population']} | {case['generations']} | {operators} | {reported} | {shown[0]} | {shown[1]} | {p:.2f} |", flush=True)


if __name__ == "__main__":
    main()
