//! Lower bounds on thresholds: executed inputs on which the quantized network leads with a class that the float network does not give.

use super::thresholds::{Bounds, Compared, ThresholdError};
use crate::bounds::Total;
use crate::net::{Enclosure, execute};
use crate::num::Ratio;
use crate::property::{Constraint, Polyhedron, Query};
use crate::verify::{Options, Verdict, Verifier};

/// What executed inputs show: leads that thresholds cannot be below.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The largest leads; negative infinity where no input is known.
    pub bounds: Bounds,
    /// For each pair of classes the inputs that show them, as the compared net takes them: for D, and for L.
    pub inputs: Vec<[Option<Vec<f64>>; 2]>,
}

/// Rows that are executed together.
const ROWS: usize = 512;

/// How often the aim of an attack is raised after a success.
const RAISES: usize = 6;

impl Shown {
    /// Nothing.
    pub fn new(classes: usize) -> Shown {
        let none = vec![f64::NEG_INFINITY; classes * classes];
        let bounds = Bounds { pair: none.clone(), least: none };
        Shown { bounds, inputs: vec![[None, None]; classes * classes] }
    }

    /// Keeps what either shows.
    pub fn join(&mut self, other: Shown) {
        let Shown { bounds, inputs } = other;
        for (i, inputs) in inputs.into_iter().enumerate() {
            for (which, input) in inputs.iter().enumerate().filter_map(|(w, x)| x.as_ref().map(|x| (w, x))) {
                self.note(i, which, if which == 0 { bounds.pair[i] } else { bounds.least[i] }, input);
            }
        }
    }

    fn note(&mut self, i: usize, which: usize, lead: f64, input: &[f64]) {
        let best = if which == 0 { &mut self.bounds.pair[i] } else { &mut self.bounds.least[i] };
        if lead > *best {
            *best = lead;
            self.inputs[i][which] = Some(input.to_vec());
        }
    }
}

impl Compared {
    /// Executes inputs of the compared net and keeps what they show.
    ///
    /// # Claim
    /// For each pair there is an input on which every execution that the nets allow has f_c <= f_k and leads that are not below the bounds.
    ///
    /// # Rounding
    /// Executions are enclosures; leads are taken at their lower ends, f_c at its upper and f_k at its lower.
    pub fn show(&self, inputs: &[f64], shown: &mut Shown) {
        let net = &self.lowered().net;
        let len = net.node(net.inputs()[0]).len();
        for rows in inputs.chunks(ROWS * len) {
            let count = rows.len() / len;
            let output = execute(net, &[rows.to_vec()], count).swap_remove(0);
            for (row, x) in rows.chunks_exact(len).enumerate() {
                self.show_one(x, self.outputs(&output, row), shown);
            }
        }
    }

    /// What f (side 0) and q (side 1) give in a row for a class: the upper or the lower end.
    pub(super) fn outputs<'y>(&self, y: &'y Enclosure, row: usize) -> impl Fn(usize, usize, bool) -> f64 + use<'y> {
        let classes = self.classes();
        move |side, class, upper| {
            let i = (row * 2 + side) * classes + class;
            if upper { y.hi(i) } else { y.lo(i) }
        }
    }

    pub(super) fn show_one(&self, input: &[f64], at: impl Fn(usize, usize, bool) -> f64, shown: &mut Shown) {
        let n = self.classes();
        for c in 0..n {
            let lead = |k: usize| crate::num::round::sub_down(at(1, c, false), at(1, k, true)) * self.scale();
            let least = (0..n).filter(|&k| k != c).map(lead).fold(f64::INFINITY, f64::min);
            for k in (0..n).filter(|&k| k != c) {
                if at(0, c, true) <= at(0, k, false) {
                    shown.note(c * n + k, 0, lead(k).next_down(), input);
                    shown.note(c * n + k, 1, least.next_down(), input);
                }
            }
        }
    }

    /// Looks for inputs that show more than is known for a pair of classes: by gradients, from the inputs that show most. `least` asks for the least lead
    /// over all rivals.
    ///
    /// # Errors
    /// If the region does not fit the net.
    pub fn attack(
        &self,
        (c, k, least): (usize, usize, bool),
        total: Option<Total>,
        proved: &Bounds,
        shown: &mut Shown,
        options: &Options,
    ) -> Result<(), ThresholdError> {
        let verifier = Verifier::within(self.lowered(), total)?;
        let (i, which) = (c * self.classes() + k, usize::from(least));
        let upper = if least { proved.least[i] } else { proved.pair[i] };
        let (mut reach, deadline) = (0.5, std::time::Instant::now() + options.timeout);
        for _ in 0..RAISES {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let known = if least { shown.bounds.least[i] } else { shown.bounds.pair[i] };
            let base = if known.is_finite() { known } else { -upper.abs() };
            let aim = base + reach * (upper - base);
            if left.is_zero() || !(aim > known && aim < upper) {
                break;
            }
            let query = self.query((c, k, least), aim, shown.inputs[i][which].clone());
            let options = Options { subproblems: 0, timeout: left, ..options.clone() };
            match verifier.decide(&query, &options)? {
                Verdict::Violated(witness) => self.show(witness.input(), shown),
                Verdict::Holds(_) => break,
                Verdict::Undecided(_) => reach /= 2.0,
            }
        }
        Ok(())
    }

    /// f_c <= f_k, and q leads with c over k (or all) by at least t.
    fn query(&self, (c, k, least): (usize, usize, bool), t: f64, candidate: Option<Vec<f64>>) -> Query {
        let n = self.classes();
        // Local invariant: thresholds and scales are finite.
        let exact = |x: f64| Ratio::from_f64(x).unwrap_or_else(|| unreachable!("{x} is finite"));
        let bound = exact(-(t / self.scale()));
        let ahead = |r: usize| {
            let terms = vec![(n + c, exact(-1.0)), (n + r, exact(1.0))];
            Constraint { terms, bound: bound.clone(), strict: false }
        };
        let given = Constraint { terms: vec![(c, exact(1.0)), (k, exact(-1.0))], bound: exact(0.0), strict: false };
        let rivals = (0..n).filter(|&r| if least { r != c } else { r == k }).map(ahead);
        let forbidden = vec![Polyhedron::new([given].into_iter().chain(rivals).collect())];
        Query { region: self.region().clone(), inside: None, candidates: candidate.into_iter().collect(), forbidden }
    }
}
