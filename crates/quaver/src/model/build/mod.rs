//! Building models, with shape inference, checks and constant folding: in memory by [`ModelBuilder`], from files by the readers.

use std::sync::Arc;

use super::ir::{DType, Model, Op, Source, Tensor, Value, ValueId};

mod assembly;
pub mod error;
mod fold;
mod infer;
mod infer_quant;
pub(crate) mod shape;

pub(crate) use assembly::Assembly;
pub use error::{Problem, Subject};
pub(crate) use infer::Hint;

/// Why a model could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`: {problem}")]
pub struct BuildError {
    /// Name of the value or node.
    pub name: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Adds inputs, constants and nodes one after the other; a node reads values that were added before it.
///
/// As on import, a node whose inputs are all constants is evaluated at once (quantizers excepted), and nodes that no
/// output depends on are dropped at the end.
pub struct ModelBuilder {
    assembly: Assembly,
    name: String,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    nodes: usize,
}

impl ModelBuilder {
    /// An empty model with this graph name.
    pub fn new(name: &str) -> Self {
        let assembly = Assembly::new(1 << 28);
        ModelBuilder { assembly, name: name.to_string(), inputs: vec![], outputs: vec![], nodes: 0 }
    }

    fn claim(&mut self, name: &str) -> Result<String, BuildError> {
        if name.is_empty() || !self.assembly.claim(name) {
            let problem = Problem::whole("the name is empty or taken", "use another name");
            return Err(BuildError { name: name.to_string(), problem });
        }
        Ok(name.to_string())
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<ValueId, BuildError> {
        let claimed = self.claim(name)?;
        let id = self.assembly.input(claimed, dtype, shape.to_vec());
        let id = id.map_err(|problem| BuildError { name: name.to_string(), problem })?;
        self.inputs.push(id);
        Ok(id)
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Result<ValueId, BuildError> {
        let count = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count != Some(tensor.len()) {
            let problem = Problem::whole(format!("{} elements for shape {:?}", tensor.len(), tensor.shape), "");
            return Err(BuildError { name: name.to_string(), problem });
        }
        let claimed = self.claim(name)?;
        Ok(self.assembly.constant(claimed, Arc::new(tensor)))
    }

    /// Adds a node whose inputs are all present and whose output shape follows from them.
    pub fn node(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, BuildError> {
        let inputs: Vec<_> = inputs.iter().map(|&id| Some(id)).collect();
        self.node_with(op, &inputs, None, None)
    }

    /// Adds a Reshape to this shape.
    pub fn reshape(&mut self, input: ValueId, shape: &[usize]) -> Result<ValueId, BuildError> {
        self.node_with(Op::Reshape, &[Some(input)], Some(shape), None)
    }

    /// Adds a node. `shape` is needed by Reshape and Expand, and selects among the shapes that Slice and reductions
    /// can have; `dtype` is needed by Cast, and gives QuantizeLinear without zero point its output type.
    pub fn node_with(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        shape: Option<&[usize]>,
        dtype: Option<DType>,
    ) -> Result<ValueId, BuildError> {
        let name = format!("{}#{}", op.name(), self.nodes);
        if let Some(i) = inputs.iter().position(|id| id.is_some_and(|id| self.assembly.get(id).is_none())) {
            let problem = Problem::input(i, "is not a value of this builder", "");
            return Err(BuildError { name, problem });
        }
        self.nodes += 1;
        let output = self.assembly.fresh(&format!("{}_{}", op.name().to_lowercase(), self.nodes));
        let hint = Hint { shape: shape.map(<[usize]>::to_vec), dtype };
        self.assembly.emit(&name, output, op, inputs, &hint).map_err(|problem| BuildError { name, problem })
    }

    /// The value with this id.
    ///
    /// # Panics
    /// If the id is not from this builder.
    pub fn value(&self, id: ValueId) -> &Value {
        self.assembly.value(id)
    }

    /// Makes a value an output.
    pub fn output(&mut self, id: ValueId) {
        self.outputs.push(id);
    }

    /// The finished model.
    pub fn finish(self) -> Result<Model, BuildError> {
        let distinct = self.outputs.iter().enumerate().all(|(i, id)| !self.outputs[..i].contains(id));
        let known = self.outputs.iter().all(|id| self.assembly.get(*id).is_some());
        if self.outputs.is_empty() || !distinct || !known {
            let problem = Problem::whole("outputs must be at least one, distinct and of this builder", "");
            return Err(BuildError { name: self.name, problem });
        }
        Ok(self.assembly.finish(self.name, &self.inputs, &self.outputs, Source::default()))
    }
}
