//! Places where the original's class changes: there two networks nearly always differ somewhere on the way from one class to the other.

use super::{Place, Task};
use crate::model::lower::Lowered;
use crate::net::{Grid, Net, execute};
use crate::property::Robustness;
use crate::property::Ties;
use crate::property::equivalence::{Question, Relation};
use crate::verify::{Options, Verdict, Verifier};

/// Two inputs of a place that the original gives different classes.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub place: usize,
    ends: [Vec<f64>; 2],
}

/// Halvings of the way: until neighbouring float32 numbers.
const HALVINGS: usize = 40;

impl Way {
    /// For each place where the original's class changes, a way from its centre to another class, as far as an attack finds one.
    pub fn all(task: &Task<'_>, options: &Options) -> Vec<Way> {
        if !matches!(task.relation, Relation::Top1) {
            return vec![];
        }
        let Ok(verifier) = Verifier::new(&task.original) else { return vec![] };
        let of = |(number, place): (usize, &Place)| {
            let center = place.center.clone()?;
            let label = class(&outputs(&task.original, &center));
            let region = place.region.clone();
            let claim = Robustness { region, center: Some(center.clone()), label, ties: Ties::First };
            // Without branching: bounds and an attack.
            let options = Options { subproblems: 0, ..options.clone() };
            match verifier.robustness(&claim, &options) {
                Ok(Verdict::Violated(witness)) => Some(Way { place: number, ends: [center, witness.input().to_vec()] }),
                Ok(Verdict::Holds(_) | Verdict::Undecided(_)) | Err(_) => None,
            }
        };
        task.places.iter().enumerate().filter_map(of).collect()
    }

    /// An input on the way half between where one network's class changes and where the other's does; it need not tell them apart.
    pub fn between(&self, question: &Question) -> Vec<f64> {
        let net = &question.lowered().net;
        let [a, b] = [0, 1].map(|which| self.change(net, which));
        self.at(net, (a + b) / 2.0)
    }

    /// How far on the way the class of one network changes first, or some later time.
    fn change(&self, net: &Net, which: usize) -> f64 {
        let class_at = |t: f64| {
            let y = execute(net, &[self.at(net, t)], 1).swap_remove(0).center;
            let n = y.len() / 2;
            class(&y[which * n..(which + 1) * n])
        };
        let first = class_at(0.0);
        let (mut same, mut other) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = (same + other) / 2.0;
            if class_at(middle) == first {
                same = middle;
            } else {
                other = middle;
            }
        }
        same
    }

    /// The input at a share of the way.
    fn at(&self, net: &Net, t: f64) -> Vec<f64> {
        let integer = net.node(net.inputs()[0]).grid == Grid::Integer;
        let on_grid = |x: f64| if integer { x.round() } else { f64::from(x as f32) };
        let between = |(a, b): (&f64, &f64)| on_grid(a + t * (b - a)).clamp(a.min(*b), a.max(*b));
        self.ends[0].iter().zip(&self.ends[1]).map(between).collect()
    }
}

/// What a network gives for an input, nearly.
fn outputs(lowered: &Lowered, input: &[f64]) -> Vec<f64> {
    execute(&lowered.net, &[input.to_vec()], 1).swap_remove(0).center
}

/// The first largest output.
fn class(y: &[f64]) -> usize {
    (0..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}
