//! Chains of element-wise operations behind a step function become one step function, and so do a ReLU or Clip and the step function behind it.

use super::{
    Affine, Band, Cut, LinearMap, Net, Node, NodeId, Op, Piecewise, Pointwise, Rounding, ScalarFn, Spread, Step,
};
use crate::num::Dyadic;

/// The same net, where each step function of a chain of element-wise operations reads what the chain's first step function reads, and one
/// behind a clipped identity what that reads.
///
/// # Claim
/// Every value has the same set of results as before, with the same number.
///
/// # Why
/// A step function has finitely many values; each goes through the chain in exact arithmetic, with float32 rounding where the chain rounds. What
/// cannot be followed exactly stays as it is. Behind an identity that is clipped to low..high, a cut is passed
/// always, never, or where the argument passes it. The chain's own values stay in the net, for those who ask for them.
pub fn fuse_steps(net: &Net) -> Net {
    let mut fused = Net::new();
    for node in net.nodes() {
        let op = match &node.op {
            Op::Pointwise(p) => {
                let mut function = composed(&fused, p).unwrap_or_else(|| p.clone());
                while let Some(earlier) = behind_clip(&fused, &function) {
                    function = earlier;
                }
                Op::Pointwise(function)
            }
            Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => node.op.clone(),
        };
        fused.add(Node { op, ..node.clone() });
    }
    fused.set_outputs(net.outputs().to_vec());
    fused
}

/// One operation of a chain.
enum Link<'n> {
    Map { scale: &'n Spread<f64>, bias: &'n Spread<f64>, single: bool },
    Functions(&'n Spread<ScalarFn>),
}

impl Link<'_> {
    /// The lists of what the link does to each element, as (length, inner).
    fn layouts(&self) -> Vec<(usize, usize)> {
        match self {
            Link::Map { scale, bias, .. } => vec![(scale.data.len(), scale.inner), (bias.data.len(), bias.inner)],
            Link::Functions(f) => vec![(f.data.len(), f.inner)],
        }
    }

    /// What an exact value becomes for the elements with index k in the lists, if that is an `f64`.
    fn apply(&self, k: usize, value: f64) -> Option<f64> {
        match self {
            Link::Map { scale, bias, single } => {
                let exact = |x: f64| Dyadic::from_f64(x);
                let (scale, bias) = (pick(scale, k), pick(bias, k));
                let y = &(&exact(*scale)? * &exact(value)?) + &exact(*bias)?;
                let rounded = if *single { f64::from(y.to_f32()) } else { y.to_f64() };
                (rounded.is_finite() && *scale >= 0.0 && (*single || exact(rounded)? == y)).then_some(rounded)
            }
            Link::Functions(f) => {
                let (lo, hi) = (pick(f, k).value_down(value), pick(f, k).value_up(value));
                (lo == hi).then_some(lo)
            }
        }
    }
}

fn pick<T>(spread: &Spread<T>, k: usize) -> &T {
    if spread.data.len() == 1 { &spread.data[0] } else { &spread.data[k] }
}

/// The function of the chain's first argument that a step function at its end is.
fn composed(net: &Net, last: &Pointwise) -> Option<Pointwise> {
    let jumps = |f: &Spread<ScalarFn>| f.data.iter().all(|f| !f.is_continuous());
    if !jumps(&last.functions) {
        return None;
    }
    let mut links: Vec<Link<'_>> = vec![];
    let mut id = last.input;
    let first = loop {
        match &net.node(id).op {
            Op::Pointwise(p) if jumps(&p.functions) => break p,
            Op::Pointwise(p) => {
                links.push(Link::Functions(&p.functions));
                id = p.input;
            }
            Op::Affine(a) => {
                let (link, argument) = element_wise(a)?;
                links.push(link);
                id = argument;
            }
            Op::Input(_) | Op::Max(_) | Op::Move(_) => return None,
        }
    };
    links.reverse();
    let own = [(first.functions.data.len(), first.functions.inner), (last.functions.data.len(), last.functions.inner)];
    let (count, inner) = common(own.into_iter().chain(links.iter().flat_map(Link::layouts)))?;
    let function = |k: usize| through(pick(&first.functions, k), &links, k, pick(&last.functions, k));
    let data = (0..count).map(function).collect::<Option<Vec<ScalarFn>>>()?;
    Some(Pointwise { input: first.input, functions: Spread { data, inner } })
}

/// The one layout, as (length, inner), of lists that go together element by element.
fn common(layouts: impl Iterator<Item = (usize, usize)>) -> Option<(usize, usize)> {
    let mut layouts: Vec<(usize, usize)> = layouts.filter(|l| l.0 > 1).collect();
    layouts.dedup();
    match layouts[..] {
        [] => Some((1, 1)),
        [only] => Some(only),
        _ => None,
    }
}

/// The function of a clipped identity's argument that a step function behind it is.
fn behind_clip(net: &Net, last: &Pointwise) -> Option<Pointwise> {
    let Op::Pointwise(first) = &net.node(last.input).op else { return None };
    let (f, g) = (&first.functions, &last.functions);
    let (count, inner) = common([(f.data.len(), f.inner), (g.data.len(), g.inner)].into_iter())?;
    let function = |k: usize| match (pick(f, k), pick(g, k)) {
        (ScalarFn::Piecewise(p), ScalarFn::Step(s)) => unclipped(p, s).map(ScalarFn::Step),
        _ => None,
    };
    let data = (0..count).map(function).collect::<Option<Vec<ScalarFn>>>()?;
    Some(Pointwise { input: first.input, functions: Spread { data, inner } })
}

/// s(p(x)) as a function of x, if p is the identity between two bounds and constant outside.
///
/// # Why
/// With low and high the bounds of p's values, p(x) >= t is always true for t <= low, never for t > high, and else x >= t; likewise p(x) > t is always
/// true for t < low, never for t >= high, and else x > t.
fn unclipped(p: &Piecewise, s: &Step) -> Option<Step> {
    let is_identity = p.knots.iter().all(|k| k.0 == k.1) && [p.left, p.right].iter().all(|s| *s == 0.0 || *s == 1.0);
    let ([first, .., last] | [first @ last]) = &p.knots[..] else { return None };
    if !is_identity {
        return None;
    }
    let low = if p.left == 0.0 { first.1 } else { f64::NEG_INFINITY };
    let high = if p.right == 0.0 { last.1 } else { f64::INFINITY };
    let always = |c: &Cut| if c.strict { c.at < low } else { c.at <= low };
    let ever = |c: &Cut| if c.strict { c.at < high } else { c.at <= high };
    let passed = s.cuts().iter().take_while(|c| always(c)).count();
    let cuts: Vec<Cut> = s.cuts()[passed..].iter().take_while(|c| ever(c)).copied().collect();
    let values = s.values()[passed..=passed + cuts.len()].to_vec();
    Some(Step::new(cuts, values))
}

fn element_wise(a: &Affine) -> Option<(Link<'_>, NodeId)> {
    let [(argument, LinearMap::Diagonal { scale, .. })] = &a.terms[..] else { return None };
    let single = match a.rounding {
        Rounding::Exact => false,
        Rounding::Nearest32 => true,
        Rounding::Slack { .. } => return None,
    };
    Some((Link::Map { scale, bias: &a.bias, single }, *argument))
}

/// The last function after the links after the first function. All of them increase, so the ends of bands go to the ends of the result.
fn through(first: &ScalarFn, links: &[Link<'_>], k: usize, last: &ScalarFn) -> Option<ScalarFn> {
    let follow = |step: &Step, upper: bool| {
        let value = |v: &f64| {
            let x = links.iter().try_fold(*v, |x, link| link.apply(k, x))?;
            Some(if upper { last.value_up(x) } else { last.value_down(x) })
        };
        let values = step.values().iter().map(value).collect::<Option<Vec<f64>>>()?;
        // A cut that no longer jumps is left out.
        let kept: Vec<usize> = (0..step.cuts().len()).filter(|&c| values[c] < values[c + 1]).collect();
        let cuts = kept.iter().map(|&c| step.cuts()[c]).collect();
        let values = std::iter::once(values[0]).chain(kept.iter().map(|&c| values[c + 1])).collect();
        Some(Step::new(cuts, values))
    };
    let (lower, upper) = match first {
        ScalarFn::Step(s) => (follow(s, false)?, follow(s, true)?),
        ScalarFn::Band(b) => (follow(b.lower(), false)?, follow(b.upper(), true)?),
        ScalarFn::Piecewise(_) => return None,
    };
    Some(if lower == upper { ScalarFn::Step(lower) } else { ScalarFn::Band(Band::new(lower, upper)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_step_behind_a_clip_is_one_step(mut at in proptest::collection::vec(-8i32..8, 0..10), strict in any::<u16>(), lo in -9i32..9, span in 0i32..6, kind in 0u8..4) {
            at.sort();
            at.dedup();
            let cuts: Vec<Cut> = (0..at.len()).map(|k| Cut { at: f64::from(at[k]) / 2.0, strict: strict >> k & 1 == 1 }).collect();
            let s = Step::new(cuts, (0..=at.len()).map(|k| k as f64).collect());
            let (lo, hi) = (f64::from(lo) / 2.0, f64::from(lo + span) / 2.0);
            let infinity = f64::INFINITY;
            let p = [Piecewise::clip(lo, hi), Piecewise::clip(lo, infinity), Piecewise::clip(-infinity, hi), Piecewise::relu()][kind as usize].clone();
            let fused = unclipped(&p, &s).unwrap();
            let p = ScalarFn::Piecewise(p);
            for x in (-60..60).map(|k| f64::from(k) / 8.0) {
                prop_assert_eq!(fused.values()[fused.index(x)], s.values()[s.index(p.value_down(x))]);
            }
        }
    }

    #[test]
    fn other_slopes_stay() {
        let s = Step::new(vec![Cut::at(0.0)], vec![0.0, 1.0]);
        assert!(unclipped(&Piecewise::leaky_relu(0.5), &s).is_none());
    }
}
