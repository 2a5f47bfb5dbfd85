//! Equivalence of two networks: whether they agree on every input of a region.
//!
//! Both networks are put on one input, each in its own arithmetic; what a relation forbids is a union of polyhedra of what they give together.

mod cases;
mod distance;
mod side;

use std::fmt;
use std::sync::Arc;

pub use side::{INPUT_SLACK, InputGrid};

use super::vnnlib::SpecError;
use super::vnnlib::boxes::Element;
use super::vnnlib::merge::{self, Layout};
use super::{Polyhedron, Query, Region, is_same_map, score};
use crate::model::lower::Lowered;
use crate::net::{Grid, NodeId, Quantization, execute};
use crate::num::Ratio;

/// How a difference of outputs is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// The sum of the magnitudes.
    L1,
    /// The root of the sum of the squares.
    L2,
    /// The largest magnitude.
    LInf,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Norm::L1 => "L1",
            Norm::L2 => "L2",
            Norm::LInf => "Linf",
        })
    }
}

/// What two networks must have in common on every input. A network's class is its first largest output.
#[derive(Clone, Debug)]
pub enum Relation {
    /// Every output is the same number.
    Strict,
    /// The norm of the difference of the outputs is at most epsilon.
    Epsilon {
        /// The norm.
        norm: Norm,
        /// The bound, not negative.
        epsilon: Ratio,
    },
    /// The class is the same.
    Top1,
    /// The class is the same wherever the first network's class leads over each other one by more than this, in real numbers.
    Top1Beyond(Ratio),
    /// The first network's class is among the k first classes of the second, ordered by output, the first of equals before the others.
    TopK(usize),
}

/// Why two networks cannot be compared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// They do not fit each other, or the relation.
    #[error("{problem}\n  what to do: {cure}")]
    Refused {
        /// What does not fit.
        problem: String,
        /// How to get further.
        cure: String,
    },
    /// They cannot be put on one input.
    #[error(transparent)]
    Merge(#[from] SpecError),
}

fn refused(problem: impl Into<String>, cure: impl Into<String>) -> PairError {
    PairError::Refused { problem: problem.into(), cure: cure.into() }
}

/// What outputs of a forbidden polyhedron have in common; the first network is A, the second B.
#[derive(Clone, Debug)]
pub enum Difference {
    /// An output of A is above B's by more than this, or B's above A's.
    Output {
        /// The output.
        output: usize,
        /// Whether B's is above A's.
        reversed: bool,
        /// By more than this.
        by: Ratio,
    },
    /// The norm of the difference is above this.
    Distance(Norm, Ratio),
    /// A's class, and classes that B puts before it.
    Classes {
        /// The class that A gives.
        class: usize,
        /// Classes before it, as B orders them.
        before: Vec<usize>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Output { output, reversed, by } => {
                let (above, below) = if *reversed { ("B", "A") } else { ("A", "B") };
                write!(f, "output {output} of {above} is above {below}'s")?;
                if by.is_zero() { Ok(()) } else { write!(f, " by more than {}", by.approx()) }
            }
            Difference::Distance(norm, by) => write!(f, "the {norm} distance is above {}", by.approx()),
            Difference::Classes { class, before } => {
                let before: Vec<String> = before.iter().map(usize::to_string).collect();
                write!(f, "A says {class}, and B puts {} before it", before.join(", "))
            }
        }
    }
}

/// Two networks that take the same inputs and give as many outputs.
#[derive(Clone, Debug)]
pub struct Pair {
    a: Arc<Lowered>,
    b: Arc<Lowered>,
}

/// A relation of a pair as a net and the outputs of it that must not occur.
#[derive(Clone, Debug)]
pub struct Question {
    lowered: Lowered,
    forbidden: Vec<Polyhedron>,
    differences: Vec<Difference>,
}

impl Pair {
    /// Two networks. Shapes may differ where the number of elements does not.
    ///
    /// # Errors
    /// If one has not one input and one output, or they differ in the inputs' type or the number of elements.
    pub fn new(a: Arc<Lowered>, b: Arc<Lowered>) -> Result<Pair, PairError> {
        for (name, lowered) in [("first", &a), ("second", &b)] {
            let (inputs, outputs) = (lowered.net.inputs().len(), lowered.net.outputs().len());
            if (inputs, outputs) != (1, 1) {
                let problem = format!("the {name} network has {inputs} inputs and {outputs} outputs");
                return Err(refused(problem, "give networks with one input and one output"));
            }
        }
        if a.input_types != b.input_types {
            let problem =
                format!("the first network's input is {}, the second's {}", a.input_types[0], b.input_types[0]);
            let cure = "give both networks inputs of one type, such as float32 with a QuantizeLinear in front";
            return Err(refused(problem, cure));
        }
        let pair = Pair { a, b };
        for (what, node) in [("input", input as fn(&Lowered) -> NodeId), ("output", output)] {
            let [of_a, of_b] = pair.nets().map(|l| l.net.node(node(l)));
            if of_a.len() != of_b.len() {
                let (a, b) = (&of_a.shape, &of_b.shape);
                let problem = format!("the first network's {what} has shape {a:?}, the second's {b:?}");
                return Err(refused(problem, "give networks with as many elements; their shapes may differ"));
            }
        }
        Ok(pair)
    }

    /// The two networks.
    pub fn nets(&self) -> [&Arc<Lowered>; 2] {
        [&self.a, &self.b]
    }

    /// Number of outputs of each.
    pub fn outputs(&self) -> usize {
        self.a.net.node(output(&self.a)).len()
    }

    /// Remarks for the user.
    pub fn notes(&self) -> Vec<String> {
        let meaning = |l: &Lowered| l.net.node(input(l)).quantization.clone();
        let mut notes: Vec<String> = self.nets().iter().flat_map(|l| l.notes.clone()).collect();
        notes.dedup();
        if meaning(&self.a) != meaning(&self.b) {
            notes
                .push("the same integers are given to both networks, which read them as different real numbers".into());
        }
        notes
    }

    /// The outputs of both for an input, as the profile of a witness has them; nearest values where rounding is not settled.
    pub fn execute(&self, input: &[f64], profile: &str) -> [Vec<f64>; 2] {
        let [of_a, of_b] = self.nets().map(|l| runs(l));
        let both = of_a.iter().flat_map(|a| of_b.iter().map(move |b| [*a, *b]));
        let found = both.into_iter().find(|[a, b]| together_name(a, b) == profile);
        let one = |l: &Lowered| execute(&l.net, &[input.to_vec()], 1).swap_remove(0).center;
        found.unwrap_or([of_a[0], of_b[0]]).map(one)
    }

    /// The differences B - A of outputs as functionals of the output of a question about distances; none where outputs are integers.
    pub fn differences_of_outputs(&self) -> Option<Vec<Vec<(usize, f64)>>> {
        let n = self.outputs();
        let are_real = self.nets().iter().all(|l| l.net.node(output(l)).quantization.is_none());
        are_real.then(|| (0..n).map(|i| vec![(i, -1.0), (n + i, 1.0)]).collect())
    }

    /// The differences A - B of outputs in real numbers; hints for people.
    pub fn differences(&self, outputs: &[Vec<f64>; 2]) -> Vec<f64> {
        let real = |k: usize, i: usize| match &self.nets()[k].net.node(output(self.nets()[k])).quantization {
            None => outputs[k][i],
            Some(q) => q.scale.at(i) * (outputs[k][i] - *q.zero_point.at(i) as f64),
        };
        (0..self.outputs()).map(|i| real(0, i) - real(1, i)).collect()
    }

    /// What a relation forbids as linear constraints on the outputs of both in a row, and what each polyhedron stands for; a distance in L1 as one
    /// polyhedron for each combination of signs.
    ///
    /// # Errors
    /// If the relation has no meaning for the networks, cannot be written so, or needs too many polyhedra.
    pub fn cases(&self, relation: &Relation) -> Result<Vec<(Polyhedron, Difference)>, PairError> {
        let meanings = self.meanings(relation)?;
        cases::cases(self.outputs(), &meanings, relation)
    }

    /// A relation as a question about one net.
    ///
    /// # Errors
    /// If the relation has no meaning for the networks, or needs too many polyhedra.
    pub fn question(&self, relation: &Relation) -> Result<Question, PairError> {
        let mut meanings = self.meanings(relation)?;
        let ranked = match relation {
            Relation::Top1 | Relation::TopK(_) => true,
            Relation::Strict => self.is_same_map(&meanings),
            Relation::Epsilon { epsilon, .. } => epsilon.is_zero() && self.is_same_map(&meanings),
            Relation::Top1Beyond(_) => false,
        };
        if ranked {
            meanings = [None, None];
        }
        let mut lowered = self.merged(ranked)?;
        let cases = match relation {
            Relation::Epsilon { epsilon, .. } if epsilon.is_zero() => {
                cases::cases(self.outputs(), &meanings, &Relation::Strict)?
            }
            Relation::Epsilon { norm: norm @ (Norm::L1 | Norm::L2), epsilon } => {
                let summed = distance::Summed::new(*norm, self.outputs(), epsilon)?;
                for member in &mut lowered.members {
                    summed.append(&mut member.net, &meanings)?;
                }
                summed.append(&mut lowered.net, &meanings)?;
                vec![(summed.forbidden(epsilon), Difference::Distance(*norm, epsilon.clone()))]
            }
            Relation::Strict
            | Relation::Epsilon { norm: Norm::LInf, .. }
            | Relation::Top1
            | Relation::Top1Beyond(_)
            | Relation::TopK(_) => cases::cases(self.outputs(), &meanings, relation)?,
        };
        let (forbidden, differences) = cases.into_iter().unzip();
        Ok(Question { lowered, forbidden, differences })
    }

    /// What the integers of each output mean; `None` where outputs are compared as they are.
    fn meanings(&self, relation: &Relation) -> Result<[Option<Quantization>; 2], PairError> {
        let outputs = self.nets().map(|l| l.net.node(output(l)));
        let softmax = self.nets().map(|l| l.softmax[0].as_ref());
        match relation {
            Relation::Top1 | Relation::TopK(_) => {
                if softmax.iter().flatten().any(|s| s.classes != self.outputs()) {
                    let problem = "an output has several rows of classes";
                    return Err(refused(problem, "give networks that end in one score for each class"));
                }
                Ok([None, None])
            }
            Relation::Epsilon { epsilon: bound, .. } | Relation::Top1Beyond(bound) if bound.is_negative() => {
                Err(refused("the bound is negative", "give a bound from 0 up"))
            }
            Relation::Strict | Relation::Epsilon { .. } | Relation::Top1Beyond(_) => {
                if softmax.iter().flatten().next().is_some() {
                    let problem = "an output is a result of Softmax, whose exponentials no profile defines";
                    return Err(refused(problem, "end the models at the logits, or compare classes"));
                }
                let meanings = outputs.map(|n| n.quantization.clone());
                let bare = |k: usize| outputs[k].grid == Grid::Integer && meanings[k].is_none();
                if bare(0) != bare(1) {
                    let name = &outputs[usize::from(bare(1))].name;
                    let problem = format!("the model does not say what the integers of its output `{name}` mean");
                    return Err(refused(problem, "end it with a DequantizeLinear, or compare classes"));
                }
                Ok(meanings)
            }
        }
    }

    /// Whether outputs are equal where the values behind them are, so that these can be compared: integers instead of the real numbers that they stand for.
    fn is_same_map(&self, meanings: &[Option<Quantization>; 2]) -> bool {
        let all = self.nets().into_iter().flat_map(|l| std::iter::once(&l.net).chain(l.members.iter().map(|m| &m.net)));
        meanings[0] == meanings[1] && is_same_map(all)
    }

    /// One net with both; where a network stands for several runtimes, with a member for each combination of them. `ranked`: of the scores.
    fn merged(&self, ranked: bool) -> Result<Lowered, PairError> {
        let part = |l: &Lowered| {
            let mut own = Lowered { members: vec![], ..l.clone() };
            if ranked {
                own.net.set_outputs(vec![score(&l.net, output(l))]);
            }
            Arc::new(own)
        };
        let mut whole = together(part(&self.a), part(&self.b))?;
        let members = |l: &Lowered| -> Vec<Arc<Lowered>> { runs(l).into_iter().map(part).collect() };
        if self.nets().iter().all(|l| l.members.is_empty()) {
            return Ok(whole);
        }
        let all_meant = |l: &Arc<Lowered>| l.members.is_empty() || l.is_conjunction;
        whole.is_conjunction = self.nets().into_iter().all(all_meant);
        let of_b = members(&self.b);
        for a in members(&self.a) {
            for b in &of_b {
                whole.members.push(together(a.clone(), b.clone())?);
            }
        }
        Ok(whole)
    }
}

/// What may run: the members of an envelope, else the network itself.
fn runs(lowered: &Lowered) -> Vec<&Lowered> {
    if lowered.members.is_empty() { vec![lowered] } else { lowered.members.iter().collect() }
}

/// How the arithmetic of both is called.
fn together_name(a: &Lowered, b: &Lowered) -> String {
    if a.profile == b.profile { a.profile.clone() } else { format!("{} / {}", a.profile, b.profile) }
}

fn input(lowered: &Lowered) -> NodeId {
    lowered.net.inputs()[0]
}

fn output(lowered: &Lowered) -> NodeId {
    lowered.net.outputs()[0]
}

/// One net: element i of the input goes to element i of both.
fn together(a: Arc<Lowered>, b: Arc<Lowered>) -> Result<Lowered, PairError> {
    let [of_a, of_b] = [&a, &b].map(|l| l.net.node(input(l)));
    // A net of real numbers holds for float32 inputs, too.
    let grid = if of_a.grid == Grid::Real { of_b.grid } else { of_a.grid };
    let n = of_a.len();
    let elements = vec![Element { grid, dtype: a.input_types[0] }; n];
    let outputs = [&a, &b].iter().map(|l| l.net.node(output(l)).len()).sum();
    let layout = Layout { free_of: (0..n).chain(0..n).collect(), elements, outputs };
    let profile = together_name(&a, &b);
    Ok(Lowered { profile, ..merge::merged(&[a, b], &layout, false)? })
}

impl Question {
    /// The net that the question is about.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
    }

    /// Number of forbidden polyhedra.
    pub fn polyhedra(&self) -> usize {
        self.forbidden.len()
    }

    /// The outputs that must not occur.
    pub fn forbidden(&self) -> &[Polyhedron] {
        &self.forbidden
    }

    /// What a forbidden polyhedron stands for.
    pub fn difference(&self, polyhedron: usize) -> &Difference {
        &self.differences[polyhedron]
    }

    /// The question for a region; witnesses are taken from `inside` and `candidates` are tried first (see [`Query`]).
    pub fn query(&self, region: Region, inside: Option<Region>, candidates: Vec<Vec<f64>>) -> Query {
        Query { region, inside, candidates, forbidden: self.forbidden.clone() }
    }
}
