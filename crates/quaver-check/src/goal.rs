//! Cases of a property as rows in f64 that every counterexample satisfies; the rules *Rows*, *Order* and *Execution*.

use crate::bounds::Bounds;
use crate::net::{Map, Net, Op, Shape};
use crate::property::{self, Case};
use crate::rational::Rational;
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

/// What the elements of a value satisfy in every counterexample.
#[derive(Clone, Debug)]
pub struct Goal {
    rows: Vec<Inequality>,
    exact: Vec<property::Row>,
    /// The value.
    of: usize,
}

/// Rule *Order*: the value that rows are about: the output, or for rows that only compare two elements an earlier value whose elements are in
/// the same order.
fn observed(net: &Net, rows: &[property::Row]) -> usize {
    let compares =
        |r: &property::Row| matches!(&r.terms[..], [(_, a), (_, b)] if (a + b).is_zero()) && r.bound.is_zero();
    let mut id = net.output;
    while rows.iter().all(compares) {
        id = match &net.values[id].op {
            Op::Affine(a) => match &a.terms[..] {
                [(of, Map::Scale(s))] if a.slack == 0.0 && s[0] > 0.0 && all_same(s) && all_same(&a.bias) => *of,
                _ => return id,
            },
            Op::Function(f) => match &f.pieces[..] {
                [Shape::Step { values, .. }] if values.windows(2).all(|v| v[0] < v[1]) && tells_apart(net, id) => f.of,
                _ => return id,
            },
            Op::Input | Op::Max { .. } | Op::Move { .. } | Op::Row(_) => return id,
        };
    }
    id
}

fn all_same(numbers: &[f64]) -> bool {
    numbers.windows(2).all(|n| n[0] == n[1])
}

/// Whether a step function of integers has another value for each of them: where its argument is, there is a start at every integer.
fn tells_apart(net: &Net, id: usize) -> bool {
    let Op::Function(f) = &net.values[id].op else { return false };
    let (Op::Function(argument), [Shape::Step { starts, .. }]) = (&net.values[f.of].op, &f.pieces[..]) else {
        return false;
    };
    let within = |s: &Shape| match s {
        Shape::Step { values, .. } => values.iter().all(|v| starts[0] - 1.0 <= *v && *v <= starts[starts.len() - 1]),
        Shape::Hinge { .. } | Shape::Stairs { .. } => false,
    };
    !starts.is_empty()
        && starts.windows(2).all(|s| s[0] + 1.0 == s[1])
        && net.values[f.of].integer
        && argument.pieces.iter().all(within)
}

impl Goal {
    /// The rows of a case.
    pub fn new(net: &Net, case: &Case) -> Self {
        let row = |r: &property::Row| {
            let ends: Vec<(usize, f64, f64)> = r.terms.iter().map(|(i, a)| (*i, a.down(), a.up())).collect();
            Inequality {
                terms: ends.iter().map(|(i, down, _)| (*i, *down)).collect(),
                errors: ends.iter().map(|(_, down, up)| add_up(*up, -down)).collect(),
                bound: r.bound.up(),
                strict: r.strict,
            }
        };
        let of = observed(net, &case.rows);
        Goal { rows: case.rows.iter().map(row).collect(), exact: case.rows.clone(), of }
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
        let x = &frame.bounds[self.of];
        let used = || self.rows.iter().zip(weights).filter(|(_, w)| **w > 0.0);
        let single = used().count() == 1 && weights.iter().all(|w| *w == 0.0 || *w == 1.0);
        let mut target = Target { of: self.of, terms: vec![], bound: 0.0, strict: false, integers: false };
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
        target.integers =
            single && frame.net.values[self.of].integer && target.terms.iter().all(|t| t.1.fract() == 0.0);
        if used().count() > 0 { Ok(target) } else { Err("no weight is positive".into()) }
    }
}

/// Whether bounds show that a row holds of every execution (`holds`), or of none.
///
/// # Claim
/// With l <= element <= u, the sum of coefficient * element is at most that of the larger and at least that of the smaller products.
fn is_certain(row: &property::Row, x: &Bounds, holds: bool) -> bool {
    let mut sum = Rational::zero();
    for (i, a) in &row.terms {
        let end = if (a.signum() > 0) == holds { x.hi[*i] } else { x.lo[*i] };
        let Some(end) = Rational::from_f64(end) else { return false };
        sum = &sum + &(a * &end);
    }
    match (holds, row.strict) {
        (true, false) => sum <= row.bound,
        (true, true) => sum < row.bound,
        (false, false) => sum > row.bound,
        (false, true) => sum >= row.bound,
    }
}

/// A functional of a value, and what it must be proved to exceed.
#[derive(Clone, Debug)]
pub struct Target {
    /// The value.
    pub of: usize,
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

impl Goal {
    /// Rule *Execution*: whether bounds alone, in exact arithmetic, show that some row holds of no execution.
    pub fn is_excluded(&self, frame: &Frame<'_>) -> bool {
        self.exact.iter().any(|row| is_certain(row, &frame.bounds[self.of], false))
    }

    /// Whether bounds show that all rows hold of every execution.
    pub fn is_reached(&self, frame: &Frame<'_>) -> bool {
        self.exact.iter().all(|row| is_certain(row, &frame.bounds[self.of], true))
    }
}

impl Inequality {
    fn bound_within(&self, x: &Bounds) -> f64 {
        let terms = self.terms.iter().zip(&self.errors);
        terms.fold(self.bound, |b, ((i, _), e)| if *e > 0.0 { add_up(b, mul_up(*e, x.magnitude(*i))) } else { b })
    }
}
