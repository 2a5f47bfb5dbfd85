//! Execution in exact arithmetic: slow, short, and the judge of everything else.

use super::{From, Net, Op, Rounding};
use crate::num::Dyadic;

/// All values of a network on one exact input, [`Rounding::Slack`] taken as zero and bands at their lower end. One vector for each
/// input.
///
/// # Panics
/// If an input's length is not the input node's.
pub fn execute_exact(net: &Net, inputs: &[Vec<Dyadic>]) -> Vec<Vec<Dyadic>> {
    execute_exact_choosing(net, inputs, &mut || false)
}

/// [`execute_exact`] where `upper_end` says for each element of a band in turn whether it takes the upper end.
///
/// # Panics
/// If an input's length is not the input node's.
pub fn execute_exact_choosing(
    net: &Net,
    inputs: &[Vec<Dyadic>],
    upper_end: &mut dyn FnMut() -> bool,
) -> Vec<Vec<Dyadic>> {
    let mut values: Vec<Vec<Dyadic>> = Vec::with_capacity(net.nodes().len());
    // Local invariant: constants of a well-formed net are finite.
    let exact = |c: f64| Dyadic::from_f64(c).unwrap_or_else(Dyadic::zero);
    for node in net.nodes() {
        let value: Vec<Dyadic> = match &node.op {
            Op::Input(i) => inputs[*i].clone(),
            Op::Affine(a) => (0..node.len())
                .map(|o| {
                    let mut sum = exact(*a.bias.at(o));
                    for (id, map) in &a.terms {
                        map.for_each_term(o, |i, w| sum = &sum + &(&exact(w) * &values[id.0][i]));
                    }
                    match a.rounding {
                        Rounding::Nearest32 => exact(sum.to_f32() as f64),
                        Rounding::Exact | Rounding::Slack { .. } => sum,
                    }
                })
                .collect(),
            Op::Pointwise(p) => {
                let mut value = |(i, x)| p.functions.at(i).value_exact(x, upper_end());
                values[p.input.0].iter().enumerate().map(&mut value).collect()
            }
            Op::Max(m) => (0..node.len())
                .map(|o| {
                    let of = |&i: &u32| &values[m.input.0][i as usize];
                    // Local invariant: windows are not empty.
                    m.window(o).iter().map(of).max().cloned().unwrap_or_else(Dyadic::zero)
                })
                .collect(),
            Op::Move(m) => m
                .from
                .iter()
                .map(|f| match f {
                    From::Element { source, index } => values[m.sources[*source as usize].0][*index as usize].clone(),
                    From::Constant(c) => exact(*c),
                })
                .collect(),
        };
        assert_eq!(value.len(), node.len(), "input `{}` has the wrong length", node.name);
        values.push(value);
    }
    values
}
