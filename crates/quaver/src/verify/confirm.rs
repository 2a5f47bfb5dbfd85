//! Whether an input is a witness: executed, and judged exactly.

use super::Witness;
use super::goal::Goal;
use crate::net::{Enclosure, Net, Op, Rounding, execute, execute_exact};
use crate::num::{Dyadic, Ratio};
use crate::property::{Ball, Constraint, Polyhedron, Query};

/// Executes a candidate; a witness only if it lies in the region and every execution that the net allows gives a forbidden output.
///
/// # Claim
/// For some polyhedron, every constraint holds for every output that the net allows on the input, and if there is a ball every such output
/// is outside it.
///
/// # Rounding
/// Bounds of the execution are exact rationals from then on. Where they do not tell and the net rounds nothing, it is executed in unbounded precision.
pub(super) fn confirm(
    net: &Net,
    profile: &str,
    query: &Query,
    output_goals: &[Goal],
    input: &[f64],
) -> Option<Witness> {
    if !query.inside.as_ref().unwrap_or(&query.region).contains(input) {
        return None;
    }
    let output = &execute(net, &[input.to_vec()], 1)[0];
    let polyhedron = output_goals.iter().zip(&query.forbidden).position(|(goal, exact)| {
        goal.nearly_reached(&output.center)
            && (surely_inside(exact, output)
                || (output.radius.is_some() && is_exact(net) && exactly(net, input, exact)))
    })?;
    let (input, outputs, profile) = (input.to_vec(), output.center.clone(), profile.to_string());
    Some(Witness { input, outputs, polyhedron, profile })
}

fn satisfies(c: &Constraint, sum: &Ratio) -> bool {
    let room = c.bound.minus(sum);
    if c.strict { !room.is_negative() && !room.is_zero() } else { !room.is_negative() }
}

/// Whether every output of an enclosure lies in a polyhedron.
fn surely_inside(p: &Polyhedron, output: &Enclosure) -> bool {
    p.constraints.iter().all(|c| surely(c, output))
        && p.outside.as_ref().is_none_or(|ball| surely_outside(ball, output))
}

/// Whether every output of an enclosure lies outside a ball: the sum of the least squares is above that of the radius.
fn surely_outside(ball: &Ball, output: &Enclosure) -> bool {
    let least = |i: usize| {
        let (lo, hi) = (output.lo(i), output.hi(i));
        if lo > 0.0 {
            lo
        } else if hi < 0.0 {
            hi
        } else {
            // Not a number, or zero is between.
            0.0
        }
    };
    let squares = ball.elements.clone().map(|i| Ratio::from_f64(least(i)).map(|x| x.times(&x)));
    let sum = squares.reduce(|a, b| Some(a?.plus(&b?))).flatten();
    sum.is_some_and(|sum| ball.square.minus(&sum).is_negative())
}

/// Whether every output of an enclosure satisfies a constraint.
fn surely(c: &Constraint, output: &Enclosure) -> bool {
    let zero = Ratio::from_dyadic(&Dyadic::zero());
    let largest = c.terms.iter().try_fold(zero, |sum, (i, a)| {
        let end = if a.is_negative() { output.lo(*i) } else { output.hi(*i) };
        Some(sum.plus(&a.times(&Ratio::from_f64(end)?)))
    });
    largest.is_some_and(|sum| satisfies(c, &sum))
}

/// Whether a net computes one exact function.
pub(super) fn is_exact(net: &Net) -> bool {
    net.nodes().iter().all(|n| match &n.op {
        Op::Affine(a) => a.rounding == Rounding::Exact,
        Op::Pointwise(p) => p.functions.data.iter().all(|f| !f.is_band()),
        Op::Input(_) | Op::Max(_) | Op::Move(_) => true,
    })
}

/// Whether the exact output lies in a polyhedron.
pub(super) fn exactly(net: &Net, input: &[f64], p: &Polyhedron) -> bool {
    let exact = input.iter().map(|&x| Dyadic::from_f64(x)).collect::<Option<Vec<Dyadic>>>();
    let Some(exact) = exact else { return false };
    let values = execute_exact(net, &[exact]);
    let output = &values[net.outputs()[0].0];
    let zero = || Ratio::from_dyadic(&Dyadic::zero());
    let linear = |c: &Constraint| {
        let term = |(i, a): &(usize, Ratio)| a.times(&Ratio::from_dyadic(&output[*i]));
        satisfies(c, &c.terms.iter().fold(zero(), |sum, t| sum.plus(&term(t))))
    };
    let outside = |ball: &Ball| {
        let square = |i: usize| Ratio::from_dyadic(&(&output[i] * &output[i]));
        let sum = ball.elements.clone().fold(zero(), |sum, i| sum.plus(&square(i)));
        ball.square.minus(&sum).is_negative()
    };
    p.constraints.iter().all(linear) && p.outside.as_ref().is_none_or(outside)
}
