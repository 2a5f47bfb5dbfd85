//! A float network in float32, to fall back to.
//!
//! # Claim
//! What [`FloatNet::run`] gives is one of the executions that profile `float32` allows: each sum is added in some order with float32 roundings (products that are
//! added in one rounding are allowed as well), and everything else is the one float32 operation that the net says.
//!
//! # Why
//! Element-wise maps of a net under `float32` are rounded once, which is one product and one sum in float32 where one of them is trivial; sums of products may be
//! added in any order (`docs/profiles.md`, section 3.2). Steps and clips compare and copy.

use super::KernelError;
use crate::model::lower::Lowered;
use crate::net::gemm::vectorized;
use crate::net::{Affine, From, LinearMap, Net, Node, NodeId, Op, Piecewise, ScalarFn, Spread};

/// A float network that runs on one thread.
pub struct FloatNet {
    net: Net,
    needed: Vec<NodeId>,
    /// For dense layers on one block: the weights of each input side by side.
    transposed: Vec<Option<Vec<f32>>>,
    inputs: usize,
}

/// Rows that go through the network together.
const BLOCK: usize = 64;

impl FloatNet {
    /// From a net under `float32`.
    ///
    /// # Errors
    /// If it has several inputs or outputs, or is not a float network (a band of several runtimes).
    pub fn new(lowered: &Lowered) -> Result<FloatNet, KernelError> {
        let net = lowered.net.clone();
        let ([input], [_]) = (net.inputs(), net.outputs()) else {
            let found = format!("{} inputs and {} outputs", net.inputs().len(), net.outputs().len());
            return Err(KernelError::new("", found, "use a network with one input and one output"));
        };
        let inputs = net.node(*input).len();
        let needed: Vec<NodeId> = net.ids().zip(net.needed()).filter(|n| n.1).map(|n| n.0).collect();
        for &id in &needed {
            supported(net.node(id))?;
        }
        let transposed = net.nodes().iter().map(transposed).collect();
        Ok(FloatNet { net, needed, transposed, inputs })
    }

    /// Numbers of one input row.
    pub fn input_len(&self) -> usize {
        self.inputs
    }

    /// Numbers of one output row.
    pub fn output_len(&self) -> usize {
        self.net.node(self.net.outputs()[0]).len()
    }

    /// The outputs of some rows, row-major.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn run(&self, rows: &[f32]) -> Vec<f32> {
        assert!(rows.len().is_multiple_of(self.inputs), "rows of {} numbers", self.inputs);
        let mut out = vec![];
        for rows in rows.chunks(BLOCK * self.inputs) {
            let mut values: Vec<Vec<f32>> = vec![vec![]; self.net.nodes().len()];
            for &id in &self.needed {
                values[id.0] = self.value(id, rows, &values);
            }
            out.extend_from_slice(&values[self.net.outputs()[0].0]);
        }
        out
    }

    fn value(&self, id: NodeId, input: &[f32], values: &[Vec<f32>]) -> Vec<f32> {
        let node = self.net.node(id);
        let (rows, len) = (input.len() / self.inputs, node.len());
        match &node.op {
            Op::Input(_) => input.to_vec(),
            Op::Affine(a) => self.affine(id, a, rows, values),
            Op::Pointwise(p) => {
                let mut x = values[p.input.0].clone();
                x.chunks_exact_mut(len).for_each(|row| apply(&p.functions, row));
                x
            }
            Op::Max(m) => {
                let x = values[m.input.0].chunks_exact(self.net.node(m.input).len());
                let largest = |row: &[f32], i| m.window(i).iter().map(|&k| row[k as usize]).fold(f32::MIN, f32::max);
                x.flat_map(|row| (0..len).map(move |i| largest(row, i))).collect()
            }
            Op::Move(m) => {
                let lens: Vec<usize> = m.sources.iter().map(|&s| self.net.node(s).len()).collect();
                let of = |r: usize, f: &From| match f {
                    From::Element { source, index } => {
                        let source = *source as usize;
                        values[m.sources[source].0][r * lens[source] + *index as usize]
                    }
                    From::Constant(c) => *c as f32,
                };
                (0..rows).flat_map(|r| m.from.iter().map(move |f| of(r, f))).collect()
            }
        }
    }

    fn affine(&self, id: NodeId, a: &Affine, rows: usize, values: &[Vec<f32>]) -> Vec<f32> {
        let len = self.net.node(id).len();
        let row: Vec<f32> = (0..len).map(|i| *a.bias.at(i) as f32).collect();
        let mut out = row.repeat(rows);
        if let (Some(weights), true) = (&self.transposed[id.0], rows < 4) {
            let x = &values[a.terms[0].0.0];
            for (x, out) in x.chunks_exact(x.len() / rows).zip(out.chunks_exact_mut(len)) {
                vectorized(|| vector(weights, x, out));
            }
            return out;
        }
        for (argument, map) in &a.terms {
            map.apply_single(&values[argument.0], rows, &mut out, true);
        }
        out
    }
}

/// out += W x, where the weights of each x are neighbours, in rows of `padded(out.len())`.
#[inline(always)]
fn vector(weights: &[f32], x: &[f32], out: &mut [f32]) {
    let mut start = 0;
    while start < out.len() {
        // Sums of a block of outputs stay in registers.
        start += match padded(out.len()) - start {
            64.. => block::<64>(weights, x, out, start),
            32.. => block::<32>(weights, x, out, start),
            _ => block::<16>(weights, x, out, start),
        };
    }
}

#[inline(always)]
fn block<const WIDTH: usize>(weights: &[f32], x: &[f32], out: &mut [f32], start: usize) -> usize {
    let (pitch, end) = (padded(out.len()), (start + WIDTH).min(out.len()));
    let mut sums = [0.0f32; WIDTH];
    sums[..end - start].copy_from_slice(&out[start..end]);
    for (x, w) in x.iter().zip(weights.chunks_exact(pitch)) {
        let w = &w[start..start + WIDTH];
        for i in 0..WIDTH {
            sums[i] += w[i] * x;
        }
    }
    out[start..end].copy_from_slice(&sums[..end - start]);
    WIDTH
}

/// Outputs with those that fill up a block.
fn padded(outputs: usize) -> usize {
    outputs.next_multiple_of(16)
}

/// The weights of a dense layer on one block of inputs, transposed and padded.
fn transposed(node: &Node) -> Option<Vec<f32>> {
    let Op::Affine(Affine { terms, .. }) = &node.op else { return None };
    let [(_, LinearMap::Dense(d))] = &terms[..] else { return None };
    if d.outer != 1 {
        return None;
    }
    let (w, pitch) = (d.weights.single(), padded(d.n_out));
    let mut transposed = vec![0.0; d.n_in * pitch];
    for (o, row) in w.chunks(d.n_in).enumerate() {
        row.iter().enumerate().for_each(|(i, w)| transposed[i * pitch + o] = *w);
    }
    Some(transposed)
}

fn supported(node: &Node) -> Result<(), KernelError> {
    let Op::Pointwise(p) = &node.op else { return Ok(()) };
    let is_band = p.functions.data.iter().any(ScalarFn::is_band);
    let refuse = || KernelError::new(&node.name, "several runtimes are meant at once", "use --profile float32");
    if is_band { Err(refuse()) } else { Ok(()) }
}

/// Applies functions to one row.
fn apply(functions: &Spread<ScalarFn>, row: &mut [f32]) {
    let block = if functions.data.len() == 1 { row.len().max(1) } else { functions.inner };
    for (k, x) in row.chunks_mut(block).enumerate() {
        match &functions.data[k % functions.data.len()] {
            ScalarFn::Piecewise(p) => piecewise(p, x),
            f @ (ScalarFn::Step(_) | ScalarFn::Band(_)) => {
                x.iter_mut().for_each(|x| *x = f.value_down(f64::from(*x)) as f32);
            }
        }
    }
}

fn piecewise(p: &Piecewise, x: &mut [f32]) {
    let (first, last) = (p.knots[0], p.knots[p.knots.len() - 1]);
    let clips = p.knots.iter().all(|k| k.0 == k.1) && [p.left, p.right].iter().all(|s| [0.0, 1.0].contains(s));
    if clips {
        let lo = if p.left == 0.0 { first.1 as f32 } else { f32::NEG_INFINITY };
        let hi = if p.right == 0.0 { last.1 as f32 } else { f32::INFINITY };
        x.iter_mut().for_each(|x| {
            *x = if *x < lo {
                lo
            } else if *x > hi {
                hi
            } else {
                *x
            }
        });
    } else {
        let f = ScalarFn::Piecewise(p.clone());
        x.iter_mut().for_each(|x| *x = f.value_down(f64::from(*x)) as f32);
    }
}
