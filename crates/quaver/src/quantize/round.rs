//! Deciding many questions about one network.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use crate::property::Query;
use crate::verify::{NotAClassifier, Options, Verdict, Verifier};

/// How a round of questions is gone through.
pub(super) struct Round<'r> {
    /// For each question.
    pub options: &'r Options,
    /// When the time of all is over.
    pub deadline: Instant,
    /// Whether nothing more is looked at once a network cannot be accepted: one of its questions is refuted, or left open by a search.
    pub hurry: bool,
}

impl Round<'_> {
    /// Decides some questions, by number; several at a time where there are as many as threads. What is made of each verdict, as it comes; `None` for
    /// those that were not looked at.
    ///
    /// # Errors
    /// If a question does not fit the network.
    pub fn decide<'q, T: Send>(
        &self,
        verifier: &Verifier<'_>,
        numbers: &[usize],
        query: impl Fn(usize) -> Cow<'q, Query> + Sync,
        told: impl Fn(usize, Verdict) -> T + Sync,
    ) -> Result<Vec<(usize, Option<T>)>, NotAClassifier> {
        let threads = self.options.threads.max(1);
        let many = numbers.len() >= threads;
        // Nothing is accepted once a question of a full round is not decided.
        let (over, is_full) = (AtomicBool::new(false), self.options.subproblems > 0);
        let decide = |&number: &usize| -> Result<(usize, Option<T>), NotAClassifier> {
            if self.hurry && over.load(Ordering::Relaxed) {
                return Ok((number, None));
            }
            let timeout = self.options.timeout.min(self.deadline.saturating_duration_since(Instant::now()));
            let options = Options { threads: if many { 1 } else { threads }, timeout, ..self.options.clone() };
            let verdict = verifier.decide(&query(number), &options)?;
            let ends = match &verdict {
                Verdict::Violated(_) => true,
                Verdict::Undecided(_) => is_full,
                Verdict::Holds(_) => false,
            };
            over.fetch_or(ends, Ordering::Relaxed);
            Ok((number, Some(told(number, verdict))))
        };
        if many && threads > 1 {
            numbers.par_iter().map(decide).collect()
        } else {
            numbers.iter().map(decide).collect()
        }
    }
}
