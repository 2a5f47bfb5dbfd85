//! The growing model: values and nodes, with shape inference, type checks and constant folding as nodes are added.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::Problem;
use super::fold;
use super::infer::{Hint, infer};
use super::shape::{MAX_RANK, elements};
use crate::model::ir::{DType, Model, Node, Op, Source, Tensor, Value, ValueId};

/// Constants that folding may make, as a multiple of the limit on one of them.
const FOLDED_TOTAL: usize = 8;

/// Values and nodes added so far; nodes are in topological order because a node can only read values that exist.
pub(crate) struct Assembly {
    values: Vec<Value>,
    nodes: Vec<Node>,
    names: HashSet<String>,
    node_names: HashSet<String>,
    max_elements: usize,
    folded_left: usize,
    /// Values that the file has in float16: float32 numbers here.
    pub float16: HashSet<ValueId>,
}

impl Assembly {
    /// An empty model; no activation and no folded constant may have more than `max_elements` elements.
    pub fn new(max_elements: usize) -> Self {
        let folded_left = max_elements.saturating_mul(FOLDED_TOTAL);
        Assembly {
            values: vec![],
            nodes: vec![],
            names: HashSet::new(),
            node_names: HashSet::new(),
            max_elements,
            folded_left,
            float16: HashSet::new(),
        }
    }

    /// Claims a name; false if it was taken.
    pub fn claim(&mut self, name: &str) -> bool {
        self.names.insert(name.to_string())
    }

    /// Claims a name that starts with `base`.
    pub fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_string();
        let mut n = 0usize;
        while name.is_empty() || !self.claim(&name) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    /// A node name that starts with `base`.
    fn fresh_node(&mut self, base: &str) -> String {
        let mut name = base.to_string();
        while !self.node_names.insert(name.clone()) {
            name.push_str(&format!("#{}", self.nodes.len()));
        }
        name
    }

    /// The node that makes a value, if one does.
    pub fn producer(&self, id: ValueId) -> Option<&Node> {
        self.nodes.iter().rev().find(|n| n.output == id)
    }

    /// The number that a scalar surely has in every arithmetic: a constant, or a zero through quantizers.
    pub fn known_scalar(&self, id: ValueId) -> Option<f64> {
        let value = self.get(id)?;
        if let Some(tensor) = value.constant.as_deref().filter(|t| t.len() == 1) {
            return match tensor.as_f32() {
                Some(v) => Some(f64::from(v[0])),
                None => tensor.to_i64().map(|v| v[0] as f64),
            };
        }
        let node = self.producer(id)?;
        let input = |k: usize| node.inputs.get(k).copied().flatten();
        let zero_point = match input(2) {
            Some(z) => self.known_scalar(z)?,
            None => 0.0,
        };
        let x = self.known_scalar(input(0)?)?;
        match node.op {
            Op::QuantizeLinear { .. } if x == 0.0 => Some(zero_point),
            Op::DequantizeLinear { .. } if x == zero_point => Some(0.0),
            _ => None,
        }
    }

    /// Whether a runtime cannot rewrite anything around an unused node: it reads constants only, or turns the result of an
    /// integer kernel into floats that nobody reads.
    fn is_harmless(&self, node: &Node) -> bool {
        let Some(x) = node.inputs.first().copied().flatten() else { return true };
        let kernel = |n: &Node| n.op.is_quantized() && !matches!(n.op, Op::QuantizeLinear { .. });
        match (&node.op, self.producer(x)) {
            (Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. }, None) => self.value(x).constant.is_some(),
            (Op::DequantizeLinear { .. }, Some(maker)) => kernel(maker) || self.known_scalar(x).is_some(),
            (_, Some(maker)) => self.known_scalar(x).is_some() && maker.op.is_quantized(),
            (_, None) => false,
        }
    }

    /// The value with this id, if there is one.
    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.values.get(id.0)
    }

    /// The value with this id, which this assembly gave out.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Largest number of elements of one value.
    pub fn max_elements(&self) -> usize {
        self.max_elements
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// Adds a model input under a name that was claimed.
    pub fn input(&mut self, name: String, dtype: DType, shape: Vec<usize>) -> Result<ValueId, Problem> {
        self.check_activation(&shape)?;
        Ok(self.push(Value { name, dtype, shape, constant: None, range: None }))
    }

    /// Adds a constant under a name that was claimed.
    pub fn constant(&mut self, name: String, tensor: Arc<Tensor>) -> ValueId {
        self.push(Value {
            name,
            dtype: tensor.dtype(),
            shape: tensor.shape.clone(),
            constant: Some(tensor),
            range: None,
        })
    }

    fn check_activation(&self, shape: &[usize]) -> Result<(), Problem> {
        match elements(shape) {
            Some(0) => Err(Problem::whole(format!("shape {shape:?} has no elements"), "remove empty tensors")),
            Some(n) if n <= self.max_elements => Ok(()),
            _ => Err(self.too_large(shape)),
        }
    }

    fn too_large(&self, shape: &[usize]) -> Problem {
        let what = format!("shape {shape:?} has more than {} elements", self.max_elements);
        Problem::whole(what, "raise `max_elements` if the model is meant to be this large")
    }

    /// Adds a node, or the constant it evaluates to when all its inputs are constants.
    pub fn emit(
        &mut self,
        node_name: &str,
        output: String,
        op: Op,
        inputs: &[Option<ValueId>],
        hint: &Hint,
    ) -> Result<ValueId, Problem> {
        let values: Vec<Option<&Value>> = inputs.iter().map(|id| id.map(|id| self.value(id))).collect();
        let (dtype, shape) = infer(&op, &values, hint)?;
        if shape.len() > MAX_RANK {
            return Err(Problem::whole(format!("the output has {} dimensions", shape.len()), "use fewer dimensions"));
        }
        let constants: Option<Vec<&Tensor>> = values.iter().flatten().map(|v| v.constant.as_deref()).collect();
        let quantizer = matches!(op, Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. });
        if let Some(constants) = constants.filter(|_| !quantizer) {
            let count = elements(&shape).filter(|&n| n <= self.max_elements).ok_or_else(|| self.too_large(&shape))?;
            let left = self.folded_left.checked_sub(count).ok_or_else(|| self.too_large(&shape))?;
            let tensor = fold::evaluate(&op, &constants, dtype, &shape)?;
            self.folded_left = left;
            return Ok(self.constant(output, Arc::new(tensor)));
        }
        self.check_activation(&shape)?;
        let output = self.push(Value { name: output, dtype, shape, constant: None, range: None });
        let name = self.fresh_node(node_name);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
        Ok(output)
    }

    /// The finished model, without nodes and constants that no output depends on.
    pub fn finish(self, name: String, inputs: &[ValueId], outputs: &[ValueId], source: Source) -> Model {
        let mut keep = vec![false; self.values.len()];
        inputs.iter().chain(outputs).for_each(|id| keep[id.0] = true);
        let mut live = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            live[i] = keep[node.output.0];
            if live[i] {
                node.inputs.iter().flatten().for_each(|id| keep[id.0] = true);
            }
        }
        let dead = self.nodes.iter().zip(&live).filter(|(node, live)| !**live && !self.is_harmless(node));
        let unused = dead.map(|(node, _)| node.name.clone()).collect();
        let mut renumbered = vec![ValueId(0); self.values.len()];
        let mut values = Vec::new();
        for (i, value) in self.values.into_iter().enumerate().filter(|(i, _)| keep[*i]) {
            renumbered[i] = ValueId(values.len());
            values.push(value);
        }
        let map = |id: ValueId| renumbered[id.0];
        let nodes = self.nodes.into_iter().zip(live).filter(|(_, live)| *live).map(|(mut node, _)| {
            node.inputs.iter_mut().for_each(|id| *id = id.map(map));
            node.output = map(node.output);
            node
        });
        let nodes = nodes.collect();
        let ids = |list: &[ValueId]| list.iter().map(|&id| map(id)).collect();
        Model { name, values, nodes, inputs: ids(inputs), outputs: ids(outputs), unused, source }
    }
}
