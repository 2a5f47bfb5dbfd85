//! Forbidden polyhedra as the search sees them: rows in f64 that are implied by the exact constraints.

use crate::bounds::{Bounds, Functional, Objective};
use crate::net::Grid;
use crate::num::Ratio;
use crate::num::round::{self, sub_down};
use crate::property::{Constraint, Polyhedron};

/// Stands for a gap of zero that excludes a point, because the constraint is strict: the smallest number that is positive.
const TOUCHING: f64 = f64::from_bits(1);

fn gap_of(sum: f64, bound: f64, strict: bool) -> f64 {
    let gap = sub_down(sum, bound);
    match gap {
        _ if gap.is_nan() => f64::NEG_INFINITY,
        0.0 if strict => TOUCHING,
        _ => gap,
    }
}

/// The gap that a combination of rows proves of some row, where the weights, which float32 numbers only nearly make 1, have this sum.
///
/// # Rounding
/// Sum and quotient are rounded once for each row and twice in all: so much and more is taken off.
fn scaled(gap: f64, weights: f64) -> f64 {
    let scaled = gap / weights;
    let lower = scaled - 1e-12 * scaled.abs();
    if gap > 0.0 { lower.max(TOUCHING) } else { lower }
}

/// The margin that a gap proves.
pub(super) fn margin(gap: f64) -> f64 {
    if gap == TOUCHING { 0.0 } else { gap }
}

/// A constraint that every forbidden point satisfies: sum of coefficient * element <= bound (or < bound).
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// (element, coefficient).
    pub terms: Vec<(usize, f64)>,
    /// Not below the exact bound.
    pub bound: f64,
    pub strict: bool,
    /// Whether the coefficients are the exact ones.
    exact: bool,
    /// How much of a gap some constraint must have: all, or half where the row is the sum of two.
    share: f64,
}

impl Row {
    fn new(c: &Constraint) -> Self {
        let nearest = |r: &Ratio| if r.is_zero() { 0.0 } else { r.f64_down() };
        let terms: Vec<(usize, f64)> = c.terms.iter().map(|(i, a)| (*i, nearest(a))).collect();
        let exact = c.terms.iter().all(|(_, a)| a.f64_down() == a.f64_up());
        Row { terms, bound: c.bound.f64_up(), strict: c.strict, exact, share: 1.0 }
    }

    /// A bound for which the row with its f64 coefficients holds in every forbidden point within bounds.
    ///
    /// # Why
    /// A coefficient differs from the exact one by less than one unit in its last place, 2^-52 of it (or the smallest subnormal).
    pub fn bound_within(&self, x: &Bounds) -> f64 {
        if self.exact {
            return self.bound;
        }
        let error = |(i, a): &(usize, f64)| {
            let ulp = round::add_up(round::mul_up(a.abs(), 2.0 * round::U64), f64::from_bits(1));
            round::mul_up(ulp, x.magnitude(*i))
        };
        self.terms.iter().fold(self.bound, |b, term| round::add_up(b, error(term)))
    }

    /// How far a proved lower bound on the row's sum is above what is allowed, for a sum of two rows the larger of both: positive means that no forbidden
    /// point is left.
    pub fn gap(&self, sum: f64, bound: f64, grid: Grid) -> f64 {
        let integers = grid == Grid::Integer && self.terms.iter().all(|t| t.1.fract() == 0.0);
        let gap = gap_of(if integers { sum.ceil() } else { sum }, bound, self.strict);
        if gap == TOUCHING { gap } else { gap * self.share }
    }

    /// Whether the coefficients are those of the constraint.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// sum - bound at a point; a hint.
    pub fn excess(&self, x: &[f64]) -> f64 {
        self.terms.iter().map(|(i, a)| a * x[*i]).sum::<f64>() - self.bound
    }

    /// Whether the row compares two elements: only their order matters.
    pub fn is_comparison(&self) -> bool {
        matches!(self.terms[..], [(_, a), (_, b)] if a == -b && self.exact && self.bound == 0.0)
    }
}

impl Row {
    /// Whether another row says the contrary of elements that are so much further in the value, as for a second network what is asked of the first.
    fn mirrors(&self, other: &Row) -> bool {
        let sorted = |row: &Row| {
            let mut terms = row.terms.clone();
            terms.sort_by_key(|t| t.0);
            terms
        };
        let (a, b) = (sorted(self), sorted(other));
        let apart = a.first().zip(b.first()).map_or(0, |(a, b)| b.0 as isize - a.0 as isize);
        apart != 0
            && a.len() == b.len()
            && a.iter().zip(&b).all(|(a, b)| b.0 as isize - a.0 as isize == apart && a.1 == -b.1)
            && a.iter().all(|(i, _)| b.iter().all(|(j, _)| i != j))
    }

    /// What follows from two rows without a common element: their sum.
    fn plus(&self, other: &Row) -> Row {
        Row {
            terms: self.terms.iter().chain(&other.terms).copied().collect(),
            bound: round::add_up(self.bound, other.bound),
            strict: self.strict || other.strict,
            exact: self.exact && other.exact,
            share: 0.5,
        }
    }
}

/// A forbidden polyhedron.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    /// One for each constraint; then, where two mirror each other, their sum, in which two networks are compared.
    pub rows: Vec<Row>,
    /// What they stand for.
    pub exact: Polyhedron,
    /// The rows of which the last is the sum.
    pair: Option<[usize; 2]>,
}

/// The share of the weights that two rows that mirror each other begin with.
const PAIRED: f64 = 0.5;

impl Goal {
    pub fn new(p: &Polyhedron) -> Self {
        let mut rows: Vec<Row> = p.constraints.iter().map(Row::new).collect();
        let pairs = (0..rows.len()).flat_map(|a| (0..a).map(move |b| [b, a]));
        let pair = pairs.clone().find(|[a, b]| rows[*a].mirrors(&rows[*b]));
        if let Some([a, b]) = pair {
            rows.push(rows[a].plus(&rows[b]));
        }
        Goal { rows, exact: p.clone(), pair }
    }

    /// The rows that stand for a constraint each.
    pub fn stated(&self) -> &[Row] {
        &self.rows[..self.exact.constraints.len()]
    }

    /// Whether a gap of some row proves that no point of the polyhedron is left.
    pub fn excluded(&self, gap: f64) -> bool {
        gap > 0.0
    }

    /// The stated rows, for a search for multipliers, where the value is within bounds: all alike, but for two that mirror each other.
    pub fn objective(&self, within: &Bounds) -> Objective {
        let functional = |r: &Row| Functional { terms: r.terms.clone(), bound: r.bound_within(within) };
        let mut objective = Objective::new(self.stated().iter().map(functional).collect());
        if let Some(pair) = self.pair.filter(|_| objective.weights.len() > 2) {
            let rest = (1.0 - PAIRED) / (objective.weights.len() - 2) as f64;
            let weight = |r: usize| if pair.contains(&r) { PAIRED / 2.0 } else { rest };
            // A float32, as certificates hold it.
            (0..objective.weights.len()).for_each(|r| objective.weights[r] = f64::from(weight(r) as f32));
        }
        objective
    }

    /// The gap that a lower bound on the combination of the rows proves (see [`Row::gap`]).
    ///
    /// # Why
    /// In every point of the polyhedron the combination of the rows is at most the combination of their bounds.
    pub fn combined_gap(&self, sum: f64, objective: &Objective, grid: Grid) -> f64 {
        match self.stated() {
            [row] => row.gap(sum, objective.bound(), grid),
            rows => {
                let strict = !rows.is_empty() && rows.iter().all(|r| r.strict);
                scaled(gap_of(sum, objective.bound(), strict), objective.weights.iter().sum())
            }
        }
    }

    /// Weights of the stated rows that make one row count.
    pub fn only(&self, row: usize) -> Vec<f64> {
        let stated = self.stated().len();
        let counts = |r: usize| r == row || (row >= stated && self.pair.is_some_and(|p| p.contains(&r)));
        (0..stated).map(|r| f64::from(u8::from(counts(r)))).collect()
    }

    /// The row that is furthest from being satisfied, and its excess; a hint.
    pub fn worst(&self, x: &[f64]) -> (usize, f64) {
        let excess = self.stated().iter().map(|r| r.excess(x)).enumerate();
        excess.fold((0, f64::NEG_INFINITY), |m, e| if e.1 > m.1 { e } else { m })
    }

    /// Whether a point is forbidden, or so close to it that exact arithmetic must tell; a hint.
    pub fn nearly_reached(&self, x: &[f64]) -> bool {
        let near = |r: &Row| {
            let size: f64 = r.terms.iter().map(|(i, a)| (a * x[*i]).abs()).sum();
            r.excess(x) <= 1e-6 * (size + r.bound.abs())
        };
        self.stated().iter().all(near)
    }
}
