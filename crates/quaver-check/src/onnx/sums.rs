//! Exact sums of products of integers, which must fit into 32 bits.

use super::call::{Call, Known};
use super::lower::Lowering;
use super::steps::INTEGERS;
use crate::net::{Affine, Map, Op};

impl Lowering {
    /// The product of a value's integers less `zero` and constant weights, without a bias.
    pub(super) fn integer_sum(&mut self, call: &Call, x: &Known, zero: i64, weights: Known) -> Result<Known, String> {
        let first = self.net.values.len();
        self.margin = zero as f64;
        let plain = Call { node: call.node, opset: call.opset, inputs: vec![Some(x.clone()), Some(weights)] };
        let known = match &call.node.op[..] {
            "Gemm" | "QGemm" => self.gemm(&plain),
            "MatMul" | "QLinearMatMul" => self.matmul(&plain),
            _ => self.convolution(&plain),
        }?;
        self.net.values[first..].iter_mut().for_each(|value| value.integer = true);
        let (rows, run) = self.rows(&known)?;
        let folded: Vec<f64> = rows.map(|row| row.iter().sum::<f64>() * -(zero as f64)).collect();
        self.shift(&known, |i| folded[i / run % folded.len()])?;
        Ok(known)
    }

    /// Adds a number to each element of a sum.
    pub(super) fn shift(&mut self, sum: &Known, by: impl Fn(usize) -> f64) -> Result<(), String> {
        let Some(Op::Affine(affine)) = sum.id().map(|id| &mut self.net.values[id].op) else {
            return Err("no sum".into());
        };
        affine.bias.iter_mut().enumerate().for_each(|(i, bias)| *bias += by(i));
        Ok(())
    }

    /// Refuses a sum that may leave 32 bits when the arguments are within a range.
    pub(super) fn fits(&self, sum: &Known, [low, high]: [i64; 2]) -> Result<(), String> {
        let (rows, run) = self.rows(sum)?;
        let ends = |row: &[f64]| {
            row.iter()
                .map(|&w| w as i64)
                .fold([0i64; 2], |[a, b], w| [a + (w * low).min(w * high), b + (w * low).max(w * high)])
        };
        let ends: Vec<[i64; 2]> = rows.map(ends).collect();
        let Some(Op::Affine(affine)) = sum.id().map(|id| &self.net.values[id].op) else { return Err("no sum".into()) };
        for (i, &bias) in affine.bias.iter().enumerate() {
            let reached = ends[i / run % ends.len()].map(|end| end.saturating_add(bias as i64));
            if reached[0] < -INTEGERS || reached[1] > INTEGERS {
                return Err(format!("element {i} of its sums may reach {reached:?}, which leaves 32 bits"));
            }
        }
        Ok(())
    }

    /// The weights of each output channel of a sum, and how many elements of a channel are next to each other.
    fn rows(&self, sum: &Known) -> Result<(impl Iterator<Item = &[f64]>, usize), String> {
        let op = sum.id().map(|id| &self.net.values[id].op);
        let Some(Op::Affine(Affine { terms, .. })) = op else { return Err("no sum".into()) };
        let (weights, channels, run) = match terms.first().map(|term| &term.1) {
            Some(Map::Dense { outputs, weights, .. }) => (weights, *outputs, 1),
            Some(Map::Conv(conv)) => (&conv.weights, conv.out_channels, conv.out_size[0] * conv.out_size[1]),
            _ => return Err("no product".into()),
        };
        if weights.is_empty() {
            return Err("there are no weights".into());
        }
        Ok((weights.chunks((weights.len() / channels.max(1)).max(1)), run))
    }
}
