//! Where a chain of monotone functions reaches a value.

use crate::net::{Band, Cut, Piecewise, ScalarFn, Spread, Step};

/// Which arguments of a chain give at least some value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reached {
    /// All.
    Always,
    /// Those that cross the cut.
    Behind(Cut),
    /// None.
    Never,
}

impl Reached {
    /// Whether an argument is one of them.
    pub fn holds(&self, x: f64) -> bool {
        match *self {
            Reached::Always => true,
            Reached::Behind(cut) => crosses(x, cut),
            Reached::Never => false,
        }
    }
}

/// Why a function cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unfit(pub &'static str);

/// The arguments x of f(x) = `functions[n - 1]`(... `functions[0]`(x)) with f(x) >= value.
///
/// # Claim
/// Exact: no number is rounded.
///
/// # Why
/// All functions are non-decreasing, so the arguments that reach a value are a half line. Of a step function its end is a cut; a clipped identity
/// passes a cut between its ends unchanged, and always or never crosses one outside.
pub(super) fn reached(functions: &[&ScalarFn], value: f64) -> Result<Reached, Unfit> {
    let mut cut = Cut::at(value);
    for f in functions.iter().rev() {
        let found = match f {
            ScalarFn::Step(s) => behind_step(s, cut),
            ScalarFn::Piecewise(p) => behind_clip(p, cut)?,
            ScalarFn::Band(Band { .. }) => return Err(Unfit("several runtimes are meant at once")),
        };
        match found {
            Reached::Behind(c) => cut = c,
            Reached::Always | Reached::Never => return Ok(found),
        }
    }
    Ok(Reached::Behind(cut))
}

fn crosses(x: f64, cut: Cut) -> bool {
    if cut.strict { x > cut.at } else { x >= cut.at }
}

fn behind_step(s: &Step, cut: Cut) -> Reached {
    match s.values().partition_point(|&v| !crosses(v, cut)) {
        0 => Reached::Always,
        k if k == s.values().len() => Reached::Never,
        k => Reached::Behind(s.cuts()[k - 1]),
    }
}

fn behind_clip(p: &Piecewise, cut: Cut) -> Result<Reached, Unfit> {
    let (first, last) = (p.knots[0], p.knots[p.knots.len() - 1]);
    let slopes_fit = [p.left, p.right].iter().all(|s| [0.0, 1.0].contains(s));
    if !slopes_fit || p.knots.iter().any(|k| k.0 != k.1) {
        return Err(Unfit("only step functions, ReLU and Clip are supported between a layer and its quantization"));
    }
    let lo = if p.left == 0.0 { first.1 } else { f64::NEG_INFINITY };
    let hi = if p.right == 0.0 { last.1 } else { f64::INFINITY };
    Ok(match (crosses(lo, cut), crosses(hi, cut)) {
        (true, _) => Reached::Always,
        (false, true) => Reached::Behind(cut),
        (false, false) => Reached::Never,
    })
}

/// Position in a spread's data of the value for an element.
pub(super) fn position<T>(spread: &Spread<T>, element: usize) -> usize {
    if spread.data.len() == 1 { 0 } else { (element / spread.inner) % spread.data.len() }
}

/// Position in a spread's data that some elements share; `None` if they do not.
pub(super) fn shared<T>(spread: &Spread<T>, mut elements: impl Iterator<Item = usize>) -> Option<usize> {
    let first = position(spread, elements.next()?);
    elements.all(|e| position(spread, e) == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_come_through_a_relu_and_a_clip() {
        let relu = ScalarFn::Piecewise(Piecewise::relu());
        let clip = ScalarFn::Piecewise(Piecewise::clip(0.5, 3.0));
        let cuts = [0.25, 0.5, 1.5, 3.0, 3.5];
        let cuts = cuts.map(|at| Cut { at, strict: at == 1.5 || at == 3.0 }).to_vec();
        let step = ScalarFn::Step(Step::new(cuts, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        let chain = [&relu, &clip, &step];
        let found: Vec<Reached> = (0..=6).map(|v| reached(&chain, v.into()).unwrap()).collect();
        let strict = Reached::Behind(Cut { at: 1.5, strict: true });
        let (always, never) = (Reached::Always, Reached::Never);
        assert_eq!(found, [always, always, always, strict, never, never, never]);
        let leaky = ScalarFn::Piecewise(Piecewise::leaky_relu(0.1));
        assert!(reached(&[&leaky, &step], 3.0).is_err());
    }
}
