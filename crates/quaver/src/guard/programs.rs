//! Thresholds by the mixed-integer programs of the paper, beside which our bounds can be seen.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::thresholds::{Bounds, Compared, ThresholdError};
use super::witness::Shown;
use crate::bounds::Total;
use crate::verify::{Lead, LeadBound, LeadMilp, LeadPrograms, Verifier};

/// Of the time, what relations between neurons may take.
const RELATIONS: u32 = 3;

/// Programs that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One for each class, as in the paper: the least lead over all others.
    Classes,
    /// Two for each pair of classes.
    Pairs,
}

/// What programs found.
#[derive(Clone, Debug)]
pub struct ByPrograms {
    /// Proved.
    pub bounds: Bounds,
    /// For each class the largest of the solver's own bounds on its least lead, computed in floating point, if it was asked.
    pub reported: Vec<Option<f64>>,
    /// Columns, rows and integer columns.
    pub sizes: [usize; 3],
    /// When all relations were there.
    pub written: Duration,
}

/// One program: the lead of a class over a rival or, with `least`, its least lead; `rival` says which the float network puts first (none: any).
struct Question {
    class: usize,
    rival: Option<usize>,
    least: bool,
}

impl Question {
    fn all(asked: Asked, n: usize) -> Vec<Question> {
        let rivals = |c: usize| (0..n).filter(move |&k| k != c);
        let of = |class: usize| -> Vec<Question> {
            match asked {
                Asked::Classes => vec![Question { class, rival: None, least: true }],
                Asked::Pairs => rivals(class)
                    .flat_map(|k| [false, true].map(|least| Question { class, rival: Some(k), least }))
                    // With two classes both are the same.
                    .filter(|q| n > 2 || !q.least)
                    .collect(),
            }
        };
        (0..n).flat_map(of).collect()
    }

    fn lead(&self, compared: &Compared) -> Lead {
        let (n, c) = (compared.classes(), self.class);
        let others = || (0..n).filter(|&k| k != c);
        let leads = others().filter(|&k| self.least || Some(k) == self.rival).map(|k| compared.lead(c, k)).collect();
        let some = others().filter(|&k| self.rival.is_none_or(|r| r == k)).map(|k| vec![(c, 1.0), (k, -1.0)]).collect();
        Lead { leads, some }
    }

    /// The places of the bounds that it is about.
    fn places(&self, n: usize) -> Vec<usize> {
        (0..n).filter(|&k| k != self.class && self.rival.is_none_or(|r| r == k)).map(|k| self.class * n + k).collect()
    }

    /// The largest lead that is known to occur.
    fn shown(&self, shown: &Bounds, n: usize) -> f64 {
        let of = if self.least { &shown.least } else { &shown.pair };
        self.places(n).into_iter().map(|i| of[i]).fold(f64::NEG_INFINITY, f64::max)
    }
}

impl Compared {
    /// Bounds as [`Self::bounds`], by programs. `better` is told each program's bound on a least lead when it falls:
    /// the program's number, the class, and the bound.
    ///
    /// # Errors
    /// If the region does not fit the net, or bounds on values are not finite.
    pub fn by_programs(
        &self,
        (total, asked): (Option<Total>, Asked),
        milp: &LeadMilp,
        shown: &mut Shown,
        timeout: Duration,
        better: &(dyn Fn(usize, usize, f64) + Sync),
    ) -> Result<ByPrograms, ThresholdError> {
        let (start, n) = (Instant::now(), self.classes());
        let verifier = Verifier::within(self.lowered(), total)?;
        let programs = verifier.lead_programs(self.region(), milp, start + timeout / RELATIONS)?;
        let written = start.elapsed();
        let questions = Question::all(asked, n);
        let at_once = rayon::current_num_threads().min(questions.len());
        let time = timeout.saturating_sub(written) * at_once as u32 / questions.len() as u32;
        let before = &*shown;
        let of = |(i, question): (usize, &Question)| {
            let mut own = before.clone();
            let mut seen = |x: &[f64]| {
                self.show(x, &mut own);
                question.shown(&own.bounds, n)
            };
            let lead = question.lead(self);
            let mut note = |bound: f64| {
                if question.least || n == 2 {
                    better(i, question.class, bound);
                }
            };
            note(programs.most(&lead));
            let bound = programs.bound(&lead, time, &mut seen, &mut note);
            (bound, own)
        };
        let found: Vec<(LeadBound, Shown)> = questions.par_iter().enumerate().with_max_len(1).map(of).collect();
        let mut made = ByPrograms {
            bounds: self.without_search(&programs),
            reported: vec![None; n],
            sizes: programs.sizes(),
            written,
        };
        for (question, (bound, own)) in questions.iter().zip(found) {
            shown.join(own);
            made.note(question, bound, n);
        }
        Ok(made)
    }

    /// What holds whatever is searched for.
    fn without_search(&self, programs: &LeadPrograms) -> Bounds {
        let n = self.classes();
        let pair = |i: usize| match i / n == i % n {
            true => 0.0,
            false => programs.most(&Question { class: i / n, rival: Some(i % n), least: false }.lead(self)),
        };
        let pair: Vec<f64> = (0..n * n).map(pair).collect();
        Bounds { least: pair.clone(), pair }
    }
}

impl ByPrograms {
    fn note(&mut self, question: &Question, bound: LeadBound, n: usize) {
        let least = |to: &mut f64| *to = if bound.proved < *to { bound.proved } else { *to };
        for i in question.places(n) {
            if !question.least {
                least(&mut self.bounds.pair[i]);
            }
            // The least lead is not above any.
            least(&mut self.bounds.least[i]);
        }
        if question.least || n == 2 {
            let reported = &mut self.reported[question.class];
            *reported = (*reported).into_iter().chain(bound.reported).reduce(f64::max);
        }
    }
}
