//! Bounds from above and from below, better the longer one waits.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use quaver::guard::thresholds::{Bounds, Compared};
use quaver::guard::witness::Shown;
use quaver::net::execute;
use quaver::verify::Options;
use rayon::prelude::*;

use super::problem::{Problem, Quantized, Rows};
use crate::format::{argmax, number};

/// Seconds for an attack on one pair of classes.
const ATTACK: Duration = Duration::from_millis(400);

/// Boxes that inputs are divided into, one round after the other.
const BOXES: [usize; 5] = [16, 128, 1024, 8192, 65536];

/// What is known of one cell.
pub struct Found {
    pub proved: Bounds,
    pub shown: Shown,
}

/// The bounds of one quantized network.
pub struct Work<'w> {
    pub problem: &'w Problem,
    pub compared: &'w Compared,
    /// The rows of data, and what the quantized network gives for them, in real numbers.
    rows: Option<(&'w Rows, Vec<f64>)>,
    seed: u64,
    pub found: Vec<Found>,
    pub begun: Instant,
    /// Seconds, and the mean bound on a class from then on.
    pub over_time: Vec<(f64, f64)>,
}

/// Rows of data for which the class is guaranteed.
#[derive(Clone, Copy, Default)]
pub struct Guaranteed {
    pub rows: usize,
    /// The quantized network gives the float network's class.
    pub same: usize,
    /// And its thresholds say so.
    pub sure: usize,
}

/// The places of all pairs of different classes in a table by class and class.
pub fn pairs(classes: usize) -> impl Iterator<Item = usize> {
    (0..classes * classes).filter(move |i| i % (classes + 1) != 0)
}

/// The bound for a class: the largest least lead over all cells and rivals.
pub fn of_class(found: &[Found], of: fn(&Found) -> &Bounds, classes: usize, c: usize) -> f64 {
    let rivals = move |b: &Bounds| {
        (0..classes).filter(|k| *k != c).map(|k| b.least[c * classes + k]).fold(f64::NEG_INFINITY, f64::max)
    };
    found.iter().map(|f| rivals(of(f))).fold(f64::NEG_INFINITY, f64::max)
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(Instant::now()))
}

fn scores(rows: &Rows, quantized: &Quantized, compared: &Compared) -> Vec<f64> {
    let y = execute(&quantized.lowered.net, std::slice::from_ref(&rows.x), rows.len()).swap_remove(0).center;
    y.into_iter().map(|y| y * compared.scale()).collect()
}

impl<'w> Work<'w> {
    /// What rows of data show; nothing is proved yet.
    pub fn new(problem: &'w Problem, quantized: &'w Quantized, compared: &'w Compared, seed: u64) -> Self {
        let n = compared.classes();
        let nothing: Vec<f64> = (0..n * n).map(|i| if i % (n + 1) == 0 { 0.0 } else { f64::INFINITY }).collect();
        let fresh = || Found {
            proved: Bounds { pair: nothing.clone(), least: nothing.clone() },
            shown: Shown::new(compared.classes()),
        };
        let found = (0..problem.cells.len()).map(|_| fresh()).collect();
        let begun = Instant::now();
        let rows = problem.rows.as_ref().map(|rows| (rows, scores(rows, quantized, compared)));
        let mut work = Work { problem, compared, rows, seed, found, begun, over_time: vec![] };
        work.rows_show();
        work
    }

    /// The first bounds.
    pub fn begin(&mut self) -> Result<()> {
        let first = Self::bounds(self.problem, self.compared)?;
        self.found.iter_mut().zip(first).for_each(|(f, b)| f.proved.meet(&b));
        self.note_time();
        Ok(())
    }

    /// Proved bounds for each cell.
    pub fn bounds(problem: &Problem, compared: &Compared) -> Result<Vec<Bounds>> {
        Self::proved(problem, compared, (1, &[]), Duration::from_secs(1 << 20))
    }

    fn proved(
        problem: &Problem,
        compared: &Compared,
        (boxes, found): (usize, &[Found]),
        timeout: Duration,
    ) -> Result<Vec<Bounds>> {
        let options = Options { timeout, ..Options::default() };
        let cells = &problem.cells;
        let shown = |cell: usize| found.get(cell).map(|f| &f.shown.bounds);
        let of = |cell: usize| Ok(compared.bounds(cells.total(cell), boxes, shown(cell), &options)?);
        (0..cells.len()).into_par_iter().map(of).collect()
    }

    /// Executes the rows of data on which both networks differ.
    fn rows_show(&mut self) {
        let Some((rows, scores)) = &self.rows else { return };
        let (n, len) = (self.compared.classes(), rows.x.len() / rows.len());
        for (i, x) in rows.x.chunks_exact(len).enumerate() {
            let class = |y: &[f64]| argmax(&y[i * n..][..n]);
            if let Some(sum) = rows.sums[i]
                && class(&rows.float) != class(scores)
            {
                let input = self.as_compared(x);
                self.compared.show(&input, &mut self.found[self.problem.cells.of(sum)].shown);
            }
        }
    }

    /// An input as the compared net takes it: multiples of the step, where there is one.
    fn as_compared(&self, x: &[f64]) -> Vec<f64> {
        match self.problem.domain.grid() {
            Ok(Some(grid)) => x.iter().map(|x| (x / grid.step.approx()).round()).collect(),
            _ => x.to_vec(),
        }
    }

    /// Attacks and branches until the time is over, the gaps are small, or nothing helps.
    pub fn improve(&mut self, timeout: Duration, gap: f64, bar: &ProgressBar) -> Result<()> {
        let deadline = Instant::now().checked_add(timeout);
        self.say(bar);
        for boxes in BOXES {
            if left(deadline).is_zero() || self.largest_gap() <= gap {
                break;
            }
            self.attack(left(deadline) / 2)?;
            self.say(bar);
            let better = Self::proved(self.problem, self.compared, (boxes, &self.found), left(deadline))?;
            self.found.iter_mut().zip(better).for_each(|(f, b)| f.proved.meet(&b));
            self.say(bar);
            self.note_time();
        }
        Ok(())
    }

    /// Remembers the mean bound on a class.
    pub fn note_time(&mut self) {
        let n = self.compared.classes();
        let of = |c: usize| of_class(&self.found, |f| &f.proved, n, c).max(0.0);
        self.over_time.push((self.begun.elapsed().as_secs_f64(), (0..n).map(of).sum::<f64>() / n as f64));
    }

    /// Looks for disagreements with larger leads, for pairs with the largest gaps first.
    fn attack(&mut self, most: Duration) -> Result<()> {
        let n = self.compared.classes();
        let deadline = Instant::now().checked_add(most);
        let mut order: Vec<(usize, usize)> =
            (0..self.found.len()).flat_map(|cell| pairs(n).map(move |i| (cell, i))).collect();
        let gap = |&(cell, i): &(usize, usize)| {
            let found = &self.found[cell];
            found.proved.pair[i] - found.shown.bounds.pair[i].max(-found.proved.pair[i].abs())
        };
        order.sort_by(|a, b| gap(b).total_cmp(&gap(a)));
        let cells = &self.problem.cells;
        let attacked: Vec<(usize, Shown)> = order
            .par_iter()
            .filter(|_| !left(deadline).is_zero())
            .map(|&(cell, i)| {
                let Found { proved, shown } = &self.found[cell];
                let mut shown = shown.clone();
                let options = Options { timeout: left(deadline).min(ATTACK), seed: self.seed, ..Options::default() };
                for least in [false, true].into_iter().filter(|least| n > 2 || !least) {
                    let aim = (i / n, i % n, least);
                    self.compared.attack(aim, cells.total(cell), proved, &mut shown, &options)?;
                    self.compared.search(
                        aim,
                        cells.total(cell),
                        &mut shown,
                        (self.seed, Instant::now() + options.timeout),
                    );
                }
                Ok((cell, shown))
            })
            .collect::<Result<_>>()?;
        attacked.into_iter().for_each(|(cell, shown)| self.found[cell].shown.join(shown));
        Ok(())
    }

    fn say(&self, bar: &ProgressBar) {
        let (upper, lower) = self.means();
        bar.set_message(format!("mean bound {} proved, {} occurs", number(upper), number(lower)));
    }

    /// The mean bound on the lead over a class, proved and shown (nothing shown counts as zero).
    pub fn means(&self) -> (f64, f64) {
        let n = self.compared.classes();
        let mean = |of: fn(&Found, usize) -> f64| {
            let all = self.found.iter().flat_map(|f| pairs(n).map(move |i| of(f, i).max(0.0)));
            all.sum::<f64>() / (self.found.len() * n * (n - 1)) as f64
        };
        (mean(|f, i| f.proved.pair[i]), mean(|f, i| f.shown.bounds.pair[i]))
    }

    fn largest_gap(&self) -> f64 {
        let n = self.compared.classes();
        let gap = |f: &Found, i: usize| {
            let (upper, lower) = (f.proved.pair[i].max(0.0), f.shown.bounds.pair[i].max(0.0));
            if upper > 0.0 { (upper - lower) / upper } else { 0.0 }
        };
        self.found.iter().flat_map(|f| pairs(n).map(move |i| gap(f, i))).fold(0.0, f64::max)
    }

    /// For how many rows of data the class is guaranteed.
    pub fn guaranteed(&self) -> Option<Guaranteed> {
        let (rows, scores) = self.rows.as_ref()?;
        let n = self.compared.classes();
        let mut counts = Guaranteed { rows: rows.len(), ..Guaranteed::default() };
        for (i, (y, f)) in scores.chunks_exact(n).zip(rows.float.chunks_exact(n)).enumerate() {
            let class = argmax(y);
            counts.same += usize::from(class == argmax(f));
            let sure = |sum: f64| self.found[self.problem.cells.of(sum)].proved.accepts(class, y);
            counts.sure += usize::from(rows.sums[i].is_some_and(sure));
        }
        Some(counts)
    }
}
