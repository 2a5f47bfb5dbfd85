//! Claims whose truth is told in integers: unions of polyhedra with coefficients that no float holds, and bounds that some output meets exactly.
#![allow(dead_code)] // each test binary uses a part

use quaver::num::Ratio;
use quaver::property::{Constraint, Polyhedron};
use rand::Rng;
use rand::rngs::StdRng;

/// Coefficients are multiples of 1 / PARTS: halves, thirds, sevenths and tenths.
pub const PARTS: i128 = 420;
/// Outputs are multiples of 1 / GRAIN.
pub const GRAIN: i128 = 1 << 30;

/// An output as a whole number of grains.
pub fn grains(y: f64) -> i128 {
    let scaled = y * GRAIN as f64;
    assert!(scaled.fract() == 0.0 && scaled.abs() < 1e30, "{y} is no multiple of the grain");
    scaled as i128
}

/// n / d.
pub fn ratio(n: i128, d: i128) -> Ratio {
    format!("{n}/{d}").parse().expect("a fraction")
}

/// sum of (coefficient / PARTS) * output <= bound / (PARTS * GRAIN), or < where it is strict.
#[derive(Clone, Debug)]
pub struct Inequality {
    pub terms: Vec<(usize, i128)>,
    pub bound: i128,
    pub strict: bool,
}

impl Inequality {
    fn sum(terms: &[(usize, i128)], y: &[i128]) -> i128 {
        terms.iter().map(|&(i, a)| a * y[i]).sum()
    }

    /// How far an output is beyond the bound.
    pub fn excess(&self, y: &[i128]) -> i128 {
        Self::sum(&self.terms, y) - self.bound
    }

    pub fn satisfied(&self, y: &[i128]) -> bool {
        self.excess(y) < i128::from(!self.strict)
    }

    pub fn constraint(&self) -> Constraint {
        let terms = self.terms.iter().map(|&(i, a)| (i, ratio(a, PARTS))).collect();
        Constraint { terms, bound: ratio(self.bound, PARTS * GRAIN), strict: self.strict }
    }
}

/// A union of conjunctions.
pub type Union = Vec<Vec<Inequality>>;

pub fn polyhedra(union: &Union) -> Vec<Polyhedron> {
    let one = |all: &Vec<Inequality>| Polyhedron::new(all.iter().map(Inequality::constraint).collect());
    union.iter().map(one).collect()
}

pub fn is_forbidden(union: &Union, y: &[i128]) -> bool {
    union.iter().any(|all| all.iter().all(|c| c.satisfied(y)))
}

/// How far an output is from the union: the excess of the furthest constraint of the nearest polyhedron; `None` is infinitely near, for a
/// polyhedron that is everything.
pub fn margin(union: &Union, y: &[i128]) -> Option<i128> {
    union.iter().map(|all| all.iter().map(|c| c.excess(y)).max()).min().expect("a polyhedron")
}

/// A random union whose bounds are met exactly by some of the outputs (`n` numbers each), often by an extreme one.
pub fn random_union(outputs: &[i128], n: usize, rng: &mut StdRng) -> Union {
    (0..rng.random_range(1..=3)).map(|_| random_polyhedron(outputs, n, rng)).collect()
}

fn random_polyhedron(outputs: &[i128], n: usize, rng: &mut StdRng) -> Vec<Inequality> {
    match rng.random_range(0..40) {
        0 => vec![],
        1 => vec![Inequality { terms: vec![], bound: -1, strict: false }],
        2 => {
            // Two half spaces that do not meet, though some outputs may be near both.
            let first = random_inequality(outputs, n, None, rng);
            let terms = first.terms.iter().map(|&(i, a)| (i, -a)).collect();
            let bound = -first.bound - rng.random_range(0..2) * 60 * GRAIN;
            vec![Inequality { strict: true, ..first }, Inequality { terms, bound, strict: false }]
        }
        _ => {
            let anchor = &outputs[n * rng.random_range(0..outputs.len() / n)..][..n];
            let count = rng.random_range(1..=3);
            let anchor = (count > 1).then_some(anchor);
            (0..count).map(|_| random_inequality(outputs, n, anchor, rng)).collect()
        }
    }
}

/// Met by the anchor, or else about the least sum of all outputs, with equality or nearly.
fn random_inequality(outputs: &[i128], n: usize, anchor: Option<&[i128]>, rng: &mut StdRng) -> Inequality {
    const COEFFICIENTS: [i128; 10] = [420, -420, 420, -420, 210, 140, -140, 42, -60, 840];
    let mut terms: Vec<(usize, i128)> = (0..n).map(|i| (i, COEFFICIENTS[rng.random_range(0..10)])).collect();
    while terms.len() > 1 && rng.random_bool(0.5) {
        terms.remove(rng.random_range(0..terms.len()));
    }
    let least = || outputs.chunks(n).map(|y| Inequality::sum(&terms, y)).min();
    let sum = anchor.map(|y| Inequality::sum(&terms, y)).or_else(least).expect("an output");
    let slack = match rng.random_range(0..8) {
        0..4 => 0,
        4 => -1,
        5 => 1,
        6 => rng.random_range(-420..=420) * GRAIN,
        _ => rng.random_range(-4200..=4200) * GRAIN,
    };
    Inequality { terms, bound: sum + slack, strict: rng.random_bool(0.5) }
}
