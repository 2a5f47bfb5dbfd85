//! What PyTorch's quantized operators do not run, or not by a known formula.

use super::{Engine, kernels};
use crate::model::ir::{DType, Model, Node, Op, ValueId};
use crate::model::lower::LowerError;
use crate::model::profile::graph::{Graph, Pair};

/// Refuses, by name, nodes of a fused model whose arithmetic is not known exactly. The first values of the model, this many, are
/// those of the file.
pub(super) fn what_is_not_exact(model: &Model, in_file: usize, engine: Engine) -> Result<(), LowerError> {
    let graph = Graph { model: model.clone() };
    for (index, node) in model.nodes.iter().enumerate() {
        let check = Check { graph: &graph, index, node, in_file, engine };
        if let Some((problem, cure)) = check.problem() {
            let problem = format!("{problem} (profile torch-{})", engine.name());
            return Err(LowerError::new(model, node, problem, cure));
        }
    }
    Ok(())
}

struct Check<'a> {
    graph: &'a Graph,
    index: usize,
    node: &'a Node,
    in_file: usize,
    engine: Engine,
}

type Problem = (String, &'static str);

impl Check<'_> {
    fn problem(&self) -> Option<Problem> {
        let fail = |problem: &str, cure| Some((problem.to_string(), cure));
        match &self.node.op {
            Op::QLinearConv { window, group } => {
                if window.kernel.len() != 2 {
                    return fail("only 2-D convolutions were measured", "use a kernel of height 1");
                }
                if self.engine == Engine::X86 && *group > 100 {
                    return fail("engine x86 runs more than 100 groups with fbgemm", "use --profile torch-fbgemm");
                }
                self.activations().or_else(|| self.weights())
            }
            Op::QGemm { .. } if self.graph.input(self.index, 7).is_none() => {
                fail("PyTorch has no integer product with a float result", "quantize the result")
            }
            Op::QGemm { alpha, trans_a, .. } if *alpha != 1.0 || *trans_a => {
                fail("PyTorch's linear layers have neither alpha nor a transposed input", "fold alpha into the scale")
            }
            Op::QGemm { .. } | Op::QLinearMatMul => self.activations().or_else(|| self.weights()),
            Op::QLinearAdd => self.activations().or_else(|| self.sum()),
            Op::QLinearAveragePool { window, .. } if window.ceil_mode || window.dilations.iter().any(|&d| d > 1) => {
                fail("ceil_mode and dilations of pools were not measured", "use windows that fit")
            }
            Op::QLinearAveragePool { .. } | Op::QLinearGlobalAveragePool { .. } | Op::QLinearConcat { .. } => {
                self.activations()
            }
            Op::QLinearClip { min, max } => {
                let relu = *min == Some(0.0) && max.is_none();
                self.activations().or_else(|| self.clip(relu))
            }
            Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. } => self.activations(),
            op if op.is_quantized() => fail("PyTorch's kernel for it was not measured", "use another --profile"),
            _ => self.unfused(),
        }
    }

    fn constant(&self, position: usize) -> bool {
        self.graph.input(self.index, position).is_some_and(|v| self.graph.constant(v).is_some())
    }

    /// Activations are quint8.
    fn activations(&self) -> Option<Problem> {
        let other = |v: &ValueId| !matches!(self.graph.dtype(*v), DType::U8 | DType::F32);
        let input = self.graph.input(self.index, 0).filter(|_| !self.constant(0));
        let bad = input.into_iter().chain([self.node.output]).find(other)?;
        let problem = format!("an activation is {}, and PyTorch's engines take uint8", self.graph.dtype(bad));
        Some((problem, "quantize activations to uint8"))
    }

    /// Weights are qint8 with zero point 0.
    fn weights(&self) -> Option<Problem> {
        let weights = self.graph.input(self.index, 3)?;
        let zero_points = self.graph.input(self.index, 5).and_then(|z| self.graph.constant(z)?.to_i64());
        let symmetric = zero_points.is_none_or(|z| z.iter().all(|&z| z == 0));
        let fits = symmetric && self.graph.dtype(weights) == DType::I8;
        let problem = || "weights are not int8 with zero point 0, as PyTorch's engines take them".to_string();
        (!fits).then(|| (problem(), "quantize weights symmetrically to int8"))
    }

    /// The elements behind the last whole vector of a tensor are added by another formula.
    fn sum(&self) -> Option<Problem> {
        let shape = |v: ValueId| &self.graph.model.value(v).shape;
        let out = shape(self.node.output);
        if [0, 3].into_iter().any(|p| self.graph.input(self.index, p).is_none_or(|v| shape(v) != out)) {
            return Some(("operands of different shape were not measured".into(), "expand the smaller operand"));
        }
        if out.iter().product::<usize>().is_multiple_of(64) {
            return None;
        }
        let pair = |p: usize| {
            let (integer, scale) = (self.graph.input(self.index, p)?, self.graph.input(self.index, p + 1)?);
            Some(Pair { node: self.index, integer, scale, zero_point: self.graph.input(self.index, p + 2) })
        };
        let result = || {
            let (scale, zero_point) = (self.graph.input(self.index, 6)?, self.graph.input(self.index, 7));
            Some(Pair { node: self.index, integer: self.node.output, scale, zero_point })
        };
        let of = |pair: Option<Pair>| pair.and_then(|p| self.graph.quantizer(&p));
        // What has no parameters is refused when it is lowered.
        let (a, b, out) = (of(pair(0))?, of(pair(3))?, of(result())?);
        let problem = || {
            "PyTorch adds the last elements of a tensor by another formula, and with these scales it gives other results"
                .to_string()
        };
        let alike = kernels::adds_everywhere_alike(&a.operand(), &b.operand(), &out);
        (!alike).then(|| (problem(), "use a number of elements that 64 divides"))
    }

    /// A Relu before the quantizer is fused into the layer; a Relu with a quantizer of its own, and other clipping, follows it. oneDNN's
    /// linear layers round these two differently.
    fn clip(&self, relu: bool) -> Option<Problem> {
        if self.graph.input(self.index, 2).is_none() {
            return Some(("its zero point is left out".into(), "store the zero point"));
        }
        let input = self.graph.input(self.index, 0)?;
        let producer = self.graph.producer(input)?;
        let dense = matches!(self.graph.node(producer).op, Op::QGemm { .. } | Op::QLinearMatMul);
        let follows = !relu || input.0 < self.in_file;
        let problem = || "oneDNN's linear layer with clipping behind it is not supported".to_string();
        (follows && dense && self.engine == Engine::Onednn)
            .then(|| (problem(), "use a Relu before the layer's quantizer"))
    }

    /// An operation that the file leaves between quantizers, and whose integer kernel is not known.
    fn unfused(&self) -> Option<Problem> {
        let harmless = matches!(
            self.node.op,
            Op::Identity
                | Op::Relu
                | Op::Clip { .. }
                | Op::Reshape
                | Op::Flatten
                | Op::Transpose { .. }
                | Op::Slice { .. }
                | Op::Softmax { .. }
                | Op::LogSoftmax { .. }
                | Op::MaxPool { .. }
        );
        if harmless {
            return None;
        }
        let dequantized =
            |p: usize| self.graph.input(self.index, p).is_some_and(|v| self.graph.dequantized(v).is_some());
        let product = matches!(self.node.op, Op::Conv { .. } | Op::Gemm { .. } | Op::MatMul);
        let ends = (0..self.node.inputs.len()).any(dequantized) && self.graph.ends_in_quantize(self.node.output);
        let problem = "it reads dequantized values and is no group that PyTorch's integer kernels compute";
        let cure = "give it per-tensor uint8 activations, int8 weights per output channel, and a quantizer behind it";
        ((product && (0..2).any(dequantized)) || ends).then(|| (problem.into(), cure))
    }
}
