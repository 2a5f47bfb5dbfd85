//! Whether declarations and nets agree, and whether an answer would be about what was declared.

use std::sync::Arc;

use super::SpecError;
use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::{Grid, NodeId};
use crate::vnnlib::{ElementType, Network, Side, Spec, Tensor, Version};

/// Remarks for the user.
pub(super) fn agree(spec: &Spec, nets: &[Arc<Lowered>]) -> Result<Vec<String>, SpecError> {
    let mut notes = vec![];
    for (network, lowered) in spec.networks.iter().zip(nets) {
        let found = [Side::Input, Side::Output].map(|side| Found::new(network, side, lowered));
        for found in &found {
            match spec.version {
                Version::V1 => found.flat()?,
                Version::V2 => found.tensors()?,
            }
            notes.extend(found.meant_as_integers());
        }
    }
    let tensors = || spec.networks.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs));
    if is_typed(spec) && tensors().any(|t| t.element == ElementType::Real) {
        let cure = "declare every tensor `real` (real arithmetic), or give each the model's own type";
        return Err(SpecError::new("some tensors are declared `real` and others are not", cure));
    }
    notes.dedup();
    Ok(notes)
}

/// Whether a query is about machine types.
pub(super) fn is_typed(spec: &Spec) -> bool {
    spec.networks.iter().any(|n| n.inputs.iter().chain(&n.outputs).any(|t| t.element != ElementType::Real))
}

/// One side of a declaration and of its net.
struct Found<'a> {
    network: &'a Network,
    declared: &'a [Tensor],
    side: &'static str,
    lowered: &'a Lowered,
    nodes: &'a [NodeId],
    types: &'a [DType],
}

impl<'a> Found<'a> {
    fn new(network: &'a Network, side: Side, lowered: &'a Lowered) -> Self {
        let (side, declared, nodes, types) = match side {
            Side::Input => ("input", &network.inputs, lowered.net.inputs(), &lowered.input_types),
            Side::Output => ("output", &network.outputs, lowered.net.outputs(), &lowered.output_types),
        };
        Found { network, declared, side, lowered, nodes, types }
    }

    fn len(&self, k: usize) -> usize {
        self.lowered.net.node(self.nodes[k]).len()
    }

    /// Version 1.0 numbers the elements of all tensors in a row.
    fn flat(&self) -> Result<(), SpecError> {
        let (declared, found) = (self.declared[0].len(), (0..self.nodes.len()).map(|k| self.len(k)).sum::<usize>());
        if declared == found {
            return Ok(());
        }
        let problem = format!("the query declares {declared} {} elements, and the model has {found}", self.side);
        Err(SpecError::new(problem, "give the model that the query was written for"))
    }

    fn tensors(&self) -> Result<(), SpecError> {
        let (name, side) = (&self.network.name, self.side);
        if self.declared.len() != self.nodes.len() {
            let (declared, found) = (self.declared.len(), self.nodes.len());
            let problem = format!("network `{name}` declares {declared} {side}s, and the model has {found}");
            return Err(SpecError::new(problem, "declare every input and output of the model, in order"));
        }
        (0..self.nodes.len()).try_for_each(|k| self.shape(k).and_then(|()| self.element(k)))
    }

    /// Axes of length 1 change no order, and a vector of all elements is one that everybody reads the same way.
    fn shape(&self, k: usize) -> Result<(), SpecError> {
        let (declared, found) = (&self.declared[k], &self.lowered.net.node(self.nodes[k]).shape);
        let long = |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|d| *d != 1).collect() };
        let (a, b) = (long(&declared.shape), long(found));
        if a == b || (declared.len() == self.len(k) && (a.len() == 1 || b.len() == 1)) {
            return Ok(());
        }
        let (t, shape) = (&declared.name, &declared.shape);
        let problem = format!("`{t}` is declared with shape {shape:?}, and the model's {} has {found:?}", self.side);
        Err(SpecError::new(problem, "declare the model's shape"))
    }

    fn element(&self, k: usize) -> Result<(), SpecError> {
        let (declared, found) = (&self.declared[k], self.types[k]);
        let (name, element) = (&declared.name, declared.element.name());
        if declared.element == ElementType::Real {
            return Ok(());
        }
        if element != found.name() {
            let problem = format!("`{name}` is declared {element}, and the model's {} is {found}", self.side);
            return Err(SpecError::new(problem, "declare the model's type, or `real` for real arithmetic"));
        }
        let is_float = found.integer_range().is_none();
        if is_float && self.lowered.net.node(self.nodes[k]).grid == Grid::Real {
            let profile = &self.lowered.profile;
            let problem = format!("`{name}` is declared {element}, and profile {profile} computes with real numbers");
            return Err(SpecError::new(problem, "leave out --profile, or declare every tensor `real`"));
        }
        Ok(())
    }

    /// A remark on real tensors that hold integers.
    fn meant_as_integers(&self) -> Vec<String> {
        let integer = |(k, t): (usize, &DType)| {
            let node = &self.lowered.net.node(self.nodes[k]).name;
            let real = self.declared.get(k).unwrap_or(&self.declared[0]).element == ElementType::Real;
            (real && t.integer_range().is_some())
                .then(|| format!("{} `{node}` is {t}: only integers are meant", self.side))
        };
        self.types.iter().enumerate().filter_map(integer).collect()
    }
}
