//! What is printed of thresholds.

use anyhow::Result;
use quaver::guard::thresholds::Bounds;
use serde_json::json;

use super::bound::{Found, Work, of_class, pairs};
use super::certificates::Certified;
use super::problem::{Problem, Quantized};
use super::programs::Told;
use super::{Args, Per};
use crate::format::{self, Table, number};
use crate::session::Session;

pub struct Report<'r> {
    pub args: &'r Args,
    pub problem: &'r Problem,
}

fn of_pair(found: &[Found], of: fn(&Found) -> &Bounds, i: usize) -> f64 {
    found.iter().map(|f| of(f).pair[i]).fold(f64::NEG_INFINITY, f64::max)
}

fn proved(f: &Found) -> &Bounds {
    &f.proved
}

fn shown(f: &Found) -> &Bounds {
    &f.shown.bounds
}

impl Report<'_> {
    pub fn begin(&self, session: &mut Session<'_>) -> Result<()> {
        if session.json {
            return Ok(());
        }
        let Problem { float_path, domain, cells, float, .. } = self.problem;
        session.say(format!("float network {} under profile {}", float_path.display(), float.profile))?;
        let step = domain.step.as_ref().map_or(String::new(), |s| format!(", multiples of {s}"));
        let parts = format::count(cells.len(), "cell");
        session.say(format!(
            "inputs: every element from {} to {}{step}; {parts}",
            number(domain.lo),
            number(domain.hi)
        ))?;
        float.assumptions.iter().try_for_each(|assumption| session.say(format!("assumes {assumption}")))
    }

    pub fn show(
        &self,
        q: &Quantized,
        work: &Work<'_>,
        told: Option<&Told>,
        seconds: (f64, f64),
        session: &mut Session<'_>,
    ) -> Result<()> {
        if session.json {
            return self.json(q, work, told, seconds, session);
        }
        let bits = q.bits.map_or(String::new(), |b| format!(", {b} bits"));
        session.say(format!("{} under profile {}{bits}", q.path.display(), q.lowered.profile))?;
        q.lowered.assumptions.iter().try_for_each(|assumption| session.say(format!("assumes {assumption}")))?;
        match self.args.per {
            Per::Class => self.classes(work).write(session.out)?,
            Per::Pair => self.pairs(work).write(session.out)?,
        }
        let (upper, lower) = work.means();
        session.say(format!(
            "  mean lead over a class: at most {} proved, {} occurs; first bounds after {:.2} s, all {:.2} s",
            number(upper),
            number(lower),
            seconds.0,
            seconds.1
        ))?;
        told.map_or(Ok(()), |told| programs(work, told, session))?;
        let Some(g) = work.guaranteed() else { return Ok(()) };
        let percent = |part: usize| format::percent(part as u64, g.rows as u64);
        session.say(format!(
            "  the float network's class is guaranteed for {} of {} (the networks agree on {})",
            percent(g.sure),
            format::count(g.rows, "row"),
            percent(g.same)
        ))
    }

    /// What was certified of pairs.
    pub fn certified(&self, certified: Option<&[Certified]>, session: &mut Session<'_>) -> Result<()> {
        let Some(certified) = certified else { return Ok(()) };
        if session.json {
            let of =
                |c: &Certified| json!({ "class": c.class, "over": c.rival, "threshold": c.threshold, "why": c.why });
            return session.line(&json!({ "certified": certified.iter().map(of).collect::<Vec<_>>() }));
        }
        let mut table = Table::new(&[">class", ">over", ">d certified"]);
        for c in certified {
            let threshold = c.threshold.map_or_else(|| "none".into(), number);
            table.row([c.class.to_string(), c.rival.to_string(), threshold]);
        }
        table.write(session.out)?;
        let why = certified.iter().filter(|c| c.threshold.is_none()).find_map(|c| c.why.as_ref());
        why.map_or(Ok(()), |why| session.say(format!("  {why}")))
    }

    fn classes(&self, work: &Work<'_>) -> Table {
        let mut table = Table::new(&[">class", ">d proved", ">occurs"]);
        let n = self.problem.float.net.node(self.problem.float.net.outputs()[0]).len();
        for c in 0..n {
            let row = [proved as fn(&Found) -> &Bounds, shown].map(|of| of_class(&work.found, of, n, c));
            table.row([c.to_string(), lead(row[0]), lead(row[1])]);
        }
        table
    }

    fn pairs(&self, work: &Work<'_>) -> Table {
        let mut table = Table::new(&[">class", ">over", ">d proved", ">occurs"]);
        let n = self.problem.float.net.node(self.problem.float.net.outputs()[0]).len();
        for i in pairs(n) {
            let row = [proved as fn(&Found) -> &Bounds, shown].map(|of| of_pair(&work.found, of, i));
            table.row([(i / n).to_string(), (i % n).to_string(), lead(row[0]), lead(row[1])]);
        }
        table
    }

    fn json(
        &self,
        q: &Quantized,
        work: &Work<'_>,
        told: Option<&Told>,
        (first, all): (f64, f64),
        session: &mut Session<'_>,
    ) -> Result<()> {
        let cell = |f: &Found| {
            let numbers = |x: &[f64]| x.iter().map(|x| x.is_finite().then_some(*x)).collect::<Vec<_>>();
            let bounds = |b: &Bounds| json!({ "pair": numbers(&b.pair), "least": numbers(&b.least) });
            json!({ "proved": bounds(&f.proved), "occurs": bounds(&f.shown.bounds) })
        };
        let guaranteed = work.guaranteed();
        let (upper, lower) = work.means();
        session.line(&json!({
            "model": q.path.display().to_string(),
            "profile": q.lowered.profile,
            "bits": q.bits,
            "seconds_first": first,
            "seconds": all,
            "mean_proved": upper,
            "mean_occurs": lower,
            "over_time": work.over_time.iter().map(|(t, d)| (t, d.is_finite().then_some(d))).collect::<Vec<_>>(),
            "reported": told.map(|t| &t.reported),
            "rows": guaranteed.map(|g| g.rows),
            "same": guaranteed.map(|g| g.same),
            "guaranteed": guaranteed.map(|g| g.sure),
            "cells": work.found.iter().map(cell).collect::<Vec<_>>(),
        }))
    }
}

/// What there is to say of programs.
fn programs(work: &Work<'_>, told: &Told, session: &mut Session<'_>) -> Result<()> {
    let [columns, rows, integers] = told.sizes;
    session.say(format!("  programs of {columns} columns ({integers} of them integers) and {rows} rows"))?;
    // At most a line: when the mean has fallen by a tenth.
    let mut said: Vec<(f64, f64)> = vec![];
    for &(t, d) in work.over_time.iter().filter(|s| s.1.is_finite()) {
        if said.last().is_none_or(|last| d < 0.9 * last.1) {
            said.push((t, d));
        }
    }
    let steps: Vec<String> = said.iter().map(|(t, d)| format!("{} after {t:.1} s", number(*d))).collect();
    session.say(format!("  mean d proved: {}", steps.join(", ")))?;
    let reported: Vec<f64> = told.reported.iter().copied().flatten().collect();
    if reported.is_empty() {
        return Ok(());
    }
    let mean = reported.iter().map(|r| r.max(0.0)).sum::<f64>() / reported.len() as f64;
    session.say(format!("  mean d that the solver reports, which is no proof: {}", number(mean)))
}

/// A lead; none where there is no disagreement.
fn lead(x: f64) -> String {
    if x == f64::NEG_INFINITY { "never".into() } else { number(x) }
}
