//! The largest scaling of a template that is proved.

use rayon::prelude::*;

use super::check::Check;
use super::{Options, Way};
use crate::property::Region;
use crate::quantize::QuantizeError;

/// Largest scaling, as in the published program.
pub(super) const MOST: f64 = 100.0;

/// A scaling below this is 0.
const LEAST: f64 = 1e-4;

/// The largest scaling, up to a relative gap, at which every group of rows has one that is proved; `None` if there is none.
///
/// # Claim
/// At the result one row of each group holds for everything in the template's set.
///
/// # Why
/// Each row is proved at the result or at a larger scaling, whose set contains this one's.
pub(super) fn largest(check: &Check, region: &Region, options: &Options) -> Result<Option<f64>, QuantizeError> {
    let mut search = Scaling { check, region, options, best: vec![None; check.rows.constants.len()] };
    match options.way {
        Way::Abstraction => search.by_bounds(),
        Way::Exact | Way::Both => {
            search.by_bounds();
            let rows = search.chosen();
            if options.way == Way::Exact {
                search.best.fill(None);
            }
            return search.exactly(rows);
        }
    }
    Ok(search.least())
}

struct Scaling<'s> {
    check: &'s Check<'s>,
    region: &'s Region,
    options: &'s Options,
    /// For each row the largest scaling that it was proved at.
    best: Vec<Option<f64>>,
}

impl Scaling<'_> {
    /// The rows of each group.
    fn groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let ends = &self.check.rows.ends;
        std::iter::once(0).chain(ends.iter().copied()).zip(ends).map(|(start, end)| start..*end)
    }

    /// The row of each group that was proved at the largest scaling.
    fn chosen(&self) -> Vec<usize> {
        let value = |r: usize| self.best[r].unwrap_or(-1.0);
        self.groups().filter_map(|g| g.max_by(|a, b| value(*a).total_cmp(&value(*b)))).collect()
    }

    fn least(&self) -> Option<f64> {
        self.chosen()
            .iter()
            .map(|&r| self.best[r])
            .min_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))?
    }

    /// Tries to prove by linear bounds what is not proved at a scaling. Whether every group is.
    fn try_at(&mut self, chi: f64) -> bool {
        let open: Vec<usize> = (0..self.best.len()).filter(|&r| !self.is_proved(r, chi)).collect();
        let proved = self.check.by_bounds(chi, self.region, &open);
        open.iter().zip(proved).filter(|(_, proved)| *proved).for_each(|(&r, _)| self.best[r] = Some(chi));
        self.groups().all(|mut g| g.any(|r| self.is_proved(r, chi)))
    }

    /// Brackets the largest scaling, then halves.
    fn by_bounds(&mut self) {
        if !self.try_at(0.0) {
            return;
        }
        let (mut lo, mut hi, mut next) = (0.0, None::<f64>, 1.0);
        loop {
            match self.try_at(next) {
                true => lo = next,
                false => hi = Some(next),
            }
            next = match hi {
                None if lo >= MOST => return,
                None => (4.0 * lo).min(MOST),
                Some(hi) if hi - lo <= self.options.gap * hi || hi < LEAST => return,
                Some(hi) if lo == 0.0 => hi / 4.0,
                Some(hi) => 0.5 * (lo + hi),
            };
        }
    }

    /// Improves the least of some rows, beginning at a scaling that likely inputs allow: all rows are decided there, and only one that fails
    /// is looked at closer.
    fn exactly(&mut self, rows: Vec<usize>) -> Result<Option<f64>, QuantizeError> {
        let lower = |limit, row: &usize| self.check.likely_limit(limit, self.region, *row, None);
        let limit = rows.iter().fold(MOST, lower);
        let start = if limit < MOST { self.near(limit) } else { MOST };
        let mut least = start.max(self.least().unwrap_or(0.0));
        loop {
            if self.options.way == Way::Both {
                self.try_at(least);
            }
            let open: Vec<usize> = rows.iter().copied().filter(|&r| !self.is_proved(r, least)).collect();
            let found = open.par_iter().map(|row| self.decide(*row, least)).collect::<Result<Vec<_>, _>>()?;
            let decided = || open.iter().zip(&found);
            decided().filter(|(_, found)| found.0).for_each(|(&row, _)| self.best[row] = Some(least));
            let failed = decided().filter(|(_, found)| !found.0).min_by(|a, b| a.1.1.total_cmp(&b.1.1));
            let Some((&row, (_, limit))) = failed else { return Ok(Some(least)) };
            match self.halve(row, *limit)? {
                None => return Ok(None),
                Some(chi) => least = chi,
            }
        }
    }

    /// A little below a limit, as much as the gap allows.
    fn near(&self, limit: f64) -> f64 {
        if limit < LEAST { 0.0 } else { (1.0 - 0.9 * self.options.gap) * limit }
    }

    fn is_proved(&self, row: usize, chi: f64) -> bool {
        self.best[row].is_some_and(|b| b >= chi)
    }

    /// The largest scaling of a row below one that it fails at, up to the gap.
    fn halve(&mut self, row: usize, mut hi: f64) -> Result<Option<f64>, QuantizeError> {
        let mut lo = match self.best[row] {
            Some(best) => best,
            None if self.decide(row, 0.0)?.0 => 0.0,
            None => return Ok(None),
        };
        let mut is_near = true;
        while hi - lo > self.options.gap * hi && hi >= LEAST {
            // The inputs that a limit comes from are often the worst ones.
            let next = if is_near { self.near(hi) } else { 0.5 * (lo + hi) };
            let (holds, limit) = self.decide(row, next)?;
            if holds {
                lo = next
            } else {
                hi = limit
            }
            is_near = !is_near;
        }
        self.best[row] = Some(lo);
        Ok(Some(lo))
    }

    /// Whether a row is proved at a scaling, and if it is not, one from which on it will not be.
    fn decide(&self, row: usize, chi: f64) -> Result<(bool, f64), QuantizeError> {
        let (holds, witness) = self.check.exactly(chi, self.region, row, &self.options.verification)?;
        let at_witness = |x: Vec<f64>| self.check.likely_limit(chi, self.region, row, Some(&x));
        Ok((holds, witness.map_or(chi, at_witness).min(chi)))
    }
}
