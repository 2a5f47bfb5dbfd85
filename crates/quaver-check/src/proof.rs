//! Checks a certificate, record by record.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::analysis::{self, Known};
use crate::bounds::Bounds;
use crate::file::{Reader, Record};
use crate::goal::Goal;
use crate::net::Net;
use crate::property::{Case, Property};
use crate::walk::Frame;
use crate::{onnx, property};

/// What an accepted certificate proves.
#[derive(Clone, Debug, PartialEq)]
pub struct Proved {
    /// The arithmetic that the claim is about.
    pub profile: String,
    /// Cases of the property, all of them without a counterexample.
    pub cases: usize,
    /// Records of the proof.
    pub records: u64,
    /// What the prover says that the claim rests on.
    pub assumptions: Vec<String>,
}

/// Whether a certificate proves that no input is a counterexample.
///
/// # Errors
/// If it does not, with the number of the record that failed.
pub fn check(model: &[u8], query: &[u8], certificate: impl BufRead) -> Result<Proved, String> {
    let mut reader = Reader::new(certificate)?;
    let header = reader.header.clone();
    agrees(header.get("model")?, model, "model")?;
    agrees(header.get("property")?, query, "property")?;
    let profile = header.get("profile")?;
    if profile != "real" {
        return Err(format!("header: this checker has no arithmetic `{profile}`"));
    }
    let net = onnx::read_real(model).map_err(|e| format!("model: {e}"))?;
    let property = property::read(query).map_err(|e| format!("property: {e}"))?;
    let sizes = (net.values[net.input].len(), net.values[net.output].len());
    if sizes != (property.inputs, property.outputs) {
        return Err(format!(
            "the property is about {} inputs and {} outputs, the model has {} and {}",
            property.inputs, property.outputs, sizes.0, sizes.1
        ));
    }
    let mut state = State::new(&net, &property);
    while let Some(record) = reader.next_record().map_err(|e| format!("record {}: {e}", reader.count))? {
        state.apply(record).map_err(|e| format!("record {}: {e}", reader.count - 1))?;
    }
    state.finish()?;
    let assumptions = header.lines.iter().filter(|l| l.0 == "assumption").map(|l| l.1.clone()).collect();
    Ok(Proved { profile: profile.into(), cases: property.cases.len(), records: reader.count, assumptions })
}

/// Whether bytes have the digest that a header names.
fn agrees(digest: &str, bytes: &[u8], what: &str) -> Result<(), String> {
    let own: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    match digest == own {
        true => Ok(()),
        false => Err(format!("header: the certificate is for another {what} (SHA-256 {digest}, not {own})")),
    }
}

/// The cases of one box, with what all parts of it share.
struct Question {
    goals: Vec<Goal>,
    /// Bounds on the values before the start.
    before: Vec<Bounds>,
}

/// A part that is not closed.
struct Part<'n> {
    question: Arc<Question>,
    region: Bounds,
    /// What is known of the part that it is half of.
    within: Option<Arc<Frame<'n>>>,
    /// By goal; false once it is proved.
    open: Vec<bool>,
    known: Option<Known<'n>>,
}

struct State<'n> {
    net: &'n Net,
    start: usize,
    property: &'n Property,
    /// Cases that some question is about.
    asked: Vec<bool>,
    parts: HashMap<usize, Part<'n>>,
    next: usize,
}

impl<'n> State<'n> {
    fn new(net: &'n Net, property: &'n Property) -> Self {
        let asked = vec![false; property.cases.len()];
        State { net, start: analysis::start(net), property, asked, parts: HashMap::new(), next: 0 }
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Question { cases } => self.question(&cases),
            Record::Close { part, goal, weights } => self.close(part, goal, &weights),
            Record::Empty { part } => self.empty(part),
            Record::Halve { part, element, at } => self.halve(part, element, at),
        }
    }

    /// Every case must have been asked about, and every part closed.
    fn finish(&self) -> Result<(), String> {
        if let Some(case) = self.asked.iter().position(|a| !a) {
            return Err(format!("nothing is proved about case {case}"));
        }
        self.is_closed()
    }

    fn is_closed(&self) -> Result<(), String> {
        match self.parts.keys().min() {
            Some(part) => Err(format!("part {part} is not closed ({} are not)", self.parts.len())),
            None => Ok(()),
        }
    }

    fn add(&mut self, part: Part<'n>) {
        self.parts.insert(self.next, part);
        self.next += 1;
    }

    fn question(&mut self, cases: &[usize]) -> Result<(), String> {
        let case = |&c: &usize| self.property.cases.get(c).ok_or_else(|| format!("there is no case {c}"));
        let all: Vec<&Case> = cases.iter().map(case).collect::<Result<_, String>>()?;
        if all.is_empty() {
            return Err("a question without a case".into());
        }
        self.is_closed()?;
        self.next = 0;
        let hull = |i: usize| {
            let lo = all.iter().map(|c| c.lo[i].down()).fold(f64::INFINITY, f64::min);
            (lo, all.iter().map(|c| c.hi[i].up()).fold(f64::NEG_INFINITY, f64::max))
        };
        let (lo, hi) = (0..self.property.inputs).map(hull).unzip();
        let mut before = analysis::before(self.net, self.start, Bounds { lo, hi });
        let region = before.pop().unwrap_or_default();
        let goals: Vec<Goal> = all.iter().map(|c| Goal::new(c)).collect();
        cases.iter().for_each(|&c| self.asked[c] = true);
        let open = vec![true; goals.len()];
        let question = Arc::new(Question { goals, before });
        self.add(Part { question, region, within: None, open, known: None });
        Ok(())
    }

    /// A part, with its bounds.
    fn part(&mut self, number: usize) -> Result<&mut Part<'n>, String> {
        let (net, start) = (self.net, self.start);
        let part = self.parts.get_mut(&number).ok_or_else(|| format!("part {number} is closed or was never made"))?;
        if part.known.is_none() {
            let boxes = (&part.question.before[..], &part.region);
            let known =
                analysis::analyse(net, (start, net.output), boxes, part.within.take().as_ref().map(|w| &w.bounds[..]))?;
            part.known = Some(known);
        }
        Ok(part)
    }

    fn close(&mut self, number: usize, goal: usize, weights: &[f64]) -> Result<(), String> {
        let part = self.part(number)?;
        let Some(of) = part.question.goals.get(goal) else { return Err(format!("there is no goal {goal}")) };
        if of.rows() != weights.len() {
            return Err(format!("{} weights for {} rows of goal {goal}", weights.len(), of.rows()));
        }
        let Some(Known::Bounds(frame, lines)) = &part.known else { return Err(format!("part {number} is empty")) };
        if !of.is_proved(frame, lines, weights) {
            return Err(format!("the walk for goal {goal} of part {number} proves nothing"));
        }
        part.open[goal] = false;
        if part.open.iter().all(|o| !o) {
            self.parts.remove(&number);
        }
        Ok(())
    }

    fn empty(&mut self, number: usize) -> Result<(), String> {
        match self.part(number)?.known {
            Some(Known::Empty) => {
                self.parts.remove(&number);
                Ok(())
            }
            _ => Err(format!("part {number} is not shown to be empty")),
        }
    }

    /// Rule *Split* on an element of the start.
    fn halve(&mut self, number: usize, element: usize, at: f64) -> Result<(), String> {
        let integer = self.net.values[self.start].integer;
        let part = self.part(number)?;
        if element >= part.region.lo.len() {
            return Err(format!("there is no element {element} to halve"));
        }
        let Some(Known::Bounds(frame, _)) = &part.known else { return Err(format!("part {number} is empty")) };
        if integer && at.fract() != 0.0 {
            return Err(format!("{at} is no integer"));
        }
        let half = |lo: f64, hi: f64| {
            let mut region = part.region.clone();
            (region.lo[element], region.hi[element]) = (lo, hi);
            let within = Some(frame.clone());
            Part { question: part.question.clone(), region, within, open: part.open.clone(), known: None }
        };
        let above = if integer { at + 1.0 } else { at };
        let halves = [half(part.region.lo[element], at), half(above, part.region.hi[element])];
        self.parts.remove(&number);
        halves.into_iter().for_each(|h| self.add(h));
        Ok(())
    }
}
