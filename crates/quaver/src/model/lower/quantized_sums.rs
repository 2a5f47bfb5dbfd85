//! Quantized operations without weights: sums, pools, concatenation and tables.

use super::quantized::Parameters;
use super::{Known, LowerError, Lowering};
use crate::model::ir::{Node as ModelNode, Window};
use crate::model::profile::{Quantizer, Requantizer, accumulator_step, float32_step, ort};
use crate::net::{From, LinearMap, NodeId, Rounding, ScalarFn, Spread, Weights};

impl Lowering<'_> {
    /// ONNX Runtime: p = R(sa/sc), q = R(sb/sc), c = R(zc - fma(p, za, R(q zb))); clip(rne(fma(p, a, fma(q, b, c)))). Each fma is an
    /// affine node rounded once. In exact profiles: the nearest integer to (sa (a - za) + sb (b - zb)) / sc + zc.
    pub(super) fn quantized_add(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let (a, b) = (self.parameters(node, 1, 2)?, self.parameters(node, 4, 5)?);
        let out = self.output_quantizer(node, 6, 7)?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let len: usize = shape.iter().product();
        let (shape_a, shape_b) = (self.shape_in(node, 0)?.to_vec(), self.shape_in(node, 3)?.to_vec());
        let (id_a, id_b) = (self.argument(node, 0)?, self.argument(node, 3)?);
        let (id_a, id_b) = (self.broadcast(id_a, &shape_a, &shape), self.broadcast(id_b, &shape_b, &shape));
        let diagonal = |s: f64| LinearMap::Diagonal { len, scale: Spread::all(s) };
        let (za, zb, zc) = (a.zero_points[0] as f64, b.zero_points[0] as f64, out.zero_point as f64);
        let rounding = self.profile.single();
        let (sum, step) = if self.exact_profile() {
            let (sa, sb) = (f64::from(a.scales[0]), f64::from(b.scales[0]));
            let terms = vec![(id_a, diagonal(sa)), (id_b, diagonal(sb))];
            // 24 + 9 bits each; their sum is exact in f64 unless the scales are 2^20 apart.
            let bias = -(sa * za) - sb * zb;
            (
                self.affine(&format!("{name}_sum"), &shape, terms, Spread::all(bias), rounding),
                self.profile.quantize(&out),
            )
        } else {
            let (p, q) = (a.scales[0] / out.scale, b.scales[0] / out.scale);
            self.usable_factor(node, p)?;
            self.usable_factor(node, q)?;
            let inner = p.mul_add(za as f32, q * zb as f32);
            let c = zc as f32 - inner;
            let first_terms = vec![(id_b, diagonal(f64::from(q)))];
            let bias = Spread::all(f64::from(c));
            let first = self.affine(&format!("{name}_b"), &shape, first_terms, bias, rounding.clone());
            let terms = vec![(id_a, diagonal(f64::from(p))), (first, LinearMap::identity(len))];
            let sum = self.affine(&format!("{name}_sum"), &shape, terms, Spread::all(0.0), rounding);
            let f = |v: f32| (v.round_ties_even() as i64).clamp(out.range.0, out.range.1);
            (sum, float32_step(out.range, f, |k| k as f64 - 0.5))
        };
        let quantization = self.meaning(&Parameters { scales: vec![out.scale], zero_points: vec![out.zero_point] }, 1);
        Ok(Known::Node(self.pointwise(&name, &shape, sum, Spread::all(ScalarFn::Step(step)), Some(quantization))))
    }

    /// ONNX Runtime: taps R((x - zx) sx) summed in float32 in row-major window order, then
    /// clip(rne(R(R(R(f / n) / sy) + zy))), a monotone function of the float32 sum f.
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
        if self.exact_profile() {
            return Err(self.refuse(
                node,
                "has no `real` form yet",
                "use --profile ort-fused, or the QDQ form of the model",
            ));
        }
        let p = self.plane(node, window)?;
        if p.is_whole_image() {
            // The kernel hands a window over the whole image to the global one, which adds the zero point after rounding.
            return self.quantized_global_pool(node, false);
        }
        let (x, out) = (self.parameters(node, 1, 2)?, self.output_quantizer(node, 3, 4)?);
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let input = self.argument(node, 0)?;
        let (sx, zx) = (f64::from(x.scales[0]), x.zero_points[0]);
        let len = self.net.node(input).len();
        let map = LinearMap::Diagonal { len, scale: Spread::all(sx) };
        let in_shape = self.shape_in(node, 0)?.to_vec();
        let bias = Spread::all(-sx * zx as f64);
        let taps = self.affine(&format!("{name}_taps"), &in_shape, vec![(input, map)], bias, Rounding::Nearest32);
        let (taps, size) = self.padded(taps, &p, 0.0);
        let outputs: usize = shape.iter().product();
        let mut sum: Option<NodeId> = None;
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let from = super::layout::by_index(&[p.in_channels, p.out_size[0], p.out_size[1]], |i| {
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
                        self.affine(
                            &format!("{name}_sum_{ky}_{kx}"),
                            &shape,
                            terms,
                            Spread::all(0.0),
                            Rounding::Nearest32,
                        )
                    }
                });
            }
        }
        let mut steps: Vec<(usize, ScalarFn)> = vec![];
        let mut functions = vec![];
        for oy in 0..p.out_size[0] {
            for ox in 0..p.out_size[1] {
                let n = p.count([oy, ox], include_pad);
                if !steps.iter().any(|s| s.0 == n) {
                    let f = |f: f32| {
                        let v = f / n as f32 / out.scale + out.zero_point as f32;
                        (v.round_ties_even() as i64).clamp(out.range.0, out.range.1)
                    };
                    let guess = |k: i64| (k as f64 - 0.5 - out.zero_point as f64) * f64::from(out.scale) * n as f64;
                    steps.push((n, ScalarFn::Step(float32_step(out.range, f, guess))));
                }
                // Local invariant: pushed just above.
                functions.extend(steps.iter().find(|s| s.0 == n).map(|s| s.1.clone()));
            }
        }
        let functions = if steps.len() == 1 { Spread::all(steps.remove(0).1) } else { Spread::each(functions) };
        let quantization = self.meaning(&Parameters { scales: vec![out.scale], zero_points: vec![out.zero_point] }, 1);
        let sum = sum.ok_or_else(|| self.refuse(node, "an empty window", "repair the model"))?;
        Ok(Known::Node(self.pointwise(&name, &shape, sum, functions, Some(quantization))))
    }

    /// ONNX Runtime: S = exact sum of (x - zx); m = R(sx / R(sy N)); clip(rne(R(S m)) + zy).
    pub(super) fn quantized_global_pool(&mut self, node: &ModelNode, channels_last: bool) -> Result<Known, LowerError> {
        if channels_last {
            return Err(self.refuse(node, "channels_last pooling in the file", "export with channels first"));
        }
        let (x, out) = (self.parameters(node, 1, 2)?, self.output_quantizer(node, 3, 4)?);
        let (inputs, outputs) = (self.value(self.input_id(node, 0)?).len(), self.value(node.output).len());
        let n = inputs / outputs.max(1);
        let input = self.argument(node, 0)?;
        let weights = Weights::new(vec![1.0; n]);
        let map = LinearMap::Dense(crate::net::Dense { outer: outputs, n_in: n, n_out: 1, weights });
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let bias = Spread::all(-(n as f64) * x.zero_points[0] as f64);
        let sum = self.affine(&format!("{name}_sum"), &shape, vec![(input, map)], bias, Rounding::Exact);
        let step = if self.exact_profile() {
            let output = Quantizer { scale: out.scale, ..out };
            let by_n = 1.0 / n as f32;
            if f64::from(by_n) * n as f64 != 1.0 {
                return Err(self.refuse(node, "has no `real` form for this window yet", "use --profile ort-fused"));
            }
            self.profile.requantize(&Requantizer { input_scale: x.scales[0], weight_scale: by_n, output })
        } else {
            let m = x.scales[0] / (out.scale * n as f32);
            self.usable_factor(node, m)?;
            let f = |s: i64| ((s as f32 * m).round_ties_even() as i64 + out.zero_point).clamp(out.range.0, out.range.1);
            accumulator_step(out.range, f, |k| (k as f64 - 0.5 - out.zero_point as f64) / f64::from(m))
        };
        let quantization = self.meaning(&Parameters { scales: vec![out.scale], zero_points: vec![out.zero_point] }, 1);
        Ok(Known::Node(self.pointwise(&name, &shape, sum, Spread::all(ScalarFn::Step(step)), Some(quantization))))
    }

    /// Each part is copied where its parameters are the result's, else mapped by clip(rne(R(R((q - z) s) / sy)) + zy).
    pub(super) fn quantized_concat(&mut self, node: &ModelNode, axis: usize) -> Result<Known, LowerError> {
        let out = self.output_quantizer(node, 0, 1)?;
        let shape = self.shape_out(node).to_vec();
        let (mut sources, mut shapes) = (vec![], vec![]);
        for part in 0..(node.inputs.len() - 2) / 3 {
            let at = 2 + 3 * part;
            let p = self.parameters(node, at + 1, at + 2)?;
            let id = self.argument(node, at)?;
            let part_shape = self.shape_in(node, at)?.to_vec();
            let same = p.scales[0] == out.scale && p.zero_points[0] == out.zero_point;
            sources.push(if same { id } else { self.requantize_table(node, id, &part_shape, &p, &out, |v| v)? });
            shapes.push(part_shape);
        }
        let from = super::layout::by_index(&shape, |index| {
            let (source, index) = super::layout::part_index(&shapes, axis, index);
            From::Element { source: source as u32, index: index as u32 }
        });
        let name = self.name_of(node);
        Ok(Known::Node(self.move_node(&name, &shape, sources, from)))
    }

    pub(super) fn quantized_leaky_relu(&mut self, node: &ModelNode, alpha: f32) -> Result<Known, LowerError> {
        if alpha < 0.0 {
            return Err(self.refuse(node, "LeakyRelu with negative alpha is not monotone", "use alpha >= 0"));
        }
        let (p, out) = (self.parameters(node, 1, 2)?, self.output_quantizer(node, 3, 4)?);
        let shape = self.shape_out(node).to_vec();
        let id = self.argument(node, 0)?;
        Ok(Known::Node(self.requantize_table(node, id, &shape, &p, &out, |v| if v < 0.0 { v * alpha } else { v })?))
    }

    /// q -> quantize(f(R((q - z) s))) for a monotone float32 function f, as a table of thresholds.
    fn requantize_table(
        &mut self,
        node: &ModelNode,
        id: NodeId,
        shape: &[usize],
        p: &Parameters,
        out: &Quantizer,
        f: impl Fn(f32) -> f32,
    ) -> Result<NodeId, LowerError> {
        if self.exact_profile() {
            return Err(self.refuse(
                node,
                "has no `real` form yet",
                "use --profile ort-fused, or the QDQ form of the model",
            ));
        }
        let (s, z) = (p.scales[0], p.zero_points[0]);
        let g = |q: i64| ort::quantize_value(f((q - z) as f32 * s), out);
        let step =
            accumulator_step(out.range, g, |k| (k - out.zero_point) as f64 * f64::from(out.scale / s) + z as f64);
        let quantization = self.meaning(&Parameters { scales: vec![out.scale], zero_points: vec![out.zero_point] }, 1);
        let name = format!("{}_requantized", self.net.node(id).name);
        Ok(self.pointwise(&name, shape, id, Spread::all(ScalarFn::Step(step)), Some(quantization)))
    }
}
