//! Dense layers in float32.
//!
//! # Claim
//! Each output is the bias plus the products in the order of the inputs, all additions rounded to float32, and products too unless the processor adds them
//! in one
//! rounding.
//!
//! # Why
//! A sum stays in one place of one register from the bias to the last product: blocks are of rows and outputs, never of inputs.

use crate::net::gemm::vectorized;
use crate::net::{Affine, LinearMap, Node, Op};

/// Outputs side by side.
const LANES: usize = 8;
type Lanes = [f32; LANES];

/// Rows at once where there are as many; a panel's weights for them stay in the nearest cache.
const ROWS: usize = 8;

/// A layer on one block of inputs.
pub(super) struct FloatDense {
    /// `[panels, inputs]`, each for the outputs of a panel.
    weights: Vec<Lanes>,
    /// For each panel.
    bias: Vec<Lanes>,
    inputs: usize,
    outputs: usize,
    is_fused: bool,
}

impl FloatDense {
    /// From a node that is such a layer.
    pub fn new(node: &Node) -> Option<Self> {
        let Op::Affine(a @ Affine { terms, .. }) = &node.op else { return None };
        let [(_, LinearMap::Dense(d))] = &terms[..] else { return None };
        if d.outer != 1 {
            return None;
        }
        let panels = d.n_out.div_ceil(LANES);
        let (mut weights, mut bias) = (vec![[0.0; LANES]; panels * d.n_in], vec![[0.0; LANES]; panels]);
        for (o, row) in d.weights.single().chunks(d.n_in).enumerate() {
            let (panel, lane) = (o / LANES, o % LANES);
            bias[panel][lane] = *a.bias.at(o) as f32;
            weights[panel * d.n_in..].iter_mut().zip(row).for_each(|(lanes, w)| lanes[lane] = *w);
        }
        Some(FloatDense { weights, bias, inputs: d.n_in, outputs: d.n_out, is_fused: adds_products() })
    }

    /// Makes `out` the outputs of some rows.
    pub fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len() / self.inputs * self.outputs, 0.0);
        // Without the attributes, the closures might be compiled apart, and for any processor.
        if self.is_fused {
            vectorized(
                #[inline(always)]
                || self.rows::<true>(x, out),
            );
        } else {
            vectorized(
                #[inline(always)]
                || self.rows::<false>(x, out),
            );
        }
    }

    /// One panel for several rows, or several panels for one row: sums enough to keep the processor busy, in its registers.
    #[inline(always)]
    fn rows<const FUSED: bool>(&self, x: &[f32], out: &mut [f32]) {
        let (full_x, full_out) = (ROWS * self.inputs, ROWS * self.outputs);
        let whole = x.len() / full_x;
        let ((x, rest_x), (out, rest_out)) = (x.split_at(whole * full_x), out.split_at_mut(whole * full_out));
        for panel in 0..self.bias.len() {
            for (x, out) in x.chunks_exact(full_x).zip(out.chunks_exact_mut(full_out)) {
                self.tile::<ROWS, 1, FUSED>(x, panel, out);
            }
        }
        for (x, out) in rest_x.chunks_exact(self.inputs).zip(rest_out.chunks_exact_mut(self.outputs)) {
            let mut panel = 0;
            while panel < self.bias.len() {
                panel += match self.bias.len() - panel {
                    8.. => self.tile::<1, 8, FUSED>(x, panel, out),
                    7 => self.tile::<1, 7, FUSED>(x, panel, out),
                    4.. => self.tile::<1, 4, FUSED>(x, panel, out),
                    2.. => self.tile::<1, 2, FUSED>(x, panel, out),
                    _ => self.tile::<1, 1, FUSED>(x, panel, out),
                };
            }
        }
    }

    /// The outputs of Q panels for R rows; gives Q.
    #[inline(always)]
    fn tile<const R: usize, const Q: usize, const FUSED: bool>(
        &self,
        x: &[f32],
        panel: usize,
        out: &mut [f32],
    ) -> usize {
        let n = self.inputs;
        // Loops, so that all lengths are seen to be n.
        let (mut rows, mut weights): ([&[f32]; R], [&[Lanes]; Q]) = ([&[]; R], [&[]; Q]);
        rows.iter_mut().zip(0..).for_each(|(row, r)| *row = &x[r * n..][..n]);
        weights.iter_mut().zip(panel..).for_each(|(w, p)| *w = &self.weights[p * n..][..n]);
        let mut sums = [[[0.0f32; LANES]; Q]; R];
        sums.iter_mut().for_each(|sums| sums.copy_from_slice(&self.bias[panel..panel + Q]));
        // By indices: iterators over several arrays at once are not unrolled into registers.
        for i in 0..n {
            for r in 0..R {
                let x = rows[r][i];
                for q in 0..Q {
                    add_product::<FUSED>(&mut sums[r][q], &weights[q][i], x);
                }
            }
        }
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(self.outputs)) {
            let places = out[panel * LANES..].chunks_mut(LANES);
            places.zip(sums).for_each(|(out, sums)| out.copy_from_slice(&sums[..out.len()]));
        }
        Q
    }
}

/// sums += w x.
#[inline(always)]
fn add_product<const FUSED: bool>(sums: &mut Lanes, w: &Lanes, x: f32) {
    for j in 0..LANES {
        sums[j] = if FUSED { w[j].mul_add(x, sums[j]) } else { sums[j] + w[j] * x };
    }
}

/// Whether the processor adds a product in one rounding, and [`vectorized`] uses that.
fn adds_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}
