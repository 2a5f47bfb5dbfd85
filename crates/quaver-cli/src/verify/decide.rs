//! One answer from the verdicts on a query's parts.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::certificate::Tracer;
use quaver::property::vnnlib::Problem;
use quaver::verify::{Options, Verdict, Verifier, Witness};

use crate::certify::Certificate;

/// What each part gets of the time at first: most parts take a moment, and one that can be satisfied ends the work.
const FIRST: u32 = 10;
/// And at most this long.
const FIRST_AT_MOST: Duration = Duration::from_secs(10);

/// The answer to a query.
pub enum Answer {
    Sat(Box<Found>),
    Unsat,
    Unknown,
    TimedOut,
}

/// A witness and the part that it satisfies.
pub struct Found {
    pub part: usize,
    pub witness: Witness,
}

impl Answer {
    /// The word of the standard.
    pub fn word(&self) -> &'static str {
        match self {
            Answer::Sat(_) => "sat",
            Answer::Unsat => "unsat",
            Answer::Unknown => "unknown",
            Answer::TimedOut => "timed-out",
        }
    }
}

/// The answer and how it came about.
pub struct Outcome {
    pub answer: Answer,
    /// The least proved distance from satisfying the query, over the parts that are not refuted by their own bounds.
    pub bound: Option<f64>,
    /// The last method that was needed.
    pub method: Option<&'static str>,
    pub subproblems: u64,
    pub profile: Option<String>,
    pub why: Option<String>,
}

impl Outcome {
    /// For people.
    pub fn summary(&self, took: Duration) -> String {
        let why = self.why.as_ref().map_or(String::new(), |why| format!("; {why}"));
        let method = self.method.map_or(String::new(), |m| format!(" by {m}"));
        let bound = self.bound.map_or(String::new(), |b| format!(", bound {b}"));
        format!(
            "{}{method} in {:.3} s, {} subproblems{bound}{why}",
            self.answer.word(),
            took.as_secs_f64(),
            self.subproblems
        )
    }
}

/// Decides the parts one after the other: each gets a little time, then those that are left share the rest.
pub fn decide(problem: &Problem, options: &Options, certificate: Option<&mut Certificate>) -> Result<Outcome> {
    let verifiers = verifiers(problem)?;
    let mut state = State {
        problem,
        options,
        certificate,
        start: Instant::now(),
        verifiers,
        bounds: vec![None; problem.parts.len()],
        outcome: nothing(),
    };
    let all: Vec<usize> = (0..problem.parts.len()).collect();
    let first = (options.timeout / FIRST).min(FIRST_AT_MOST * all.len() as u32);
    let rest = if all.len() > 1 { state.pass(all, first)? } else { all };
    let rest = if state.is_done() { rest } else { state.pass(rest, options.timeout)? };
    Ok(state.finish(&rest))
}

fn nothing() -> Outcome {
    Outcome { answer: Answer::Unsat, bound: None, method: None, subproblems: 0, profile: None, why: None }
}

/// One for each part; parts of the same net share one.
fn verifiers(problem: &Problem) -> Result<Vec<Rc<Verifier<'_>>>> {
    let mut made: Vec<Rc<Verifier<'_>>> = vec![];
    for (i, part) in problem.parts.iter().enumerate() {
        let same = problem.parts[..i].iter().position(|other| Arc::ptr_eq(&other.lowered, &part.lowered));
        made.push(match same {
            Some(other) => made[other].clone(),
            None => Rc::new(Verifier::new(&part.lowered)?),
        });
    }
    Ok(made)
}

/// Parts on their way to an answer.
struct State<'a> {
    problem: &'a Problem,
    options: &'a Options,
    certificate: Option<&'a mut Certificate>,
    start: Instant,
    verifiers: Vec<Rc<Verifier<'a>>>,
    /// For each part the best proved distance.
    bounds: Vec<Option<f64>>,
    outcome: Outcome,
}

impl State<'_> {
    /// Decides parts until this long after the start; gives those that are left.
    fn pass(&mut self, parts: Vec<usize>, until: Duration) -> Result<Vec<usize>> {
        let mut left = vec![];
        for (k, &part) in parts.iter().enumerate() {
            let remaining = until.saturating_sub(self.start.elapsed());
            let share = remaining / (parts.len() - k) as u32;
            if self.is_done() || (share.is_zero() && k > 0) {
                left.extend(&parts[k..]);
                break;
            }
            if !self.decide(part, share)? {
                left.push(part);
            }
        }
        Ok(left)
    }

    /// Whether the work ends here.
    fn is_done(&self) -> bool {
        let stopped = self.options.stop.as_ref().is_some_and(|s| s.load(Ordering::Relaxed));
        stopped || matches!(self.outcome.answer, Answer::Sat(_))
    }

    /// Whether a part is settled.
    fn decide(&mut self, index: usize, timeout: Duration) -> Result<bool> {
        let part = &self.problem.parts[index];
        let recorder = self.certificate.as_ref().map(|c| c.question(&part.cases)).transpose()?;
        let tracer = recorder.clone().map(|r| r as Arc<dyn Tracer>);
        let options = Options { timeout, tracer, ..self.options.clone() };
        let verdict = self.verifiers[index].decide(&part.query, &options)?;
        drop(options);
        match verdict {
            Verdict::Holds(proof) => {
                if let (Some(certificate), Some(recorder)) = (&mut self.certificate, recorder) {
                    certificate.keep(recorder)?;
                }
                self.bounds[index] = Some(proof.margin());
                self.outcome.subproblems += proof.subproblems();
                self.outcome.method = Some(proof.method());
                Ok(true)
            }
            Verdict::Violated(witness) if part.settles(witness.input(), witness.polyhedron()) => {
                self.outcome.method = Some("an executed input");
                self.outcome.profile = Some(witness.profile().into());
                self.outcome.answer = Answer::Sat(Box::new(Found { part: index, witness }));
                Ok(true)
            }
            Verdict::Violated(_) => {
                let why = "an input next to a decimal that is no float satisfies the query, and it is not certain that the decimal does";
                self.outcome.why = Some(why.into());
                Ok(false)
            }
            Verdict::Undecided(unfinished) => {
                let known = self.bounds[index].unwrap_or(f64::NEG_INFINITY);
                self.bounds[index] = Some(known.max(unfinished.bound));
                self.outcome.subproblems += unfinished.subproblems;
                self.outcome.why = Some(unfinished.why);
                Ok(false)
            }
        }
    }

    fn finish(mut self, left: &[usize]) -> Outcome {
        let least = self.bounds.iter().flatten().copied().reduce(f64::min);
        // Adding zero turns -0 into 0.
        self.outcome.bound = least.map(|b| b + 0.0).filter(|b| b.is_finite());
        if matches!(self.outcome.answer, Answer::Sat(_)) {
            (self.outcome.bound, self.outcome.why) = (None, None);
        } else if left.is_empty() {
            self.outcome.why = None;
        } else {
            let late = self.start.elapsed() >= self.options.timeout;
            self.outcome.answer = if late { Answer::TimedOut } else { Answer::Unknown };
            self.outcome.method = None;
        }
        self.outcome
    }
}
