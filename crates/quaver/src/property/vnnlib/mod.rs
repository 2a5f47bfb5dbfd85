//! VNN-LIB queries about models: a [`Spec`] and a net for each of its networks become questions on one input and one output each.
//!
//! Every case of the query is a box of inputs and a polyhedron of outputs. Cases of the same box are one [`Query`]. Where a query speaks of several
//! networks or tensors, or of inputs in other ways than by bounds, the nets are merged: one input with every free input element, one output with every
//! output element (and the input, if constraints speak of it), so that each constraint is linear in the output.

pub(super) mod boxes;
mod check;
mod group;
pub(super) mod merge;
mod rows;

use std::sync::Arc;

use crate::model::lower::Lowered;
use crate::net::{Enclosure, execute_between};
use crate::num::Ratio;
use crate::num::round::sub_up;
use crate::vnnlib::{Decimal, Side, Spec};

use super::{Constraint, Query};
use merge::Layout;

/// Why a query says nothing about these models.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n  what to do: {cure}")]
pub struct SpecError {
    problem: String,
    cure: String,
}

impl SpecError {
    fn new(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        SpecError { problem: problem.into(), cure: cure.into() }
    }
}

/// A query about nets: an assignment satisfies it if it satisfies one of the parts.
#[derive(Debug)]
pub struct Problem {
    /// The parts; none where no input satisfies the query's bounds.
    pub parts: Vec<Part>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// Cases with one box of inputs.
#[derive(Debug)]
pub struct Part {
    /// The net, merged where that was necessary.
    pub lowered: Arc<Lowered>,
    /// The question: an output that must not occur is one that satisfies the query.
    pub query: Query,
    /// For each forbidden polyhedron the number of its case, among those of the query that some input satisfies the bounds of.
    pub cases: Vec<usize>,
    layout: Arc<Layout>,
    /// Input elements that lie between two neighbouring floats: the value that is meant, if it can be written.
    between: Vec<(usize, Option<Decimal>)>,
}

/// A value of an assignment.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An f64 that the net was executed on, or gave.
    Float(f64),
    /// A decimal between two floats.
    Decimal(Decimal),
}

/// The values of one tensor, row-major.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Position of the network in the query.
    pub network: usize,
    /// Input or output.
    pub side: Side,
    /// Position of the tensor in the network.
    pub tensor: usize,
    /// Its elements.
    pub values: Vec<Value>,
}

impl Problem {
    /// States a query about nets, one for each of its networks (the same for networks that are declared equal).
    ///
    /// # Errors
    /// If nets and declarations do not agree, an input has no bounds, or an answer would not be sound.
    pub fn new(spec: &Spec, nets: &[Arc<Lowered>]) -> Result<Problem, SpecError> {
        let notes = check::agree(spec, nets)?;
        let rows = rows::rows(spec, nets)?;
        Ok(Problem { parts: group::parts(spec, nets, &rows)?, notes })
    }
}

impl Part {
    /// Whether an executed input proves that the query can be satisfied.
    ///
    /// # Why
    /// An input element that must lie between two neighbouring floats was executed at one of them. Where there are such elements, the
    /// net's enclosure over the box of all their values is judged exactly.
    pub fn settles(&self, input: &[f64], polyhedron: usize) -> bool {
        if self.between.is_empty() {
            return true;
        }
        if self.between.iter().any(|b| b.1.is_none()) {
            return false;
        }
        let net = &self.lowered.net;
        let mut given = Enclosure { center: input.to_vec(), radius: Some(vec![0.0; input.len()]) };
        for (i, exact) in &self.between {
            let Some(exact) = exact.as_ref().map(Decimal::ratio) else { return false };
            let (lo, hi) = (exact.f64_down(), exact.f64_up());
            given.center[*i] = lo;
            given.radius.iter_mut().for_each(|r| r[*i] = sub_up(hi, lo));
        }
        let execution = execute_between(net, vec![(net.inputs()[0], given)], net.outputs()[0], 1);
        let output = execution.value(net.outputs()[0]);
        self.query.forbidden[polyhedron].constraints.iter().all(|c| surely(c, output))
    }

    /// Whether the query is about two networks whose inputs are equated element by element, and about their outputs only.
    pub fn is_about_a_pair(&self) -> bool {
        let (free, one) = (&self.layout.free_of, self.layout.elements.len());
        let net = &self.lowered.net;
        let output = net.node(net.outputs()[0]).len();
        free.len() == 2 * one && free.iter().enumerate().all(|(i, v)| i % one == *v) && output == self.layout.outputs
    }

    /// The input that is meant by an executed one.
    fn input_value(&self, input: &[f64], free: usize) -> Value {
        let exact = self.between.iter().find(|b| b.0 == free).and_then(|b| b.1.clone());
        exact.map_or(Value::Float(input[free]), Value::Decimal)
    }

    /// The values of every tensor, network by network, inputs first.
    pub fn assignment(&self, spec: &Spec, input: &[f64], outputs: &[f64]) -> Vec<Assigned> {
        let mut assigned = vec![];
        let (mut next_in, mut next_out) = (0, 0);
        for (network, declared) in spec.networks.iter().enumerate() {
            for side in [Side::Input, Side::Output] {
                for (tensor, t) in declared.tensors(side).iter().enumerate() {
                    let next = if side == Side::Input { &mut next_in } else { &mut next_out };
                    let elements = *next..*next + t.len();
                    *next = elements.end;
                    let values = match side {
                        Side::Input => elements.map(|g| self.input_value(input, self.layout.free_of[g])).collect(),
                        Side::Output => outputs[elements].iter().map(|&y| Value::Float(y)).collect(),
                    };
                    assigned.push(Assigned { network, side, tensor, values });
                }
            }
        }
        assigned
    }
}

/// Whether every output of an enclosure satisfies a constraint.
fn surely(c: &Constraint, output: &Enclosure) -> bool {
    let largest = c.terms.iter().try_fold(c.bound.negated(), |sum, (i, a)| {
        let end = if a.is_negative() { output.lo(*i) } else { output.hi(*i) };
        Some(sum.plus(&a.times(&Ratio::from_f64(end)?)))
    });
    largest.is_some_and(|excess| excess.is_negative() || (excess.is_zero() && !c.strict))
}
