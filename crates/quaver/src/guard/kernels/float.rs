//! A float network in float32, to fall back to.
//!
//! # Claim
//! What [`FloatNet::run`] gives is one of the executions that profile `float32` allows: each sum is added in some order with float32 roundings (products
//! that are
//! added in one rounding are allowed as well), and everything else is the one float32 operation that the net says.
//!
//! # Why
//! Element-wise maps of a net under `float32` are rounded once, which is one product and one sum in float32 where one of them is trivial; sums of products
//! may be
//! added in any order (`docs/profiles.md`, section 3.2). Steps and clips compare and copy.

use super::KernelError;
use super::float_dense::FloatDense;
use crate::model::lower::Lowered;
use crate::net::{Affine, From, Net, Node, NodeId, Op, Piecewise, ScalarFn, Spread};

/// A float network that runs on one thread.
pub struct FloatNet {
    net: Net,
    needed: Vec<NodeId>,
    dense: Vec<Option<FloatDense>>,
    /// Whether a value is used once, by a function that can take its place.
    is_replaced: Vec<bool>,
    inputs: usize,
}

/// Memory for [`FloatNet::append`], to be used again and again, by one thread at a time.
#[derive(Default)]
pub struct FloatScratch {
    values: Vec<Vec<f32>>,
}

impl FloatScratch {
    /// Empty: grows to what a network needs.
    pub fn new() -> Self {
        FloatScratch::default()
    }
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
        let (&[input], &[output]) = (net.inputs(), net.outputs()) else {
            let found = format!("{} inputs and {} outputs", net.inputs().len(), net.outputs().len());
            return Err(KernelError::new("", found, "use a network with one input and one output"));
        };
        let inputs = net.node(input).len();
        let needed: Vec<NodeId> = net.ids().zip(net.needed()).filter(|n| n.1).map(|n| n.0).collect();
        let (mut uses, mut functions) = (vec![0; net.nodes().len()], vec![0; net.nodes().len()]);
        for &id in &needed {
            let node = net.node(id);
            supported(node)?;
            for argument in node.arguments() {
                uses[argument.0] += 1;
                functions[argument.0] += usize::from(matches!(node.op, Op::Pointwise(_)));
            }
        }
        let is_replaced =
            net.ids().map(|id| (uses[id.0], functions[id.0]) == (1, 1) && id != input && id != output).collect();
        let dense = net.nodes().iter().map(FloatDense::new).collect();
        Ok(FloatNet { net, needed, dense, is_replaced, inputs })
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
        let mut out = vec![];
        self.append(rows, &mut FloatScratch::new(), &mut out);
        out
    }

    /// Appends the outputs of some rows, row-major.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn append(&self, rows: &[f32], scratch: &mut FloatScratch, out: &mut Vec<f32>) {
        assert!(rows.len().is_multiple_of(self.inputs), "rows of {} numbers", self.inputs);
        scratch.values.resize_with(self.net.nodes().len().max(scratch.values.len()), Vec::new);
        for rows in rows.chunks(BLOCK * self.inputs) {
            for &id in &self.needed {
                let mut made = std::mem::take(&mut scratch.values[id.0]);
                self.value(id, rows, &mut scratch.values, &mut made);
                scratch.values[id.0] = made;
            }
            out.extend_from_slice(self.known(self.net.outputs()[0], rows, &scratch.values));
        }
    }

    /// A value that was made, or the input.
    fn known<'v>(&self, id: NodeId, input: &'v [f32], values: &'v [Vec<f32>]) -> &'v [f32] {
        if id == self.net.inputs()[0] { input } else { &values[id.0] }
    }

    /// Makes a value from those before.
    fn value(&self, id: NodeId, input: &[f32], values: &mut [Vec<f32>], out: &mut Vec<f32>) {
        let node = self.net.node(id);
        let (rows, len) = (input.len() / self.inputs, node.len());
        if let Op::Pointwise(p) = &node.op
            && self.is_replaced[p.input.0]
        {
            // Its old memory is used by the argument the next time.
            std::mem::swap(out, &mut values[p.input.0]);
            return out.chunks_exact_mut(len).for_each(|row| apply(&p.functions, row));
        }
        let of = |id: NodeId| self.known(id, input, values);
        if let (Op::Affine(a), Some(dense)) = (&node.op, &self.dense[id.0]) {
            return dense.apply(of(a.terms[0].0), out);
        }
        out.clear();
        match &node.op {
            Op::Input(_) => {}
            Op::Affine(a) => self.affine(a, (rows, len), of, out),
            Op::Pointwise(p) => {
                out.extend_from_slice(of(p.input));
                out.chunks_exact_mut(len).for_each(|row| apply(&p.functions, row));
            }
            Op::Max(m) => {
                let x = of(m.input).chunks_exact(self.net.node(m.input).len());
                let largest = |row: &[f32], i| m.window(i).iter().map(|&k| row[k as usize]).fold(f32::MIN, f32::max);
                out.extend(x.flat_map(|row| (0..len).map(move |i| largest(row, i))));
            }
            Op::Move(m) => {
                let sources: Vec<(&[f32], usize)> =
                    m.sources.iter().map(|&s| (of(s), self.net.node(s).len())).collect();
                let element = |r: usize, f: &From| match f {
                    From::Element { source, index } => {
                        let (x, len) = sources[*source as usize];
                        x[r * len + *index as usize]
                    }
                    From::Constant(c) => *c as f32,
                };
                (0..rows).for_each(|r| out.extend(m.from.iter().map(|f| element(r, f))));
            }
        }
    }

    /// A sum of linear maps that is no dense layer.
    fn affine<'v>(
        &self,
        a: &Affine,
        (rows, len): (usize, usize),
        of: impl Fn(NodeId) -> &'v [f32],
        out: &mut Vec<f32>,
    ) {
        let bias: Vec<f32> = (0..len).map(|i| *a.bias.at(i) as f32).collect();
        (0..rows).for_each(|_| out.extend_from_slice(&bias));
        for (argument, map) in &a.terms {
            map.apply_single(of(*argument), rows, out, true);
        }
    }
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
