//! Rows of scalar functions against the functions, in exact arithmetic.

use proptest::prelude::*;

use super::function::{Shape, tie};
use super::sum::Element;
use crate::lp::{Column, Program};
use crate::net::{Cut, Grid, Piecewise, ScalarFn, Step};
use crate::num::Dyadic;

/// x and y as columns 0 and 1, tied by a function over [l, u].
fn program(f: &ScalarFn, l: f64, u: f64, grids: (Grid, Grid)) -> Program {
    let mut p = Program::new();
    let integer = |g| g == Grid::Integer;
    let ends = (f.value_down(l), f.value_up(u));
    p.add_column(Column { lo: l, hi: u, cost: 0.0, integer: integer(grids.0) });
    p.add_column(Column { lo: ends.0, hi: ends.1, cost: 0.0, integer: integer(grids.1) });
    let shape = Shape { grids, relaxed: false, trapezoid: 0.0 };
    tie(&mut p, &f.segments(false, l, u, grids.0), shape, &Element::Column(0), &Element::Column(1));
    p
}

/// Whether some values of the 0-1 columns satisfy all rows exactly; continuous columns but x and y are `walked` in order.
fn allows(p: &Program, x: &Dyadic, y: &Dyadic, walked: &[Dyadic]) -> bool {
    let binaries: Vec<usize> = (2..p.columns.len()).filter(|&j| p.columns[j].integer).collect();
    (0..1u32 << binaries.len()).any(|bits| {
        let mut values = vec![x.clone(), y.clone()];
        let mut walked = walked.iter();
        for j in 2..p.columns.len() {
            values.push(match binaries.iter().position(|b| *b == j) {
                Some(k) => Dyadic::from_int(i64::from(bits >> k & 1)),
                None => walked.next().cloned().unwrap_or_else(Dyadic::zero),
            });
        }
        let exact = |c: f64| Dyadic::from_f64(c);
        p.rows().all(|r| {
            let zero = Dyadic::zero();
            let sum = r.terms().fold(zero, |s, (j, a)| &s + &(&exact(a).expect("finite") * &values[j]));
            exact(r.lo).is_none_or(|lo| lo <= sum) && exact(r.hi).is_none_or(|hi| sum <= hi)
        })
    })
}

fn int(x: i32) -> Dyadic {
    Dyadic::from_int(x.into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Any step of integers: exactly its graph is allowed.
    #[test]
    fn steps_of_integers_are_exact(
        mut at in proptest::collection::vec(-15i32..15, 0..6), rises in proptest::collection::vec(0i32..3, 6), l in -20i32..20, width in 1i32..25, strict in any::<bool>()
    ) {
        at.sort();
        at.dedup();
        let cuts = at.iter().map(|&a| Cut { at: f64::from(a), strict }).collect();
        let values = (0..=at.len()).map(|k| f64::from(rises[..k].iter().sum::<i32>())).collect();
        let f = ScalarFn::Step(Step::new(cuts, values));
        let p = program(&f, l.into(), (l + width).into(), (Grid::Integer, Grid::Integer));
        for x in l..=l + width {
            for y in p.columns[1].lo as i32..=p.columns[1].hi as i32 {
                prop_assert_eq!(allows(&p, &int(x), &int(y), &[]), f64::from(y) == f.value_down(x.into()), "{} {}", x, y);
            }
        }
    }

    /// round(m x) clipped: exactly its graph is allowed, by two 0-1 columns at most.
    #[test]
    fn requantizations_are_bands(m in 0.02f64..0.8, shift in -3.0f64..3.0, l in -60i32..30, width in 20i32..80, top in 3i32..12) {
        // The threshold of k is the first integer with m x + shift >= k - 1/2.
        let cuts: Vec<Cut> = (1..=top).map(|k| Cut::at(((f64::from(k) - 0.5 - shift) / m).ceil())).collect();
        let f = ScalarFn::Step(Step::new(cuts, (0..=top).map(f64::from).collect()));
        let p = program(&f, l.into(), (l + width).into(), (Grid::Integer, Grid::Integer));
        // What a band cannot tell apart (thresholds that are nearly ties) is a ladder.
        prop_assume!(p.columns.len() <= 4);
        for x in l..=l + width {
            for y in p.columns[1].lo as i32..=p.columns[1].hi as i32 {
                prop_assert_eq!(allows(&p, &int(x), &int(y), &[]), f64::from(y) == f.value_down(x.into()), "{} {}", x, y);
            }
        }
    }

    /// Continuous functions: every point of the graph is allowed, and one beside it is not.
    #[test]
    fn hinges_and_clips_allow_their_graph(l in -5.0f64..0.0, u in 0.0f64..7.0, t in 0.0f64..1.0, lo in -4.0f64..0.0, alpha in 0.0f64..1.0) {
        let x = l + t * (u - l);
        let exact = |v: f64| Dyadic::from_f64(v).expect("finite");
        for f in [Piecewise::relu(), Piecewise::leaky_relu(alpha), Piecewise::clip(lo, 3.0), Piecewise::clip(f64::NEG_INFINITY, 1.0)] {
            let f = ScalarFn::Piecewise(f);
            let p = program(&f, l, u, (Grid::Real, Grid::Real));
            let segments = f.segments(false, l, u, Grid::Real);
            // How far x is along each segment.
            let walked: Vec<Dyadic> = segments.iter().map(|s| &exact(x.clamp(s.from, s.to)) - &exact(s.from)).collect();
            let y = f.value_exact(&exact(x), false);
            prop_assert!(allows(&p, &exact(x), &y, &walked), "{:?} at {}", f, x);
            prop_assert!(!allows(&p, &exact(x), &(&y + &exact(1e-6)), &walked), "{:?} at {}", f, x);
            prop_assert!(!allows(&p, &exact(x), &(&y - &exact(1e-6)), &walked), "{:?} at {}", f, x);
        }
    }
}
