//! Bounds on the anomaly score of an autoencoder: the mean squared difference of its output and its input, in real units.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::attack::Attack;
use super::decide::PLACES;
use super::{Limit, NotAClassifier, Options};
use crate::bounds::{Bounds, Prepared, Until, analyse, tighten};
use crate::model::lower::Lowered;
use crate::net::{Affine, Enclosure, Grid, LinearMap, Net, Node, NodeId, Op, Rounding, Spread, execute_between};
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_up};
use crate::property::Region;

/// Starts and steps of the search for high scores.
const STARTS: usize = 4;
const STEPS: usize = 12;

/// An autoencoder whose anomaly score can be bounded.
#[derive(Debug)]
pub struct Autoencoder {
    bounded: Differing,
    members: Vec<Differing>,
    /// Whether bounds for each member are bounds.
    is_conjunction: bool,
}

/// A net that ends in the differences output - input.
#[derive(Debug)]
struct Differing {
    profile: String,
    net: Net,
    difference: NodeId,
}

/// Proved bounds on the score over a region, and the highest score that was executed. Only this module makes one.
#[derive(Clone, Debug)]
pub struct ScoreBounds {
    lo: f64,
    hi: f64,
    witness: ScoreWitness,
}

/// An executed input and bounds on its score.
#[derive(Clone, Debug)]
pub struct ScoreWitness {
    input: Vec<f64>,
    score: (f64, f64),
    profile: String,
}

impl ScoreBounds {
    /// The score of every input of the region is at least this.
    pub fn lo(&self) -> f64 {
        self.lo
    }

    /// The score of every input of the region is at most this.
    pub fn hi(&self) -> f64 {
        self.hi
    }

    /// The input with the highest score that was executed.
    pub fn witness(&self) -> &ScoreWitness {
        &self.witness
    }
}

impl ScoreWitness {
    /// The model's input, on its own grid.
    pub fn input(&self) -> &[f64] {
        &self.input
    }

    /// The smallest and the largest score that the input's execution may have.
    pub fn score(&self) -> (f64, f64) {
        self.score
    }

    /// The profile under which it was executed.
    pub fn profile(&self) -> &str {
        &self.profile
    }
}

impl Autoencoder {
    /// Prepares a model.
    ///
    /// # Errors
    /// If it has not one input and one output of equal length, both with a meaning in reals.
    pub fn new(lowered: &Lowered) -> Result<Self, NotAClassifier> {
        let bounded = Differing::new(lowered)?;
        let members = lowered.members.iter().map(Differing::new).collect::<Result<_, _>>()?;
        Ok(Autoencoder { bounded, members, is_conjunction: lowered.is_conjunction })
    }

    /// Bounds on the score over a region; `center` is tried first in the search for a high score.
    ///
    /// # Claim
    /// For every execution that the net allows on an input x of the region, with reals y of the output and x of the input,
    /// lo <= sum (y_i - x_i)^2 / n <= hi.
    ///
    /// # Rounding
    /// Bounds on each difference are proved by backward passes; squares, sums and the division are rounded outward.
    pub fn bound(&self, region: &Region, center: &[f64], options: &Options) -> ScoreBounds {
        let limit = Limit::new(options);
        let own = std::slice::from_ref(&self.bounded);
        let proved = if self.is_conjunction && !self.members.is_empty() { &self.members } else { own };
        let each = proved.iter().map(|d| d.score_bounds(region));
        let (lo, hi) = each.fold((f64::INFINITY, 0.0f64), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        let executed = if self.members.is_empty() { own } else { &self.members };
        let found = executed.iter().map(|d| d.search(region, center, options.seed, &limit));
        let best = found.reduce(|a, b| if b.score.0 > a.score.0 { b } else { a });
        // Local invariant: at least one net is executed.
        ScoreBounds { lo, hi, witness: best.unwrap_or_else(|| unreachable!("a net")) }
    }
}

impl Differing {
    fn new(lowered: &Lowered) -> Result<Self, NotAClassifier> {
        let mut net = lowered.net.clone();
        let (&[x], &[y]) = (net.inputs(), net.outputs()) else {
            return Err(NotAClassifier("an autoencoder has one input and one output".into()));
        };
        let n = net.node(x).len();
        if net.node(y).len() != n {
            let found = net.node(y).len();
            return Err(NotAClassifier(format!("an autoencoder returns what it is given: {n} elements, not {found}")));
        }
        let (sx, bx) = meaning(net.node(x), n)?;
        let (sy, by) = meaning(net.node(y), n)?;
        let bias: Vec<(f64, f64)> =
            (0..n).map(|i| (add_down(*by.at(i), -bx.at(i)), add_up(*by.at(i), -bx.at(i)))).collect();
        let slack = Spread::each(bias.iter().map(|b| sub_up(b.1, b.0)).collect::<Vec<f64>>());
        let exact = slack.data.iter().all(|s| *s == 0.0);
        let rounding = if exact { Rounding::Exact } else { Rounding::Slack { relative: 0.0, absolute: slack } };
        let terms = vec![
            (y, LinearMap::Diagonal { len: n, scale: sy }),
            (x, LinearMap::Diagonal { len: n, scale: sx.map(|s| -s) }),
        ];
        let bias = Spread::each(bias.into_iter().map(|b| b.0).collect());
        let op = Op::Affine(Affine { terms, bias, rounding });
        let (name, shape, range) = ("difference".into(), vec![n], net.range_of(&op));
        let difference = net.add(Node { name, shape, op, grid: Grid::Real, range, quantization: None });
        Ok(Differing { profile: lowered.profile.clone(), net, difference })
    }

    /// Bounds on the score over a region: intervals where a bound overflows.
    fn score_bounds(&self, region: &Region) -> (f64, f64) {
        let prepared = Prepared::new(&self.net);
        let Some(mut analysis) = analyse(&prepared, region) else { return (0.0, f64::INFINITY) };
        for place in PLACES {
            if place != PLACES[0] {
                analysis.choose_lines(&prepared, place);
            }
            if tighten(&prepared, &mut analysis, self.difference, Until::default(), |_, _, _| true).is_err() {
                break;
            }
        }
        mean_square(&analysis.bounds[self.difference.0])
    }

    /// The highest score found by following the gradient from the centre and from random inputs.
    fn search(&self, region: &Region, center: &[f64], seed: u64, limit: &Limit) -> ScoreWitness {
        let prepared = Prepared::new(&self.net);
        let input = self.net.inputs()[0];
        let attack = Attack { prepared: &prepared, root: input, score: self.difference, limit: limit.clone() };
        let integer = self.net.node(input).grid == Grid::Integer;
        let snap = |i: usize, x: f64| {
            let x = if integer { x.round() } else { f64::from(x as f32) };
            x.clamp(region.lo[i], region.hi[i])
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let mut best = self.executed(center.to_vec());
        for start in 0..STARTS {
            let mut x: Vec<f64> = match start {
                0 => center.to_vec(),
                _ => (0..center.len())
                    .map(|i| snap(i, region.lo[i] + rng.random::<f64>() * (region.hi[i] - region.lo[i])))
                    .collect(),
            };
            for _ in 0..STEPS {
                if limit.reached().is_some() {
                    return best;
                }
                let run = execute_between(&self.net, vec![(input, Enclosure::exact(x.clone()))], self.difference, 1);
                let differences = run.value(self.difference).center.clone();
                let gradient = attack.gradient_of(&run, differences);
                x = (0..x.len())
                    .map(|i| match gradient[i] {
                        g if g > 0.0 => region.hi[i],
                        g if g < 0.0 => region.lo[i],
                        _ => x[i],
                    })
                    .collect();
                let found = self.executed(x.clone());
                let better = found.score.0 > best.score.0;
                if better {
                    best = found;
                } else {
                    break;
                }
            }
        }
        best
    }

    fn executed(&self, input: Vec<f64>) -> ScoreWitness {
        let given = vec![(self.net.inputs()[0], Enclosure::exact(input.clone()))];
        let run = execute_between(&self.net, given, self.difference, 1);
        let d = run.value(self.difference);
        let n = d.center.len();
        let bounds = Bounds { lo: (0..n).map(|i| d.lo(i)).collect(), hi: (0..n).map(|i| d.hi(i)).collect() };
        ScoreWitness { input, score: mean_square(&bounds), profile: self.profile.clone() }
    }
}

/// Scale and offset that turn a value's elements into reals.
fn meaning(node: &Node, n: usize) -> Result<(Spread<f64>, Spread<f64>), NotAClassifier> {
    match &node.quantization {
        None if node.grid == Grid::Integer => {
            Err(NotAClassifier(format!("the file does not say what the integers of `{}` mean", node.name)))
        }
        None => Ok((Spread::all(1.0), Spread::all(0.0))),
        Some(q) => {
            // 24 + 9 bits: exact.
            let offset = (0..n).map(|i| -q.scale.at(i) * *q.zero_point.at(i) as f64).collect();
            Ok((q.scale.clone(), Spread::each(offset)))
        }
    }
}

/// Bounds on the mean of the squares of elements within bounds.
fn mean_square(b: &Bounds) -> (f64, f64) {
    let (mut lo, mut hi) = (0.0, 0.0);
    for (&l, &h) in b.lo.iter().zip(&b.hi) {
        let least = if l > 0.0 { l } else { (-h).max(0.0) };
        let most = l.abs().max(h.abs());
        (lo, hi) = (add_down(lo, mul_down(least, least)), add_up(hi, mul_up(most, most)));
    }
    let n = b.lo.len().max(1) as f64;
    ((lo / n).next_down().max(0.0), (hi / n).next_up())
}
