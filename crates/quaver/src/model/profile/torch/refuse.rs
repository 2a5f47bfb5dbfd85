//! What PyTorch's quantized operators do not run, or not by a known formula.

use super::{Engine, kernels};
use crate::model::ir::{DType, Model, Node, Op, ValueId};
use crate::model::lower::LowerError;
use crate::model::profile::graph::{Graph, Pair};
use crate::model::profile::{Bias, Kernel, Quantizer, Requantizer};

/// Refuses, by name, nodes of a fused model whose arithmetic is not known exactly.
pub(super) fn what_is_not_exact(model: &Model, engine: Engine) -> Result<(), LowerError> {
    let graph = Graph { model: model.clone() };
    for (index, node) in model.nodes.iter().enumerate() {
        let check = Check { graph: &graph, index, node, engine };
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
    engine: Engine,
}

type Problem = (String, &'static str);

impl Check<'_> {
    fn problem(&self) -> Option<Problem> {
        let fail = |problem: &str, cure| Some((problem.to_string(), cure));
        match &self.node.op {
            Op::QLinearConv { window, group } => {
                let kernel = self.convolution(&window.kernel, *group).or_else(|| self.activations());
                kernel.or_else(|| self.weights()).or_else(|| self.one_channel(Kernel::Convolution, [6, 7, 8]))
            }
            Op::QGemm { .. } if self.graph.input(self.index, 7).is_none() => {
                fail("PyTorch has no integer product with a float result", "quantize the result")
            }
            Op::QGemm { alpha, trans_a, .. } if *alpha != 1.0 || *trans_a => {
                fail("PyTorch's linear layers have neither alpha nor a transposed input", "fold alpha into the scale")
            }
            Op::QGemm { .. } => {
                self.activations().or_else(|| self.weights()).or_else(|| self.one_channel(Kernel::Dense, [7, 8, 6]))
            }
            Op::QLinearMatMul => self.activations().or_else(|| self.weights()),
            Op::QLinearAdd => self.activations().or_else(|| self.sum()),
            Op::QLinearAveragePool { window, .. } if window.ceil_mode || window.dilations.iter().any(|&d| d > 1) => {
                fail("ceil_mode and dilations of pools were not measured", "use windows that fit")
            }
            Op::QLinearAveragePool { .. } | Op::QLinearGlobalAveragePool { .. } | Op::QLinearConcat { .. } => {
                self.activations()
            }
            Op::QLinearClip { min, max } if self.engine == Engine::Qnnpack && (*min != Some(0.0) || max.is_some()) => {
                fail("qnnpack's clipping permutes the elements of an image with channels last", "use a Relu")
            }
            Op::QLinearClip { .. } => self.activations(),
            Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. } => self.activations(),
            op if op.is_quantized() => fail("PyTorch's kernel for it was not measured", "use another --profile"),
            _ => self.unfused(),
        }
    }

    /// Input and output channels of a group of a convolution.
    fn channels_in_a_group(&self, group: usize) -> Option<(usize, usize)> {
        let shape = self.graph.input(self.index, 3).map(|w| &self.graph.model.value(w).shape)?;
        Some((shape[1], shape[0] / group))
    }

    fn convolution(&self, kernel: &[usize], group: usize) -> Option<Problem> {
        let depthwise = self.channels_in_a_group(group).filter(|c| group > 1 && c.0 == 1);
        let onednn = matches!(self.engine, Engine::Onednn | Engine::X86);
        let (problem, cure) = if kernel.len() != 2 {
            ("only 2-D convolutions were measured", "use a kernel of height 1")
        } else if self.engine == Engine::X86 && group > 100 {
            ("engine x86 runs more than 100 groups with fbgemm", "use --profile torch-onednn, and that engine")
        } else if onednn && depthwise.is_some_and(|c| c.1 > 1) {
            (
                "oneDNN computes some groups of one input and several output channels wrongly",
                "use one output channel in a group, or another engine and its --profile",
            )
        } else if self.engine == Engine::Fbgemm
            && depthwise.is_some()
            && group.is_multiple_of(8)
            && [[3, 3], [5, 5]].contains(&[kernel[0], kernel[1]])
        {
            (
                "fbgemm's depthwise kernels (3x3 and 5x5, channels that 8 divides) add in saturating 16-bit arithmetic",
                "use --profile torch-x86 or torch-onednn, and that engine",
            )
        } else {
            return None;
        };
        Some((problem.into(), cure))
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

    /// A layer of one output channel with a bias: nothing in a file says whether its one weight scale is per tensor or per channel,
    /// which fbgemm rounds differently. `scale`, `zero_point` and `bias` are input positions.
    fn one_channel(&self, kernel: Kernel, [scale, zero_point, bias]: [usize; 3]) -> Option<Problem> {
        let tensor = |p: usize| self.graph.constant(self.graph.input(self.index, p)?);
        let one = |p: usize| tensor(p)?.as_f32().filter(|v| v.len() == 1).map(|v| v[0]);
        let output =
            Quantizer { scale: one(scale)?, zero_point: *tensor(zero_point)?.to_i64()?.first()?, range: (0, 255) };
        let of = |per_channel: bool| {
            let r = Requantizer {
                kernel,
                per_channel,
                input_scale: one(1)?,
                input_zero_point: *tensor(2)?.to_i64()?.first()?,
                weight_scale: one(4)?,
                bias: Bias::Float(one(bias)?),
                accumulator: (0, 0),
                output,
            };
            kernels::requantize(&r, self.engine.of(kernel)).ok()
        };
        let problem =
            "one output channel with a bias: PyTorch rounds per-tensor and per-channel weights differently here";
        (of(false)? != of(true)?).then(|| (problem.into(), "add a channel, or leave the bias out"))
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
        let alike = kernels::adds_everywhere_alike(&a, &b, &out);
        (!alike).then(|| (problem(), "use a number of elements that 64 divides"))
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
