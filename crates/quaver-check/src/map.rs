//! Linear maps, forward one output at a time and backward on batches.

use crate::net::{Conv, Map};
use crate::threads::vectorized;

impl Map {
    /// Elements of the result.
    pub fn outputs(&self) -> usize {
        match self {
            Map::Dense { outer, outputs, .. } => outer * outputs,
            Map::Conv(c) => c.out_channels * c.out_size[0] * c.out_size[1],
            Map::Scale(factors) => factors.len(),
        }
    }

    /// Elements of the argument.
    pub fn inputs(&self) -> usize {
        match self {
            Map::Dense { outer, inputs, .. } => outer * inputs,
            Map::Conv(c) => c.in_channels * c.in_size[0] * c.in_size[1],
            Map::Scale(factors) => factors.len(),
        }
    }

    /// Products in the sum for one output.
    pub fn terms(&self) -> usize {
        match self {
            Map::Dense { inputs, .. } => *inputs,
            Map::Conv(c) => c.in_channels / c.groups * c.kernel[0] * c.kernel[1],
            Map::Scale(_) => 1,
        }
    }

    /// The most products in the sum for one coefficient of an adjoint.
    pub fn readers(&self) -> usize {
        match self {
            Map::Dense { outputs, .. } => *outputs,
            Map::Conv(c) => c.out_channels / c.groups * c.kernel[0] * c.kernel[1],
            Map::Scale(_) => 1,
        }
    }

    /// Calls f(argument's element, weight) for each product of one output.
    pub fn for_each(&self, output: usize, mut f: impl FnMut(usize, f64)) {
        match self {
            Map::Dense { inputs, outputs, weights, .. } => {
                let (block, row) = (output / outputs, output % outputs);
                let row = &weights[row * inputs..][..*inputs];
                row.iter().enumerate().for_each(|(j, w)| f(block * inputs + j, *w));
            }
            Map::Conv(c) => conv_terms(c, output, f),
            Map::Scale(factors) => f(output, factors[output]),
        }
    }

    /// Adds w * c to `back` for each product w of each output with coefficients c: `rows` neighbouring numbers for each element. Outputs with
    /// only zeros are left out.
    pub fn adjoint(&self, c: &[f64], rows: usize, back: &mut [f64]) {
        let is_used = |i: &usize| c[i * rows..][..rows].iter().any(|c| *c != 0.0);
        let row = |i: usize| &c[i * rows..][..rows];
        match self {
            Map::Dense { outer, inputs, outputs, weights } => {
                for block in 0..*outer {
                    let elements: Vec<usize> = (block * inputs..(block + 1) * inputs).collect();
                    let used: Vec<usize> = (block * outputs..(block + 1) * outputs).filter(is_used).collect();
                    let weights = |i: usize| &weights[i % outputs * inputs..][..*inputs];
                    add_all(&used, &elements, weights, row, back);
                }
            }
            Map::Conv(conv) => {
                let plane = conv.out_size[0] * conv.out_size[1];
                let (per_group, products) = (conv.out_channels / conv.groups, self.terms());
                for first in (0..conv.groups).flat_map(|g| g * per_group * plane..(g * per_group + 1) * plane) {
                    let used: Vec<usize> = (0..per_group).map(|k| first + k * plane).filter(is_used).collect();
                    if !used.is_empty() {
                        let mut elements = Vec::with_capacity(products);
                        conv_terms(conv, first, |j, _| elements.push(j));
                        add_all(&used, &elements, |i| &conv.weights[i / plane * products..][..products], row, back);
                    }
                }
            }
            Map::Scale(factors) => {
                let into = back.chunks_mut(rows).zip(c.chunks(rows)).zip(factors);
                into.for_each(|((b, c), w)| b.iter_mut().zip(c).for_each(|(b, c)| *b += w * c));
            }
        }
    }
}

/// Adds to some elements what outputs that all read them give back.
fn add_all<'w>(
    outputs: &[usize],
    elements: &[usize],
    weights: impl Fn(usize) -> &'w [f64],
    coefficients: impl Fn(usize) -> &'w [f64],
    back: &mut [f64],
) {
    let (fours, rest) = outputs.as_chunks::<4>();
    let mut add = |w: &[&[f64]], c: &[&[f64]]| {
        vectorized(
            #[inline(always)]
            || match (w, c) {
                (&[w0, w1, w2, w3], &[c0, c1, c2, c3]) => add_four(elements, [w0, w1, w2, w3], [c0, c1, c2, c3], back),
                _ => w.iter().zip(c).for_each(|(w, c)| {
                    for (j, w) in elements.iter().zip(*w) {
                        back[j * c.len()..][..c.len()].iter_mut().zip(*c).for_each(|(b, c)| *b += w * c);
                    }
                }),
            },
        );
    };
    fours.iter().for_each(|four| add(&four.map(&weights), &four.map(&coefficients)));
    rest.iter().for_each(|&one| add(&[weights(one)], &[coefficients(one)]));
}

/// Four outputs at once: each sum is read and written once for all.
#[inline(always)]
fn add_four(elements: &[usize], w: [&[f64]; 4], c: [&[f64]; 4], back: &mut [f64]) {
    let rows = c[0].len();
    for (k, j) in elements.iter().enumerate() {
        let [w0, w1, w2, w3] = w.map(|w| w[k]);
        let c = c[0].iter().zip(c[1]).zip(c[2].iter().zip(c[3]));
        for (b, ((c0, c1), (c2, c3))) in back[j * rows..][..rows].iter_mut().zip(c) {
            *b += (w0 * c0 + w1 * c1) + (w2 * c2 + w3 * c3);
        }
    }
}

fn conv_terms(c: &Conv, output: usize, mut f: impl FnMut(usize, f64)) {
    let plane = c.out_size[0] * c.out_size[1];
    let (channel, y, x) = (output / plane, output % plane / c.out_size[1], output % c.out_size[1]);
    let per_group = c.in_channels / c.groups;
    let first = channel / (c.out_channels / c.groups) * per_group;
    let taps = c.kernel[0] * c.kernel[1];
    let weights = &c.weights[channel * per_group * taps..][..per_group * taps];
    for (k, w) in weights.iter().enumerate() {
        let (i, ky, kx) = (first + k / taps, k % taps / c.kernel[1], k % c.kernel[1]);
        let (row, column) = (y * c.stride[0] + ky * c.dilation[0], x * c.stride[1] + kx * c.dilation[1]);
        f((i * c.in_size[0] + row) * c.in_size[1] + column, *w);
    }
}
