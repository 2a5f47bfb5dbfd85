//! Lowering: a [`Model`] under a [`Profile`] becomes a [`Net`].
//!
//! The profile first rewrites the graph into what its runtime executes; then every operation becomes kernel operations
//! with exact constants. What cannot be exact in the profile is refused by name.

use std::fmt;
use std::sync::Arc;

use super::ir::{DType, Model, Node as ModelNode, Op, ValueId};
use super::profile::{Profile, Resolved};
use crate::net::{
    Affine, Grid, LinearMap, Net, Node, NodeId, Pointwise, Quantization, Rounding, ScalarFn, Spread, fuse_steps,
};

mod clips;
mod float;
mod layout;
mod quantized;
mod quantized_sums;
mod window;

/// Why a model has no net under a profile.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {problem}\n  what to do: {cure}")]
pub struct LowerError {
    place: String,
    problem: String,
    cure: String,
}

impl LowerError {
    /// A problem with one node.
    pub fn new(model: &Model, node: &ModelNode, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::at(model, Some(node), problem, cure)
    }

    /// What is wrong, without the place and the cure.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// A problem with a node, or with the whole model.
    pub fn at(model: &Model, node: Option<&ModelNode>, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        let mut place = model.source.path.display().to_string();
        if let Some(node) = node {
            place += &format!(": node `{}` ({})", node.name, node.op.name());
        }
        LowerError { place, problem: problem.into(), cure: cure.into() }
    }
}

/// How sure a side condition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Follows from the model for every input.
    Proved,
    /// Part of the profile's assumptions about the machine.
    Assumed,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Proved => "proved",
            Standing::Assumed => "assumed",
        })
    }
}

/// What was found out about one integer layer.
#[derive(Clone, Debug)]
pub struct IntegerLayer {
    /// Name of the node.
    pub name: String,
    /// Smallest and largest accumulator (with bias) over all inputs.
    pub accumulator: (i64, i64),
    /// Bits of a two's complement integer that holds them.
    pub bits: u32,
    /// Whether no pair of neighbouring u8 x s8 products can leave 16 bits.
    pub no_pair_saturation: Standing,
}

/// A final Softmax that was removed: it does not change the order of the classes.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// Number of classes (the last axis).
    pub classes: usize,
    /// Whether it was a LogSoftmax.
    pub log: bool,
}

/// A net, and what lowering found out.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The net.
    pub net: Net,
    /// The profile's name.
    pub profile: String,
    /// What a verdict assumes about the machine.
    pub assumptions: Vec<String>,
    /// Element type of each input.
    pub input_types: Vec<DType>,
    /// Element type of each output.
    pub output_types: Vec<DType>,
    /// Integer layers, in order.
    pub integer_layers: Vec<IntegerLayer>,
    /// For each output, the Softmax that was taken off.
    pub softmax: Vec<Option<Softmax>>,
    /// Remarks for the user.
    pub notes: Vec<String>,
    /// Where the profile is an envelope of others: the model under each of them. The net allows every execution of theirs.
    pub members: Vec<Lowered>,
    /// Whether the members' executions are all that is meant.
    pub is_conjunction: bool,
    /// Nodes of the rewritten graph, for reports: (operation, how many).
    pub executed: Vec<(String, usize)>,
}

impl Lowered {
    /// A net that was put together from others, with one input and one output.
    pub fn merged(net: Net, parts: &[Arc<Lowered>], input_type: DType, output_type: DType) -> Lowered {
        let all = |of: fn(&Lowered) -> &Vec<String>| {
            let mut all: Vec<String> = parts.iter().flat_map(|l| of(l).clone()).collect();
            let mut seen = std::collections::HashSet::new();
            all.retain(|text| seen.insert(text.clone()));
            all
        };
        Lowered {
            net,
            profile: parts.first().map_or(String::new(), |l| l.profile.clone()),
            assumptions: all(|l| &l.assumptions),
            input_types: vec![input_type],
            output_types: vec![output_type],
            integer_layers: parts.iter().flat_map(|l| l.integer_layers.clone()).collect(),
            softmax: vec![None],
            notes: all(|l| &l.notes),
            members: vec![],
            is_conjunction: false,
            executed: parts.iter().flat_map(|l| l.executed.clone()).collect(),
        }
    }
}

/// A value during lowering.
#[derive(Clone, Debug)]
enum Known {
    /// Made by the net.
    Node(NodeId),
    /// The same for every input.
    Constant(Arc<Vec<f64>>),
}

struct Lowering<'a> {
    model: &'a Model,
    profile: &'a dyn Profile,
    net: Net,
    known: Vec<Option<Known>>,
    integer_layers: Vec<IntegerLayer>,
    notes: Vec<String>,
    /// The first value that could not be made.
    malformed: Option<String>,
}

/// Lowers a model.
///
/// # Errors
/// If the profile gives the model no exact meaning; the error names the file, the node and what to do.
pub fn lower(model: &Model, profile: &dyn Profile) -> Result<Lowered, LowerError> {
    match profile.resolve(model)? {
        Some(Resolved { profile, members, is_conjunction }) => {
            Ok(Lowered { members, is_conjunction, ..lower_resolved(model, &*profile)? })
        }
        None => lower_resolved(model, profile),
    }
}

fn lower_resolved(model: &Model, profile: &dyn Profile) -> Result<Lowered, LowerError> {
    let rewritten = clips::absorb(profile.rewrite(model)?, profile);
    let mut lowering = Lowering {
        model: &rewritten,
        profile,
        net: Net::new(),
        known: vec![None; rewritten.values.len()],
        integer_layers: vec![],
        notes: vec![],
        malformed: None,
    };
    lowering.inputs_and_constants(model)?;
    let softmax = lowering.final_softmax();
    for (index, node) in rewritten.nodes.iter().enumerate() {
        if softmax.iter().flatten().any(|s| s.0 == index) {
            // Local invariant: nodes are in topological order and have their required inputs.
            let input = node.inputs[0].unwrap_or(node.output);
            lowering.known[node.output.0] = lowering.known[input.0].clone();
            continue;
        }
        let known = lowering.node(node)?;
        lowering.known[node.output.0] = Some(known);
    }
    let outputs = lowering.outputs();
    if let Some(problem) = lowering.malformed {
        let cure = "the model's constants are out of the range of this profile: repair the model";
        return Err(LowerError::at(&rewritten, None, problem, cure));
    }
    lowering.net.set_outputs(outputs);
    let type_of = |id: &ValueId| rewritten.value(*id).dtype;
    let mut executed: Vec<(String, usize)> = vec![];
    for node in &rewritten.nodes {
        match executed.iter_mut().find(|e| e.0 == node.op.name()) {
            Some(e) => e.1 += 1,
            None => executed.push((node.op.name().into(), 1)),
        }
    }
    Ok(Lowered {
        profile: profile.id(),
        assumptions: profile.assumptions(),
        input_types: rewritten.inputs.iter().map(type_of).collect(),
        output_types: rewritten.outputs.iter().map(type_of).collect(),
        integer_layers: lowering.integer_layers,
        softmax: softmax.into_iter().map(|s| s.map(|s| s.1)).collect(),
        notes: lowering.notes,
        members: vec![],
        executed,
        is_conjunction: false,
        net: fuse_steps(&lowering.net),
    })
}

impl<'a> Lowering<'a> {
    fn inputs_and_constants(&mut self, file: &Model) -> Result<(), LowerError> {
        for (i, &id) in self.model.inputs.iter().enumerate() {
            let value = self.model.value(id);
            let (grid, range) = match value.range.or(value.dtype.integer_range()) {
                Some((lo, hi)) => (Grid::Integer, (lo as f64, hi as f64)),
                None => (self.profile.float_grid(), (f64::NEG_INFINITY, f64::INFINITY)),
            };
            let op = crate::net::Op::Input(i);
            let quantization = file.inputs.get(i).and_then(|&input| input_quantization(file, input));
            let node = Node { name: value.name.clone(), shape: value.shape.clone(), op, grid, range, quantization };
            self.known[id.0] = Some(Known::Node(self.net.add(node)));
        }
        for (i, value) in self.model.values.iter().enumerate() {
            if let Some(tensor) = &value.constant {
                let data = match tensor.as_f32() {
                    Some(f) => f.iter().map(|&x| f64::from(x)).collect(),
                    None => tensor.to_i64().unwrap_or_default().into_iter().map(|x| x as f64).collect(),
                };
                let data: Vec<f64> = data;
                if let Some(k) = data.iter().position(|x| !x.is_finite()) {
                    let reader = self.model.nodes.iter().find(|n| n.inputs.contains(&Some(ValueId(i))));
                    let problem = format!("element {k} of constant `{}` is {}", value.name, data[k]);
                    return Err(LowerError::at(
                        self.model,
                        reader,
                        problem,
                        "repair the model: constants must be finite",
                    ));
                }
                self.known[i] = Some(Known::Constant(Arc::new(data)));
            }
        }
        Ok(())
    }

    /// For each output: the index of a Softmax over the last axis that makes it, if one does and nothing else reads it.
    fn final_softmax(&mut self) -> Vec<Option<(usize, Softmax)>> {
        let of = |output: &ValueId| {
            let (index, node) = self.model.nodes.iter().enumerate().find(|(_, n)| n.output == *output)?;
            let (axis, log) = match node.op {
                Op::Softmax { axis } => (axis, false),
                Op::LogSoftmax { axis } => (axis, true),
                Op::QLinearSoftmax { axis } => (axis, false),
                _ => return None,
            };
            let shape = &self.model.value(*output).shape;
            let used = self.model.nodes.iter().any(|n| n.inputs.contains(&Some(*output)));
            let last = axis + 1 == shape.len();
            (last && !used).then(|| (index, Softmax { classes: shape[axis], log }))
        };
        let found: Vec<_> = self.model.outputs.iter().map(of).collect();
        if found.iter().any(Option::is_some) {
            let note = "the final Softmax was left out: it keeps the order of the classes, and its exponentials differ between runtimes";
            self.notes.push(note.into());
        }
        found
    }

    /// The outputs as nodes; a constant output becomes a node without arguments.
    fn outputs(&mut self) -> Vec<NodeId> {
        let ids = self.model.outputs.clone();
        ids.iter().map(|id| self.node_of(*id)).collect()
    }

    fn value(&self, id: ValueId) -> &'a super::ir::Value {
        self.model.value(id)
    }

    /// What is known of an input position. Missing optional inputs give `None`.
    fn input(&self, node: &ModelNode, position: usize) -> Option<Known> {
        let id = node.inputs.get(position).copied().flatten()?;
        self.known[id.0].clone()
    }

    fn input_id(&self, node: &ModelNode, position: usize) -> Result<ValueId, LowerError> {
        let missing = || self.refuse(node, format!("input {position} is missing"), "repair the model");
        node.inputs.get(position).copied().flatten().ok_or_else(missing)
    }

    /// The constant at an input position, if there is one.
    fn constant(&self, node: &ModelNode, position: usize) -> Option<Arc<Vec<f64>>> {
        match self.input(node, position)? {
            Known::Constant(data) => Some(data),
            Known::Node(_) => None,
        }
    }

    /// The net's node for a value; constants become a node without arguments.
    fn node_of(&mut self, id: ValueId) -> NodeId {
        match self.known[id.0].clone() {
            Some(Known::Node(node)) => node,
            Some(Known::Constant(data)) => {
                let value = self.model.value(id);
                let from = data.iter().map(|&c| crate::net::From::Constant(c)).collect();
                let op = crate::net::Op::Move(crate::net::Move { sources: vec![], from });
                let grid = if self.net.makes_integers(&op) { Grid::Integer } else { self.profile.float_grid() };
                self.add(&value.name, &value.shape, op, grid, None)
            }
            None => unreachable!("nodes are in topological order"),
        }
    }

    fn argument(&mut self, node: &ModelNode, position: usize) -> Result<NodeId, LowerError> {
        let id = self.input_id(node, position)?;
        Ok(self.node_of(id))
    }

    fn shape_in(&self, node: &ModelNode, position: usize) -> Result<&'a [usize], LowerError> {
        Ok(&self.value(self.input_id(node, position)?).shape)
    }

    fn shape_out(&self, node: &ModelNode) -> &'a [usize] {
        &self.value(node.output).shape
    }

    fn refuse(&self, node: &ModelNode, problem: impl Into<String>, cure: impl Into<String>) -> LowerError {
        LowerError::new(self.model, node, format!("{} (profile {})", problem.into(), self.profile.id()), cure)
    }

    /// Adds a node.
    fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        op: crate::net::Op,
        grid: Grid,
        quantization: Option<Quantization>,
    ) -> NodeId {
        let range = self.net.range_of(&op);
        let mut node = Node { name: name.into(), shape: shape.to_vec(), op, grid, range, quantization };
        if let Some(problem) = self.net.malformed(&node) {
            // Lowering goes on with a stand-in, and ends in this error.
            self.malformed.get_or_insert(format!("`{name}` cannot be computed: {problem}"));
            let from = vec![crate::net::From::Constant(0.0); node.len()];
            node.op = crate::net::Op::Move(crate::net::Move { sources: vec![], from });
        }
        self.net.add(node)
    }

    /// Adds an affine node. A sum of integers that no order of float32 summation can round is exact.
    fn affine(
        &mut self,
        name: &str,
        shape: &[usize],
        terms: Vec<(NodeId, LinearMap)>,
        bias: Spread<f64>,
        rounding: Rounding,
    ) -> NodeId {
        let exact = Affine { terms, bias, rounding: Rounding::Exact };
        let rounding = if self.net.is_integer_below(&exact, 16_777_216.0) { Rounding::Exact } else { rounding };
        let op = crate::net::Op::Affine(Affine { rounding, ..exact });
        let grid = if self.net.makes_integers(&op) { Grid::Integer } else { self.profile.float_grid() };
        self.add(name, shape, op, grid, None)
    }

    /// Adds a pointwise node on an integer or float grid.
    fn pointwise(
        &mut self,
        name: &str,
        shape: &[usize],
        input: NodeId,
        functions: Spread<ScalarFn>,
        quantization: Option<Quantization>,
    ) -> NodeId {
        let op = crate::net::Op::Pointwise(Pointwise { input, functions });
        let grid = if self.net.makes_integers(&op) { Grid::Integer } else { self.profile.float_grid() };
        self.add(name, shape, op, grid, quantization)
    }

    fn name_of(&self, node: &ModelNode) -> String {
        self.value(node.output).name.clone()
    }

    fn node(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        match &node.op {
            Op::Identity | Op::Reshape | Op::Flatten => {
                let id = self.input_id(node, 0)?;
                self.known[id.0]
                    .clone()
                    .ok_or_else(|| self.refuse(node, "its input is not defined", "repair the model"))
            }
            Op::Transpose { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Gather { .. }
            | Op::Expand
            | Op::Tile { .. } => self.layout(node),
            Op::Relu
            | Op::LeakyRelu { .. }
            | Op::Clip { .. }
            | Op::Sign
            | Op::Neg
            | Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::MatMul
            | Op::Gemm { .. }
            | Op::Conv { .. }
            | Op::AveragePool { .. }
            | Op::GlobalAveragePool
            | Op::ReduceMean { .. }
            | Op::ReduceSum { .. }
            | Op::BatchNormalization { .. }
            | Op::Cast
            | Op::ThroughFloat16 => self.float(node),
            Op::MaxPool { window } => self.max_pool(node, window),
            Op::GlobalMaxPool => self.global_max_pool(node),
            Op::Softmax { .. } | Op::LogSoftmax { .. } | Op::QLinearSoftmax { .. } => Err(self.refuse(
                node,
                "only a final Softmax over the last axis can be left out; its exponentials differ between runtimes",
                "end the network at the logits",
            )),
            Op::QuantizeLinear { .. }
            | Op::DequantizeLinear { .. }
            | Op::QLinearConv { .. }
            | Op::QLinearMatMul
            | Op::QGemm { .. }
            | Op::QLinearAdd
            | Op::QLinearAveragePool { .. }
            | Op::QLinearGlobalAveragePool { .. }
            | Op::QLinearConcat { .. }
            | Op::QLinearLeakyRelu { .. }
            | Op::QLinearSub
            | Op::QLinearMul
            | Op::QLinearMean { .. }
            | Op::QLinearRequantize
            | Op::QLinearClip { .. }
            | Op::MatMulInteger
            | Op::ConvInteger { .. } => self.quantized(node),
        }
    }
}

/// What an integer input means, as its first reader in the file says: its scale and zero point are the two inputs after it.
fn input_quantization(model: &Model, input: ValueId) -> Option<Quantization> {
    if model.value(input).dtype == DType::F32 {
        return None;
    }
    let reader = model.nodes.iter().find(|n| n.inputs.contains(&Some(input)))?;
    if !reader.op.is_quantized() {
        let layout = matches!(
            reader.op,
            Op::Reshape | Op::Flatten | Op::Transpose { .. } | Op::Slice { .. } | Op::MaxPool { .. }
        );
        return if layout { input_quantization(model, reader.output) } else { None };
    }
    let position = reader.inputs.iter().position(|i| *i == Some(input))?;
    let scale = model.constant(reader, position + 1)?.as_f32()?.to_vec();
    let zero_point = model.constant(reader, position + 2).and_then(|z| z.to_i64()).unwrap_or(vec![0]);
    let ([scale], [zero_point]) = (&scale[..], &zero_point[..]) else { return None };
    Some(Quantization { scale: Spread::all(f64::from(*scale)), zero_point: Spread::all(*zero_point) })
}
