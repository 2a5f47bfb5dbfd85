//! Templates: a lower and an upper linear function of the input for each neuron, which name a family of sets.

use super::chain::Chain;
use crate::net::Weights;
use crate::net::gemm::{Strides, product};
use crate::property::Region;

/// The sets P(chi) of pairs (x, z) with L_j(x) - h_j chi <= z_j <= U_j(x) + h_j chi for every neuron j.
///
/// They are defined by the numbers stored here: nothing rests on where these come from, nor on how they were rounded.
#[derive(Clone, Debug)]
pub struct Template {
    /// Coefficients of U_1 ... U_n, then of L_1 ... L_n, on the input; row-major.
    pub lines: Weights,
    /// Their values at zero.
    pub constants: Vec<f64>,
    /// h: half of the distance between the concrete bounds of each neuron.
    pub half: Vec<f64>,
}

impl Template {
    /// Number of neurons.
    pub fn neurons(&self) -> usize {
        self.half.len()
    }

    /// The constants of P(chi): those of all upper sides, then of all lower sides.
    ///
    /// # Claim
    /// P(a) is contained in P(b) for a <= b.
    ///
    /// # Rounding
    /// The results define the set. Each is a non-decreasing (upper sides) or non-increasing function of chi, because h >= 0 and rounding is monotone.
    pub fn sides(&self, chi: f64) -> Vec<f64> {
        let (upper, lower) = self.constants.split_at(self.neurons());
        let up = upper.iter().zip(&self.half).map(|(c, h)| c + h * chi);
        up.chain(lower.iter().zip(&self.half).map(|(c, h)| c - h * chi)).collect()
    }

    fn is_finite(&self) -> bool {
        self.lines.exact().iter().chain(&self.constants).chain(&self.half).all(|x| x.is_finite())
    }
}

/// Lines around a ReLU: slope below (through zero), slope and offset above.
#[derive(Clone, Copy)]
struct ReluLines {
    below: f64,
    above: (f64, f64),
}

impl ReluLines {
    fn new(l: f64, u: f64) -> Self {
        match () {
            () if u <= 0.0 => ReluLines { below: 0.0, above: (0.0, 0.0) },
            () if l >= 0.0 => ReluLines { below: 1.0, above: (1.0, 0.0) },
            () => {
                let slope = u / (u - l);
                ReluLines { below: f64::from(u8::from(u > -l)), above: (slope, -slope * l) }
            }
        }
    }
}

/// The template of each hidden layer from DeepPoly's functions, in plain f64; `None` after an overflow.
///
/// # Source
/// Zhang et al., Certified Quantization Strategy Synthesis for Neural Networks (Quadapter), section 3.3; Singh et al., DeepPoly (POPL 2019), section 4.
pub(super) fn templates(chain: &Chain, region: &Region) -> Option<Vec<Template>> {
    let mut lines: Vec<Vec<ReluLines>> = vec![];
    let mut templates = vec![];
    for layer in 0..chain.layers.len() - 1 {
        let (upper, above) = back(chain, layer, &lines, 1.0);
        let (lower, below) = back(chain, layer, &lines, -1.0);
        let reach = |c: &[f64], constants: &[f64], up: bool| -> Vec<f64> {
            let of = |(c, k): (&[f64], &f64)| k + extreme(c, region, up);
            c.chunks(chain.inputs()).zip(constants).map(of).collect()
        };
        let (u, l) = (reach(&upper, &above, true), reach(&lower, &below, false));
        lines.push(l.iter().zip(&u).map(|(l, u)| ReluLines::new(*l, *u)).collect());
        let template = Template {
            lines: Weights::new([upper, lower].concat()),
            constants: [above, below].concat(),
            half: l.iter().zip(&u).map(|(l, u)| (0.5 * (u - l)).max(0.0)).collect(),
        };
        templates.push(template);
    }
    templates.iter().all(Template::is_finite).then_some(templates)
}

/// The largest or smallest value of a linear function on a box.
fn extreme(c: &[f64], region: &Region, up: bool) -> f64 {
    let at = |(c, (l, h)): (&f64, (&f64, &f64))| if (*c > 0.0) == up { c * h } else { c * l };
    c.iter().zip(region.lo.iter().zip(&region.hi)).map(at).sum()
}

/// Functions of the input above (side 1) or below (side -1) the neurons of a layer: coefficients and constants.
fn back(chain: &Chain, layer: usize, lines: &[Vec<ReluLines>], side: f64) -> (Vec<f64>, Vec<f64>) {
    let rows = chain.layers[layer].outputs();
    let mut c = chain.layers[layer].weights.exact().to_vec();
    let mut constants = chain.layers[layer].bias.clone();
    for (before, lines) in chain.layers[..layer].iter().zip(lines).rev() {
        for (c, constant) in c.chunks_mut(before.outputs()).zip(&mut constants) {
            for ((c, line), bias) in c.iter_mut().zip(lines).zip(&before.bias) {
                let (slope, offset) = if *c * side > 0.0 { line.above } else { (line.below, 0.0) };
                *constant += *c * (offset + slope * bias);
                *c *= slope;
            }
        }
        let mut next = vec![0.0; rows * before.inputs];
        let shape = (rows, before.outputs(), before.inputs);
        let weights = (before.weights.exact(), Strides::rows(before.inputs));
        product(shape, (&c, Strides::rows(before.outputs())), weights, &mut next, false);
        c = next;
    }
    (c, constants)
}
