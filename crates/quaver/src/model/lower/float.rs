//! Float operations: sums as affine nodes with the profile's rounding, activations as pointwise functions.

use std::sync::Arc;

use super::layout::{broadcast_index, by_index};
use super::window::Plane;
use super::{Known, LowerError, Lowering};
use crate::model::ir::{DType, Node as ModelNode, Op};
use crate::net::{Cut, Dense, Grid, LinearMap, NodeId, Piecewise, Rounding, ScalarFn, Spread, Step, Weights};
use crate::num::float16;
use crate::num::round::U64;

/// A matrix product with one constant operand, as a dense map between permuted axes.
pub(super) struct Product {
    /// Position of the argument that is not constant.
    pub argument: usize,
    /// The argument's axes are swapped (its last two) before the map.
    pub swap_in: Option<[usize; 2]>,
    /// The result's last two axes are swapped after it: its shape before that.
    pub swap_out: Option<[usize; 2]>,
    pub outer: usize,
    pub n_in: usize,
    pub n_out: usize,
    /// [n_out, n_in].
    pub weights: Vec<f64>,
}

impl Lowering<'_> {
    pub(super) fn float(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let single = |f: Piecewise| Spread::all(ScalarFn::Piecewise(f));
        match &node.op {
            Op::Relu => self.activation(node, single(Piecewise::relu())),
            Op::LeakyRelu { alpha } if *alpha >= 0.0 => {
                let known = self.activation(node, single(Piecewise::leaky_relu(f64::from(*alpha))))?;
                self.rounded(node, known)
            }
            Op::LeakyRelu { alpha } => {
                Err(self.refuse(node, format!("LeakyRelu with alpha {alpha} is not monotone"), "use alpha >= 0"))
            }
            Op::Clip { min, max } => {
                let (lo, hi) = (min.map_or(f64::NEG_INFINITY, f64::from), max.map_or(f64::INFINITY, f64::from));
                self.activation(node, single(Piecewise::clip(lo, hi)))
            }
            Op::Sign => {
                let cuts = vec![Cut::at(0.0), Cut { at: 0.0, strict: true }];
                self.activation(node, Spread::all(ScalarFn::Step(Step::new(cuts, vec![-1.0, 0.0, 1.0]))))
            }
            Op::Neg => self.scaled_by_constant(node, 0, Spread::all(-1.0), Spread::all(0.0), 0.0),
            Op::Add | Op::Sub => self.sum(node),
            Op::Mul | Op::Div => self.scale(node),
            Op::MatMul => {
                let product = self.product(node, false, false)?;
                self.dense(node, product, 1.0, Spread::all(0.0))
            }
            Op::Gemm { alpha, beta, trans_a, trans_b } => {
                let product = self.product(node, *trans_a, *trans_b)?;
                let bias = self.gemm_bias(node, 2, f64::from(*beta))?;
                self.dense(node, product, f64::from(*alpha), bias)
            }
            Op::Conv { window, group } => {
                let p = self.plane(node, window)?;
                self.conv(node, &p, *group)
            }
            Op::AveragePool { window, count_include_pad } => {
                let p = self.plane(node, window)?;
                self.average_pool(node, &p, *count_include_pad)
            }
            Op::GlobalAveragePool => {
                let rank = self.shape_in(node, 0)?.len();
                self.reduce(node, &(2..rank).collect::<Vec<_>>(), true)
            }
            Op::ReduceMean { axes } => self.reduce(node, axes, true),
            Op::ReduceSum { axes } => self.reduce(node, axes, false),
            Op::BatchNormalization { epsilon } => self.batch_norm(node, *epsilon),
            Op::Cast => self.cast(node),
            Op::ThroughFloat16 => self.through_float16(node),
            _ => unreachable!("not a float operation"),
        }
    }

    pub(super) fn activation(&mut self, node: &ModelNode, functions: Spread<ScalarFn>) -> Result<Known, LowerError> {
        let input = self.argument(node, 0)?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let quantization =
            self.net.node(input).quantization.clone().filter(|_| self.value(node.output).dtype != DType::F32);
        Ok(Known::Node(self.pointwise(&name, &shape, input, functions, quantization)))
    }

    /// One more rounding to float32, in profiles that round.
    fn rounded(&mut self, node: &ModelNode, known: Known) -> Result<Known, LowerError> {
        match (known, self.profile.single()) {
            (Known::Node(id), Rounding::Nearest32) => {
                let (name, shape) = (format!("{}_rounded", self.name_of(node)), self.shape_out(node).to_vec());
                let terms = vec![(id, LinearMap::identity(self.net.node(id).len()))];
                Ok(Known::Node(self.affine(&name, &shape, terms, Spread::all(0.0), Rounding::Nearest32)))
            }
            (known, _) => Ok(known),
        }
    }

    /// The profile's rounding of a sum.
    fn dot_rounding(&self, node: &ModelNode, products: usize) -> Result<Rounding, LowerError> {
        self.profile.dot(products).ok_or_else(|| {
            self.refuse(
                node,
                format!("a float32 sum of {products} products has no useful error bound"),
                "use --profile real",
            )
        })
    }

    /// A constant as numpy broadcasts it to a shape.
    pub(super) fn spread(&self, data: &[f64], shape: &[usize], out: &[usize]) -> Spread<f64> {
        if data.len() == 1 {
            return Spread::all(data[0]);
        }
        let skip = out.len() - shape.len();
        let first = shape.iter().position(|&n| n != 1).unwrap_or(0);
        let last = shape.iter().rposition(|&n| n != 1).unwrap_or(0);
        if shape[first..=last] == out[skip + first..=skip + last] {
            return Spread::axis(data.to_vec(), out[skip + last + 1..].iter().product());
        }
        Spread::each(by_index(out, |index| data[broadcast_index(shape, index)]))
    }

    fn sum(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let (shape, sign) = (self.shape_out(node).to_vec(), if node.op == Op::Sub { -1.0 } else { 1.0 });
        let (name, signs) = (self.name_of(node), [1.0, sign]);
        let mut terms = vec![];
        let mut bias = Spread::all(0.0);
        for (position, &sign) in signs.iter().enumerate() {
            let from = self.shape_in(node, position)?.to_vec();
            match self.constant(node, position) {
                Some(data) => bias = self.spread(&data, &from, &shape).map(|b| b * sign),
                None => {
                    let id = self.argument(node, position)?;
                    let id = self.broadcast(id, &from, &shape);
                    let scale = Spread::all(sign);
                    terms.push((id, LinearMap::Diagonal { len: shape.iter().product(), scale }));
                }
            }
        }
        let rounding = self.sum_rounding(node, &terms)?;
        Ok(Known::Node(self.affine(&name, &shape, terms, bias, rounding)))
    }

    /// What a runtime may do to a sum of values: one rounding, or, where a value is itself a float sum of products, all the
    /// roundings of the merged sum (a runtime may start that sum with the addend).
    fn sum_rounding(&self, node: &ModelNode, terms: &[(NodeId, LinearMap)]) -> Result<Rounding, LowerError> {
        match terms.iter().map(|t| self.summed_products(t.0)).max() {
            Some(products) if products > 0 => self.dot_rounding(node, products),
            _ => Ok(self.profile.single()),
        }
    }

    /// Products that were summed, with rounding, to make a value (through element-wise steps); 0 if none were.
    fn summed_products(&self, id: NodeId) -> usize {
        match &self.net.node(id).op {
            crate::net::Op::Affine(a) => {
                let own = match a.rounding {
                    Rounding::Slack { .. } => a.terms.iter().map(|t| t.1.fan_in()).sum(),
                    _ => 0,
                };
                let diagonal = a.terms.iter().filter(|t| matches!(t.1, LinearMap::Diagonal { .. }));
                own + diagonal.map(|t| self.summed_products(t.0)).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Multiplication or division by a constant.
    fn scale(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let shape = self.shape_out(node).to_vec();
        let two = |this: &Self| {
            let cure = "multiply by constants only; attention and gates are not supported";
            this.refuse(node, "both operands depend on the input", cure)
        };
        if node.op == Op::Div {
            let data = self.constant(node, 1).ok_or_else(|| two(self))?;
            if data.contains(&0.0) {
                return Err(self.refuse(node, "division by zero", "repair the model"));
            }
            let divisor = self.spread(&data, self.shape_in(node, 1)?, &shape);
            let exact = divisor.data.iter().all(|d| is_power_of_two(d.abs()));
            let inexact = if exact { 0.0 } else { 2.0 * U64 };
            return self.scaled_by_constant(node, 0, divisor.map(|d| 1.0 / d), Spread::all(0.0), inexact);
        }
        let position = usize::from(self.constant(node, 0).is_some());
        let data = self.constant(node, 1 - position).ok_or_else(|| two(self))?;
        let factor = self.spread(&data, self.shape_in(node, 1 - position)?, &shape);
        self.scaled_by_constant(node, position, factor, Spread::all(0.0), 0.0)
    }

    /// y = scale x + bias element-wise, where scale and bias are off by `inexact` relatively.
    fn scaled_by_constant(
        &mut self,
        node: &ModelNode,
        position: usize,
        scale: Spread<f64>,
        bias: Spread<f64>,
        inexact: f64,
    ) -> Result<Known, LowerError> {
        let (shape, from) = (self.shape_out(node).to_vec(), self.shape_in(node, position)?.to_vec());
        let (id, name) = (self.argument(node, position)?, self.name_of(node));
        let id = self.broadcast(id, &from, &shape);
        let rounding = match self.profile.single() {
            single if inexact == 0.0 => single,
            Rounding::Exact => Rounding::Slack { relative: inexact, absolute: Spread::all(f64::MIN_POSITIVE) },
            // One operation, or two when a runtime multiplies by the rounded reciprocal.
            _ => with_relative(self.dot_rounding(node, 1)?, inexact),
        };
        let terms = vec![(id, LinearMap::Diagonal { len: shape.iter().product(), scale })];
        Ok(Known::Node(self.affine(&name, &shape, terms, bias, rounding)))
    }

    /// The dense map of a MatMul or Gemm with one constant operand.
    pub(super) fn product(&self, node: &ModelNode, trans_a: bool, trans_b: bool) -> Result<Product, LowerError> {
        let positions = if node.inputs.len() > 4 { [0, 3] } else { [0, 1] };
        let (a, b) = (self.shape_in(node, positions[0])?, self.shape_in(node, positions[1])?);
        match (self.constant(node, positions[0]), self.constant(node, positions[1])) {
            (None, Some(w)) => self.right_constant(node, a, b, &w, trans_a, trans_b),
            (Some(w), None) if a.len() == 2 && b.len() <= 2 => {
                // W X = (X^T W^T)^T.
                let (m, k) = if trans_a { (a[1], a[0]) } else { (a[0], a[1]) };
                let n = if b.len() == 1 { 1 } else { b[usize::from(!trans_b)] };
                let weights = (0..m * k).map(|i| if trans_a { w[(i % k) * m + i / k] } else { w[i] }).collect();
                let swap_in = (!trans_b && n > 1).then_some([k, n]);
                let swap_out = (n > 1).then_some([n, m]);
                Ok(Product { argument: 1, swap_in, swap_out, outer: n, n_in: k, n_out: m, weights })
            }
            (Some(_), None) => {
                Err(self.refuse(node, "a batched constant left operand", "make the weights the right operand"))
            }
            _ => Err(self.refuse(
                node,
                "both operands depend on the input",
                "only products with constant weights are supported",
            )),
        }
    }

    fn right_constant(
        &self,
        node: &ModelNode,
        a: &[usize],
        b: &[usize],
        w: &[f64],
        trans_a: bool,
        trans_b: bool,
    ) -> Result<Product, LowerError> {
        let leading: usize = b[..b.len().saturating_sub(2)].iter().product();
        if leading != 1 {
            return Err(self.refuse(
                node,
                "weights that differ along a batch axis",
                "split the product into one for each batch",
            ));
        }
        let tail = &b[b.len().saturating_sub(2)..];
        let (k, n) = match tail {
            [k] => (*k, 1),
            [x, y] if trans_b => (*y, *x),
            [x, y] => (*x, *y),
            _ => return Err(self.refuse(node, "scalar weights", "repair the model")),
        };
        let weights = (0..n * k).map(|i| if trans_b { w[i] } else { w[(i % k) * n + i / k] }).collect();
        let outer = a.iter().product::<usize>() / k.max(1);
        let swap_in = (trans_a && a.len() == 2 && a[1] > 1).then(|| [a[0], a[1]]);
        Ok(Product { argument: 0, swap_in, swap_out: None, outer, n_in: k, n_out: n, weights })
    }

    /// The argument and the map of a product; `finish_product` must follow.
    pub(super) fn product_argument(&mut self, product: &Product, id: NodeId) -> (NodeId, LinearMap) {
        let id = match product.swap_in {
            Some(shape) => self.transpose(id, &shape, &[1, 0]),
            None => id,
        };
        let weights = Weights::new(product.weights.clone());
        let (outer, n_in, n_out) = (product.outer, product.n_in, product.n_out);
        (id, LinearMap::Dense(Dense { outer, n_in, n_out, weights }))
    }

    /// The bias of a Gemm, times beta.
    fn gemm_bias(&mut self, node: &ModelNode, position: usize, beta: f64) -> Result<Spread<f64>, LowerError> {
        if node.inputs.get(position).copied().flatten().is_none() || beta == 0.0 {
            return Ok(Spread::all(0.0));
        }
        let data = self
            .constant(node, position)
            .ok_or_else(|| self.refuse(node, "the bias C depends on the input", "add it with an Add node"))?;
        let (from, out) = (self.shape_in(node, position)?.to_vec(), self.shape_out(node).to_vec());
        Ok(self.spread(&data, &from, &out).map(|b| b * beta))
    }

    fn dense(
        &mut self,
        node: &ModelNode,
        product: Product,
        alpha: f64,
        bias: Spread<f64>,
    ) -> Result<Known, LowerError> {
        let rounding = self.dot_rounding(node, product.n_in)?;
        let product = Product { weights: product.weights.iter().map(|w| w * alpha).collect(), ..product };
        let position = product.argument;
        let id = self.argument(node, position)?;
        let (id, map) = self.product_argument(&product, id);
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        match product.swap_out {
            None => Ok(Known::Node(self.affine(&name, &shape, vec![(id, map)], bias, rounding))),
            Some(before) => {
                let swapped =
                    (0..before[0] * before[1]).map(|i| *bias.at((i % before[1]) * before[0] + i / before[1])).collect();
                let inner =
                    self.affine(&format!("{name}_swapped"), &before, vec![(id, map)], Spread::each(swapped), rounding);
                Ok(Known::Node(self.transpose(inner, &before, &[1, 0])))
            }
        }
    }

    fn conv(&mut self, node: &ModelNode, p: &Plane, groups: usize) -> Result<Known, LowerError> {
        let weights = self.constant(node, 1).ok_or_else(|| {
            self.refuse(
                node,
                "the weights depend on the input",
                "only convolutions with constant weights are supported",
            )
        })?;
        let bias = match node.inputs.get(2).copied().flatten() {
            None => Spread::all(0.0),
            Some(_) => {
                let data = self
                    .constant(node, 2)
                    .ok_or_else(|| self.refuse(node, "the bias is not constant", "repair the model"))?;
                Spread::axis(data.to_vec(), p.out_size[0] * p.out_size[1])
            }
        };
        let input = self.argument(node, 0)?;
        let (input, size) = self.padded(input, p, 0.0);
        let map = self.convolution(node, p, size, groups, Weights::new(weights.to_vec()))?;
        let rounding = self.dot_rounding(node, map.fan_in())?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        Ok(Known::Node(self.affine(&name, &shape, vec![(input, map)], bias, rounding)))
    }

    fn average_pool(&mut self, node: &ModelNode, p: &Plane, include_pad: bool) -> Result<Known, LowerError> {
        let input = self.argument(node, 0)?;
        let (input, size) = self.padded(input, p, 0.0);
        let map = self.sum_pool(node, p, size)?;
        let mut counts = vec![];
        for oy in 0..p.out_size[0] {
            counts.extend((0..p.out_size[1]).map(|ox| p.count([oy, ox], include_pad) as f64));
        }
        if counts.contains(&0.0) {
            return Err(self.refuse(node, "a window holds only padding", "repair the pads of the model"));
        }
        self.mean(node, vec![(input, map)], Spread::each(counts))
    }

    /// A sum divided element-wise by counts.
    fn mean(
        &mut self,
        node: &ModelNode,
        terms: Vec<(NodeId, LinearMap)>,
        counts: Spread<f64>,
    ) -> Result<Known, LowerError> {
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let rounding = self.dot_rounding(node, terms.iter().map(|t| t.1.fan_in()).sum())?;
        let sum = self.affine(&format!("{name}_sum"), &shape, terms, Spread::all(0.0), rounding);
        if counts.data.iter().all(|&c| c == 1.0) {
            return Ok(Known::Node(sum));
        }
        let exact = counts.data.iter().all(|&c| is_power_of_two(c));
        let rounding = match (self.profile.single(), exact) {
            (single, true) => single,
            (Rounding::Exact, false) => {
                Rounding::Slack { relative: 2.0 * U64, absolute: Spread::all(f64::MIN_POSITIVE) }
            }
            (_, false) => with_relative(self.dot_rounding(node, 1)?, 2.0 * U64),
        };
        let map = LinearMap::Diagonal { len: shape.iter().product(), scale: counts.map(|c| 1.0 / c) };
        Ok(Known::Node(self.affine(&name, &shape, vec![(sum, map)], Spread::all(0.0), rounding)))
    }

    /// Mean or sum over axes: they are moved last and summed by a dense map of ones.
    fn reduce(&mut self, node: &ModelNode, axes: &[usize], mean: bool) -> Result<Known, LowerError> {
        let shape = self.shape_in(node, 0)?.to_vec();
        let n_in: usize = axes.iter().map(|&a| shape[a]).product();
        let input = self.argument(node, 0)?;
        let input = self.axes_last(input, &shape, axes);
        let outer = shape.iter().product::<usize>() / n_in.max(1);
        let weights = Weights::new(vec![1.0; n_in]);
        let map = LinearMap::Dense(Dense { outer, n_in, n_out: 1, weights });
        self.mean(node, vec![(input, map)], Spread::all(if mean { n_in as f64 } else { 1.0 }))
    }

    /// A value with these axes moved behind all others.
    pub(super) fn axes_last(&mut self, id: NodeId, shape: &[usize], axes: &[usize]) -> NodeId {
        let perm: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
        if perm.windows(2).all(|p| p[0] < p[1]) { id } else { self.transpose(id, shape, &perm) }
    }

    /// y = a x + c with a = scale / sqrt(var + eps) and c = B - mean a.
    ///
    /// # Rounding
    /// a and c are computed in f64; four operations leave a relative error below 8 u in a, and c is off by at most that much of
    /// |B| + |mean a|. A float32 runtime rounds each of its own (at most eight) operations once.
    fn batch_norm(&mut self, node: &ModelNode, epsilon: f32) -> Result<Known, LowerError> {
        let mut parts = vec![];
        for position in 1..5 {
            let problem = || {
                self.refuse(node, "its parameters are not constants", "fold the normalization or export for inference")
            };
            parts.push(self.constant(node, position).ok_or_else(problem)?);
        }
        let shape = self.shape_out(node).to_vec();
        let inner: usize = shape.iter().skip(2).product();
        let (mut scale, mut bias, mut size) = (vec![], vec![], 0.0f64);
        let [gains, offsets, means, variances] = &parts[..] else { unreachable!("four parameters were read") };
        for (((gain, offset), mean), variance) in gains.iter().zip(&**offsets).zip(&**means).zip(&**variances) {
            let variance = variance + f64::from(epsilon);
            if variance <= 0.0 {
                return Err(self.refuse(node, "a variance is not positive", "repair the model"));
            }
            let a = gain / variance.sqrt();
            scale.push(a);
            bias.push(offset - mean * a);
            size = size.max(offset.abs() + (mean * a).abs());
        }
        let id = self.argument(node, 0)?;
        // A runtime may fold the normalization into the sum before it.
        let (relative, absolute) = match self.dot_rounding(node, 1 + self.summed_products(id))? {
            Rounding::Slack { relative, absolute } => (relative, *absolute.at(0)),
            _ => (0.0, f64::MIN_POSITIVE),
        };
        let relative = relative + 16.0 * U64;
        let absolute = Spread::all(absolute + 2.0 * relative * size);
        let rounding = Rounding::Slack { relative, absolute };
        let map = LinearMap::Diagonal { len: shape.iter().product(), scale: Spread::axis(scale, inner) };
        let name = self.name_of(node);
        Ok(Known::Node(self.affine(&name, &shape, vec![(id, map)], Spread::axis(bias, inner), rounding)))
    }

    /// Steps between float16 numbers; a ReLU before them is part of them.
    ///
    /// # Why
    /// Rounding keeps the order and zero, so that rounding what a ReLU leaves is what rounding gives, without its negative values.
    fn through_float16(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let id = self.input_id(node, 0)?;
        if let Some(Known::Constant(data)) = &self.known[id.0] {
            // Local invariant: constants of float32 values are float32 numbers.
            let rounded = data.iter().map(|&x| f64::from(float16::nearest(x as f32))).collect();
            return Ok(Known::Constant(Arc::new(rounded)));
        }
        let mut input = self.argument(node, 0)?;
        let mut least = f64::NEG_INFINITY;
        if let crate::net::Op::Pointwise(p) = &self.net.node(input).op
            && p.functions.data[..] == [ScalarFn::Piecewise(Piecewise::relu())]
        {
            (input, least) = (p.input, 0.0);
        }
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let steps = Spread::all(ScalarFn::Step(float16_steps(least)));
        Ok(Known::Node(self.pointwise(&name, &shape, input, steps, None)))
    }

    fn cast(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let input = self.input_id(node, 0)?;
        let (from, to) = (self.value(input).dtype, self.value(node.output).dtype);
        let known = self.known[input.0].clone();
        let id = self.node_of(input);
        let (lo, hi) = self.net.node(id).range;
        let fits = |limit: f64| lo > -limit && hi < limit;
        let exact = match (from, to) {
            (a, b) if a == b => true,
            (_, DType::F32) => self.net.node(id).grid == Grid::Integer && fits(16_777_217.0),
            (DType::F32, _) => false,
            (_, b) => b.integer_range().is_some_and(|(l, h)| lo >= l as f64 && hi <= h as f64),
        };
        match known {
            Some(known) if exact => Ok(known),
            _ => Err(self.refuse(
                node,
                format!("a cast from {from} to {to} that may round or wrap"),
                "quantize with QuantizeLinear",
            )),
        }
    }
}

/// The step function of float16 numbers that are at least as large as one of them.
fn float16_steps(least: f64) -> Step {
    let values: Vec<f64> = float16::all().filter(|v| *v >= least).collect();
    let cut = |w: &[f64]| {
        let (at, ties_up) = float16::border(w[0], w[1]);
        Cut { at, strict: !ties_up }
    };
    Step::new(values.windows(2).map(cut).collect(), values)
}

fn is_power_of_two(x: f64) -> bool {
    x.is_normal() && x.to_bits() & ((1 << 52) - 1) == 0
}

fn with_relative(rounding: Rounding, more: f64) -> Rounding {
    match rounding {
        Rounding::Slack { relative, absolute } => Rounding::Slack { relative: relative + 2.0 * more, absolute },
        other => other,
    }
}
