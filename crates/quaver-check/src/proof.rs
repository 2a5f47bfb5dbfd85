//! Checks a certificate, record by record.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use crate::analysis::{self, Analysis, Choice, Claim, Extent};
use crate::bounds::Bounds;
use crate::file::{Reader, Record};
use crate::goal::{Goal, Target};
use crate::models::{self, Given};
use crate::net::Net;
use crate::property::{Case, Property};
use crate::rational::Rational;
use crate::walk::{Cut, Frame, Row};
use crate::{property, threads};

/// What an accepted certificate proves.
#[derive(Clone, Debug, PartialEq)]
pub struct Proved {
    /// Whether there is no counterexample; else the certificate holds one.
    pub holds: bool,
    /// The arithmetic that the claim is about.
    pub profile: String,
    /// Cases of the property, all of them without a counterexample.
    pub cases: usize,
    /// Records of the proof.
    pub records: u64,
    /// What the claim rests on: as the prover says, and what the arithmetic takes for granted.
    pub assumptions: Vec<String>,
}

/// Whether a certificate proves that no input is a counterexample, or that one is, of a property of one network.
///
/// # Errors
/// If it does not, with the number of the record that failed.
pub fn check(model: &[u8], query: &[u8], certificate: impl BufRead) -> Result<Proved, String> {
    check_all(&[Given { name: None, bytes: model.into() }], query, certificate)
}

/// [`check`] for a property of one or two networks.
///
/// # Errors
/// If it does not, with the number of the record that failed.
pub fn check_all(models: &[Given], query: &[u8], certificate: impl BufRead) -> Result<Proved, String> {
    let mut reader = Reader::new(certificate)?;
    let header = reader.header.clone();
    models::agrees(header.get("property")?, query, "property")?;
    let profile = header.get("profile")?;
    let property = property::read(query).map_err(|e| format!("property: {e}"))?;
    let (net, assumed) = models::network(models, &header, &property)?;
    let mut state = State::new(&net, &property);
    state.is_single = profile != "real";
    while let Some(record) = reader.next_record().map_err(|e| format!("record {}: {e}", reader.count))? {
        state.record = reader.count - 1;
        state.apply(record).map_err(|e| format!("record {}: {e}", state.record))?;
    }
    let holds = state.finish()?;
    let told = header.lines.iter().filter(|l| l.0 == "assumption").map(|l| l.1.clone());
    let assumptions = told.filter(|a| !assumed.contains(a)).chain(assumed.iter().cloned()).collect();
    Ok(Proved { holds, profile: profile.into(), cases: property.cases.len(), records: reader.count, assumptions })
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
    /// Bounds that hold in the part that it is half of.
    within: Option<Arc<Vec<Bounds>>>,
    /// By goal; false once it is proved.
    open: Vec<bool>,
    known: Known<'n>,
}

/// What is known about a part.
#[derive(Clone)]
enum Known<'n> {
    Nothing,
    /// A box whose bounds are being claimed.
    Begun(Box<Analysis<'n>>),
    /// A box without executions.
    Empty,
    /// Bounds of a box, and how much of it was cut off.
    Bounds(Arc<Frame<'n>>, Vec<Cut>),
}

/// A walk that is to be made.
struct Pending<'n> {
    record: u64,
    frame: Arc<Frame<'n>>,
    row: Row,
    target: Target,
    /// Whether the bounds alone may do: nothing was chosen.
    plain: Option<(Arc<Question>, usize)>,
}

/// Walks that are made together: enough for some batches.
const TOGETHER: usize = 512;
/// Boxes that are bounded together with one, and how many are too few to wake another thread for.
const AHEAD: usize = 31;
const FEW: usize = 8;

struct State<'n> {
    net: &'n Net,
    start: usize,
    property: &'n Property,
    /// Whether inputs are float32 numbers.
    is_single: bool,
    /// Whether a counterexample was shown.
    is_violated: bool,
    /// Cases that some question is about.
    asked: Vec<bool>,
    parts: HashMap<usize, Part<'n>>,
    next: usize,
    /// Number of the record that is applied.
    record: u64,
    pending: Vec<Pending<'n>>,
}

impl<'n> State<'n> {
    fn new(net: &'n Net, property: &'n Property) -> Self {
        let asked = vec![false; property.cases.len()];
        let start = analysis::start(net);
        let (parts, pending) = (HashMap::new(), vec![]);
        State { net, start, property, is_single: false, is_violated: false, asked, parts, next: 0, record: 0, pending }
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Question { cases } => self.question(&cases),
            Record::Close { part, goal, weights, choice } => self.close(part, goal, &weights, &choice),
            Record::Empty { part } => self.empty(part),
            Record::Halve { part, goals, element, at } => self.halve(part, &goals, element, at),
            Record::Cut { part, goal, function, element, place } => self.cut(part, goal, function, element, place),
            Record::Claims { part, function, claims } => self.claims(part, function, &claims),
            Record::Witness { case, input } => self.witness(case, input),
        }
    }

    /// Unless there is a counterexample, every case must have been asked about, and every part closed. Whether the property holds.
    fn finish(&mut self) -> Result<bool, String> {
        if self.is_violated {
            return Ok(false);
        }
        if let Some(case) = self.asked.iter().position(|a| !a) {
            return Err(format!("nothing is proved about case {case}"));
        }
        self.settle()?;
        self.is_closed().map(|()| true)
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
        self.settle()?;
        self.is_closed()?;
        self.next = 0;
        let hull = |i: usize| {
            let lo = all.iter().map(|c| c.lo[i].down()).fold(f64::INFINITY, f64::min);
            (lo, all.iter().map(|c| c.hi[i].up()).fold(f64::NEG_INFINITY, f64::max))
        };
        let (lo, hi) = (0..self.property.inputs).map(hull).unzip();
        let mut before = analysis::before(self.net, self.start, Bounds { lo, hi });
        let region = before.pop().unwrap_or_default();
        let goals: Vec<Goal> = all.iter().map(|c| Goal::new(self.net, c)).collect();
        cases.iter().for_each(|&c| self.asked[c] = true);
        let open = vec![true; goals.len()];
        let question = Arc::new(Question { goals, before });
        self.add(Part { question, region, within: None, open, known: Known::Nothing });
        Ok(())
    }

    /// A part, with its bounds.
    fn part(&mut self, number: usize) -> Result<&mut Part<'n>, String> {
        match self.parts.get(&number).map(|p| &p.known) {
            None => return Err(format!("part {number} is closed or was never made")),
            Some(Known::Nothing | Known::Begun(_)) => self.bound(number)?,
            Some(Known::Empty | Known::Bounds(..)) => {}
        }
        self.parts.get_mut(&number).ok_or_else(|| format!("there is no part {number}"))
    }

    /// Bounds a box, and with it others whose turn will come.
    fn bound(&mut self, number: usize) -> Result<(), String> {
        let (net, start) = (self.net, self.start);
        let waits = |p: &Part| matches!(p.known, Known::Nothing);
        let others = self.parts.iter().filter(|(n, p)| **n != number && waits(p)).map(|(n, _)| *n);
        let mut numbers: Vec<usize> = others.take(AHEAD).chain([number]).collect();
        if numbers.len() < FEW {
            numbers = vec![number];
        }
        numbers.sort_unstable();
        let parts: Vec<&Part<'n>> = numbers.iter().map(|n| &self.parts[n]).collect();
        let found = threads::map(&parts, |part| {
            let mut analysis = match &part.known {
                Known::Begun(analysis) => (**analysis).clone(),
                _ => Analysis::new(net, start),
            };
            analysis.finish(part.extent()).map(|()| analysis)
        });
        for (number, analysis) in numbers.iter().zip(found) {
            let (analysis, Some(part)) = (analysis?, self.parts.get_mut(number)) else { continue };
            part.within = None;
            part.known = if analysis.is_empty { Known::Empty } else { Known::Bounds(Arc::new(analysis.frame), vec![]) };
        }
        Ok(())
    }

    /// Makes the walks that are due.
    fn settle(&mut self) -> Result<(), String> {
        let pending = std::mem::take(&mut self.pending);
        for same in pending.chunk_by(|a, b| Arc::ptr_eq(&a.frame, &b.frame) && a.target.of == b.target.of) {
            let rows: Vec<Row> = same.iter().map(|p| p.row.clone()).collect();
            let proved = same[0].frame.walk(same[0].target.of, &rows);
            let by_bounds =
                |p: &Pending| p.plain.as_ref().is_some_and(|(q, goal)| q.goals[*goal].is_excluded(&p.frame));
            let fails = |(p, proved): &(&Pending, f64)| !p.target.is_met(*proved) && !by_bounds(p);
            if let Some((p, _)) = same.iter().zip(proved).find(fails) {
                return Err(format!("the walk of record {} proves nothing", p.record));
            }
        }
        Ok(())
    }

    /// Rule *Rows*; the walk is made later, with others.
    fn close(&mut self, number: usize, goal: usize, weights: &[f64], choice: &Choice) -> Result<(), String> {
        let record = self.record;
        let part = self.part(number)?;
        part.take(&[goal])?;
        let Known::Bounds(frame, cuts) = &part.known else { return Err(format!("part {number} is empty")) };
        let target = part.question.goals[goal].target(frame, weights)?;
        let row = choice.row(target.terms.clone(), cuts)?;
        let plain = (*choice == Choice::default()).then(|| (part.question.clone(), goal));
        let pending = Pending { record, frame: frame.clone(), row, target, plain };
        self.forget(number);
        self.pending.push(pending);
        if self.pending.len() >= TOGETHER { self.settle() } else { Ok(()) }
    }

    fn empty(&mut self, number: usize) -> Result<(), String> {
        match self.part(number)?.known {
            Known::Empty => {
                self.parts.remove(&number);
                Ok(())
            }
            _ => Err(format!("part {number} is not shown to be empty")),
        }
    }

    /// Leaves out a part if nothing is open.
    fn forget(&mut self, number: usize) {
        if self.parts.get(&number).is_some_and(|p| p.open.iter().all(|o| !o)) {
            self.parts.remove(&number);
        }
    }

    /// A counterexample: an input in the box of a case, all of whose executions satisfy its rows.
    fn witness(&mut self, number: usize, input: Vec<f64>) -> Result<(), String> {
        let case = self.property.cases.get(number).ok_or_else(|| format!("there is no case {number}"))?;
        let is_number = |x: f64| !self.is_single || f64::from(x as f32) == x;
        let is_within = |(x, (lo, hi)): (&f64, (&Rational, &Rational))| {
            Rational::from_f64(*x).is_some_and(|exact| *lo <= exact && exact <= *hi) && is_number(*x)
        };
        if input.len() != case.lo.len() || !input.iter().zip(case.lo.iter().zip(&case.hi)).all(is_within) {
            return Err(format!("the input is not in the box of case {number}"));
        }
        let mut before = analysis::before(self.net, self.start, Bounds { lo: input.clone(), hi: input });
        let region = before.pop().unwrap_or_default();
        let mut analysis = Analysis::new(self.net, self.start);
        analysis.finish(Extent { before: &before, region: &region, known: None })?;
        if analysis.is_empty || !Goal::new(self.net, case).is_reached(&analysis.frame) {
            return Err(format!("the input does not satisfy all rows of case {number}"));
        }
        self.is_violated = true;
        Ok(())
    }

    /// Rule *Split* on an element of the start.
    fn halve(&mut self, number: usize, goals: &[usize], element: usize, at: f64) -> Result<(), String> {
        let integer = self.net.values[self.start].integer;
        let part = self.part(number)?;
        let open = part.take(goals)?;
        if element >= part.region.lo.len() {
            return Err(format!("there is no element {element} to halve"));
        }
        let Known::Bounds(frame, cuts) = &part.known else { return Err(format!("part {number} is empty")) };
        if integer && at.fract() != 0.0 {
            return Err(format!("{at} is no integer"));
        }
        let within = Some(Arc::new(frame.within(cuts)));
        let half = |lo: f64, hi: f64| {
            let mut region = part.region.clone();
            (region.lo[element], region.hi[element]) = (lo, hi);
            let question = part.question.clone();
            Part { question, region, within: within.clone(), open: open.clone(), known: Known::Nothing }
        };
        let above = if integer { at + 1.0 } else { at };
        let halves = [half(part.region.lo[element], at), half(above, part.region.hi[element])];
        self.forget(number);
        halves.into_iter().for_each(|h| self.add(h));
        Ok(())
    }

    /// Rule *Split* on an argument of a function.
    fn cut(
        &mut self,
        number: usize,
        goal: usize,
        function: usize,
        element: usize,
        place: (f64, f64),
    ) -> Result<(), String> {
        let function = self.net.function(function)?;
        let part = self.part(number)?;
        let open = part.take(&[goal])?;
        let Known::Bounds(frame, cuts) = &part.known else { return Err(format!("part {number} is empty")) };
        let half = |cut: Cut| {
            let cuts = cuts.iter().copied().chain([cut]).collect();
            let (question, known) = (part.question.clone(), Known::Bounds(frame.clone(), cuts));
            Part { question, region: part.region.clone(), within: None, open: open.clone(), known }
        };
        let halves = frame.cut(function, element, place, cuts)?.map(half);
        self.forget(number);
        halves.into_iter().for_each(|h| self.add(h));
        Ok(())
    }

    /// Rule *Claim*. Claims for a function that was passed begin anew, within the bounds that there are.
    fn claims(&mut self, number: usize, function: usize, claims: &[Claim]) -> Result<(), String> {
        let (net, start) = (self.net, self.start);
        let function = net.function(function)?;
        let goes_on = match self.parts.get(&number).map(|p| &p.known) {
            Some(Known::Begun(analysis)) => analysis.frame.bounds.len() <= function,
            _ => false,
        };
        if !goes_on {
            let part = self.part(number)?;
            let Known::Bounds(frame, cuts) = &part.known else { return Err(format!("part {number} is empty")) };
            if !cuts.is_empty() {
                return Err(format!("part {number} is cut: claims are about a box"));
            }
            part.within = Some(Arc::new(frame.bounds.clone()));
            part.known = Known::Begun(Box::new(Analysis::new(net, start)));
        }
        let Some(part) = self.parts.get_mut(&number) else { return Err(format!("there is no part {number}")) };
        let mut known = std::mem::replace(&mut part.known, Known::Nothing);
        if let Known::Begun(analysis) = &mut known {
            analysis.claim(function, claims, part.extent())?;
        }
        part.known = known;
        Ok(())
    }
}

impl Part<'_> {
    fn extent(&self) -> Extent<'_> {
        let known = self.within.as_ref().map(|w| &w[..]);
        Extent { before: &self.question.before, region: &self.region, known }
    }

    /// Takes some goals out of the part; which of all these are.
    fn take(&mut self, goals: &[usize]) -> Result<Vec<bool>, String> {
        let mut taken = vec![false; self.open.len()];
        for &goal in goals {
            match self.open.get_mut(goal) {
                Some(open) if *open => (*open, taken[goal]) = (false, true),
                _ => return Err(format!("goal {goal} is closed or was never there")),
            }
        }
        Ok(taken)
    }
}
