//! Linear maps, forward one output at a time and backward on batches.

use crate::net::{Conv, Map};

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
    /// only zeros are left out. `reached` notes the elements that something was added to.
    pub fn adjoint(&self, c: &[f64], rows: usize, back: &mut [f64], reached: &mut [bool]) {
        for (i, c) in c.chunks(rows).enumerate() {
            if c.iter().all(|c| *c == 0.0) {
                continue;
            }
            self.for_each(i, |j, w| {
                reached[j] = true;
                back[j * rows..][..rows].iter_mut().zip(c).for_each(|(b, c)| *b += w * c);
            });
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
