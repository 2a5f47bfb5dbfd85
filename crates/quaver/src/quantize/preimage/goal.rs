//! What the output must satisfy, as linear functionals that must be positive.

use super::chain::Chain;
use crate::num::Ratio;
use crate::property::{Constraint, Polyhedron, Query};
use crate::quantize::QuantizeError;

/// Weights of a combination are multiples of this.
const UNIT: f64 = 1.0 / 1024.0;

/// How much the differences between margins count in the weights of a combination.
const SHARPNESS: [f64; 3] = [0.0, 0.5, 2.0];

/// c . y > bound; or >= where `may_touch`.
#[derive(Clone, Debug)]
pub struct Functional {
    /// c, one for each output.
    pub coefficients: Vec<f64>,
    /// The bound.
    pub bound: f64,
    /// Whether equality is enough.
    pub may_touch: bool,
}

impl Functional {
    /// Whether a proved lower bound of c . y is enough. What is not a number is not.
    pub fn is_met(&self, least: f64) -> bool {
        least > self.bound || (self.may_touch && least >= self.bound)
    }
}

/// One forbidden polyhedron: no output lies in it if one of the functionals is met for all.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Each of them alone is enough.
    pub functionals: Vec<Functional>,
}

/// The goals of a query.
///
/// # Claim
/// If an output meets some functional of a goal, it is not in the goal's polyhedron.
///
/// # Why
/// A functional is one constraint's contrary, or that of a sum of constraints with weights that are not negative: what satisfies all of them
/// satisfies their sum.
///
/// # Errors
/// If a polyhedron is not an intersection of half-spaces with coefficients in f64, or does not fit the output.
pub(super) fn goals(chain: &Chain, query: &Query) -> Result<Vec<Goal>, QuantizeError> {
    let region = &query.region;
    if region.lo.len() != chain.inputs() || region.hi.len() != chain.inputs() {
        let problem = format!("it has {} elements and the model takes {}", region.lo.len(), chain.inputs());
        return Err(QuantizeError::new("the region", problem, "give a region of the model's input"));
    }
    let centre: Vec<f64> = region.lo.iter().zip(&region.hi).map(|(l, h)| 0.5 * (l + h)).collect();
    let output = chain.sketch(&centre);
    query.forbidden.iter().map(|p| goal(p, &output)).collect()
}

fn goal(p: &Polyhedron, output: &[f64]) -> Result<Goal, QuantizeError> {
    let refused = |problem: &str| QuantizeError::new("the claim", problem, "use a method that decides it in full");
    if p.outside.is_some() || p.constraints.is_empty() {
        return Err(refused("it is not about linear constraints on the output"));
    }
    if p.constraints.iter().flat_map(|c| &c.terms).any(|t| t.0 >= output.len()) {
        return Err(refused("it is about an output that the model does not have"));
    }
    let single = |k: usize| {
        let weights = (0..p.constraints.len()).map(|i| f64::from(u8::from(i == k))).collect::<Vec<f64>>();
        sum(&p.constraints, &weights, output.len())
    };
    let mut functionals: Vec<Functional> = (0..p.constraints.len()).filter_map(single).collect();
    if p.constraints.len() > 1 {
        let mixed = SHARPNESS.iter().map(|s| weights(&p.constraints, output, *s));
        functionals.extend(mixed.filter_map(|w| sum(&p.constraints, &w, output.len())));
    }
    if functionals.is_empty() {
        return Err(refused("its coefficients are no binary64 numbers"));
    }
    Ok(Goal { functionals })
}

/// Weights for constraints, larger where the output is further from satisfying them; hints.
fn weights(constraints: &[Constraint], output: &[f64], sharpness: f64) -> Vec<f64> {
    let margin = |c: &Constraint| c.terms.iter().map(|(i, a)| a.approx() * output[*i]).sum::<f64>() - c.bound.approx();
    let margins: Vec<f64> = constraints.iter().map(margin).collect();
    let most = margins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    margins.iter().map(|m| (((m - most) * sharpness).exp() / UNIT).round().max(0.0) * UNIT).collect()
}

/// The contrary of a weighted sum of constraints; `None` where it has a coefficient that is no f64.
fn sum(constraints: &[Constraint], weights: &[f64], outputs: usize) -> Option<Functional> {
    let zero = Ratio::from_f64(0.0)?;
    let (mut coefficients, mut bound, mut may_touch) = (vec![zero.clone(); outputs], zero, false);
    for (c, &weight) in constraints.iter().zip(weights).filter(|(_, w)| **w > 0.0) {
        let weight = Ratio::from_f64(weight)?;
        c.terms.iter().for_each(|(i, a)| coefficients[*i] = coefficients[*i].plus(&a.times(&weight)));
        bound = bound.plus(&c.bound.times(&weight));
        may_touch |= c.strict;
    }
    let exact = |r: &Ratio| Some(r.f64_down()).filter(|x| *x == r.f64_up());
    let coefficients = coefficients.iter().map(exact).collect::<Option<Vec<f64>>>()?;
    let bound = bound.f64_up();
    (coefficients.iter().all(|c| c.is_finite()) && bound.is_finite()).then_some(Functional {
        coefficients,
        bound,
        may_touch,
    })
}
