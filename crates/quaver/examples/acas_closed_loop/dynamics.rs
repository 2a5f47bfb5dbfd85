//! Two aircraft in a plane: Dubins dynamics, solved exactly over each second, and random starts.
//!
//! # Source
//! The closed-loop benchmark of Bak (`stanleybak/acasxu_closed_loop_sim`): own aircraft at the origin with heading pi/2; speeds are whole feet a
//! second, own one 100..1199, the intruder's 0..1199; the intruder starts 10,000..65,000 ft away in any direction, with any heading, and flies straight.

use std::f64::consts::{PI, TAU};

/// Degrees a second: clear of conflict, weak left, weak right, strong left, strong right.
const TURN_RATES: [f64; 5] = [0.0, 1.5, -1.5, 3.0, -3.0];

/// Ends of the states that networks are made for: distance, bearing and heading of the intruder, own speed, the intruder's speed.
pub const LOW: [f64; 5] = [0.0, -PI, -PI, 100.0, 0.0];
pub const HIGH: [f64; 5] = [60760.0, PI, PI, 1200.0, 1200.0];

/// An aircraft.
#[derive(Clone, Copy, PartialEq)]
pub struct Craft {
    /// Feet.
    pub at: [f64; 2],
    /// Cosine and sine of the heading.
    direction: [f64; 2],
    /// Feet a second.
    speed: f64,
}

/// What a second with a turn rate w does: cos w, sin w, sin w / w, (1 - cos w) / w.
#[derive(Clone, Copy)]
pub struct Turn([f64; 4]);

/// A second with each advisory.
pub fn turns() -> [Turn; 5] {
    TURN_RATES.map(|degrees| match degrees.to_radians() {
        0.0 => Turn([1.0, 0.0, 1.0, 0.0]),
        w => Turn([w.cos(), w.sin(), w.sin() / w, (1.0 - w.cos()) / w]),
    })
}

impl Craft {
    /// One second later: the matrix exponential of the linear equation of position and direction.
    pub fn after(self, Turn([cos, sin, along, aside]): Turn) -> Craft {
        let Craft { at: [x, y], direction: [dx, dy], speed } = self;
        let at = [x + speed * (along * dx - aside * dy), y + speed * (aside * dx + along * dy)];
        Craft { at, direction: [cos * dx - sin * dy, sin * dx + cos * dy], speed }
    }

    /// The distance of two positions.
    pub fn distance(&self, other: &Craft) -> f64 {
        (self.at[0] - other.at[0]).hypot(self.at[1] - other.at[1])
    }

    fn heading(&self) -> f64 {
        self.direction[1].atan2(self.direction[0])
    }

    /// The bits of the position and the direction.
    pub fn bits(&self) -> [u64; 4] {
        [self.at[0], self.at[1], self.direction[0], self.direction[1]].map(f64::to_bits)
    }
}

/// The aircraft that is advised, and the other one.
#[derive(Clone, Copy)]
pub struct Encounter {
    pub own: Craft,
    pub intruder: Craft,
}

/// The same angle between -pi and pi.
fn wrapped(angle: f64) -> f64 {
    match angle {
        a if a < -PI => (a + TAU).max(-PI),
        a if a > PI => (a - TAU).min(PI),
        a => a,
    }
}

impl Encounter {
    /// What the networks take, scaled from the box of states to [0,1]; `None` where the intruder is too far away: then the advisory is clear of conflict.
    pub fn input(&self) -> Option<[f32; 5]> {
        let [dx, dy] = [0, 1].map(|i| self.intruder.at[i] - self.own.at[i]);
        let (rho, heading) = (dx.hypot(dy), self.own.heading());
        let (theta, psi) = (wrapped(dy.atan2(dx) - heading), wrapped(self.intruder.heading() - heading));
        let state = [rho, theta, psi, self.own.speed, self.intruder.speed];
        let scaled = |i: usize| ((state[i] - LOW[i]) / (HIGH[i] - LOW[i])) as f32;
        (rho <= HIGH[0]).then(|| [0, 1, 2, 3, 4].map(scaled))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers everywhere.
pub struct Random(u64);

impl Random {
    /// A stream for a number of a seed.
    pub fn new(seed: u64, number: u64) -> Random {
        let mut seeds = Random(seed);
        let first = seeds.next();
        Random(first ^ Random(number).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From lo, below hi.
    fn between(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * ((self.next() >> 11) as f64 * 2f64.powi(-53))
    }

    /// An encounter, whatever its first advisory.
    pub fn encounter(&mut self) -> Encounter {
        let (radius, angle) = (self.between(10_000.0, 65_000.0), self.between(0.0, TAU));
        let heading = self.between(0.0, TAU);
        let own = Craft { at: [0.0; 2], direction: [0.0, 1.0], speed: self.between(100.0, 1200.0).floor() };
        let intruder = Craft {
            at: [radius * angle.cos(), radius * angle.sin()],
            direction: [heading.cos(), heading.sin()],
            speed: self.between(0.0, 1200.0).floor(),
        };
        Encounter { own, intruder }
    }
}
