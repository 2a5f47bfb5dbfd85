//! Linear maps that know how to apply themselves to a batch of vectors and their adjoint to a batch of row vectors.

use std::sync::{Arc, OnceLock};

use super::gemm::{self, Scalar, Strides};
use crate::num::round;

/// A value for each element of a tensor, repeated in blocks: element i has `data[(i / inner) % data.len()]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread<T> {
    /// The distinct values.
    pub data: Vec<T>,
    /// How many neighbouring elements share one.
    pub inner: usize,
}

impl<T> Spread<T> {
    /// The same value everywhere.
    pub fn all(value: T) -> Self {
        Spread { data: vec![value], inner: 1 }
    }

    /// One value for each element.
    pub fn each(data: Vec<T>) -> Self {
        Spread { data, inner: 1 }
    }

    /// One value for each index of an axis, `inner` elements being below that axis.
    pub fn axis(data: Vec<T>, inner: usize) -> Self {
        Spread { data, inner: inner.max(1) }
    }

    /// The value for element i.
    pub fn at(&self, i: usize) -> &T {
        if self.data.len() == 1 { &self.data[0] } else { &self.data[(i / self.inner) % self.data.len()] }
    }

    /// The same layout with other values.
    pub fn map<U>(&self, f: impl FnMut(&T) -> U) -> Spread<U> {
        Spread { data: self.data.iter().map(f).collect(), inner: self.inner }
    }
}

/// Constant weights, each `f64` being the exact dyadic number it denotes, with copies made when first asked for.
#[derive(Clone, Debug)]
pub struct Weights(Arc<WeightCopies>);

#[derive(Debug)]
struct WeightCopies {
    exact: Vec<f64>,
    absolute: OnceLock<Vec<f64>>,
    single: OnceLock<Vec<f32>>,
}

impl Weights {
    /// Takes the exact weights.
    pub fn new(exact: Vec<f64>) -> Self {
        Weights(Arc::new(WeightCopies { exact, absolute: OnceLock::new(), single: OnceLock::new() }))
    }

    /// The exact weights.
    pub fn exact(&self) -> &[f64] {
        &self.0.exact
    }

    /// Their absolute values.
    pub fn absolute(&self) -> &[f64] {
        self.0.absolute.get_or_init(|| self.0.exact.iter().map(|w| w.abs()).collect())
    }

    /// Rounded to float32 (exact for integers below 2^24).
    pub fn single(&self) -> &[f32] {
        self.0.single.get_or_init(|| self.0.exact.iter().map(|&w| w as f32).collect())
    }
}

/// y = W x on the last axis, for each of `outer` blocks.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Number of blocks that are mapped alike.
    pub outer: usize,
    /// Length of x.
    pub n_in: usize,
    /// Length of y.
    pub n_out: usize,
    /// W, `[n_out, n_in]` row-major.
    pub weights: Weights,
}

/// Geometry of a two-dimensional convolution without padding (padding is a Move before it). One-dimensional
/// convolutions have height 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the usual names
pub struct Geometry {
    pub groups: usize,
    pub in_channels: usize,
    pub in_size: [usize; 2],
    pub out_channels: usize,
    pub out_size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
}

impl Geometry {
    fn in_plane(&self) -> usize {
        self.in_size[0] * self.in_size[1]
    }
    fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Products summed for one output.
    fn depth(&self) -> usize {
        self.in_channels / self.groups * self.taps()
    }
    /// Whether every window lies inside the input.
    pub fn fits(&self) -> bool {
        let inside = |a: usize| {
            self.out_size[a] == 0
                || (self.out_size[a] - 1) * self.stride[a] + (self.kernel[a] - 1) * self.dilation[a] < self.in_size[a]
        };
        self.groups > 0
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups)
            && inside(0)
            && inside(1)
    }

    /// The input index that the first position of an output row reads through a tap (given by its place among the weights of a channel).
    fn first_read(&self, group: usize, tap: usize, oy: usize) -> usize {
        let (channel, k) = (group * (self.in_channels / self.groups) + tap / self.taps(), tap % self.taps());
        let (ky, kx) = (k / self.kernel[1], k % self.kernel[1]);
        let y = oy * self.stride[0] + ky * self.dilation[0];
        channel * self.in_plane() + y * self.in_size[1] + kx * self.dilation[1]
    }

    /// Calls f(column row, output position, input index) for every tap of one group's im2col matrix.
    fn for_each_tap(&self, group: usize, mut f: impl FnMut(usize, usize, usize)) {
        let per_group = self.in_channels / self.groups;
        let mut row = 0;
        for channel in group * per_group..(group + 1) * per_group {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    for oy in 0..self.out_size[0] {
                        let y = oy * self.stride[0] + ky * self.dilation[0];
                        let base = channel * self.in_plane() + y * self.in_size[1] + kx * self.dilation[1];
                        for ox in 0..self.out_size[1] {
                            f(row, oy * self.out_size[1] + ox, base + ox * self.stride[1]);
                        }
                    }
                    row += 1;
                }
            }
        }
    }
}

/// A convolution, never expanded to a dense matrix.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Sizes.
    pub geometry: Geometry,
    /// `[out_channels, in_channels / groups, kernel height, kernel width]` row-major.
    pub weights: Weights,
}

/// A linear map between flattened tensors.
#[derive(Clone, Debug)]
pub enum LinearMap {
    /// Dense on the last axis.
    Dense(Dense),
    /// Convolution; sum pooling is one with unit weights and a group for each channel.
    Conv(Conv),
    /// Element-wise multiplication by exact constants.
    Diagonal {
        /// Number of elements.
        len: usize,
        /// The factors.
        scale: Spread<f64>,
    },
}

/// Which weights to apply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The weights.
    Signed,
    /// Their absolute values.
    Absolute,
}

impl LinearMap {
    /// The identity on `len` elements.
    pub fn identity(len: usize) -> Self {
        LinearMap::Diagonal { len, scale: Spread::all(1.0) }
    }

    /// Elements of the argument.
    pub fn inputs(&self) -> usize {
        match self {
            LinearMap::Dense(d) => d.outer * d.n_in,
            LinearMap::Conv(c) => c.geometry.in_channels * c.geometry.in_plane(),
            LinearMap::Diagonal { len, .. } => *len,
        }
    }

    /// Elements of the result.
    pub fn outputs(&self) -> usize {
        match self {
            LinearMap::Dense(d) => d.outer * d.n_out,
            LinearMap::Conv(c) => c.geometry.out_channels * c.geometry.out_plane(),
            LinearMap::Diagonal { len, .. } => *len,
        }
    }

    /// Products summed for one element of the result.
    pub fn fan_in(&self) -> usize {
        match self {
            LinearMap::Dense(d) => d.n_in,
            LinearMap::Conv(c) => c.geometry.depth(),
            LinearMap::Diagonal { .. } => 1,
        }
    }

    /// Largest number of products and sums behind one element of an adjoint product.
    pub fn fan_out(&self) -> usize {
        match self {
            LinearMap::Dense(d) => d.n_out,
            LinearMap::Conv(c) => (c.geometry.out_channels / c.geometry.groups + 1) * c.geometry.taps(),
            LinearMap::Diagonal { .. } => 1,
        }
    }

    /// Multiplications of one application.
    pub fn multiplications(&self) -> usize {
        self.outputs() * self.fan_in()
    }

    /// The weights, in storage order.
    pub fn weights(&self) -> &[f64] {
        match self {
            LinearMap::Dense(d) => d.weights.exact(),
            LinearMap::Conv(c) => c.weights.exact(),
            LinearMap::Diagonal { scale, .. } => &scale.data,
        }
    }

    /// A value not below the largest sum of |w| over the products of one output.
    pub fn largest_row_sum(&self) -> f64 {
        let rows = |w: &[f64], n: usize| {
            w.chunks(n.max(1)).map(|r| round::inflate(r.iter().map(|x| x.abs()).sum(), n)).fold(0.0, f64::max)
        };
        let exact =
            |w: &[f64], n: usize| w.chunks(n.max(1)).map(|r| r.iter().map(|x| x.abs()).sum()).fold(0.0, f64::max);
        let (w, n) = (self.weights(), self.fan_in());
        // Sums of integers below 2^53 are exact: no inflation, so that limits such as 2^24 are not missed by a hair.
        let integral = w.iter().all(|x| x.fract() == 0.0) && exact(w, n) < 9e15;
        match self {
            LinearMap::Diagonal { scale, .. } => scale.data.iter().fold(0.0, |m, x| x.abs().max(m)),
            _ if integral => exact(w, n),
            _ => rows(w, n),
        }
    }

    /// out = W x (or |W| x) for `rows` vectors; `accumulate` adds to out instead.
    pub fn apply(&self, sign: Sign, x: &[f64], rows: usize, out: &mut [f64], accumulate: bool) {
        match self {
            LinearMap::Dense(d) => dense_apply(d, pick(&d.weights, sign), x, rows, out, accumulate),
            LinearMap::Conv(c) => conv_apply(&c.geometry, pick(&c.weights, sign), x, rows, out, accumulate),
            LinearMap::Diagonal { len, scale } => {
                for (x, out) in x.chunks(*len).zip(out.chunks_mut(*len)).take(rows) {
                    for (i, (x, out)) in x.iter().zip(out).enumerate() {
                        let w = *scale.at(i);
                        let y = if sign == Sign::Absolute { w.abs() * x } else { w * x };
                        *out = if accumulate { *out + y } else { y };
                    }
                }
            }
        }
    }

    /// out += W x for `rows` vectors that lie side by side: element i of vector r is at `i * rows + r`.
    pub fn apply_columns(&self, x: &[f64], rows: usize, out: &mut [f64]) {
        match self {
            LinearMap::Dense(d) => {
                let w = (d.weights.exact(), Strides::rows(d.n_in));
                for (x, out) in x.chunks(d.n_in * rows).zip(out.chunks_mut(d.n_out * rows)) {
                    gemm::product((d.n_out, d.n_in, rows), w, (x, Strides::rows(rows)), out, true);
                }
            }
            LinearMap::Conv(c) => conv_apply_columns(&c.geometry, c.weights.exact(), x, rows, out),
            LinearMap::Diagonal { scale, .. } => {
                for (i, (x, out)) in x.chunks(rows).zip(out.chunks_mut(rows)).enumerate() {
                    let w = *scale.at(i);
                    x.iter().zip(out).for_each(|(x, out)| *out += w * x);
                }
            }
        }
    }

    /// out = W x in float32. Exact where every partial sum is an integer below 2^24 in magnitude.
    pub fn apply_single(&self, x: &[f32], rows: usize, out: &mut [f32], accumulate: bool) {
        match self {
            LinearMap::Dense(d) => dense_apply(d, d.weights.single(), x, rows, out, accumulate),
            LinearMap::Conv(c) => conv_apply(&c.geometry, c.weights.single(), x, rows, out, accumulate),
            LinearMap::Diagonal { len, scale } => {
                for (i, (x, out)) in x.iter().zip(out).enumerate() {
                    let y = *scale.at(i % len) as f32 * x;
                    *out = if accumulate { *out + y } else { y };
                }
            }
        }
    }

    /// out = c W for `rows` row vectors c (overwrites out).
    pub fn adjoint(&self, c: &[f64], rows: usize, out: &mut [f64]) {
        match self {
            LinearMap::Dense(d) => {
                let shape = (rows * d.outer, d.n_out, d.n_in);
                let w = (d.weights.exact(), Strides::rows(d.n_in));
                gemm::product(shape, (c, Strides::rows(d.n_out)), w, out, false);
            }
            LinearMap::Conv(conv) => conv_adjoint(&conv.geometry, conv.weights.exact(), c, rows, out),
            LinearMap::Diagonal { len, scale } => {
                for (i, (c, out)) in c.iter().zip(out).enumerate().take(rows * len) {
                    *out = c * scale.at(i % len);
                }
            }
        }
    }

    /// Calls f(argument index, weight) for each product of one output.
    pub fn for_each_term(&self, output: usize, mut f: impl FnMut(usize, f64)) {
        match self {
            LinearMap::Dense(d) => {
                let (block, row) = (output / d.n_out, output % d.n_out);
                let w = &d.weights.exact()[row * d.n_in..][..d.n_in];
                w.iter().enumerate().for_each(|(i, &w)| f(block * d.n_in + i, w));
            }
            LinearMap::Conv(c) => {
                let g = &c.geometry;
                let (channel, position) = (output / g.out_plane(), output % g.out_plane());
                let (oy, ox) = (position / g.out_size[1], position % g.out_size[1]);
                let per_group = g.in_channels / g.groups;
                let first = channel / (g.out_channels / g.groups) * per_group;
                let mut w = c.weights.exact()[channel * g.depth()..].iter();
                for ic in first..first + per_group {
                    for ky in 0..g.kernel[0] {
                        for kx in 0..g.kernel[1] {
                            let y = oy * g.stride[0] + ky * g.dilation[0];
                            let x = ox * g.stride[1] + kx * g.dilation[1];
                            // Local invariant: the weights have `depth` entries for each output channel.
                            f(ic * g.in_plane() + y * g.in_size[1] + x, *w.next().unwrap_or(&0.0));
                        }
                    }
                }
            }
            LinearMap::Diagonal { scale, .. } => f(output, *scale.at(output)),
        }
    }
}

fn pick(weights: &Weights, sign: Sign) -> &[f64] {
    match sign {
        Sign::Signed => weights.exact(),
        Sign::Absolute => weights.absolute(),
    }
}

fn dense_apply<T: Scalar>(d: &Dense, w: &[T], x: &[T], rows: usize, out: &mut [T], accumulate: bool) {
    let shape = (rows * d.outer, d.n_in, d.n_out);
    gemm::product(shape, (x, Strides::rows(d.n_in)), (w, Strides::transposed(d.n_in)), out, accumulate);
}

fn conv_apply<T: Scalar>(g: &Geometry, w: &[T], x: &[T], rows: usize, out: &mut [T], accumulate: bool) {
    let (positions, depth) = (g.out_plane(), g.depth());
    let out_per_group = g.out_channels / g.groups;
    let mut columns = vec![T::default(); depth * positions];
    for r in 0..rows {
        let x = &x[r * g.in_channels * g.in_plane()..];
        for group in 0..g.groups {
            g.for_each_tap(group, |row, position, input| columns[row * positions + position] = x[input]);
            let w = (&w[group * out_per_group * depth..], Strides::rows(depth));
            let start = (r * g.out_channels + group * out_per_group) * positions;
            let out = &mut out[start..start + out_per_group * positions];
            gemm::product((out_per_group, depth, positions), w, (&columns, Strides::rows(positions)), out, accumulate);
        }
    }
}

/// One product for each row of positions: the pictures of one position lie side by side, so that what a tap reads there is one run of
/// memory (or one for each position, with strides).
fn conv_apply_columns(g: &Geometry, w: &[f64], x: &[f64], rows: usize, out: &mut [f64]) {
    let (depth, n) = (g.depth(), g.out_size[1] * rows);
    let out_per_group = g.out_channels / g.groups;
    if n == 0 {
        return;
    }
    let mut columns = vec![0.0; depth * n];
    for (group, oy) in (0..g.groups).flat_map(|group| (0..g.out_size[0]).map(move |oy| (group, oy))) {
        for (tap, run) in columns.chunks_mut(n).enumerate() {
            let first = g.first_read(group, tap, oy) * rows;
            match g.stride[1] {
                1 => run.copy_from_slice(&x[first..first + n]),
                stride => {
                    let from = x[first..].chunks(stride * rows);
                    run.chunks_mut(rows).zip(from).for_each(|(to, from)| to.copy_from_slice(&from[..rows]));
                }
            }
        }
        let w = (&w[group * out_per_group * depth..], Strides::rows(depth));
        let into = &mut out[(group * out_per_group * g.out_plane() + oy * g.out_size[1]) * rows..];
        let shape = (out_per_group, depth, n);
        gemm::product_within(shape, w, (&columns, Strides::rows(n)), (into, g.out_plane() * rows), true);
    }
}

fn conv_adjoint(g: &Geometry, w: &[f64], c: &[f64], rows: usize, out: &mut [f64]) {
    let (positions, depth, in_len) = (g.out_plane(), g.depth(), g.in_channels * g.in_plane());
    let out_per_group = g.out_channels / g.groups;
    let mut columns = vec![0.0; depth * positions];
    out[..rows * in_len].fill(0.0);
    for r in 0..rows {
        let out = &mut out[r * in_len..(r + 1) * in_len];
        for group in 0..g.groups {
            let w = (&w[group * out_per_group * depth..], Strides::transposed(depth));
            let start = (r * g.out_channels + group * out_per_group) * positions;
            let c = (&c[start..start + out_per_group * positions], Strides::rows(positions));
            gemm::product((depth, out_per_group, positions), w, c, &mut columns, false);
            g.for_each_tap(group, |row, position, input| out[input] += columns[row * positions + position]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_definition(map: &LinearMap, x: &[f64]) -> Vec<f64> {
        let output = |o| {
            let mut sum = 0.0;
            map.for_each_term(o, |i, w| sum += w * x[i]);
            sum
        };
        (0..map.outputs()).map(output).collect()
    }

    fn examples() -> Vec<LinearMap> {
        let weights = |n: usize| Weights::new((0..n).map(|i| ((i * 7 + 3) % 11) as f64 - 5.0).collect());
        let conv = |groups, kernel: [usize; 2], stride, dilation: [usize; 2], out_size| {
            let geometry = Geometry {
                groups,
                in_channels: 4,
                in_size: [7, 6],
                out_channels: 6,
                out_size,
                kernel,
                stride,
                dilation,
            };
            assert!(geometry.fits());
            LinearMap::Conv(Conv { geometry, weights: weights(6 * 4 / groups * kernel[0] * kernel[1]) })
        };
        vec![
            LinearMap::Dense(Dense { outer: 3, n_in: 5, n_out: 4, weights: weights(20) }),
            conv(1, [3, 2], [2, 1], [1, 1], [3, 5]),
            conv(2, [2, 2], [1, 2], [2, 1], [5, 3]),
            LinearMap::Diagonal { len: 12, scale: Spread::axis(vec![2.0, -3.0, 4.0], 2) },
        ]
    }

    #[test]
    fn apply_and_adjoint_agree_with_the_terms() {
        for map in examples() {
            let rows = 2;
            let x: Vec<f64> = (0..rows * map.inputs()).map(|i| (i % 13) as f64 - 6.0).collect();
            let c: Vec<f64> = (0..rows * map.outputs()).map(|i| (i % 7) as f64 - 3.0).collect();
            let mut y = vec![0.0; rows * map.outputs()];
            map.apply(Sign::Signed, &x, rows, &mut y, false);
            let side_by_side: Vec<f64> = (0..map.inputs())
                .flat_map(|i| (0..rows).map(move |r| (i, r)))
                .map(|(i, r)| x[r * map.inputs() + i])
                .collect();
            let mut columns = vec![0.0; rows * map.outputs()];
            map.apply_columns(&side_by_side, rows, &mut columns);
            let mut back = vec![0.0; rows * map.inputs()];
            map.adjoint(&c, rows, &mut back);
            for r in 0..rows {
                let (x, y) = (&x[r * map.inputs()..][..map.inputs()], &y[r * map.outputs()..][..map.outputs()]);
                assert_eq!(y, by_definition(&map, x));
                let by_column: Vec<f64> = columns.iter().skip(r).step_by(rows).copied().collect();
                assert_eq!(y, by_column);
                let c = &c[r * map.outputs()..][..map.outputs()];
                let back = &back[r * map.inputs()..][..map.inputs()];
                let left: f64 = c.iter().zip(y).map(|(a, b)| a * b).sum();
                let right: f64 = back.iter().zip(x).map(|(a, b)| a * b).sum();
                assert_eq!(left, right);
            }
        }
    }
}
