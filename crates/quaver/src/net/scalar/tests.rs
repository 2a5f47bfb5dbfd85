//! Facts about scalar functions beside the functions themselves.

use super::*;
use proptest::prelude::*;

fn sign() -> Step {
    Step::new(vec![Cut::at(0.0), Cut { at: 0.0, strict: true }], vec![-1.0, 0.0, 1.0])
}

#[test]
fn sign_has_three_values() {
    let s = sign();
    let values: Vec<f64> = [-1e-300, 0.0, 1e-300].iter().map(|&x| s.values[s.index(x)]).collect();
    assert_eq!(values, [-1.0, 0.0, 1.0]);
}

proptest! {
    #[test]
    fn index_counts_cuts(mut at in proptest::collection::vec(-100i32..100, 0..40), x in -120.0f64..120.0) {
        at.sort();
        at.dedup();
        let cuts: Vec<Cut> = at.iter().map(|&a| Cut::at(a as f64)).collect();
        let step = Step::new(cuts, (0..=at.len()).map(|v| v as f64).collect());
        for x in [x, x.round()] {
            prop_assert_eq!(step.index(x), at.iter().filter(|&&a| x >= a as f64).count());
        }
    }

    #[test]
    fn segments_are_the_graph_on_integers(
        mut at in proptest::collection::vec(-20i32..20, 0..8), rises in proptest::collection::vec(0i32..3, 8), l in -25i32..25, width in 0i32..30, strict in any::<bool>()
    ) {
        at.sort();
        at.dedup();
        let cuts = at.iter().map(|&a| Cut { at: f64::from(a), strict }).collect();
        let values = (0..=at.len()).map(|k| f64::from(rises[..k].iter().sum::<i32>())).collect();
        let fs = [ScalarFn::Step(Step::new(cuts, values)), ScalarFn::Piecewise(Piecewise::clip(-3.0, 4.0))];
        for f in fs {
            let segments = f.segments(false, l.into(), (l + width).into(), Grid::Integer);
            for x in (l..=l + width).map(f64::from) {
                let through = |s: &&Segment| s.from <= x && x <= s.to;
                let values: Vec<f64> = segments.iter().filter(through).map(|s| s.value.0 + s.slope * (x - s.from)).collect();
                prop_assert!(!values.is_empty() && values.iter().all(|v| *v == f.value_down(x)), "{} {:?}", x, segments);
            }
        }
    }

    #[test]
    fn piecewise_values_enclose_the_exact_one(x in -10.0f64..10.0, alpha in 0.0f64..1.0, lo in -3.0f64..0.0) {
        for p in [Piecewise::relu(), Piecewise::leaky_relu(alpha), Piecewise::clip(lo, 2.5)] {
            let f = ScalarFn::Piecewise(p);
            let exact = f.value_exact(&Dyadic::from_f64(x).unwrap(), false);
            prop_assert!(Dyadic::from_f64(f.value_down(x)).unwrap() <= exact);
            prop_assert!(Dyadic::from_f64(f.value_up(x)).unwrap() >= exact);
        }
    }
}
