//! Cases of a property as rows in f64 that every counterexample satisfies; the rule *Rows*.

use crate::bounds::Bounds;
use crate::property::Case;
use crate::round::{U, add_up, mul_up};
use crate::walk::{Frame, Pair, Row};

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

    /// How many rows there are. Where there are none, nothing but an empty part proves the goal.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Whether no execution within a frame satisfies all rows: rule *Rows* with a weight for each.
    ///
    /// # Claim
    /// True only if sum w_r row_r > sum w_r bound_r for every execution (>= where a strict row has a weight).
    ///
    /// # Rounding
    /// The bound of each row grows by |coefficient - exact| |output|. Products with weights are rounded: for more than one row, each may lose
    /// 2 u of its magnitude times |output|.
    pub fn is_proved(&self, frame: &Frame<'_>, lines: &[Vec<Pair>], weights: &[f64]) -> bool {
        let (output, mut row) = (frame.net.output, Row::default());
        let x = &frame.bounds[output];
        let used = || self.rows.iter().zip(weights).filter(|(_, w)| **w > 0.0);
        let single = used().count() == 1 && weights.iter().all(|w| *w == 0.0 || *w == 1.0);
        let (mut bound, mut strict) = (0.0, false);
        for (inequality, w) in used() {
            let own = inequality.bound_within(x);
            bound = add_up(bound, mul_up(*w, own));
            strict |= inequality.strict;
            for (i, a) in &inequality.terms {
                row.terms.push((*i, w * a));
                if !single {
                    bound = add_up(bound, mul_up(4.0 * U * (w * a).abs(), x.magnitude(*i)));
                }
            }
        }
        let integers = single && frame.net.values[output].integer && row.terms.iter().all(|t| t.1.fract() == 0.0);
        let proved = frame.walk(output, &[row], lines)[0];
        let proved = if integers { proved.ceil() } else { proved };
        used().count() > 0 && (proved > bound || strict && proved >= bound)
    }
}

impl Inequality {
    fn bound_within(&self, x: &Bounds) -> f64 {
        let terms = self.terms.iter().zip(&self.errors);
        terms.fold(self.bound, |b, ((i, _), e)| if *e > 0.0 { add_up(b, mul_up(*e, x.magnitude(*i))) } else { b })
    }
}
