//! Chains of element-wise operations behind a step function become one step function.

use super::{Affine, Band, LinearMap, Net, Node, NodeId, Op, Pointwise, Rounding, ScalarFn, Spread, Step};
use crate::num::Dyadic;

/// The same net, where each step function of a chain of element-wise operations reads what the chain's first step function reads.
///
/// # Claim
/// Every value has the same set of results as before, with the same number.
///
/// # Why
/// A step function has finitely many values; each goes through the chain in exact arithmetic, with float32 rounding where the chain rounds. What
/// cannot be followed exactly stays as it is. The chain's own values stay in the net, for those who ask for them.
pub fn fuse_steps(net: &Net) -> Net {
    let mut fused = Net::new();
    for node in net.nodes() {
        let op = match &node.op {
            Op::Pointwise(p) => Op::Pointwise(composed(&fused, p).unwrap_or_else(|| p.clone())),
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
    let mut layouts: Vec<(usize, usize)> = own.into_iter().chain(links.iter().flat_map(Link::layouts)).collect();
    layouts.retain(|l| l.0 > 1);
    layouts.dedup();
    let (count, inner) = match layouts[..] {
        [] => (1, 1),
        [only] => only,
        _ => return None,
    };
    let function = |k: usize| through(pick(&first.functions, k), &links, k, pick(&last.functions, k));
    let data = (0..count).map(function).collect::<Option<Vec<ScalarFn>>>()?;
    Some(Pointwise { input: first.input, functions: Spread { data, inner } })
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
