//! Attempts to refute a guard: inputs on which a network is sure of a class that the float network does not give. There are none, if the bounds hold.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use super::local::neighbour;
use super::run::Guard;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// Random inputs.
    pub random: u64,
    /// Inputs where the float network is about to change its class, from which a quantized network's lead with the other class is driven up.
    pub attacked: u64,
    /// Of the random numbers.
    pub seed: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Refuted {
    /// Inputs that were executed by all networks.
    pub tried: u64,
    /// On how many the networks differ in the class, by stage.
    pub differ: Vec<u64>,
    /// Inputs on which a stage is sure and wrong: the stage, and the input.
    pub wrong: Vec<(usize, Vec<f32>)>,
    /// The largest lead with another class than the float network's, as a share of what is needed, by stage.
    pub nearest: Vec<f64>,
}

/// Inputs that are tried together; and neighbours, and rounds of an attack.
const BATCH: u64 = 4096;
const NEIGHBOURS: usize = 16;
const ROUNDS: usize = 12;
/// Halvings of a segment on which the float network changes its class.
const HALVINGS: usize = 14;
/// Attacks that are made together.
const ATTACKS: u64 = 64;

impl Refuted {
    fn new(stages: usize) -> Refuted {
        Refuted { differ: vec![0; stages], nearest: vec![0.0; stages], ..Refuted::default() }
    }

    fn join(mut self, other: Refuted) -> Refuted {
        self.tried += other.tried;
        self.wrong.extend(other.wrong);
        self.differ.iter_mut().zip(other.differ).for_each(|(a, b)| *a += b);
        self.nearest.iter_mut().zip(other.nearest).for_each(|(a, b)| *a = a.max(b));
        self
    }
}

/// Makes inputs of a guard's domain.
struct Maker<'m> {
    guard: &'m Guard,
    data: &'m [f32],
    random: StdRng,
}

impl Maker<'_> {
    fn element(&mut self) -> f32 {
        let (lo, hi) = self.guard.ends();
        let x = self.random.random_range(lo..=hi);
        self.guard.nearest(x)
    }

    /// Dense, sparse, or a row of data with some elements changed.
    fn input(&mut self) -> Vec<f32> {
        let n = self.guard.input_len();
        let share = self.random.random_range(0.0..1.0);
        let mut x = match self.random.random_range(0..3) {
            0 if !self.data.is_empty() => {
                let row = self.random.random_range(0..self.data.len() / n);
                self.data[row * n..][..n].to_vec()
            }
            1 => vec![self.guard.nearest(self.guard.ends().0); n],
            _ => return (0..n).map(|_| self.element()).collect(),
        };
        for x in &mut x {
            if self.random.random_range(0.0..1.0) < share * share {
                *x = self.element();
            }
        }
        x
    }

    fn neighbour(&mut self, x: &[f32]) -> Vec<f32> {
        neighbour(x, self.guard.ends(), &mut self.random, |x| self.guard.nearest(x))
    }

    /// Two inputs close to each other on which the float network gives different classes.
    fn border(&mut self) -> Option<[Vec<f32>; 2]> {
        let (mut a, mut b) = (self.input(), self.input());
        let class = self.guard.float_class(&a);
        if self.guard.float_class(&b) == class {
            return None;
        }
        for _ in 0..HALVINGS {
            let middle =
                |(a, b): (&f32, &f32)| self.guard.nearest(f64::from(*a) + (f64::from(*b) - f64::from(*a)) / 2.0);
            let half: Vec<f32> = a.iter().zip(&b).map(middle).collect();
            if half == a || half == b {
                break;
            }
            if self.guard.float_class(&half) == class { a = half } else { b = half }
        }
        Some([a, b])
    }
}

impl Guard {
    /// Tries to refute the guard: every stage is asked on every input, whether others are sure or not. `data` are rows to begin from, or none.
    pub fn refute(&self, data: &[f32], attempts: Attempts) -> Refuted {
        let stages = self.stages_len();
        let maker = |seed: u64| Maker { guard: self, data, random: StdRng::seed_from_u64(attempts.seed ^ (seed << 1)) };
        let random = (0..attempts.random.div_ceil(BATCH)).into_par_iter().map(|batch| {
            let mut maker = maker(batch);
            let count = BATCH.min(attempts.random - batch * BATCH);
            let rows: Vec<f32> = (0..count).flat_map(|_| maker.input()).collect();
            let mut found = Refuted::new(stages);
            self.judge(&rows, &mut found);
            found
        });
        let random = random.reduce(|| Refuted::new(stages), Refuted::join);
        let attacked = (0..attempts.attacked.div_ceil(ATTACKS)).into_par_iter().map(|batch| {
            let mut maker = maker(batch | 1 << 40);
            let mut found = Refuted::new(stages);
            for _ in 0..ATTACKS.min(attempts.attacked - batch * ATTACKS) {
                self.attack(&mut maker, &mut found);
            }
            found
        });
        random.join(attacked.reduce(|| Refuted::new(stages), Refuted::join))
    }

    /// Drives up the lead of one stage with a class that the float network does not give.
    fn attack(&self, maker: &mut Maker<'_>, found: &mut Refuted) {
        let Some([a, b]) = (0..64).find_map(|_| maker.border()) else { return };
        let stage = maker.random.random_range(0..self.stages_len());
        let mut best = a;
        let mut share = 0.0;
        let mut fresh = vec![b];
        for _ in 0..ROUNDS {
            fresh.extend((0..NEIGHBOURS).map(|_| maker.neighbour(&best)));
            let rows: Vec<f32> = fresh.concat();
            let shares = self.judge(&rows, found);
            for (x, shares) in std::mem::take(&mut fresh).into_iter().zip(shares.chunks_exact(self.stages_len())) {
                if shares[stage] > share {
                    (best, share) = (x, shares[stage]);
                }
            }
        }
    }

    /// Executes all networks on rows and notes what refutes a stage. For each row and stage: its lead with another class than the float network's, as a share
    /// of what is needed; zero where both agree.
    fn judge(&self, rows: &[f32], found: &mut Refuted) -> Vec<f64> {
        let (n, stages) = (self.input_len(), self.stages_len());
        let float = self.float_classes(rows);
        let mut shares = vec![0.0; float.len() * stages];
        for stage in 0..stages {
            for (row, said) in self.said(stage, rows).into_iter().enumerate() {
                if said.class == float[row] {
                    continue;
                }
                found.differ[stage] += 1;
                if said.sure {
                    found.wrong.push((stage, rows[row * n..][..n].to_vec()));
                }
                shares[row * stages + stage] = said.share;
                found.nearest[stage] = found.nearest[stage].max(said.share);
            }
        }
        found.tried += float.len() as u64;
        shares
    }
}
