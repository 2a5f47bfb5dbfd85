//! Cases of a property as rows in f64 that every counterexample satisfies; the rule *Rows*.

use crate::bounds::Bounds;
use crate::property::Case;
use crate::round::{U, add_up, mul_up};
use crate::walk::Frame;

/// sum coefficient * output <= bound, or <.
#[derive(Clone, Debug)]
struct Inequality {
    terms: Vec<(usize, f64)>,
    /// For each term, how far the coefficient may be from the exact one.
    errors: Vec<f64>,
    /// Not below the exact one.
    bound: f64,
    strict: bool,
}

/// What the outputs of a counterexample satisfy.
#[derive(Clone, Debug)]
pub struct Goal {
    rows: Vec<Inequality>,
}

impl Goal {
    /// The rows of a case.
    pub fn new(case: &Case) -> Self {
        let row = |r: &crate::property::Row| {
            let ends: Vec<(usize, f64, f64)> = r.terms.iter().map(|(i, a)| (*i, a.down(), a.up())).collect();
            Inequality {
                terms: ends.iter().map(|(i, down, _)| (*i, *down)).collect(),
                errors: ends.iter().map(|(_, down, up)| add_up(*up, -down)).collect(),
                bound: r.bound.up(),
                strict: r.strict,
            }
        };
        Goal { rows: case.rows.iter().map(row).collect() }
    }

    /// What a walk of an output must show for a part to hold no execution that satisfies all rows: rule *Rows* with a weight for each.
    ///
    /// # Claim
    /// If the target is met, sum w_r row_r > sum w_r bound_r for every execution within the frame's bounds (>= where a strict row has a weight).
    ///
    /// # Rounding
    /// The bound of each row grows by |coefficient - exact| |output|. Products with weights are rounded: for more than one row, each may lose
    /// 2 u of its magnitude times |output|.
    ///
    /// # Errors
    /// If there is not a weight for each row, or none is positive: where there are no rows, nothing but an empty part proves the goal.
    pub fn target(&self, frame: &Frame<'_>, weights: &[f64]) -> Result<Target, String> {
        if weights.len() != self.rows.len() {
            return Err(format!("{} weights for {} rows", weights.len(), self.rows.len()));
        }
        let output = frame.net.output;
        let x = &frame.bounds[output];
        let used = || self.rows.iter().zip(weights).filter(|(_, w)| **w > 0.0);
        let single = used().count() == 1 && weights.iter().all(|w| *w == 0.0 || *w == 1.0);
        let mut target = Target { terms: vec![], bound: 0.0, strict: false, integers: false };
        for (inequality, w) in used() {
            target.bound = add_up(target.bound, mul_up(*w, inequality.bound_within(x)));
            target.strict |= inequality.strict;
            for (i, a) in &inequality.terms {
                target.terms.push((*i, w * a));
                if !single {
                    target.bound = add_up(target.bound, mul_up(4.0 * U * (w * a).abs(), x.magnitude(*i)));
                }
            }
        }
        target.integers = single && frame.net.values[output].integer && target.terms.iter().all(|t| t.1.fract() == 0.0);
        if used().count() > 0 { Ok(target) } else { Err("no weight is positive".into()) }
    }
}

/// A functional of the output, and what it must be proved to exceed.
#[derive(Clone, Debug)]
pub struct Target {
    /// (element, coefficient).
    pub terms: Vec<(usize, f64)>,
    bound: f64,
    /// Whether reaching the bound is enough.
    strict: bool,
    /// Whether the functional is an integer.
    integers: bool,
}

impl Target {
    /// Whether a lower bound on the functional is enough.
    pub fn is_met(&self, proved: f64) -> bool {
        let proved = if self.integers { proved.ceil() } else { proved };
        proved > self.bound || self.strict && proved >= self.bound
    }
}

impl Inequality {
    fn bound_within(&self, x: &Bounds) -> f64 {
        let terms = self.terms.iter().zip(&self.errors);
        terms.fold(self.bound, |b, ((i, _), e)| if *e > 0.0 { add_up(b, mul_up(*e, x.magnitude(*i))) } else { b })
    }
}
