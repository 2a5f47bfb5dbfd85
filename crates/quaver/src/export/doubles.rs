//! What binary64 makes of the sums of a net that are not integers.

use super::question::ExportError;
use super::sums::exponent_of_integer_sum;
use crate::net::{Affine, Grid, LinearMap, Net, Node, NodeId, Op, Piecewise, Rounding, ScalarFn, Spread};
use crate::num::round::{U32, add_up, gamma64};

/// How the C file computes an affine node in `double`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// Whether no operation rounds.
    pub exact: bool,
    /// Whether the result is then rounded to float32.
    pub to_float: bool,
}

/// What is known of the values of a net in the C file, by node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// The file's value is the net's, bit for bit.
    pub exact: bool,
    /// The file's value is a float32.
    pub single: bool,
}

/// What the C file's values are, in the order of the nodes; unneeded nodes are taken as they are.
pub(super) fn knowledge(net: &Net, needed: &[bool]) -> Result<Vec<Knowledge>, ExportError> {
    let mut known: Vec<Knowledge> = vec![];
    for (id, node) in net.ids().zip(net.nodes()) {
        let next = if needed[id.0] { of_node(net, node, &known)? } else { Knowledge::default() };
        known.push(next);
    }
    Ok(known)
}

fn of_node(net: &Net, node: &Node, known: &[Knowledge]) -> Result<Knowledge, ExportError> {
    let arguments = node.arguments();
    let exact = arguments.iter().all(|a| known[a.0].exact);
    let single = arguments.iter().all(|a| known[a.0].single);
    if node.grid == Grid::Integer {
        // An integer that is a function of an inexact value is another allowed one.
        let small = node.range.0.abs().max(node.range.1.abs()) <= 16_777_216.0;
        return Ok(Knowledge { exact, single: small });
    }
    Ok(match &node.op {
        Op::Input(_) => Knowledge { exact: true, single: true },
        Op::Affine(a) => {
            let sum = plan(net, node, a, known)?;
            Knowledge { exact: exact && sum.exact, single: sum.to_float }
        }
        Op::Pointwise(p) => {
            let keeps = p.functions.data.iter().all(is_a_choice);
            Knowledge { exact: exact && keeps, single: single && keeps && constants(&p.functions).all(is_single) }
        }
        Op::Max(_) => Knowledge { exact, single },
        Op::Move(m) => {
            let of = |f: &crate::net::From| matches!(f, crate::net::From::Constant(c) if !is_single(*c));
            Knowledge { exact, single: single && !m.from.iter().any(of) }
        }
    })
}

fn is_single(x: f64) -> bool {
    f64::from(x as f32) == x
}

/// Whether a function returns its argument or a constant, and so never rounds.
fn is_a_choice(f: &ScalarFn) -> bool {
    let straight = |p: &Piecewise| {
        [p.left, p.right].iter().all(|s| *s == 0.0 || *s == 1.0) && (p.knots.iter().all(|k| k.0 == k.1) || is_flat(p))
    };
    match f {
        ScalarFn::Step(_) | ScalarFn::Band(_) => true,
        ScalarFn::Piecewise(p) => straight(p),
    }
}

fn is_flat(p: &Piecewise) -> bool {
    p.left == 0.0 && p.right == 0.0 && p.knots.iter().all(|k| k.1 == p.knots[0].1)
}

fn constants(functions: &Spread<ScalarFn>) -> impl Iterator<Item = f64> + '_ {
    functions.data.iter().flat_map(|f| -> Vec<f64> {
        match f {
            ScalarFn::Step(s) => s.values().to_vec(),
            ScalarFn::Band(b) => b.lower().values().iter().chain(b.upper().values()).copied().collect(),
            ScalarFn::Piecewise(p) => p.knots.iter().map(|k| k.1).collect(),
        }
    })
}

/// How an affine node that need not be an integer is summed in binary64.
///
/// # Claim
/// With `exact` the file's sum is the net's. Otherwise the file's result is within gamma64(n) (sum |w||x| + |b|) of the exact sum, rounded once more
/// where `to_float`, and that is allowed by the node's slack.
///
/// # Why
/// Multiples of 2^e below 2^(e + 53) are doubles, and so are products of two float32 values. The sum of two float32 values, rounded to binary64 and
/// then to binary32, is the sum rounded to binary32 (53 >= 2 24 + 2; Figueroa, "When is double rounding innocuous?", 1995).
pub(super) fn plan(net: &Net, node: &Node, a: &Affine, known: &[Knowledge]) -> Result<Sum, ExportError> {
    let fits = |e: i64| net.affine_magnitude(a) <= 2f64.powi((e + 53).clamp(-1000, 1000) as i32);
    let exact = exponent_of_integer_sum(net, a).is_some_and(|e| e >= -900 && fits(e)) || is_one_product(a, known);
    match &a.rounding {
        Rounding::Exact => Ok(Sum { exact, to_float: false }),
        Rounding::Nearest32 if exact || is_sum_of_two(a, known) => Ok(Sum { exact: true, to_float: true }),
        Rounding::Nearest32 => {
            let problem = "the runtime rounds its exact sum to float32 once, and a double may round it before that";
            Err(ExportError::at(node, problem, "use --profile real or float32, or an integer model"))
        }
        Rounding::Slack { relative, absolute } => {
            let sums = add_up(gamma64(products(a)), 4.0 * f64::EPSILON);
            let absolute = absolute.data.iter().copied().fold(f64::INFINITY, f64::min);
            if *relative < sums {
                let problem = "a double may be further from the exact sum than the profile allows";
                return Err(ExportError::at(node, problem, "use --profile real"));
            }
            let least = f64::from(f32::from_bits(1));
            Ok(Sum { exact: false, to_float: *relative >= add_up(sums, U32 * 1.001) && absolute >= least })
        }
    }
}

/// Roundings behind one element.
fn products(a: &Affine) -> usize {
    a.terms.iter().map(|(_, m)| m.fan_in()).sum::<usize>() + a.terms.len() + 2
}

fn scale_of(map: &LinearMap) -> Option<&[f64]> {
    match map {
        LinearMap::Diagonal { scale, .. } => Some(&scale.data),
        LinearMap::Dense(_) | LinearMap::Conv(_) => None,
    }
}

fn has_no_bias(a: &Affine) -> bool {
    a.bias.data.iter().all(|b| *b == 0.0)
}

/// w x with a float32 x and a float32 w, or x itself.
fn is_one_product(a: &Affine, known: &[Knowledge]) -> bool {
    let [(id, map)] = &a.terms[..] else { return false };
    let Some(scale) = scale_of(map).filter(|_| has_no_bias(a)) else { return false };
    scale.iter().all(|w| w.abs() == 1.0) || (known[id.0].single && scale.iter().all(|w| is_single(*w)))
}

/// +-x +-y, or +-x + b, of float32 values.
fn is_sum_of_two(a: &Affine, known: &[Knowledge]) -> bool {
    let unit = |(id, map): &(NodeId, LinearMap)| {
        known[id.0].single && scale_of(map).is_some_and(|s| s.iter().all(|w| w.abs() == 1.0))
    };
    let operands = a.terms.len() + usize::from(!has_no_bias(a));
    operands <= 2 && a.terms.iter().all(unit) && a.bias.data.iter().all(|b| is_single(*b))
}

/// The net that allows what the C file of a net may compute: sums that binary64 may round have the slack of that rounding.
///
/// # Claim
/// On every input the outputs of the C file lie within the outputs of [`crate::net::execute`] on this net.
///
/// # Errors
/// If the net has no C file.
pub fn as_doubles(net: &Net) -> Result<Net, ExportError> {
    let known = knowledge(net, &vec![true; net.nodes().len()])?;
    let mut out = Net::new();
    for node in net.nodes() {
        let mut changed = node.clone();
        if let (Op::Affine(a), Op::Affine(to)) = (&node.op, &mut changed.op)
            && a.rounding == Rounding::Exact
            && node.grid != Grid::Integer
            && !plan(net, node, a, &known)?.exact
        {
            let relative = add_up(gamma64(products(a)), 4.0 * f64::EPSILON);
            to.rounding = Rounding::Slack { relative, absolute: Spread::all(f64::MIN_POSITIVE) };
        }
        out.add(changed);
    }
    out.set_outputs(net.outputs().to_vec());
    Ok(out)
}
