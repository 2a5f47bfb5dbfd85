//! NSGA-II on vectors of integers: a population that keeps the best fronts, and of the last front the least crowded.
//!
//! What decides is as in pymoo 0.6.2 (tournament, survival, elimination of duplicates); random numbers are our own, so runs agree in distribution
//! (`docs/quantize-search.md`) and not one by one. A vector that was evaluated once is never evaluated again.
//!
//! # Source
//! Deb, Pratap, Agarwal, Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub use super::objective::Valued;
use super::rank::{crowding, dominates, fronts};
use super::{Bits, Objective, Oracle, Space, Variation};

/// How often pairs are drawn for children that are all known already, before a generation stays smaller.
const MOST_MATINGS: usize = 100;

/// How the search runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Size of the population and number of children of a generation.
    pub population: usize,
    /// Generations, the first random one included.
    pub generations: usize,
    /// How children are made.
    pub variation: Variation,
    /// Two runs with the same seed are the same.
    pub seed: u64,
    /// Vectors that are in the first generation.
    pub start: Vec<Bits>,
}

impl Default for Options {
    /// The settings of the thesis's experiments: 50 vectors, 1000 generations.
    fn default() -> Self {
        Options { population: 50, generations: 1000, variation: Variation::default(), seed: 0, start: vec![] }
    }
}

impl Options {
    /// The settings of the thesis's chapter 3: 5 vectors, 100 generations for each layer.
    pub fn small(layers: usize) -> Self {
        Options { population: 5, generations: 100 * layers, ..Options::default() }
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The vectors that no other evaluated vector dominates, of those that violate nothing; of equals the one that came first. Empty where
    /// every vector violates something.
    pub front: Vec<Valued>,
    /// The last population.
    pub population: Vec<Valued>,
    /// The evaluated vector that violates least, the first of equals.
    pub least_violating: Valued,
    /// Generations that were run.
    pub generations: usize,
    /// Different vectors that were evaluated.
    pub evaluated: usize,
}

/// Runs NSGA-II: minimises `objective` over `space` where the oracle finds no violation.
///
/// # Panics
/// If oracle and space do not have the same number of layers, or the population is empty.
pub fn minimise(oracle: &mut dyn Oracle, space: &Space, objective: &Objective, options: &Options) -> Found {
    assert_eq!(oracle.layers(), space.layers(), "an oracle and a space of the same layers");
    assert!(options.population > 0, "a population needs a member");
    let mut pool = Pool { oracle, objective, known: HashMap::default(), all: vec![], evaluated: 0 };
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut run = Run { space, options, population: vec![], seen: vec![], round: 1, generation: 1 };
    run.population = run.first(&mut pool, &mut rng);
    pool.evaluate();
    run.population = pool.survivors(std::mem::take(&mut run.population), options.population, &mut rng);
    while run.generation < options.generations {
        let children = run.children(&mut pool, &mut rng);
        if children.is_empty() {
            break;
        }
        run.generation += 1;
        pool.evaluate();
        run.population.extend(children);
        run.population = pool.survivors(std::mem::take(&mut run.population), options.population, &mut rng);
    }
    pool.found(&run)
}

/// Every vector that was met, by number.
struct Pool<'o> {
    oracle: &'o mut dyn Oracle,
    objective: &'o Objective,
    known: HashMap<Bits, usize, BuildHasherDefault<Mixer>>,
    all: Vec<Individual>,
    /// How many of `all` are evaluated.
    evaluated: usize,
}

struct Individual {
    valued: Valued,
    /// Crowding distance where it last survived.
    crowding: f64,
}

/// A quick hash of few bytes: nobody chooses vectors in order to make them collide.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Run<'o> {
    space: &'o Space,
    options: &'o Options,
    population: Vec<usize>,
    /// For each vector the last round of mating in which it was in the population or a child.
    seen: Vec<usize>,
    round: usize,
    generation: usize,
}

impl Run<'_> {
    /// The first generation: given vectors, then random ones, each once.
    fn first(&mut self, pool: &mut Pool, rng: &mut StdRng) -> Vec<usize> {
        let space = self.space;
        let random = |_| (0..space.layers()).map(|l| rng.random_range(space.widths(l))).collect();
        let given = self.options.start.iter().filter(|bits| space.holds(bits)).take(self.options.population).cloned();
        let given: Vec<Bits> = given.collect();
        let missing = self.options.population - given.len();
        let mut members = vec![];
        for bits in given.into_iter().chain((0..missing).map(random).collect::<Vec<_>>()) {
            let number = pool.number(&bits);
            if self.is_new(number) {
                members.push(number);
            }
        }
        members
    }

    /// Children that are neither in the population nor twice among themselves.
    fn children(&mut self, pool: &mut Pool, rng: &mut StdRng) -> Vec<usize> {
        let wanted = self.options.population;
        self.round += 1;
        for i in 0..self.population.len() {
            self.is_new(self.population[i]);
        }
        let mut children = Vec::with_capacity(wanted);
        let mut pair = [Bits::new(), Bits::new()];
        for _ in 0..MOST_MATINGS {
            let pairs = (wanted - children.len()).div_ceil(2);
            let mut chosen = self.parents(2 * pairs, pool, rng).into_iter();
            while let (Some(a), Some(b)) = (chosen.next(), chosen.next()) {
                for (child, parent) in pair.iter_mut().zip([a, b]) {
                    child.clone_from(&pool.all[parent].valued.bits);
                }
                self.options.variation.vary(&mut pair, self.space, rng);
                for child in &pair {
                    if children.len() < wanted {
                        let number = pool.number(child);
                        children.extend(self.is_new(number).then_some(number));
                    }
                }
            }
            if children.len() == wanted {
                break;
            }
        }
        children
    }

    /// Winners of tournaments between two. Everybody takes part as often as everybody else, up to one.
    fn parents(&self, count: usize, pool: &Pool, rng: &mut StdRng) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(2 * count + self.population.len());
        while drawn.len() < 2 * count {
            let start = drawn.len();
            drawn.extend_from_slice(&self.population);
            drawn[start..].shuffle(rng);
        }
        drawn[..2 * count].chunks_exact(2).map(|pair| pool.winner(pair[0], pair[1], rng)).collect()
    }

    /// Notes a vector; whether it is new in this generation.
    fn is_new(&mut self, number: usize) -> bool {
        if self.seen.len() <= number {
            self.seen.resize(number + 1, 0);
        }
        std::mem::replace(&mut self.seen[number], self.round) != self.round
    }
}

impl Pool<'_> {
    fn number(&mut self, bits: &[u8]) -> usize {
        if let Some(number) = self.known.get(bits) {
            return *number;
        }
        self.known.insert(bits.to_vec(), self.all.len());
        let valued = Valued { bits: bits.to_vec(), values: vec![], violation: 0.0 };
        self.all.push(Individual { valued, crowding: 0.0 });
        self.all.len() - 1
    }

    /// Asks the oracle about all vectors that are new. What violates the constraint is compared by nothing else and needs no values.
    fn evaluate(&mut self) {
        let new: Vec<&[u8]> = self.all[self.evaluated..].iter().map(|i| i.valued.bits.as_slice()).collect();
        let violations = self.oracle.violations(&new);
        let good = |i: &usize| violations[*i] <= 0.0;
        let feasible: Vec<usize> = (0..new.len()).filter(good).collect();
        let asked: Vec<&[u8]> = feasible.iter().map(|i| new[*i]).collect();
        let values = self.objective.values(&asked, self.oracle);
        for (individual, violation) in self.all[self.evaluated..].iter_mut().zip(violations) {
            let amount = if violation.is_nan() { f64::INFINITY } else { violation };
            individual.valued.violation = if amount > 0.0 { amount } else { 0.0 };
        }
        for (i, values) in feasible.into_iter().zip(values) {
            self.all[self.evaluated + i].valued.values = values;
        }
        self.evaluated = self.all.len();
    }

    fn winner(&self, a: usize, b: usize, rng: &mut StdRng) -> usize {
        let (x, y) = (&self.all[a], &self.all[b]);
        let better = if x.valued.violation > 0.0 || y.valued.violation > 0.0 {
            y.valued.violation.total_cmp(&x.valued.violation)
        } else if dominates(&x.valued.values, &y.valued.values) {
            return a;
        } else if dominates(&y.valued.values, &x.valued.values) {
            return b;
        } else {
            x.crowding.total_cmp(&y.crowding)
        };
        if better.is_eq() {
            return if rng.random() { a } else { b };
        }
        if better.is_gt() { a } else { b }
    }

    /// The `most` best: fronts of what violates nothing, the last one by crowding (ties at random), then what violates least.
    fn survivors(&mut self, members: Vec<usize>, most: usize, rng: &mut StdRng) -> Vec<usize> {
        let violates = |i: &usize| self.all[*i].valued.violation > 0.0;
        let (mut bad, good): (Vec<usize>, Vec<usize>) = members.into_iter().partition(violates);
        bad.sort_by(|a, b| self.all[*a].valued.violation.total_cmp(&self.all[*b].valued.violation));
        let values: Vec<&[f64]> = good.iter().map(|i| self.all[*i].valued.values.as_slice()).collect();
        let mut next: Vec<usize> = vec![];
        let mut distances = vec![];
        for front in fronts(&values) {
            if next.len() == most {
                break;
            }
            let points: Vec<&[f64]> = front.iter().map(|i| values[*i]).collect();
            let mut spaced: Vec<(f64, usize)> =
                crowding(&points).into_iter().zip(front.iter().map(|i| good[*i])).collect();
            if next.len() + spaced.len() > most {
                spaced.shuffle(rng);
                spaced.sort_by(|a, b| b.0.total_cmp(&a.0));
                spaced.truncate(most - next.len());
            }
            next.extend(spaced.iter().map(|(_, i)| *i));
            distances.extend(spaced);
        }
        for (distance, i) in distances {
            self.all[i].crowding = distance;
        }
        let room = most - next.len();
        next.extend(bad.into_iter().take(room));
        next
    }

    fn found(self, run: &Run) -> Found {
        let mut front: Vec<&Valued> = vec![];
        for valued in self.all.iter().map(|i| &i.valued).filter(|v| v.violation == 0.0) {
            let is_no_worse = |v: &&Valued| v.values == valued.values || dominates(&v.values, &valued.values);
            if !front.iter().any(is_no_worse) {
                front.retain(|v| !dominates(&valued.values, &v.values));
                front.push(valued);
            }
        }
        let least = self.all.iter().map(|i| &i.valued).min_by(|a, b| a.violation.total_cmp(&b.violation));
        Found {
            front: front.into_iter().cloned().collect(),
            population: run.population.iter().map(|i| self.all[*i].valued.clone()).collect(),
            least_violating: least.expect("a first generation").clone(),
            generations: run.generation,
            evaluated: self.all.len(),
        }
    }
}
