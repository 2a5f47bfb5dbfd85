//! From a graph to a [`Net`]: its tensors, nodes and output, and the operators of the profile `real`.

use std::collections::HashMap;

use super::call::{Call, Known, Stored};
use super::fixed::{self, Format};
use super::graph::{Graph, Input, Model, Node};
use super::quantized::{self, Meaning};
use super::real_quantized;
use crate::net::{Affine, Function, Map, Net, Op, Shape, Value};

/// Versions of the default operators whose meaning is known here.
const OPSETS: std::ops::RangeInclusive<i64> = 8..=26;
/// Largest number of elements of all values together.
const ROOM: usize = 1 << 25;

/// What the operations of a file compute.
#[derive(Clone, Copy)]
pub(super) enum Arithmetic {
    /// Real numbers.
    Real,
    /// The integer kernels of ONNX Runtime.
    Fused,
    /// Words of fixed-point hardware.
    Fixed(Format),
}

/// A net that grows, and the tensors known so far by name.
pub(super) struct Lowering {
    pub net: Net,
    pub arithmetic: Arithmetic,
    known: HashMap<String, Known>,
    /// What tensors stand for that are not simply real numbers.
    pub meanings: HashMap<String, Meaning>,
    /// Types of the stored constants.
    pub kinds: HashMap<String, i64>,
    /// What the padding of a convolution holds.
    pub margin: f64,
    /// Whether the first axis is the batch.
    batched: bool,
    room: usize,
}

/// Lowers a model.
pub(super) fn lower(model: Model, arithmetic: Arithmetic) -> Result<Net, String> {
    if !OPSETS.contains(&model.opset) {
        return Err(format!("opset {} is not supported, only {OPSETS:?}", model.opset));
    }
    let Graph { nodes, initializers, inputs, outputs } = model.graph;
    let mut lowering = Lowering {
        net: Net::default(),
        arithmetic,
        known: HashMap::new(),
        meanings: HashMap::new(),
        kinds: HashMap::new(),
        margin: 0.0,
        batched: false,
        room: ROOM,
    };
    for tensor in initializers {
        lowering.kinds.insert(tensor.name.clone(), tensor.kind);
        lowering.bind(&tensor.name.clone(), tensor.into())?;
    }
    let (defaults, inputs): (Vec<Input>, Vec<Input>) =
        inputs.into_iter().partition(|i| lowering.known.contains_key(&i.name));
    if let (Arithmetic::Fused, Some(input)) = (arithmetic, defaults.first()) {
        return Err(format!("input '{}' may replace a constant, which the runtime then does not fuse", input.name));
    }
    let [input] = &inputs[..] else { return Err(format!("{} inputs are not supported, only one", inputs.len())) };
    lowering.input(input).map_err(|why| format!("input '{}': {why}", input.name))?;
    if !matches!(arithmetic, Arithmetic::Real) {
        read_once(&nodes, &input.name, &outputs)?;
    }
    for node in &nodes {
        lowering.node(node, model.opset).map_err(|why| format!("{}: {why}", node.label()))?;
    }
    let [output] = &outputs[..] else { return Err(format!("{} outputs are not supported, only one", outputs.len())) };
    let made = lowering.known.get(output).ok_or_else(|| format!("no node makes the output '{output}'"))?.clone();
    let made = match arithmetic {
        Arithmetic::Real => Ok(made),
        Arithmetic::Fused => lowering.fused_output(output, &made),
        Arithmetic::Fixed(_) => lowering.fixed_output(output, &made),
    };
    let made = made.map_err(|why| format!("output '{output}': {why}"))?;
    lowering.net.output = made.id().ok_or_else(|| format!("the output '{output}' is constant"))?;
    Ok(lowering.net)
}

/// Refuses all but a chain of nodes, in which what is made is read exactly once: which values a runtime fuses, and
/// which rules may replace a value by a later one, depends on who else reads it.
fn read_once(nodes: &[Node], input: &str, outputs: &[String]) -> Result<(), String> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for name in nodes.iter().flat_map(|node| &node.inputs).chain(outputs) {
        *times.entry(name).or_default() += 1;
    }
    let made = nodes.iter().filter(|node| node.op != "Constant").flat_map(|node| &node.outputs);
    for name in made.map(String::as_str).chain([input]).filter(|name| !name.is_empty()) {
        let count = times.get(name).copied().unwrap_or(0);
        if count != 1 {
            return Err(format!("'{name}' is read {count} times; under this profile every tensor must be read once"));
        }
    }
    Ok(())
}

/// How an operator is lowered.
pub(super) type Rule = fn(&mut Lowering, &Call) -> Result<Known, String>;

/// An operator: fewest and most inputs, the attributes that are understood, the rule.
pub(super) type Operator = (usize, usize, &'static str, Rule);

/// The operators on real numbers. What matters only in training (momentum, ratio, seed) changes nothing.
pub(super) fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "Constant" => (0, 0, "value value_float value_floats value_int value_ints", |_, c| c.stored()),
        "Identity" => (1, 1, "", |_, c| Ok(c.input(0)?.clone())),
        "Dropout" => (1, 3, "ratio seed", Lowering::dropout),
        "Flatten" => (1, 1, "axis", Lowering::flatten),
        "Reshape" => (2, 2, "allowzero", Lowering::reshape),
        "Squeeze" => (1, 2, "axes", Lowering::squeeze),
        "Unsqueeze" => (1, 2, "axes", Lowering::unsqueeze),
        "Transpose" => (1, 1, "perm", Lowering::transpose),
        "Pad" => (1, 3, "mode pads value", Lowering::pad),
        "Add" => (2, 2, "", |l, c| l.sum(c, 1.0)),
        "Sub" => (2, 2, "", |l, c| l.sum(c, -1.0)),
        "Mul" => (2, 2, "", Lowering::multiply),
        "Div" => (2, 2, "", Lowering::divide),
        "MatMul" => (2, 2, "", Lowering::matmul),
        "Gemm" => (2, 3, "alpha beta transA transB", Lowering::gemm),
        "BatchNormalization" => (5, 5, "epsilon momentum spatial training_mode", Lowering::batch_normalization),
        "Conv" => (2, 3, "auto_pad dilations group kernel_shape pads strides", Lowering::convolution),
        "MaxPool" => (1, 1, "auto_pad ceil_mode dilations kernel_shape pads storage_order strides", Lowering::max_pool),
        "AveragePool" => {
            (1, 1, "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides", Lowering::average_pool)
        }
        "GlobalAveragePool" => (1, 1, "", Lowering::global_average_pool),
        "Relu" => (1, 1, "", |l, c| l.function(c, Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY })),
        "LeakyRelu" => (1, 1, "alpha", Lowering::leaky_relu),
        "Clip" => (1, 3, "min max", Lowering::clip),
        _ => return None,
    })
}

impl Lowering {
    fn bind(&mut self, name: &str, known: Known) -> Result<(), String> {
        match self.known.insert(name.into(), known) {
            _ if name.is_empty() => Err("a tensor has no name".into()),
            Some(_) => Err(format!("'{name}' is defined twice")),
            None => Ok(()),
        }
    }

    fn input(&mut self, input: &Input) -> Result<(), String> {
        if !(input.element == 1 || input.element == 11 && matches!(self.arithmetic, Arithmetic::Real)) {
            return Err(format!("elements of type {} are not supported, only floats", input.element));
        }
        let axes = input.axes.as_ref().ok_or("it has no shape")?;
        self.batched = axes.len() > 1;
        let size = |(i, axis): (usize, &Option<i64>)| match *axis {
            None if i == 0 && self.batched => Ok(1),
            None => Err(format!("axis {i} has no size")),
            Some(n) if i == 0 && self.batched && n != 1 => Err(format!("a batch of {n} is not supported, only 1")),
            Some(n) => usize::try_from(n).map_err(|_| format!("axis {i} has the size {n}")),
        };
        let shape = axes.iter().enumerate().map(size).collect::<Result<Vec<_>, _>>()?;
        self.room(&shape)?;
        let mut known = self.push(&input.name, shape, Op::Input);
        if let Arithmetic::Fixed(format) = self.arithmetic {
            known = self.fixed_input(&input.name, &known, format)?;
        }
        self.bind(&input.name, known)
    }

    fn node(&mut self, node: &Node, opset: i64) -> Result<(), String> {
        let found = match (self.arithmetic, &node.domain[..]) {
            (Arithmetic::Fused, domain) => quantized::operator(domain, &node.op),
            (Arithmetic::Real, "" | "ai.onnx") => {
                let found = operator(&node.op).or_else(|| real_quantized::operator(&node.op));
                found.ok_or("the operator is not supported".into())
            }
            (Arithmetic::Fixed(_), "" | "ai.onnx") => fixed::operator(&node.op),
            (_, domain) => Err(format!("operators of the domain '{domain}' are not supported")),
        };
        let (fewest, most, understood, rule) = found?;
        for (i, (name, _)) in node.attributes.iter().enumerate() {
            if !understood.split_whitespace().any(|known| known == name)
                || node.attributes[..i].iter().any(|a| a.0 == *name)
            {
                return Err(format!("attribute '{name}' is not understood, or given twice"));
            }
        }
        let find = |name: &String| match self.known.get(name) {
            _ if name.is_empty() => Ok(None),
            None => Err(format!("its input '{name}' is not made before it")),
            known => Ok(known.cloned()),
        };
        let mut inputs = node.inputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        inputs.truncate(inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
        if inputs.len() < fewest || inputs.len() > most {
            return Err(format!("has {} inputs, {fewest} to {most} are understood", inputs.len()));
        }
        // The mask of a Dropout is not made; who reads it is refused.
        if node.outputs.iter().skip(1).any(|name| !name.is_empty()) && node.op != "Dropout" {
            return Err("only the first output is supported".into());
        }
        let call = Call { node, opset, inputs };
        let known = rule(self, &call)?;
        self.bind(call.name(), known)
    }

    /// Takes room for a value before it is made; returns its number of elements.
    pub(super) fn room(&mut self, shape: &[usize]) -> Result<usize, String> {
        let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        match elements.map(|n| (n, self.room.checked_sub(n))) {
            Some((0, _)) => Err(format!("a value of shape {shape:?} has no elements")),
            Some((n, Some(left))) => {
                self.room = left;
                Ok(n)
            }
            _ => Err(format!("the values have more than {ROOM} elements in all")),
        }
    }

    /// Adds a value, for which there is room.
    pub(super) fn push(&mut self, name: &str, shape: Vec<usize>, op: Op) -> Known {
        let batch = usize::from(self.batched && shape.len() > 1 && shape[0] == 1);
        let value = Value { name: name.into(), shape: shape[batch..].to_vec(), op, integer: false };
        self.net.values.push(value);
        Known { shape, data: Stored::Value(self.net.values.len() - 1) }
    }

    /// Adds an affine map of one value.
    pub(super) fn affine(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        term: (usize, Map),
        bias: Vec<f64>,
        slack: f64,
    ) -> Known {
        self.push(name, shape, Op::Affine(Affine { terms: vec![term], bias, slack }))
    }

    fn function(&mut self, call: &Call, shape: Shape) -> Result<Known, String> {
        let (of, x) = call.value(0)?;
        self.room(&x.shape)?;
        Ok(self.push(call.name(), x.shape.clone(), Op::Function(Function { of, pieces: vec![shape] })))
    }

    fn leaky_relu(&mut self, call: &Call) -> Result<Known, String> {
        let left = call.float("alpha")?.unwrap_or(0.01f32.into());
        if !(0.0..=1.0).contains(&left) {
            return Err(format!("alpha = {left} is not between 0 and 1"));
        }
        self.function(call, Shape::Hinge { left, low: 0.0, high: f64::INFINITY })
    }

    fn clip(&mut self, call: &Call) -> Result<Known, String> {
        let low = call.float_at("min", 1, 11)?.unwrap_or(f64::NEG_INFINITY);
        let high = call.float_at("max", 2, 11)?.unwrap_or(f64::INFINITY);
        if !(low <= high && low < f64::INFINITY && high > f64::NEG_INFINITY) {
            return Err(format!("the limits {low} and {high} are not supported"));
        }
        match (low.is_finite(), high.is_finite()) {
            (true, _) => self.function(call, Shape::Hinge { left: 0.0, low, high }),
            // Only the upper limit bends it.
            (false, true) => self.function(call, Shape::Hinge { left: 1.0, low: high, high }),
            (false, false) => Ok(call.input(0)?.clone()),
        }
    }

    /// The identity: networks are not trained here.
    fn dropout(&mut self, call: &Call) -> Result<Known, String> {
        if call.has(2) && !matches!(&call.input(2)?.data, Stored::Ints(training) if training.iter().all(|&t| t == 0)) {
            return Err("training is not supported".into());
        }
        Ok(call.input(0)?.clone())
    }
}
