//! Local search for disagreements: rounding errors have no gradient, and what they add up to is found by trying neighbours.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::thresholds::Compared;
use super::witness::Shown;
use crate::bounds::Total;
use crate::net::{Grid, execute};
use crate::property::Region;

/// Inputs that are kept, and neighbours that are tried at once.
const POOL: usize = 16;
const TRIES: usize = 256;

/// What the float network's lead costs where it is on the wrong side.
const PENALTY: f64 = 4.0;

/// Rounds without a better input before the search begins anew.
const PATIENCE: usize = 30;

/// A pair of classes (c, k), and whether the least lead over all rivals is asked for.
pub type Aim = (usize, usize, bool);

/// An input beside another: up to three elements are moved between two ends, some a little and some far, to a value that elements have.
pub(super) fn neighbour<T: Copy + Into<f64>>(
    x: &[T],
    (lo, hi): (f64, f64),
    random: &mut StdRng,
    nearest: impl Fn(f64) -> T,
) -> Vec<T> {
    let mut x = x.to_vec();
    for _ in 0..random.random_range(1..=3) {
        let i = random.random_range(0..x.len());
        let reach = (hi - lo) * 2f64.powi(-random.random_range(0..9));
        let moved: f64 = x[i].into() + reach * random.random_range(-1.0..=1.0);
        x[i] = nearest(moved.clamp(lo, hi));
    }
    x
}

struct Candidate {
    x: Vec<f64>,
    score: f64,
}

impl Compared {
    /// Looks among neighbours of known inputs, and of random ones, for larger leads.
    pub fn search(&self, aim: Aim, total: Option<Total>, shown: &mut Shown, (seed, deadline): (u64, Instant)) {
        let mut random = StdRng::seed_from_u64(seed ^ ((aim.0 * 4096 + aim.1 * 2) as u64 + u64::from(aim.2)));
        let known = shown.inputs[aim.0 * self.classes() + aim.1][usize::from(aim.2)].clone();
        let mut starts: Vec<Vec<f64>> = known.into_iter().collect();
        while Instant::now() < deadline {
            starts.extend((0..TRIES).map(|_| self.random_input(&mut random)));
            let mut pool = vec![];
            self.judge(std::mem::take(&mut starts), aim, total, &mut pool, shown);
            let (mut best, mut idle) = (f64::NEG_INFINITY, 0);
            while idle < PATIENCE && !pool.is_empty() && Instant::now() < deadline {
                let fresh = (0..TRIES).map(|_| {
                    let parent: &Candidate = &pool[random.random_range(0..pool.len())];
                    neighbour(&parent.x, self.ends(), &mut random, |x| self.on_grid(x))
                });
                self.judge(fresh.collect(), aim, total, &mut pool, shown);
                idle = if pool[0].score > best { 0 } else { idle + 1 };
                best = pool[0].score;
            }
        }
    }

    fn random_input(&self, random: &mut StdRng) -> Vec<f64> {
        let region = self.region();
        // Dense inputs and sparse ones.
        let share = random.random_range(0.0..1.0);
        let one = |(lo, hi): (&f64, &f64)| {
            if random.random_range(0.0..1.0) < share {
                self.on_grid(random.random_range(*lo..=*hi))
            } else {
                self.on_grid(*lo)
            }
        };
        region.lo.iter().zip(&region.hi).map(one).collect()
    }

    /// Smallest and largest value of an element: the same for all.
    fn ends(&self) -> (f64, f64) {
        let Region { lo, hi } = self.region();
        (lo[0], hi[0])
    }

    fn on_grid(&self, x: f64) -> f64 {
        let net = &self.lowered().net;
        match net.node(net.inputs()[0]).grid {
            Grid::Integer => x.round(),
            Grid::Float32 | Grid::Real => f64::from(x as f32),
        }
    }

    /// Executes inputs, keeps what they show, and the best of them and of the pool.
    fn judge(
        &self,
        mut inputs: Vec<Vec<f64>>,
        (c, k, least): Aim,
        total: Option<Total>,
        pool: &mut Vec<Candidate>,
        shown: &mut Shown,
    ) {
        inputs.retain(|x| total.is_none_or(|t| t.contains(x)));
        let n = self.classes();
        let flat: Vec<f64> = inputs.iter().flatten().copied().collect();
        let y = execute(&self.lowered().net, &[flat], inputs.len()).swap_remove(0);
        for (row, x) in inputs.into_iter().enumerate() {
            let at = self.outputs(&y, row);
            let lead = |r: usize| (at(1, c, false) - at(1, r, true)) * self.scale();
            let leads = (0..n).filter(|&r| if least { r != c } else { r == k }).map(lead).fold(f64::INFINITY, f64::min);
            let wrong = (at(0, c, true) - at(0, k, false)).max(0.0);
            if wrong == 0.0 {
                self.show_one(&x, at, shown);
            }
            pool.push(Candidate { x, score: leads - PENALTY * wrong });
        }
        pool.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        pool.truncate(POOL);
    }
}
