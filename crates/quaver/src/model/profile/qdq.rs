//! Groups of DequantizeLinear, an operation and QuantizeLinear as the integer kernels that they stand for, without the peculiarities
//! of any runtime's optimizer.
//!
//! | group | becomes |
//! |---|---|
//! | DQ, DQ, Conv / Gemm / MatMul [+ Add of a constant row], [Relu or Clip], Q | QLinearConv / QGemm / QLinearMatMul |
//! | DQ.., Add / AveragePool / GlobalAveragePool / Concat, [Relu or Clip], Q | the QLinear form |
//! | DQ, Relu or Clip, Q of the same parameters | the clipping, on integers |
//! | DQ, an index map or MaxPool, Q of the same parameters | the same, on integers |
//! | DQ, Q of the same parameters | nothing |
//!
//! A Relu or Clip becomes a QLinearClip behind the kernel. Everything else stays as it is.

use super::graph::{Graph, Pair, inputs_of, parameters_of, passes_integers};
use crate::model::ir::{DType, Data, Model, Node, Op, Tensor, Value, ValueId};
use crate::model::lower::LowerError;

/// What a runtime adds to an accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Biases {
    /// A float32: an int32 bias is dequantized, R(q s).
    Float,
    /// An int32 at the scale of the accumulator stays int32; every other bias is a float32.
    AsStored,
}

/// What stands between an operation and its result: the quantizer, with the clipping before it.
struct Ending {
    quantize: Pair,
    clip: Option<usize>,
}

/// The model with integer kernels.
///
/// # Errors
/// If the stored bias of an integer kernel has no scale.
pub(super) fn fuse(model: &Model, biases: Biases) -> Result<Model, LowerError> {
    let mut fusion = Fusion { graph: Graph { model: model.clone() }, biases };
    fusion.graph.remove_identities();
    fusion.graph.matmul_add_to_gemm();
    fusion.graph.propagate_dequantize(|op| passes_integers(op) || *op == Op::Flatten);
    for index in 0..fusion.graph.model.nodes.len() {
        fusion.fuse_at(index);
    }
    fusion.graph.cancel_pairs();
    fusion.graph.remove_dead();
    if biases == Biases::Float {
        fusion.stored_biases_to_float()?;
    }
    Ok(fusion.graph.model)
}

/// Whether all parts of a QLinearConcat have the scale and zero point of the result.
pub(super) fn concatenates_alike(model: &Model, node: &Node) -> bool {
    let result = model.scale_and_zero_point(node, 0);
    let parts = 0..(node.inputs.len().max(2) - 2) / 3;
    result.is_some() && parts.map(|k| model.scale_and_zero_point(node, 3 + 3 * k)).all(|part| part == result)
}

struct Fusion {
    graph: Graph,
    biases: Biases,
}

impl Fusion {
    /// Fuses the group around the node at this index, if it is one. `None` says that it is not.
    fn fuse_at(&mut self, index: usize) -> Option<()> {
        match self.graph.node(index).op.clone() {
            Op::Conv { window, group } => {
                let (x, w, end) = self.product(index, 0)?;
                let bias = self.bias(index, &x, &w)?;
                let parameters = parameters_of(&end.quantize);
                let inputs = [&inputs_of(&x)[..], &inputs_of(&w), &parameters, &[bias]].concat();
                self.put(index, &end, Op::QLinearConv { window, group }, inputs)
            }
            Op::Gemm { alpha, beta, trans_a: false, trans_b } => {
                let (x, w, end) = self.product(index, usize::from(!trans_b))?;
                let bias = self.bias(index, &x, &w)?;
                (alpha == 1.0 && (bias.is_none() || beta == 1.0)).then_some(())?;
                self.put_gemm(index, (&x, &w, &end), trans_b, bias)
            }
            Op::MatMul => {
                let rank = |p| Some(self.graph.model.value(self.graph.input(index, p)?).shape.len());
                let (left, right) = (rank(0)?, rank(1)?);
                let (x, w, end) = self.product(index, right.checked_sub(1)?)?;
                if (left, right) == (2, 2) {
                    return self.put_gemm(index, (&x, &w, &end), false, None);
                }
                let inputs = [&inputs_of(&x)[..], &inputs_of(&w), &parameters_of(&end.quantize)].concat();
                self.put(index, &end, Op::QLinearMatMul, inputs)
            }
            Op::Add => self.simple(index, Op::QLinearAdd),
            Op::AveragePool { window, count_include_pad } => {
                self.simple(index, Op::QLinearAveragePool { window, count_include_pad, channels_last: false })
            }
            Op::GlobalAveragePool => self.simple(index, Op::QLinearGlobalAveragePool { channels_last: false }),
            Op::Concat { axis } => self.simple(index, Op::QLinearConcat { axis }),
            Op::Relu | Op::Clip { .. } => self.clip_alone(index),
            _ => None,
        }
    }

    /// A dequantized value of one scale.
    fn operand(&self, value: ValueId) -> Option<Pair> {
        let byte = |p: &Pair| matches!(self.graph.dtype(p.integer), DType::I8 | DType::U8);
        self.graph.dequantized(value).filter(|p| byte(p) && self.graph.is_single(p.scale))
    }

    /// The quantizer that alone reads a value, over at most one Relu or Clip.
    fn ending(&self, value: ValueId) -> Option<Ending> {
        let mut index = self.graph.only_consumer(value)?;
        let mut clip = None;
        if matches!(self.graph.node(index).op, Op::Relu | Op::Clip { .. }) {
            clip = Some(index);
            index = self.graph.only_consumer(self.graph.node(index).output)?;
        }
        let quantize = self.graph.quantize_at(index).filter(|q| self.graph.is_single(q.scale))?;
        Some(Ending { quantize, clip })
    }

    /// Operands and ending of a product of a dequantized value and a dequantized constant, whose scale is one or one for each
    /// channel of this axis of the weights.
    fn product(&self, index: usize, channels: usize) -> Option<(Pair, Pair, Ending)> {
        let (g, end) = (&self.graph, self.ending(self.graph.node(index).output)?);
        let (x, w) = (self.operand(g.input(index, 0)?)?, g.dequantized(g.input(index, 1)?)?);
        let Op::DequantizeLinear { axis } = g.node(w.node).op else { return None };
        let per_channel = !g.is_single(w.scale) && axis == channels;
        let constant = g.constant(w.integer).is_some() && matches!(g.dtype(w.integer), DType::I8 | DType::U8);
        let same = g.dtype(end.quantize.integer) == g.dtype(x.integer);
        (constant && same && (g.is_single(w.scale) || per_channel)).then_some((x, w, end))
    }

    /// The bias of a product as the kernel takes it: `Some(None)` without one, `None` if it is no constant.
    fn bias(&mut self, index: usize, x: &Pair, w: &Pair) -> Option<Option<ValueId>> {
        let Some(bias) = self.graph.input(index, 2) else { return Some(None) };
        if self.graph.constant(bias).is_some_and(|t| t.as_f32().is_some()) {
            return Some(Some(bias));
        }
        let pair = self.graph.dequantized(bias).filter(|b| self.graph.dtype(b.integer) == DType::I32)?;
        if self.biases == Biases::AsStored && self.graph.has_accumulator_scale(&pair, x, w) {
            return self.graph.constant(pair.integer).is_some().then_some(Some(pair.integer));
        }
        let values = self.graph.constant(pair.integer)?.to_i64()?;
        let scales = self.graph.constant(pair.scale)?.as_f32()?.to_vec();
        (scales.len() == 1 || scales.len() == values.len()).then_some(())?;
        Some(Some(self.float_bias(pair.integer, &values, &scales)))
    }

    /// R(q s), as a new constant.
    fn float_bias(&mut self, of: ValueId, values: &[i64], scales: &[f32]) -> ValueId {
        let scale = |c: usize| scales[if scales.len() == 1 { 0 } else { c }];
        // An int32 is rounded to float32 first, as DequantizeLinear does.
        let data: Vec<f32> = values.iter().enumerate().map(|(c, &q)| q as f32 * scale(c)).collect();
        let value = self.graph.model.value(of);
        let (name, shape) = (format!("{}_float_{}", value.name, self.graph.model.values.len()), value.shape.clone());
        self.graph.add_constant(name, Tensor::f32(&shape, data))
    }

    fn put_gemm(
        &mut self,
        index: usize,
        (x, w, end): (&Pair, &Pair, &Ending),
        trans_b: bool,
        bias: Option<ValueId>,
    ) -> Option<()> {
        let op = Op::QGemm { alpha: 1.0, trans_a: false, trans_b };
        let inputs = [&inputs_of(x)[..], &inputs_of(w), &[bias], &parameters_of(&end.quantize)].concat();
        self.put(index, end, op, inputs)
    }

    /// Fuses an operation whose operands are all dequantized and of the result's type.
    fn simple(&mut self, index: usize, op: Op) -> Option<()> {
        let end = self.ending(self.graph.node(index).output)?;
        let operands = self.graph.node(index).inputs.iter().map(|v| self.operand((*v)?));
        let pairs = operands.collect::<Option<Vec<Pair>>>()?;
        let dtype = self.graph.dtype(end.quantize.integer);
        pairs.iter().all(|p| self.graph.dtype(p.integer) == dtype).then_some(())?;
        let sources = pairs.iter().map(inputs_of).collect::<Vec<_>>().concat();
        let parameters = parameters_of(&end.quantize);
        // A concatenation has its own parameters first, all others last.
        let inputs = match op {
            Op::QLinearConcat { .. } => [&parameters[..], &sources].concat(),
            _ => [&sources[..], &parameters].concat(),
        };
        self.put(index, &end, op, inputs)
    }

    /// Puts a kernel where its quantizer was; with clipping, the kernel where the clipping was and a QLinearClip behind it.
    fn put(&mut self, index: usize, end: &Ending, op: Op, inputs: Vec<Option<ValueId>>) -> Option<()> {
        let name = self.graph.node(index).name.clone();
        let result = end.quantize.integer;
        let Some(clip) = end.clip else {
            self.graph.model.nodes[end.quantize.node] = Node { name, op, inputs, output: result };
            return Some(());
        };
        let Value { dtype, shape, .. } = self.graph.model.value(result).clone();
        let name_of_value = format!("{}_unclipped", self.graph.model.value(result).name);
        let kernel = self.graph.add_value(Value { name: name_of_value, dtype, shape, constant: None, range: None });
        let clipping = self.clipping(clip);
        let clip_name = self.graph.node(clip).name.clone();
        self.graph.model.nodes[clip] = Node { name, op, inputs, output: kernel };
        let [scale, zero_point] = parameters_of(&end.quantize);
        let inputs = vec![Some(kernel), scale, zero_point];
        self.graph.model.nodes[end.quantize.node] = Node { name: clip_name, op: clipping, inputs, output: result };
        Some(())
    }

    /// The Relu or Clip at an index, as clipping.
    fn clipping(&self, index: usize) -> Op {
        match self.graph.node(index).op {
            Op::Clip { min, max } => Op::QLinearClip { min, max },
            _ => Op::QLinearClip { min: Some(0.0), max: None },
        }
    }

    /// A Relu or Clip of a dequantized value that is quantized with the same parameters again.
    fn clip_alone(&mut self, index: usize) -> Option<()> {
        let x = self.operand(self.graph.input(index, 0)?)?;
        let quantize = self.graph.quantize_at(self.graph.only_consumer(self.graph.node(index).output)?)?;
        let same = self.graph.is_single(quantize.scale) && self.graph.quantizer(&x) == self.graph.quantizer(&quantize);
        same.then_some(())?;
        let name = self.graph.node(index).name.clone();
        let (op, inputs) = (self.clipping(index), inputs_of(&x).to_vec());
        self.graph.model.nodes[quantize.node] = Node { name, op, inputs, output: quantize.integer };
        Some(())
    }

    /// The int32 biases of integer kernels that were in the file: b = R(q R(sx sw)).
    fn stored_biases_to_float(&mut self) -> Result<(), LowerError> {
        for index in 0..self.graph.model.nodes.len() {
            let position = match self.graph.node(index).op {
                Op::QLinearConv { .. } => 8,
                Op::QGemm { .. } => 6,
                _ => continue,
            };
            let Some(bias) = self.graph.input(index, position) else { continue };
            let Some(tensor) = self.graph.constant(bias).filter(|t| matches!(t.data, Data::I32(_))) else { continue };
            let values = tensor.to_i64().unwrap_or_default();
            let scales = |p: usize| Some(self.graph.constant(self.graph.input(index, p)?)?.as_f32()?.to_vec());
            let found = scales(1).zip(scales(4)).filter(|(x, w)| x.len() == 1 && [1, values.len()].contains(&w.len()));
            let Some((x, w)) = found else {
                let problem =
                    "its int32 bias has no scale: those of input and weights are not constant, or do not fit it";
                return Err(LowerError::new(&self.graph.model, self.graph.node(index), problem, "repair the model"));
            };
            let accumulator: Vec<f32> = w.iter().map(|w| x[0] * w).collect();
            let float = self.float_bias(bias, &values, &accumulator);
            self.graph.model.nodes[index].inputs[position] = Some(float);
        }
        Ok(())
    }
}
