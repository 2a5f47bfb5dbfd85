//! What is printed of each answer and of all together.

use anyhow::Result;
use quaver::num::Ratio;
use quaver::property::equivalence::{Norm, Relation};
use quaver::verify::{Verdict, Witness};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Counts, Job, Outcome, words};
use crate::format::{self, argmax, number};
use crate::robustness::changes;
use crate::session::Session;

/// One answer in JSON; numbers that are not finite become null.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    radius: Option<f64>,
    class: usize,
    class_b: usize,
    verdict: &'static str,
    seconds: f64,
    bound: Option<f64>,
    /// No input of the area has a larger distance.
    distance_at_most: Option<f64>,
    method: Option<&'static str>,
    why: Option<&'a str>,
    subproblems: Option<u64>,
    witness: Option<&'a [f64]>,
    witness_class: Option<usize>,
    witness_class_b: Option<usize>,
    witness_outputs: Option<Vec<f64>>,
    witness_outputs_b: Option<Vec<f64>>,
    witness_profile: Option<&'a str>,
    /// What the witness shows.
    difference: Option<String>,
    /// The distance at the witness.
    distance: Option<f64>,
    /// Proved bounds on each difference B - A.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<&'a [(f64, f64)]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds_seconds: Option<f64>,
}

impl Job<'_> {
    pub(super) fn announce(&self, session: &mut Session<'_>) -> Result<()> {
        let (a, b) = (self.args.networks.a.display(), self.args.networks.b.display());
        let [of_a, of_b] = self.pair.nets().map(|l| &l.profile);
        session.say(format!("A is {a} under profile {of_a}"))?;
        session.say(format!("B is {b} under profile {of_b}"))?;
        let areas = format::count(self.areas.len() / self.areas.radii.len().max(1), self.areas.name());
        session.say(format!("the claim: {}; {areas}", words(self.relation)))?;
        let lowered = self.question.lowered();
        lowered.assumptions.iter().try_for_each(|assumption| session.say(format!("assumes {assumption}")))?;
        if let Some(solver) = &self.engine.solver {
            session.say(format!("mixed-integer programs, solved by {solver}"))?;
        }
        let notes = self.pair.notes();
        notes.iter().chain(&self.engine.note).try_for_each(|note| session.say(format!("note: {note}")))
    }

    pub(super) fn show(&self, outcome: &Outcome, session: &mut Session<'_>) -> Result<()> {
        if session.json {
            return session.line(&self.json(outcome));
        }
        session.say(self.text(outcome))?;
        let Some((bounds, _)) = &outcome.bounds else { return Ok(()) };
        let one = |(i, b): (usize, &(f64, f64))| format!("  B - A of output {i}: {} to {}", number(b.0), number(b.1));
        bounds.iter().enumerate().map(one).try_for_each(|line| session.say(line))
    }

    fn json<'o>(&self, outcome: &'o Outcome) -> Line<'o> {
        let [class, class_b] = classes(&outcome.outputs);
        let line = Line {
            index: outcome.area.row,
            radius: self.areas.radii.get(outcome.area.radius).map(Ratio::approx),
            class,
            class_b,
            verdict: "undecided",
            seconds: outcome.seconds,
            bound: None,
            distance_at_most: self.distance_at_most(&outcome.verdict),
            method: None,
            why: None,
            subproblems: None,
            witness: None,
            witness_class: None,
            witness_class_b: None,
            witness_outputs: None,
            witness_outputs_b: None,
            witness_profile: None,
            difference: None,
            distance: None,
            bounds: outcome.bounds.as_ref().map(|b| &b.0[..]),
            bounds_seconds: outcome.bounds.as_ref().map(|b| b.1),
        };
        // Adding zero turns -0 into 0.
        match &outcome.verdict {
            Verdict::Holds(proof) => {
                let (bound, method) = (Some(proof.margin() + 0.0), Some(proof.method()));
                Line { verdict: "holds", bound, method, subproblems: Some(proof.subproblems()), ..line }
            }
            Verdict::Violated(w) => self.with_witness(w, line),
            Verdict::Undecided(u) => {
                let (bound, why) = (Some(u.bound + 0.0), Some(&u.why[..]));
                Line { bound, why, subproblems: Some(u.subproblems), ..line }
            }
        }
    }

    fn with_witness<'o>(&self, w: &'o Witness, line: Line<'o>) -> Line<'o> {
        let outputs = self.pair.execute(w.input(), w.profile());
        let [class, class_b] = classes(&outputs).map(Some);
        let distance = self.distance(&outputs);
        let [a, b] = outputs.map(Some);
        Line {
            verdict: "violated",
            witness: Some(w.input()),
            witness_class: class,
            witness_class_b: class_b,
            witness_outputs: a,
            witness_outputs_b: b,
            witness_profile: Some(w.profile()),
            difference: Some(self.question.difference(w.polyhedron()).to_string()),
            distance,
            ..line
        }
    }

    /// The norm of the relation, of the differences of outputs; the largest difference where outputs must be equal.
    fn distance(&self, outputs: &[Vec<f64>; 2]) -> Option<f64> {
        let norm = match self.relation {
            Relation::Top1 | Relation::Top1Beyond(_) | Relation::TopK(_) => return None,
            Relation::Strict => Norm::LInf,
            Relation::Epsilon { norm, .. } => *norm,
        };
        let differences = self.pair.differences(outputs);
        let magnitudes = differences.iter().map(|d| d.abs());
        Some(match norm {
            Norm::L1 => magnitudes.sum(),
            Norm::L2 => differences.iter().map(|d| d * d).sum::<f64>().sqrt(),
            Norm::LInf => magnitudes.fold(0.0, f64::max),
        })
    }

    /// The distance that a proved margin leaves, rounded up.
    fn distance_at_most(&self, verdict: &Verdict) -> Option<f64> {
        let Relation::Epsilon { norm, epsilon } = self.relation else { return None };
        let margin = match verdict {
            Verdict::Holds(proof) => proof.margin(),
            Verdict::Undecided(u) => u.bound,
            Verdict::Violated(_) => return None,
        };
        let margin = Ratio::from_f64(margin)?;
        match norm {
            Norm::L1 | Norm::LInf => Some(epsilon.minus(&margin).f64_up()),
            // A bound on the sum of squares is one only where it is at most the square of epsilon.
            Norm::L2 if margin.is_negative() => None,
            Norm::L2 => {
                let square = epsilon.times(epsilon).minus(&margin).f64_up();
                Some(if square <= 0.0 { 0.0 } else { square.sqrt().next_up() })
            }
        }
    }

    fn text(&self, outcome: &Outcome) -> String {
        let [class, class_b] = classes(&outcome.outputs);
        let start = match self.relation {
            Relation::Top1 | Relation::Top1Beyond(_) | Relation::TopK(_) if class != class_b => {
                format!("  classes {class} and {class_b}")
            }
            Relation::Top1 | Relation::Top1Beyond(_) | Relation::TopK(_) => format!("  class {class}"),
            Relation::Strict | Relation::Epsilon { .. } => String::new(),
        };
        let radius = match self.args.area.radius.get(outcome.area.radius) {
            Some(radius) if self.areas.radii.len() > 1 => format!("  radius {}", radius.text),
            _ => String::new(),
        };
        let most = |verdict| match self.distance_at_most(verdict) {
            Some(most) => format!("distance at most {}", number(most)),
            None => "no bound on the distance".into(),
        };
        let bound = |margin: f64| match self.relation {
            Relation::Epsilon { .. } => most(&outcome.verdict),
            Relation::Strict | Relation::Top1 | Relation::Top1Beyond(_) | Relation::TopK(_) => {
                format!("margin at least {}", number(margin))
            }
        };
        let what = match &outcome.verdict {
            Verdict::Holds(proof) => format!("holds      {} ({})", bound(proof.margin()), proof.method()),
            Verdict::Violated(w) => self.violation(outcome, w),
            Verdict::Undecided(u) => format!("undecided  {}; {}", bound(u.bound), u.why),
        };
        let width = (self.areas.rows - 1).to_string().len();
        format!("row {:<width$}{radius}{start}  {:.3} s  {what}", outcome.area.row, outcome.seconds)
    }

    fn violation(&self, outcome: &Outcome, w: &Witness) -> String {
        let outputs = self.pair.execute(w.input(), w.profile());
        let difference = self.question.difference(w.polyhedron());
        let what = match (self.relation, self.distance(&outputs)) {
            (Relation::Top1 | Relation::Top1Beyond(_), _) => {
                let [a, b] = classes(&outputs);
                format!("A says {a}, B says {b}")
            }
            (_, Some(distance)) => format!("{difference}: distance {}", number(distance)),
            (_, None) => difference.to_string(),
        };
        let several = self.pair.nets().iter().any(|l| !l.members.is_empty());
        let runtime = if several { format!(" under {}", w.profile()) } else { String::new() };
        format!("violated   {what}{runtime} at {}", changes(&outcome.area.start, w.input()))
    }

    pub(super) fn conclude(&self, counts: &[Counts], seconds: f64, session: &mut Session<'_>) -> Result<()> {
        let sum = |of: fn(&Counts) -> usize| counts.iter().map(of).sum::<usize>();
        if session.json {
            let by_radius: Vec<Value> =
                self.areas.radii.iter().zip(counts).map(|(r, c)| json!({"radius": r.approx(), "counts": c})).collect();
            let [a, b] = self.pair.nets();
            return session.line(&json!({"summary": {
                "holds": sum(|c| c.holds), "violated": sum(|c| c.violated), "undecided": sum(|c| c.undecided), "seconds": seconds,
                "claim": words(self.relation), "profile": a.profile, "profile_b": b.profile,
                "assumptions": self.question.lowered().assumptions, "notes": self.pair.notes(), "by_radius": by_radius,
                "solver": self.engine.solver, "note": self.engine.note,
            }}));
        }
        let radius = |k: usize| match self.args.area.radius.get(k) {
            Some(radius) => format!("radius {}: ", radius.text),
            None => String::new(),
        };
        for (k, c) in counts.iter().enumerate() {
            session.say(format!(
                "{}{} hold, {} violated, {} undecided",
                radius(k),
                c.holds,
                c.violated,
                c.undecided
            ))?;
        }
        session.say(format!("{seconds:.2} s"))
    }
}

fn classes(outputs: &[Vec<f64>; 2]) -> [usize; 2] {
    [argmax(&outputs[0]), argmax(&outputs[1])]
}
