//! Dense layers in float32.
//!
//! # Claim
//! Each output is the bias plus the products in the order of the inputs, all additions rounded to float32, and products too unless the processor adds them in one
//! rounding.
//!
//! # Why
//! A sum stays in one place of one register from the bias to the last product: blocks are of rows and outputs, never of inputs.

use crate::net::gemm::vectorized;
use crate::net::{Affine, LinearMap, Node, Op};

/// Outputs fill up blocks of this.
const LANES: usize = 8;

/// A layer on one block of inputs.
pub(super) struct FloatDense {
    /// `[inputs, pitch]`: the weights of each input side by side.
    weights: Vec<f32>,
    /// As long as `pitch`.
    bias: Vec<f32>,
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
        let pitch = d.n_out.next_multiple_of(LANES);
        let mut weights = vec![0.0; d.n_in * pitch];
        for (o, row) in d.weights.single().chunks(d.n_in).enumerate() {
            row.iter().enumerate().for_each(|(i, w)| weights[i * pitch + o] = *w);
        }
        let bias = (0..pitch).map(|o| if o < d.n_out { *a.bias.at(o) as f32 } else { 0.0 }).collect();
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

    /// Four rows and 24 outputs at once, or one row and up to 64: the sums fill the registers.
    #[inline(always)]
    fn rows<const FUSED: bool>(&self, x: &[f32], out: &mut [f32]) {
        let (mut x, mut out) = (x.chunks_exact(4 * self.inputs), out.chunks_exact_mut(4 * self.outputs));
        for (x, out) in (&mut x).zip(&mut out) {
            let mut start = 0;
            while start < self.bias.len() {
                start += match self.bias.len() - start {
                    24.. => self.tile::<4, 24, FUSED>(x, start, out),
                    16.. => self.tile::<4, 16, FUSED>(x, start, out),
                    _ => self.tile::<4, 8, FUSED>(x, start, out),
                };
            }
        }
        let rest = x.remainder().chunks_exact(self.inputs).zip(out.into_remainder().chunks_exact_mut(self.outputs));
        for (x, out) in rest {
            let mut start = 0;
            while start < self.bias.len() {
                start += match self.bias.len() - start {
                    64.. => self.tile::<1, 64, FUSED>(x, start, out),
                    56.. => self.tile::<1, 56, FUSED>(x, start, out),
                    40.. => self.tile::<1, 40, FUSED>(x, start, out),
                    24.. => self.tile::<1, 24, FUSED>(x, start, out),
                    16.. => self.tile::<1, 16, FUSED>(x, start, out),
                    _ => self.tile::<1, 8, FUSED>(x, start, out),
                };
            }
        }
    }

    /// The outputs from `start` on of R rows; gives how many.
    #[inline(always)]
    fn tile<const R: usize, const W: usize, const FUSED: bool>(
        &self,
        x: &[f32],
        start: usize,
        out: &mut [f32],
    ) -> usize {
        let (inputs, pitch) = (self.inputs, self.bias.len());
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * inputs..][..inputs]);
        let mut sums = [[0.0f32; W]; R];
        sums.iter_mut().for_each(|sums| sums.copy_from_slice(&self.bias[start..start + W]));
        for (i, w) in self.weights.chunks_exact(pitch).enumerate().take(inputs) {
            let w = &w[start..start + W];
            for r in 0..R {
                let x = rows[r][i];
                for j in 0..W {
                    sums[r][j] = if FUSED { w[j].mul_add(x, sums[r][j]) } else { sums[r][j] + w[j] * x };
                }
            }
        }
        let end = (start + W).min(self.outputs);
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(self.outputs)) {
            out[start..end].copy_from_slice(&sums[..end - start]);
        }
        W
    }
}

/// Whether the processor adds a product in one rounding, and [`vectorized`] uses that.
fn adds_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}
