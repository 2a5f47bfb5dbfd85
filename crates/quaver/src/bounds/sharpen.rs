//! Bounds on single elements by branch and bound: what bounds on later values gain most from.

use std::sync::Arc;

use rayon::prelude::*;

use super::split::{Branch, Cut};
use super::tuned::{Choices, Functional, Objective, Row, Tuned};
use super::{Analysis, Prepared, Until};
use crate::net::NodeId;

/// How much is done for the bounds of each element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Steps uphill for the lines of an element, after those of least area.
    pub climbs: usize,
    /// Parts for each end of an element of the first value that is not exact; each later value gets fewer.
    pub leaves: usize,
}

impl Effort {
    /// Nothing.
    pub const NONE: Effort = Effort { climbs: 0, leaves: 1 };

    /// What is left after some values.
    pub fn after(self, values: usize) -> Effort {
        let leaves = self.leaves as f64 * LATER.powi(values as i32);
        Effort { leaves: (leaves as usize).max(1), ..self }
    }

    /// What the effort costs, in parts.
    pub fn cost(self) -> f64 {
        (self.climbs / CLIMBS / 2 + self.leaves) as f64
    }
}

/// What each value gets of the parts of the one before: bounds on early values are cheaper, and later ones gain from them.
const LATER: f64 = 0.7;
/// The first step of a line between its ends, and how much smaller each next one is.
const RATE: f64 = 0.3;
const DECAY: f64 = 0.95;
/// Steps uphill for a part.
const CLIMBS: usize = 2;
/// Functionals that are tuned together, and the most open elements times functionals.
const ROWS: usize = 256;
const TOGETHER: usize = 100_000;
/// Most places of lines that are kept for the parts of a batch.
const KEPT: usize = 20_000_000;

/// A part.
struct Leaf {
    bound: f64,
    branch: Branch,
    /// The choices that prove the bound, in this part or one around it; kept up to date only if proofs are asked for.
    proof: Branch,
    /// Where it is split next, once it is bounded.
    cut: Option<Cut>,
}

/// A part and the choices that prove its bound: those of a walk in this part or in one around it, which has fewer splits.
pub(crate) struct ProvedPart {
    pub branch: Branch,
    pub proof: Branch,
}

/// A lower bound, and its proof if it was asked for.
pub(crate) struct Sharpened {
    pub bound: f64,
    pub parts: Vec<ProvedPart>,
}

/// The parts that one functional, an element or its negative, is bounded on.
struct Tree {
    element: usize,
    sign: f64,
    leaves: Vec<Leaf>,
}

impl Tree {
    fn bound(&self) -> f64 {
        self.leaves.iter().map(|l| l.bound).fold(f64::INFINITY, f64::min)
    }

    fn objective(&self) -> Objective {
        Objective::new(vec![Functional { terms: vec![(self.element, self.sign)], bound: 0.0 }])
    }

    /// Halves of the parts that the bound is due to, in place of these.
    fn halve_worst(&mut self, most: usize) -> Vec<Leaf> {
        self.leaves.sort_by(|a, b| b.bound.total_cmp(&a.bound));
        let mut halves = vec![];
        while halves.len() < 2 * most
            && let Some(cut) = self.leaves.last_mut().and_then(|l| l.cut.take())
            && let Some(leaf) = self.leaves.pop()
        {
            let half =
                |s| Leaf { bound: leaf.bound, branch: leaf.branch.half(s), proof: leaf.proof.clone(), cut: None };
            halves.extend(cut.map(half));
        }
        halves
    }
}

/// Lower bounds on each of some elements of a value and on its negative, in turn. No more is done for an element when its bounds are `enough`.
///
/// # Claim
/// For every execution with values within the analysis's bounds, each is not above its functional.
///
/// # Why
/// Every execution satisfies the splits of one part at least, and each part's bound holds for those that satisfy its splits.
///
/// # Source
/// Refinement of intermediate bounds with an exact engine: Tjeng et al. (ICLR 2019), and the verifiers that follow them; here by splits and
/// multipliers.
pub(super) fn sharpen(
    (prepared, analysis): (&Prepared, &Analysis),
    id: NodeId,
    elements: &[usize],
    (effort, keep): (Effort, bool),
    until: Until<'_>,
    enough: impl Fn(usize, f64, f64) -> bool + Sync,
) -> Vec<Sharpened> {
    let choices = Choices::new(prepared, analysis, id);
    let open = choices.len().max(1);
    // Lower and upper lines for each open element, part and direction.
    let effort = Effort { leaves: effort.leaves.min(KEPT / (4 * open)).max(1), ..effort };
    let kept = KEPT / (4 * open * effort.leaves);
    let share = elements.len().div_ceil(rayon::current_num_threads());
    let size = (TOGETHER / open).clamp(8, ROWS / 2).min(kept).min(share);
    let work = Work { prepared, analysis, choices, id, effort, keep, until };
    elements.par_chunks(size.max(1)).flat_map_iter(|batch| work.search(batch, &enough)).collect()
}

struct Work<'w> {
    prepared: &'w Prepared<'w>,
    analysis: &'w Analysis,
    choices: Choices,
    id: NodeId,
    effort: Effort,
    /// Whether proofs are asked for.
    keep: bool,
    until: Until<'w>,
}

impl Work<'_> {
    fn search(&self, elements: &[usize], enough: &impl Fn(usize, f64, f64) -> bool) -> Vec<Sharpened> {
        let best = Arc::new(self.choices.best());
        let both = elements.iter().flat_map(|&element| [(element, 1.0), (element, -1.0)]);
        let mut trees: Vec<Tree> = both.map(|(element, sign)| Tree { element, sign, leaves: vec![] }).collect();
        let whole = || {
            let branch = Branch::whole(best.clone());
            Leaf { bound: f64::NEG_INFINITY, proof: branch.clone(), branch, cut: None }
        };
        let mut fresh: Vec<(usize, Leaf)> = (0..trees.len()).map(|t| (t, whole())).collect();
        let mut climbs = self.effort.climbs;
        while !fresh.is_empty() {
            self.bound(&trees, &mut fresh, climbs);
            climbs = CLIMBS;
            fresh.into_iter().for_each(|(t, leaf)| trees[t].leaves.push(leaf));
            fresh = self.halves(&mut trees, enough);
        }
        let part = |l: Leaf| ProvedPart { branch: l.branch, proof: l.proof };
        let proof = |t: Tree| if self.keep { t.leaves.into_iter().map(part).collect() } else { vec![] };
        trees.into_iter().map(|t| Sharpened { bound: t.bound(), parts: proof(t) }).collect()
    }

    /// The next parts to bound.
    fn halves(&self, trees: &mut [Tree], enough: &impl Fn(usize, f64, f64) -> bool) -> Vec<(usize, Leaf)> {
        if self.until.is_over() {
            return vec![];
        }
        let bounds: Vec<f64> = trees.iter().map(Tree::bound).collect();
        let is_open = |t: &usize| {
            let (lo, hi) = (bounds[t / 2 * 2], -bounds[t / 2 * 2 + 1]);
            trees[*t].leaves.len() < self.effort.leaves && !(lo > hi || enough(trees[*t].element, lo, hi))
        };
        let open: Vec<usize> = (0..trees.len()).filter(is_open).collect();
        let most = (ROWS / 2 / open.len().max(1)).max(1);
        let of = |t: usize| {
            let room = self.effort.leaves - trees[t].leaves.len();
            trees[t].halve_worst(most.min(room)).into_iter().map(move |leaf| (t, leaf))
        };
        open.into_iter().flat_map(of).collect()
    }

    /// Raises the bounds of parts and says where each should be split.
    fn bound(&self, trees: &[Tree], fresh: &mut [(usize, Leaf)], climbs: usize) {
        let rows = fresh.iter().map(|f| Row { objective: trees[f.0].objective(), branch: &f.1.branch }).collect();
        let mut tuned = Tuned::new((self.prepared, self.analysis, &self.choices), self.id, rows);
        let mut rate = RATE;
        for climb in 0..=climbs {
            let mut proofs = vec![];
            for (row, ((_, leaf), bound)) in fresh.iter_mut().zip(tuned.bounds()).enumerate() {
                if bound > leaf.bound {
                    leaf.bound = bound;
                    if self.keep {
                        leaf.proof = leaf.branch.clone();
                        proofs.push((row, &mut leaf.proof));
                    }
                }
            }
            tuned.note(&mut proofs);
            if climb == climbs || self.until.is_over() {
                break;
            }
            tuned.climb(rate);
            rate *= DECAY;
        }
        if self.effort.leaves <= 1 {
            return;
        }
        let cuts = tuned.branch(fresh.iter_mut().map(|(_, leaf)| &mut leaf.branch).enumerate().collect());
        fresh.iter_mut().zip(cuts).for_each(|((_, leaf), cut)| leaf.cut = cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{Bounds, Extent, analyse_within};
    use crate::net::{
        Affine, Cut as Jump, Dense, Grid, LinearMap, Net, Node, Op, Piecewise, Pointwise, Rounding, ScalarFn, Spread,
        Step, Weights,
    };
    use crate::property::Region;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const INPUTS: usize = 4;
    const WIDTH: usize = 6;

    fn add(net: &mut Net, len: usize, op: Op) -> NodeId {
        let range = net.range_of(&op);
        net.add(Node { name: String::new(), shape: vec![len], op, grid: Grid::Integer, range, quantization: None })
    }

    fn dense(net: &mut Net, x: NodeId, rng: &mut StdRng) -> NodeId {
        let n_in = net.node(x).len();
        let weights = Weights::new((0..WIDTH * n_in).map(|_| f64::from(rng.random_range(-4i32..=4))).collect());
        let bias = Spread::each((0..WIDTH).map(|_| f64::from(rng.random_range(-6i32..=6))).collect());
        let map = LinearMap::Dense(Dense { outer: 1, n_in, n_out: WIDTH, weights });
        add(net, WIDTH, Op::Affine(Affine { terms: vec![(x, map)], bias, rounding: Rounding::Exact }))
    }

    /// Three layers with a function between each two.
    fn net(function: &ScalarFn, rng: &mut StdRng) -> Net {
        let mut net = Net::new();
        let mut x = add(&mut net, INPUTS, Op::Input(0));
        for _ in 0..3 {
            let z = dense(&mut net, x, rng);
            x = add(&mut net, WIDTH, Op::Pointwise(Pointwise { input: z, functions: Spread::all(function.clone()) }));
        }
        net.set_outputs(vec![x]);
        net
    }

    /// The least and the largest values that occur; all are integers.
    fn attained(net: &Net, region: &Region) -> Vec<Bounds> {
        let count = |i: usize| (region.hi[i] - region.lo[i]) as usize + 1;
        let rows: usize = (0..INPUTS).map(count).product();
        let digit = |row: usize, i: usize| row / (0..i).map(count).product::<usize>() % count(i);
        let inputs = (0..rows).flat_map(|row| (0..INPUTS).map(move |i| (row, i)));
        let inputs: Vec<f64> = inputs.map(|(row, i)| region.lo[i] + digit(row, i) as f64).collect();
        let all = crate::net::execute_all(net, &[inputs], rows);
        let of = |id: NodeId| {
            let (n, value) = (net.node(id).len(), all.value(id));
            let column = |i: usize| (0..rows).map(move |row| row * n + i);
            let lo = (0..n).map(|i| column(i).map(|k| value.center[k].round()).fold(f64::INFINITY, f64::min)).collect();
            let hi =
                (0..n).map(|i| column(i).map(|k| value.center[k].round()).fold(f64::NEG_INFINITY, f64::max)).collect();
            Bounds { lo, hi }
        };
        net.ids().map(of).collect()
    }

    fn width(bounds: &[Bounds]) -> f64 {
        bounds.iter().flat_map(|b| b.hi.iter().zip(&b.lo)).map(|(h, l)| h - l).sum()
    }

    /// Bounds by more and more parts hold, and each are within the ones before.
    fn check(function: &ScalarFn, seed: u64) -> [f64; 3] {
        let mut rng = StdRng::seed_from_u64(seed);
        let net = net(function, &mut rng);
        let prepared = Prepared::new(&net);
        let lo: Vec<f64> = (0..INPUTS).map(|_| f64::from(rng.random_range(-3i32..=3))).collect();
        let region = Region { hi: lo.iter().map(|l| l + f64::from(rng.random_range(1i32..=4))).collect(), lo };
        let attained = attained(&net, &region);
        let last = NodeId(net.nodes().len() - 1);
        let mut known: Option<Vec<Bounds>> = None;
        [1, 8, 200].map(|leaves| {
            let effort = Effort { climbs: 10, leaves };
            let extent = Extent {
                start: NodeId(0),
                region: &region,
                last,
                all: true,
                effort,
                until: Until::default(),
                journal: None,
            };
            let found = analyse_within(&prepared, extent, known.as_deref()).expect("bounds").bounds;
            for (bounds, attained) in found.iter().zip(&attained) {
                for i in 0..bounds.lo.len() {
                    assert!(
                        bounds.lo[i] <= attained.lo[i] && attained.hi[i] <= bounds.hi[i],
                        "{seed}, {leaves} leaves"
                    );
                }
            }
            let width = width(&found);
            known = Some(found);
            width
        })
    }

    proptest! {
        #[test]
        fn bounds_hold_for_relus(seed in any::<u64>()) {
            check(&ScalarFn::Piecewise(Piecewise::relu()), seed);
        }

        #[test]
        fn bounds_hold_for_steps(seed in any::<u64>()) {
            let cuts = (-3..=3).map(|k| Jump::at(f64::from(5 * k))).collect();
            check(&ScalarFn::Step(Step::new(cuts, (0..8).map(f64::from).collect())), seed);
        }
    }

    #[test]
    fn more_parts_narrow_the_bounds() {
        let [one, few, many] = check(&ScalarFn::Piecewise(Piecewise::relu()), 1);
        assert!(many <= few && few < one, "{one} {few} {many}");
    }
}
