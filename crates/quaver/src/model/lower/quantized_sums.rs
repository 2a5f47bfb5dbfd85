//! Quantized operations without weights: sums, products, pools, concatenation and tables.

use super::layout::{by_index, part_index};
use super::quantized::Parameters;
use super::window::Plane;
use super::{Known, LowerError, Lowering, clips};
use crate::model::ir::{Node as ModelNode, Op, Window};
use crate::model::profile::{Average, Averaging, Bias, Kernel, Pool, Quantizer, Rescale, ort};
use crate::net::{Dense, From, LinearMap, NodeId, Piecewise, Rounding, ScalarFn, Spread, Weights};
use crate::num::round::{add_down, add_up};

impl Lowering<'_> {
    /// Scale, zero point and range of an 8-bit operand whose scale and zero point follow it.
    fn operand(&self, node: &ModelNode, position: usize) -> Result<Quantizer, LowerError> {
        let range = self.range_of(self.input_id(node, position)?);
        Ok(self.parameters(node, position + 1, position + 2)?.operand(range))
    }

    /// A quantized result: functions of one value.
    pub(super) fn quantized_result(
        &mut self,
        node: &ModelNode,
        x: NodeId,
        functions: Spread<ScalarFn>,
        out: &Quantizer,
    ) -> Known {
        let quantization = self.meaning(&Parameters::of(out), 1);
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        Known::Node(self.pointwise(&name, &shape, x, functions, Some(quantization)))
    }

    /// The sum or difference of two values, as the profile adds them.
    pub(super) fn quantized_add(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let (a, b, out) = (self.operand(node, 0)?, self.operand(node, 3)?, self.output_quantizer(node, 6, 7)?);
        let plan = self.exactly(node, self.profile.add(&a, &b, node.op == Op::QLinearSub, &out))?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let len: usize = shape.iter().product();
        let (mut terms, mut bias) = (vec![], plan.bias);
        for (k, rescale) in plan.operands.into_iter().enumerate() {
            let from = self.shape_in(node, 3 * k)?.to_vec();
            let id = self.argument(node, 3 * k)?;
            let id = self.broadcast(id, &from, &shape);
            let part = format!("{name}_{}", ["a", "b"][k]);
            match rescale {
                Rescale::Table { step, sign } => {
                    let id = self.pointwise(&part, &shape, id, Spread::all(ScalarFn::Step(step)), None);
                    terms.push((id, LinearMap::Diagonal { len, scale: Spread::all(sign) }));
                }
                Rescale::Affine { scale, bias: own, rounding } => {
                    let map = LinearMap::Diagonal { len, scale: Spread::all(scale) };
                    if rounding == Rounding::Exact {
                        if add_down(bias, own) != add_up(bias, own) {
                            return Err(self.refuse(node, "its scales are too far apart", "repair the scales"));
                        }
                        bias += own;
                        terms.push((id, map));
                    } else {
                        let id = self.affine(&part, &shape, vec![(id, map)], Spread::all(own), rounding);
                        terms.push((id, LinearMap::identity(len)));
                    }
                }
            }
        }
        let sum = self.affine(&format!("{name}_sum"), &shape, terms, Spread::all(bias), plan.rounding);
        Ok(self.quantized_result(node, sum, Spread::all(plan.finish), &out))
    }

    /// (a - za) (c - zc) with a constant operand: an element-wise integer map, then a requantization.
    pub(super) fn quantized_mul(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let constant = if self.constant(node, 3).is_some() { 3 } else { 0 };
        let data = self.constant(node, constant).ok_or_else(|| {
            let cure = "multiply by constants only; attention and gates are not supported";
            self.refuse(node, "both operands depend on the input", cure)
        })?;
        let variable = 3 - constant;
        let (x, c) = (self.operand(node, variable)?, self.operand(node, constant)?);
        let shape = self.shape_out(node).to_vec();
        let from = self.shape_in(node, variable)?.to_vec();
        let factors = self.spread(&data, self.shape_in(node, constant)?, &shape).map(|q| q - c.zero_point as f64);
        let id = self.argument(node, variable)?;
        let id = self.broadcast(id, &from, &shape);
        let len = shape.iter().product();
        let map = LinearMap::Diagonal { len, scale: Spread::each((0..len).map(|i| *factors.at(i)).collect()) };
        let biases = vec![Bias::Integer(0); len];
        let accumulator = self.accumulate(
            node,
            Kernel::Elementwise,
            (id, map),
            (x.zero_point, biases),
            (len, 1),
            super::Standing::Proved,
        )?;
        let weights = Parameters { scales: vec![c.scale], zero_points: vec![0] };
        self.requantized(node, accumulator, 1.0, &weights, (variable + 1, 6, 7))
    }

    pub(super) fn quantized_average_pool(
        &mut self,
        node: &ModelNode,
        window: &Window,
        include_pad: bool,
        channels_last: bool,
    ) -> Result<Known, LowerError> {
        if channels_last {
            return Err(self.refuse(node, "channels_last pooling in the file", "export with channels first"));
        }
        let p = self.plane(node, window)?;
        if p.is_whole_image() {
            // ONNX Runtime hands a window over the whole image to its global kernel.
            return self.quantized_global_pool(node, false);
        }
        let (input, output) = (self.operand(node, 0)?, self.output_quantizer(node, 3, 4)?);
        let mut plans: Vec<(usize, Averaging)> = vec![];
        let mut which = vec![];
        for oy in 0..p.out_size[0] {
            for ox in 0..p.out_size[1] {
                let count = p.count([oy, ox], include_pad);
                if !plans.iter().any(|s| s.0 == count) {
                    let average = Average { pool: Pool::Window, count, input, output };
                    plans.push((count, self.exactly(node, self.profile.average(&average))?));
                }
                which.extend(plans.iter().position(|s| s.0 == count));
            }
        }
        let of_float = matches!(plans[0].1, Averaging::OfFloatSum(_));
        let sum = if of_float {
            self.float_window_sum(node, &p, &input)?
        } else {
            self.stored_window_sum(node, &p, &input, include_pad)?
        };
        let functions: Vec<ScalarFn> =
            plans.into_iter().map(|(_, Averaging::OfSum(f) | Averaging::OfFloatSum(f))| f).collect();
        let functions = match functions.len() {
            1 => Spread::each(functions),
            _ => Spread::each(which.into_iter().map(|k| functions[k].clone()).collect()),
        };
        Ok(self.quantized_result(node, sum, functions, &output))
    }

    /// Exact sums of the stored integers of each window; padding that counts stands for the zero point.
    fn stored_window_sum(
        &mut self,
        node: &ModelNode,
        p: &Plane,
        input: &Quantizer,
        include_pad: bool,
    ) -> Result<NodeId, LowerError> {
        let id = self.argument(node, 0)?;
        let fill = if include_pad { input.zero_point as f64 } else { 0.0 };
        let (id, size) = self.padded(id, p, fill);
        let map = self.sum_pool(node, p, size)?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        Ok(self.affine(&format!("{name}_sum"), &shape, vec![(id, map)], Spread::all(0.0), Rounding::Exact))
    }

    /// Taps R((x - zx) sx) of each window, added one after the other in float32.
    fn float_window_sum(&mut self, node: &ModelNode, p: &Plane, x: &Quantizer) -> Result<NodeId, LowerError> {
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let input = self.argument(node, 0)?;
        let sx = f64::from(x.scale);
        let map = LinearMap::Diagonal { len: self.net.node(input).len(), scale: Spread::all(sx) };
        let in_shape = self.shape_in(node, 0)?.to_vec();
        let bias = Spread::all(-sx * x.zero_point as f64);
        let taps = self.affine(&format!("{name}_taps"), &in_shape, vec![(input, map)], bias, Rounding::Nearest32);
        let (taps, size) = self.padded(taps, p, 0.0);
        let outputs: usize = shape.iter().product();
        if p.kernel[0] * p.kernel[1] * outputs > 1 << 24 {
            return Err(self.refuse(
                node,
                "its windows are too large to be summed one after the other",
                "use smaller windows",
            ));
        }
        let mut sum: Option<NodeId> = None;
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let from = by_index(&[p.in_channels, p.out_size[0], p.out_size[1]], |i| {
                    let y = i[1] * p.stride[0] + ky * p.dilation[0];
                    let x = i[2] * p.stride[1] + kx * p.dilation[1];
                    From::Element { source: 0, index: ((i[0] * size[0] + y) * size[1] + x) as u32 }
                });
                let tap = self.move_node(&format!("{name}_tap_{ky}_{kx}"), &shape, vec![taps], from);
                sum = Some(match sum {
                    None => tap,
                    Some(before) => {
                        let identity = || LinearMap::identity(outputs);
                        let terms = vec![(before, identity()), (tap, identity())];
                        let part = format!("{name}_sum_{ky}_{kx}");
                        self.affine(&part, &shape, terms, Spread::all(0.0), Rounding::Nearest32)
                    }
                });
            }
        }
        sum.ok_or_else(|| self.refuse(node, "an empty window", "repair the model"))
    }

    pub(super) fn quantized_global_pool(&mut self, node: &ModelNode, channels_last: bool) -> Result<Known, LowerError> {
        if channels_last {
            return Err(self.refuse(node, "channels_last pooling in the file", "export with channels first"));
        }
        let input = self.argument(node, 0)?;
        self.averaged(node, Pool::Global, input)
    }

    pub(super) fn quantized_mean(&mut self, node: &ModelNode, axes: &[usize]) -> Result<Known, LowerError> {
        let shape = self.shape_in(node, 0)?.to_vec();
        let input = self.argument(node, 0)?;
        let last = self.axes_last(input, &shape, axes);
        self.averaged(node, Pool::Mean, last)
    }

    /// The mean of consecutive elements, as many as there are for each result.
    fn averaged(&mut self, node: &ModelNode, pool: Pool, x: NodeId) -> Result<Known, LowerError> {
        let (input, output) = (self.operand(node, 0)?, self.output_quantizer(node, 3, 4)?);
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let outputs: usize = shape.iter().product();
        let count = self.net.node(x).len() / outputs.max(1);
        let plan = self.exactly(node, self.profile.average(&Average { pool, count, input, output }))?;
        let Averaging::OfSum(f) = plan else {
            return Err(self.refuse(node, "a mean that is summed in float32", "use another --profile"));
        };
        let map =
            LinearMap::Dense(Dense { outer: outputs, n_in: count, n_out: 1, weights: Weights::new(vec![1.0; count]) });
        let sum = self.affine(&format!("{name}_sum"), &shape, vec![(x, map)], Spread::all(0.0), Rounding::Exact);
        Ok(self.quantized_result(node, sum, Spread::all(f), &output))
    }

    /// Each part is copied where its parameters are the result's, else rescaled.
    pub(super) fn quantized_concat(&mut self, node: &ModelNode, axis: usize) -> Result<Known, LowerError> {
        let out = self.output_quantizer(node, 0, 1)?;
        let shape = self.shape_out(node).to_vec();
        let (mut sources, mut shapes) = (vec![], vec![]);
        for part in 0..(node.inputs.len() - 2) / 3 {
            let at = 2 + 3 * part;
            let p = self.operand(node, at)?;
            let id = self.argument(node, at)?;
            let part_shape = self.shape_in(node, at)?.to_vec();
            let same = p.scale == out.scale && p.zero_point == out.zero_point;
            sources.push(if same {
                id
            } else {
                let f = self.exactly(node, self.profile.rescale(&p, &out))?;
                let name = format!("{}_requantized", self.net.node(id).name);
                let quantization = self.meaning(&Parameters::of(&out), 1);
                self.pointwise(&name, &part_shape, id, Spread::all(f), Some(quantization))
            });
            shapes.push(part_shape);
        }
        let from = by_index(&shape, |index| {
            let (source, index) = part_index(&shapes, axis, index);
            From::Element { source: source as u32, index: index as u32 }
        });
        let name = self.name_of(node);
        Ok(Known::Node(self.move_node(&name, &shape, sources, from)))
    }

    pub(super) fn quantized_rescale(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let (x, out) = (self.operand(node, 0)?, self.output_quantizer(node, 3, 4)?);
        let f = self.exactly(node, self.profile.rescale(&x, &out))?;
        let id = self.argument(node, 0)?;
        Ok(self.quantized_result(node, id, Spread::all(f), &out))
    }

    pub(super) fn quantized_leaky_relu(&mut self, node: &ModelNode, alpha: f32) -> Result<Known, LowerError> {
        if alpha < 0.0 {
            return Err(self.refuse(node, "LeakyRelu with negative alpha is not monotone", "use alpha >= 0"));
        }
        if self.profile.float_grid() == crate::net::Grid::Real {
            let cure = "use --profile ort-fused, or the QDQ form of the model";
            return Err(self.refuse(node, "has no `real` form yet", cure));
        }
        let (x, out) = (self.operand(node, 0)?, self.output_quantizer(node, 3, 4)?);
        let f = self.exactly(node, ort::rescale(&x, &out, |v| if v < 0.0 { v * alpha } else { v }))?;
        let id = self.argument(node, 0)?;
        Ok(self.quantized_result(node, id, Spread::all(f), &out))
    }

    /// Clipping whose ends the profile rounds.
    pub(super) fn quantized_clip(
        &mut self,
        node: &ModelNode,
        min: Option<f32>,
        max: Option<f32>,
    ) -> Result<Known, LowerError> {
        let (x, id) = (self.operand(node, 0)?, self.argument(node, 0)?);
        let Some((lo, hi)) = clips::ends(self.profile, &x, min, max) else {
            let problem = "an end of its clipping lies between two integers, and runtimes choose either";
            return Err(self.refuse(node, problem, "name one runtime's --profile"));
        };
        let clip = ScalarFn::Piecewise(Piecewise::clip(lo as f64, hi as f64));
        Ok(self.quantized_result(node, id, Spread::all(clip), &x))
    }
}
