//! The question that a file asks, and the exact judge of an answer.

use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::{Grid, Net, Node, NodeId, Op, execute_exact};
use crate::num::{Dyadic, Ratio};
use crate::property::Region;

/// Why a question has no file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}\n  what to do: {cure}")]
pub struct ExportError {
    problem: String,
    cure: String,
}

impl ExportError {
    pub(super) fn new(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        ExportError { problem: problem.into(), cure: cure.into() }
    }

    /// A problem with one value of a net.
    pub(super) fn at(node: &Node, problem: impl std::fmt::Display, cure: impl Into<String>) -> Self {
        Self::new(format!("value `{}`: {problem}", node.name), cure)
    }
}

/// What must hold between two outputs.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The first largest elements are at the same place.
    Top1,
    /// No two elements differ by more.
    Epsilon(Ratio),
    /// All elements are equal.
    Strict,
}

impl Claim {
    /// In words, about two outputs a and b.
    pub(super) fn words(&self) -> String {
        match self {
            Claim::Top1 => "a and b have their first largest element at the same place".into(),
            Claim::Epsilon(e) => format!("every element of a is within {e} of the same element of b"),
            Claim::Strict => "every element of a equals the same element of b".into(),
        }
    }

    /// How far two elements may be apart, where that is what is claimed.
    pub(super) fn epsilon(&self) -> Option<Ratio> {
        match self {
            Claim::Top1 => None,
            Claim::Epsilon(e) => Some(e.clone()),
            Claim::Strict => Some(Ratio::from_dyadic(&Dyadic::zero())),
        }
    }
}

/// A net with one input and one output, and what a reader of the file calls it.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// Name, such as the path of the model.
    pub name: &'a str,
    /// The net.
    pub lowered: &'a Lowered,
}

impl<'a> Network<'a> {
    pub(super) fn net(&self) -> &'a Net {
        &self.lowered.net
    }

    pub(super) fn input(&self) -> &'a Node {
        self.net().node(self.net().inputs()[0])
    }

    pub(super) fn output_id(&self) -> NodeId {
        self.net().outputs()[0]
    }

    pub(super) fn output(&self) -> &'a Node {
        self.net().node(self.output_id())
    }

    fn check(&self) -> Result<(), ExportError> {
        let net = self.net();
        if net.inputs().len() != 1 || net.outputs().len() != 1 {
            let problem =
                format!("{}: has {} inputs and {} outputs", self.name, net.inputs().len(), net.outputs().len());
            return Err(ExportError::new(problem, "give a model with one input and one output"));
        }
        let is_band = |n: &&Node| matches!(&n.op, Op::Pointwise(p) if p.functions.data.iter().any(|f| f.is_band()));
        if !self.lowered.members.is_empty() || net.nodes().iter().any(|n| is_band(&n)) {
            let problem = format!("{}: profile {} means several runtimes at once", self.name, self.lowered.profile);
            return Err(ExportError::new(
                problem,
                "name one of them with --profile, for example ort-fused or tflite-xnnpack",
            ));
        }
        Ok(())
    }

    fn elements(&self) -> (usize, DType, usize) {
        (self.input().len(), self.lowered.input_types[0], self.output().len())
    }
}

/// For every input of a box: does a claim hold between the outputs of two networks, or between a network's output and its output at one input?
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// One network, or two.
    pub(super) networks: Vec<Network<'a>>,
    /// The input that a single network is compared at.
    pub(super) center: Option<Vec<f64>>,
    /// Inputs.
    pub(super) region: Region,
    /// What is asked.
    pub(super) claim: Claim,
}

impl<'a> Question<'a> {
    /// Whether two networks are equivalent on a box.
    ///
    /// # Errors
    /// If they do not take the same inputs or do not give outputs of the same length, or a profile means several runtimes.
    pub fn of_pair(a: Network<'a>, b: Network<'a>, region: Region, claim: Claim) -> Result<Self, ExportError> {
        let question = Question { networks: vec![a, b], center: None, region, claim };
        question.checked()
    }

    /// Whether a network's output on a box is equivalent to its output at one input.
    ///
    /// # Errors
    /// If the input is not one of the network's, or the profile means several runtimes.
    pub fn of_one(a: Network<'a>, center: Vec<f64>, region: Region, claim: Claim) -> Result<Self, ExportError> {
        let question = Question { networks: vec![a], center: Some(center), region, claim };
        question.checked()
    }

    fn checked(self) -> Result<Self, ExportError> {
        self.networks.iter().try_for_each(Network::check)?;
        let (first, last) = (&self.networks[0], &self.networks[self.networks.len() - 1]);
        if first.elements() != last.elements() {
            let of = |n: &Network<'_>| {
                let (inputs, dtype, outputs) = n.elements();
                format!("{} takes {inputs} elements of {dtype} and gives {outputs}", n.name)
            };
            let problem = format!("{}, and {}", of(first), of(last));
            return Err(ExportError::new(problem, "give two models of the same task, with inputs of the same type"));
        }
        let n = first.input().len();
        let ends = self.region.lo.iter().zip(&self.region.hi);
        if self.region.lo.len() != n
            || self.region.hi.len() != n
            || ends.clone().any(|(l, h)| !(l <= h && h - l < f64::INFINITY))
        {
            return Err(ExportError::new(
                "the box is empty, not finite, or has another number of elements",
                format!("give {n} ranges"),
            ));
        }
        let on_grid =
            |x: &f64| if first.input().grid == Grid::Integer { x.fract() == 0.0 } else { f64::from(*x as f32) == *x };
        let (lo, hi) = first.input().range;
        let mut numbers = self.region.lo.iter().chain(&self.region.hi).chain(self.center.iter().flatten());
        if !numbers.all(|x| on_grid(x) && lo <= *x && *x <= hi) {
            let problem = "a corner of the box, or the input to compare with, is not a number of the input's type";
            return Err(ExportError::new(problem, "round the corners inward"));
        }
        if self.center.as_ref().is_some_and(|c| c.len() != n) {
            return Err(ExportError::new(
                "the input to compare with has another number of elements",
                format!("give {n}"),
            ));
        }
        if self.claim.epsilon().is_some_and(|e| e.is_negative()) {
            return Err(ExportError::new("the largest difference is negative", "give 0 or more"));
        }
        if self.claim.epsilon().is_some_and(|e| e.f64_down() == f64::MAX) {
            return Err(ExportError::new("the largest difference is beyond every float", "give a smaller one"));
        }
        Ok(self)
    }

    /// Whether the claim holds at an input: the nets executed in exact arithmetic (slack taken as zero), compared exactly.
    ///
    /// # Panics
    /// If the input has another length, or an element that is not finite.
    pub fn holds_at(&self, x: &[f64]) -> bool {
        let outputs: Vec<Vec<Dyadic>> = self.networks.iter().map(|n| exact_output(n, x)).collect();
        match (&outputs[..], &self.center) {
            ([a, b], _) => self.equivalent(a, b),
            ([a], Some(center)) => self.equivalent(a, &exact_output(&self.networks[0], center)),
            _ => unreachable!("a question is about two networks, or one and an input"),
        }
    }

    fn equivalent(&self, a: &[Dyadic], b: &[Dyadic]) -> bool {
        let last = self.networks.len() - 1;
        match self.claim.epsilon() {
            None => first_largest(a) == first_largest(b),
            Some(epsilon) => (0..a.len()).all(|i| {
                let real = |n: usize, v: &Dyadic| real_units(self.networks[n].output(), i, v);
                let d = Ratio::from_dyadic(&(&real(0, &a[i]) - &real(last, &b[i])));
                !epsilon.minus(&d).is_negative() && !epsilon.plus(&d).is_negative()
            }),
        }
    }

    /// Lines that say what the file asks.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut lines = vec![format!("The claim: for every input of the box, {}.", self.claim.words())];
        for (letter, n) in ["a", "b"].iter().zip(&self.networks) {
            lines.push(format!("{letter}: the output of {} under profile {}", n.name, n.lowered.profile));
        }
        if self.networks.len() == 1 {
            lines.push("b: the same network's output at the input in the middle of the question".into());
        }
        if self.claim.epsilon().is_some() && self.networks.iter().any(|n| n.output().quantization.is_some()) {
            lines.push(
                "Integer outputs are compared as the real numbers they stand for, scale (q - zero point).".into(),
            );
        }
        let mut more: Vec<&String> = self.networks.iter().flat_map(|n| &n.lowered.assumptions).collect();
        let mut seen = std::collections::HashSet::new();
        more.retain(|text| seen.insert(*text));
        lines.extend(more.into_iter().map(|a| format!("assumes {a}")));
        lines.extend(self.networks.iter().flat_map(|n| &n.lowered.notes).map(|n| format!("note: {n}")));
        lines
    }
}

fn exact_output(network: &Network<'_>, x: &[f64]) -> Vec<Dyadic> {
    let exact = |x: &f64| Dyadic::from_f64(*x).unwrap_or_else(|| panic!("{x} is not an input"));
    execute_exact(network.net(), &[x.iter().map(exact).collect()]).swap_remove(network.output_id().0)
}

/// The place of the first largest element.
fn first_largest(values: &[Dyadic]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// The real number that an output element stands for.
fn real_units(node: &Node, i: usize, value: &Dyadic) -> Dyadic {
    match units(node, i) {
        // Local invariant: a scale is finite.
        Some((scale, zero)) => {
            &Dyadic::from_f64(scale).unwrap_or_else(Dyadic::zero) * &(value - &Dyadic::from_int(zero))
        }
        None => value.clone(),
    }
}

/// Scale and zero point of an element of an integer value that has a meaning.
pub(super) fn units(node: &Node, i: usize) -> Option<(f64, i64)> {
    let q = node.quantization.as_ref().filter(|_| node.grid == Grid::Integer)?;
    Some((*q.scale.at(i), *q.zero_point.at(i)))
}

/// Text for a comment: no character that could end it or that a compiler warns about.
pub(super) fn comment(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || " _.,:;()+-=<>[]#%/'`".contains(c);
    let text: String = text.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    match text.char_indices().nth(150) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
