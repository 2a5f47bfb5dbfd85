//! Adjoints on part of a tensor: what a batch of functionals becomes on its way back through a linear map, only where it is not zero.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use super::gemm::{self, Strides};
use super::linear::{Conv, Dense, Geometry, LinearMap};

/// Coefficients of `rows` functionals on some elements of a value; on all other elements they are zero.
///
/// The functionals are innermost, so that whatever is done to one element is one loop over neighbouring numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// How many functionals.
    pub rows: usize,
    /// The elements, each at most once, in any order.
    pub elements: Vec<u32>,
    /// `data[k * rows + r]` belongs to element `elements[k]` and functional r.
    pub data: Vec<f64>,
}

impl Patch {
    /// From row-major coefficients on all elements.
    pub fn dense(coefficients: &[f64], rows: usize) -> Self {
        let n = coefficients.len() / rows.max(1);
        let data = (0..n).flat_map(|i| (0..rows).map(move |r| coefficients[r * n + i])).collect();
        Patch { rows, elements: (0..n as u32).collect(), data }
    }

    /// For each of the given elements in turn, the functional that is the element and the one that is its negative.
    pub fn signed_units(elements: &[usize]) -> Self {
        let rows = 2 * elements.len();
        let mut data = vec![0.0; elements.len() * rows];
        for k in 0..elements.len() {
            data[k * rows + 2 * k] = 1.0;
            data[k * rows + 2 * k + 1] = -1.0;
        }
        Patch { rows, elements: elements.iter().map(|&e| e as u32).collect(), data }
    }

    /// Each element with its coefficients.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.elements.iter().map(|&e| e as usize).zip(self.data.chunks(self.rows.max(1)))
    }

    /// Each element with its coefficients, to change them.
    pub fn runs_mut(&mut self) -> impl Iterator<Item = (usize, &mut [f64])> {
        self.elements.iter().map(|&e| e as usize).zip(self.data.chunks_mut(self.rows.max(1)))
    }

    /// The coefficients with element e at `place(e)` of `count` places, zero at the others.
    fn arranged(&self, count: usize, place: impl Fn(usize) -> usize) -> Cow<'_, [f64]> {
        let in_place = |(k, &e): (usize, &u32)| place(e as usize) == k;
        if self.elements.len() == count && self.elements.iter().enumerate().all(in_place) {
            return Cow::Borrowed(&self.data);
        }
        let mut out = vec![0.0; count * self.rows];
        for (e, run) in self.runs() {
            out[place(e) * self.rows..][..self.rows].copy_from_slice(run);
        }
        Cow::Owned(out)
    }
}

impl LinearMap {
    /// c W, in some order of summation of at most [`LinearMap::fan_out`] products for each coefficient.
    ///
    /// Elements that are left out have the coefficient zero exactly: no output with a coefficient reads them.
    pub fn adjoint_patch(&self, c: &Patch) -> Patch {
        match self {
            _ if c.elements.is_empty() => c.clone(),
            LinearMap::Dense(d) => dense_adjoint(d, c),
            LinearMap::Conv(conv) => conv_adjoint(conv, c),
            LinearMap::Diagonal { scale, .. } => {
                let mut back = c.clone();
                back.runs_mut().for_each(|(e, run)| run.iter_mut().for_each(|c| *c *= scale.at(e)));
                back
            }
        }
    }
}

/// Blocks without a coefficient are left out, and so are the rows of W before the first and after the last that has one.
fn dense_adjoint(d: &Dense, c: &Patch) -> Patch {
    let rows = c.rows;
    let within = || c.elements.iter().map(|&e| e as usize % d.n_out);
    let first = within().min().unwrap_or(0);
    let used = within().max().map_or(0, |last| last + 1 - first);
    let mut blocks: Vec<usize> = c.elements.iter().map(|&e| e as usize / d.n_out).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let mut number = vec![0; d.outer];
    blocks.iter().enumerate().for_each(|(k, &b)| number[b] = k);
    let from = c.arranged(blocks.len() * used, |e| number[e / d.n_out] * used + e % d.n_out - first);
    let weights = (&d.weights.exact()[first * d.n_in..], Strides::transposed(d.n_in));
    let mut data = vec![0.0; blocks.len() * d.n_in * rows];
    for (c, out) in from.chunks(used * rows).zip(data.chunks_mut(d.n_in * rows)) {
        gemm::product((d.n_in, used, rows), weights, (c, Strides::rows(rows)), out, false);
    }
    let elements = blocks.iter().flat_map(|b| b * d.n_in..(b + 1) * d.n_in).map(|e| e as u32).collect();
    Patch { rows, elements, data }
}

/// A rectangle of positions of a picture, with all channels; its elements in the order y, x, channel.
struct Window {
    y: Range<usize>,
    x: Range<usize>,
}

impl Window {
    /// The smallest that holds all elements of a tensor of pictures of the given size.
    fn around(elements: &[u32], size: [usize; 2]) -> Self {
        let hull = |of: &dyn Fn(usize) -> usize| {
            let all = || elements.iter().map(|&e| of(e as usize));
            all().min().unwrap_or(0)..all().max().map_or(0, |last| last + 1)
        };
        Window { y: hull(&|e| e / size[1] % size[0]), x: hull(&|e| e % size[1]) }
    }

    /// Everything that a convolution reads for the positions of a window of its output.
    fn read_by(&self, g: &Geometry) -> Self {
        let read = |r: &Range<usize>, a: usize| {
            r.start * g.stride[a]..(r.end - 1) * g.stride[a] + (g.kernel[a] - 1) * g.dilation[a] + 1
        };
        Window { y: read(&self.y, 0), x: read(&self.x, 1) }
    }

    fn area(&self) -> usize {
        self.y.len() * self.x.len()
    }

    /// Where an element stands among those of the window.
    fn place(&self, element: usize, size: [usize; 2], channels: usize) -> usize {
        let (channel, y, x) = (element / (size[0] * size[1]), element / size[1] % size[0], element % size[1]);
        ((y - self.y.start) * self.x.len() + x - self.x.start) * channels + channel
    }

    fn elements(&self, size: [usize; 2], channels: usize) -> Vec<u32> {
        let positions = self.y.clone().flat_map(|y| self.x.clone().map(move |x| y * size[1] + x));
        positions.flat_map(|p| (0..channels).map(move |c| (c * size[0] * size[1] + p) as u32)).collect()
    }
}

/// Neighbouring taps of one axis that bring neighbouring output positions to one input position.
struct Run {
    /// Place of the first in [`tap_order`].
    tap: usize,
    /// Output position of the first.
    position: usize,
    count: usize,
}

/// The taps of an axis in an order in which those that meet at an input position are neighbours, and so are their output positions (where the
/// dilation is 1): by their remainder modulo the stride, then backwards.
fn tap_order(g: &Geometry, axis: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..g.kernel[axis]).collect();
    order.sort_by_key(|&k| (k * g.dilation[axis] % g.stride[axis], Reverse(k)));
    order
}

/// The taps through which outputs of a range read the input position i, at most `most` in one run.
fn runs_to(i: usize, g: &Geometry, axis: usize, outputs: &Range<usize>, most: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = vec![];
    for (tap, k) in tap_order(g, axis).into_iter().enumerate() {
        let Some(offset) = i.checked_sub(k * g.dilation[axis]) else { continue };
        let position = offset / g.stride[axis];
        if !offset.is_multiple_of(g.stride[axis]) || !outputs.contains(&position) {
            continue;
        }
        match runs.last_mut() {
            Some(r) if r.count < most && (r.tap + r.count, r.position + r.count) == (tap, position) => r.count += 1,
            _ => runs.push(Run { tap, position, count: 1 }),
        }
    }
    runs
}

/// The weights as `[groups, kernel height, kernel width, out_channels / groups, in_channels / groups]`, taps in [`tap_order`].
fn weights_by_tap(conv: &Conv) -> Vec<f64> {
    let (g, w) = (&conv.geometry, conv.weights.exact());
    let (outs, ins) = (g.out_channels / g.groups, g.in_channels / g.groups);
    let (ys, xs) = (tap_order(g, 0), tap_order(g, 1));
    let mut out = Vec::with_capacity(w.len());
    for group in 0..g.groups {
        for (ky, kx) in ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x))) {
            for o in group * outs..(group + 1) * outs {
                out.extend((0..ins).map(|i| w[((o * ins + i) * g.kernel[0] + ky) * g.kernel[1] + kx]));
            }
        }
    }
    out
}

/// For each input position, one product for each run of taps that reach it: with the order y, x, channel the coefficients of a run
/// are one matrix as they stand, and no column matrix is made.
fn conv_adjoint(conv: &Conv, c: &Patch) -> Patch {
    let (g, rows) = (&conv.geometry, c.rows);
    let from = Window::around(&c.elements, g.out_size);
    let to = from.read_by(g);
    let coefficients = c.arranged(from.area() * g.out_channels, |e| from.place(e, g.out_size, g.out_channels));
    let weights = weights_by_tap(conv);
    let ys: Vec<Vec<Run>> = to.y.clone().map(|y| runs_to(y, g, 0, &from.y, 1)).collect();
    // Channels of one group are not neighbours across positions unless it is the only one.
    let most = if g.groups == 1 && !is_small(g) { usize::MAX } else { 1 };
    let xs: Vec<Vec<Run>> = to.x.clone().map(|x| runs_to(x, g, 1, &from.x, most)).collect();
    let mut data = vec![0.0; to.area() * g.in_channels * rows];
    let targets = ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x)));
    for ((ys, xs), out) in targets.zip(data.chunks_mut(g.in_channels * rows)) {
        for (y, x) in ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x))) {
            let position = (y.position - from.y.start) * from.x.len() + x.position - from.x.start;
            let c = &coefficients[position * g.out_channels * rows..];
            add_taps(g, &weights, y.tap * g.kernel[1] + x.tap, x.count, c, rows, out);
        }
    }
    Patch { rows, elements: to.elements(g.in_size, g.in_channels), data }
}

/// Whether a tap has too few weights in each group for a matrix product (depthwise convolutions, sum pools).
fn is_small(g: &Geometry) -> bool {
    g.out_channels / g.groups * (g.in_channels / g.groups) <= 4
}

/// Adds what `count` taps bring to the channels of one input position from the output positions that start at c.
fn add_taps(g: &Geometry, weights: &[f64], tap: usize, count: usize, c: &[f64], rows: usize, out: &mut [f64]) {
    let (outs, ins) = (g.out_channels / g.groups, g.in_channels / g.groups);
    let size = outs * ins;
    let taps = g.kernel[0] * g.kernel[1];
    if is_small(g) {
        gemm::vectorized(
            #[inline(always)]
            || add_small(weights, (tap, taps), (outs, ins), c, rows, out),
        );
        return;
    }
    for (group, out) in out.chunks_mut(ins * rows).enumerate() {
        let w = (&weights[(group * taps + tap) * size..], Strides::transposed(ins));
        let c = (&c[group * outs * rows..], Strides::rows(rows));
        gemm::product((ins, count * outs, rows), w, c, out, true);
    }
}

/// [`add_taps`] for one tap of small groups.
#[inline(always)]
fn add_small(
    weights: &[f64],
    (tap, taps): (usize, usize),
    (outs, ins): (usize, usize),
    c: &[f64],
    rows: usize,
    out: &mut [f64],
) {
    let groups = out.chunks_mut(ins * rows).zip(c.chunks(outs * rows)).enumerate();
    for (group, (out, c)) in groups {
        let w = &weights[(group * taps + tap) * outs * ins..][..outs * ins];
        for (c, w) in c.chunks(rows).zip(w.chunks(ins)) {
            for (out, w) in out.chunks_mut(rows).zip(w) {
                out.iter_mut().zip(c).for_each(|(out, c)| *out += w * c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Spread, Weights};
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    fn weights(rng: &mut StdRng, n: usize) -> Weights {
        Weights::new((0..n).map(|_| f64::from(rng.random_range(-9i32..=9))).collect())
    }

    fn random_conv(rng: &mut StdRng) -> LinearMap {
        let groups = rng.random_range(1..=3);
        let (ins, outs) = (rng.random_range(1..=3), rng.random_range(1..=3));
        let mut pick = |most: usize| [rng.random_range(1..=most), rng.random_range(1..=most)];
        let (kernel, stride, dilation, out_size) = (pick(3), pick(3), pick(3), pick(4));
        let spare = pick(2);
        let in_size = [0, 1].map(|a| (out_size[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + spare[a]);
        let (in_channels, out_channels) = (groups * ins, groups * outs);
        let geometry = Geometry { groups, in_channels, in_size, out_channels, out_size, kernel, stride, dilation };
        assert!(geometry.fits());
        LinearMap::Conv(Conv { geometry, weights: weights(rng, out_channels * ins * kernel[0] * kernel[1]) })
    }

    fn random_map(rng: &mut StdRng) -> LinearMap {
        let (outer, n_in, n_out) = (rng.random_range(1..=4), rng.random_range(1..=5), rng.random_range(1..=5));
        match rng.random_range(0..4) {
            0 => LinearMap::Dense(Dense { outer, n_in, n_out, weights: weights(rng, n_in * n_out) }),
            1 => LinearMap::Diagonal { len: 12, scale: Spread::axis(vec![2.0, -3.0, 4.0], 2) },
            _ => random_conv(rng),
        }
    }

    proptest! {
        /// Integers, so that both are exact.
        #[test]
        fn a_patch_gives_what_the_whole_tensor_gives(seed in any::<u64>()) {
            let rng = &mut StdRng::seed_from_u64(seed);
            let map = random_map(rng);
            let (n, rows) = (map.outputs(), rng.random_range(1..=5));
            let mut elements: Vec<u32> = (0..n as u32).collect();
            elements.shuffle(rng);
            elements.truncate(rng.random_range(0..=n));
            let data: Vec<f64> = (0..elements.len() * rows).map(|_| f64::from(rng.random_range(-9i32..=9))).collect();
            let patch = Patch { rows, elements, data };
            let mut whole = vec![0.0; rows * n];
            for (e, run) in patch.runs() {
                run.iter().enumerate().for_each(|(r, c)| whole[r * n + e] = *c);
            }
            let mut expected = vec![0.0; rows * map.inputs()];
            map.adjoint(&whole, rows, &mut expected);
            let back = map.adjoint_patch(&patch);
            let mut found = vec![0.0; rows * map.inputs()];
            let mut times = vec![0; map.inputs()];
            for (e, run) in back.runs() {
                times[e] += 1;
                run.iter().enumerate().for_each(|(r, c)| found[r * map.inputs() + e] = *c);
            }
            prop_assert!(times.iter().all(|&t| t <= 1));
            prop_assert_eq!(found, expected);
        }
    }
}
