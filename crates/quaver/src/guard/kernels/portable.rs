//! Integer matrix products in plain Rust: the meaning of the kernels in `simd.rs`, and what runs where there are none.
//!
//! Weights lie in panels of [`LANES`] output channels. A panel has `groups` groups of G neighbouring inputs (two 16-bit or four 8-bit integers, as many as
//! 32 bits
//! hold); a group holds G weights of the first channel, then of the second, and so on. One instruction multiplies a group with the same G inputs for all
//! channels of a panel and adds the G products of each.

/// Output channels in a panel.
pub(super) const LANES: usize = 8;

/// Sums of products over the groups `from..to`, for `rows` rows of inputs and all panels, added to `keep` times what is there.
///
/// # Shapes
/// inputs: rows `pitch` apart; weights: `[panels, groups, LANES, G]`; out: rows `out_pitch` apart, each with `panels` LANES sums.
///
/// # Claim
/// Exact where every sum of |weight| input over the groups, and every sum that is kept, is below 2^31 and 2^53 each: sums modulo 2^32 do not depend on
/// the order, and are the sums if those fit.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, X, W> {
    pub inputs: &'a [X],
    pub pitch: usize,
    pub rows: usize,
    pub weights: &'a [W],
    pub panels: usize,
    pub groups: usize,
    pub from: usize,
    pub to: usize,
    pub out_pitch: usize,
    pub keep: f64,
}

impl<X, W> Product<'_, X, W> {
    /// # Panics
    /// If a slice is too short for its shape. `group` is G.
    pub fn check(&self, group: usize, out: &[f64]) {
        assert!(self.rows > 0 && self.panels > 0 && self.from <= self.to && self.to <= self.groups);
        assert!(self.inputs.len() >= (self.rows - 1) * self.pitch + self.to * group, "inputs are too short");
        assert!(self.weights.len() >= self.panels * self.groups * LANES * group, "weights are too short");
        assert!(out.len() >= (self.rows - 1) * self.out_pitch + self.panels * LANES, "sums are too short");
    }
}

/// 16-bit integers (inputs at most 32767), in groups of two.
pub(super) fn words(p: Product<u16, i16>, out: &mut [f64]) {
    p.check(2, out);
    product::<2, _, _>(p, out, |x| i32::from(x as i16), i32::from);
}

/// 8-bit integers in groups of four.
pub(super) fn bytes(p: Product<u8, i8>, out: &mut [f64]) {
    p.check(4, out);
    product::<4, _, _>(p, out, i32::from, i32::from);
}

#[inline(always)]
fn product<const G: usize, X: Copy, W: Copy>(
    p: Product<X, W>,
    out: &mut [f64],
    input: impl Fn(X) -> i32 + Copy,
    weight: impl Fn(W) -> i32 + Copy,
) {
    for panel in 0..p.panels {
        let weights = &p.weights[(panel * p.groups + p.from) * LANES * G..(panel * p.groups + p.to) * LANES * G];
        for row in 0..p.rows {
            let x = &p.inputs[row * p.pitch + p.from * G..row * p.pitch + p.to * G];
            let mut sums = [0i32; LANES];
            for (w, x) in weights.chunks_exact(LANES * G).zip(x.chunks_exact(G)) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    for g in 0..G {
                        *sum = sum.wrapping_add(weight(w[lane * G + g]) * input(x[g]));
                    }
                }
            }
            let out = &mut out[row * p.out_pitch + panel * LANES..][..LANES];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *out * p.keep + f64::from(sum));
        }
    }
}
