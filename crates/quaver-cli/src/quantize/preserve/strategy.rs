//! What came out.

use anyhow::Result;
use quaver::quantize::preserve::{Account, Candidate, Mark, Point, Preservation, Reason, Rounding};
use quaver::quantize::search::{Because, Below, Obstacle, Search, Space, obstacles};
use quaver::quantize::{Layer, NetworkError, QuantizedLayer};
use serde_json::{Value, json};

use super::Job;
use super::certificates::Written;
use crate::format::number;

/// Costs of a network.
#[derive(Clone, Copy, PartialEq)]
pub struct Costs {
    pub bits: u64,
    pub bytes: u64,
    pub operations: u64,
}

/// The strategy.
pub struct Strategy {
    pub best: Candidate,
    pub layers: Vec<LayerPlan>,
    pub account: Account,
    pub properties: usize,
    pub rows: Option<(usize, usize)>,
    /// The best, and what cheaper ones give up, those that are not worse in everything.
    pub front: Vec<(Costs, Mark)>,
    pub certificates: Option<Written>,
    pub resumed: usize,
    pub dropped: Vec<String>,
    /// Seconds for preimages and for bits, where these were used.
    pub preimages: Option<(f64, f64)>,
    pub seconds: f64,
}

/// What a layer has.
pub struct LayerPlan {
    pub name: String,
    pub bits: u8,
    /// Of these, integer bits, where it is fixed point.
    pub integer: Option<i32>,
    pub why: String,
    pub below: Option<(Obstacle, Option<Point>)>,
}

impl Strategy {
    pub fn new(
        job: &Job<'_>,
        preservation: &mut Preservation<'_>,
        space: &Space,
        search: &dyn Search,
        best: Candidate,
        account: Account,
    ) -> Result<Self, NetworkError> {
        let made = preservation.made(&best)?;
        let quantized = &made.quantized;
        let obstacles = preservation.ask_about(best.rounding, |o| obstacles(search, &best.bits, space, &[], o));
        let plan = |(l, (layer, bits)): (usize, (&Layer, &u8))| {
            let obstacle = obstacles.iter().find(|o| o.layer == l);
            let integer = quantized.layers[l].scheme.rule == quaver::quantize::WeightRule::PowerOfTwo;
            let scale = quantized.layers[l].weights.levels[0].scale;
            LayerPlan {
                name: layer.name.clone(),
                bits: *bits,
                integer: integer.then(|| i32::from(*bits) + scale.log2() as i32),
                why: obstacle.map_or("the fewest allowed".into(), |o| why_not(preservation, &best, o)),
                below: obstacle.map(|o| (o.clone(), point(preservation, o))),
            }
        };
        let layers = job.quantizer.layers().iter().zip(&best.bits).enumerate().map(plan).collect();
        let most = Candidate { bits: space.most().to_vec(), rounding: Rounding::Nearest };
        let marks = preservation.survey(space, &[best.clone(), most])?;
        let front = marks.into_iter().map(|mark| (Costs::new(job, &mark.layers), mark)).collect();
        let task = preservation.task();
        Ok(Strategy {
            layers,
            account,
            properties: task.wanted.len(),
            rows: task.floor.as_ref().map(|f| (f.rows(), f.original())),
            front: not_dominated(front),
            certificates: None,
            resumed: 0,
            dropped: vec![],
            preimages: None,
            seconds: 0.0,
            best,
        })
    }

    /// How much of the data the network gets wrong.
    pub fn wrong(&self) -> Option<usize> {
        self.front.iter().find(|(_, m)| m.candidate == self.best).and_then(|(_, m)| m.wrong)
    }

    pub fn json(&self) -> Value {
        let accuracy = |wrong: usize, rows: usize| 1.0 - wrong as f64 / rows.max(1) as f64;
        let layer = |l: &LayerPlan| {
            let input = l.below.as_ref().and_then(|(_, p)| p.as_ref().map(|p| &p.input));
            let below = l.below.as_ref().map(|(o, _)| json!({ "bits": o.fewer, "what": o.below, "input": input }));
            json!({ "name": l.name, "bits": l.bits, "integer_bits": l.integer,
                    "fraction_bits": l.integer.map(|i| i32::from(l.bits) - i), "why_not_fewer": l.why, "fewer": below })
        };
        let mark = |(costs, m): &(Costs, Mark)| {
            json!({ "bits": m.candidate.bits, "rounding": m.candidate.rounding, "total_bits": costs.bits, "bytes": costs.bytes,
                    "bit_operations": costs.operations, "proved": m.certified, "of": self.properties,
                    "accuracy": m.wrong.zip(self.rows).map(|(w, (rows, _))| accuracy(w, rows)) })
        };
        json!({
            "bits": self.best.bits,
            "rounding": self.best.rounding,
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
            "properties": self.properties,
            "left_out": self.dropped,
            "total_bits": self.best.bits.iter().map(|b| u64::from(*b)).sum::<u64>(),
            "accuracy": self.wrong().zip(self.rows).map(|(w, (rows, _))| accuracy(w, rows)),
            "accuracy_of_the_model": self.rows.map(|(rows, wrong)| accuracy(wrong, rows)),
            "front": self.front.iter().map(mark).collect::<Vec<_>>(),
            "complete": self.account.is_complete,
            "verified": self.account.verified,
            "refuted": self.account.refuted,
            "undecided": self.account.undecided,
            "facts_from_before": self.resumed,
            "certificates": self.certificates.as_ref().map(Written::json),
            "preimage_seconds": self.preimages.map(|p| p.0),
            "choice_seconds": self.preimages.map(|p| p.1),
            "seconds": self.seconds,
        })
    }
}

impl Costs {
    fn new(job: &Job<'_>, made: &[QuantizedLayer]) -> Costs {
        let (layers, model) = (job.quantizer.layers(), job.quantizer.model());
        let each =
            |of: &dyn Fn(&Layer, &QuantizedLayer) -> usize| layers.iter().zip(made).map(|(l, q)| of(l, q) as u64).sum();
        let activation = usize::from(job.args.activations.unwrap_or(32));
        Costs {
            bits: each(&|_, q| q.scheme.bits.into()),
            bytes: each(&|l, q| q.storage_bits(l).div_ceil(8)),
            operations: each(&|l, q| l.multiplications(model) * usize::from(q.scheme.bits) * activation),
        }
    }
}

/// Those that no other is better than in something and as good in the rest: cost, properties, accuracy.
fn not_dominated(all: Vec<(Costs, Mark)>) -> Vec<(Costs, Mark)> {
    let key = |(c, m): &(Costs, Mark)| {
        [c.bits, c.bytes, c.operations, u64::MAX - m.certified as u64, m.wrong.unwrap_or(0) as u64]
    };
    let is_worse = |a: &(Costs, Mark)| {
        let a = key(a);
        all.iter().map(key).any(|b| b != a && b.iter().zip(&a).all(|(b, a)| b <= a))
    };
    let mut front: Vec<(Costs, Mark)> = all.iter().filter(|a| !is_worse(a)).cloned().collect();
    front.sort_by_key(|(c, m)| (c.bits, m.candidate.bits.clone()));
    front.dedup_by(|a, b| a.1.candidate == b.1.candidate);
    front
}

/// What a search's number of a reason means.
pub fn reason_text(preservation: &Preservation<'_>, number: usize) -> String {
    match Reason::from_number(number) {
        Reason::Inaccurate => "too much of the data is classified wrongly".into(),
        Reason::Point(k) => {
            let point = &preservation.points()[k];
            format!("an input of {} refutes it", preservation.task().wanted[point.property].name)
        }
    }
}

fn point(preservation: &Preservation<'_>, obstacle: &Obstacle) -> Option<Point> {
    match obstacle.below {
        Below::Refuted(Because::Counterexample(n)) => match Reason::from_number(n) {
            Reason::Point(k) => Some(preservation.points()[k].clone()),
            Reason::Inaccurate => None,
        },
        _ => None,
    }
}

fn why_not(preservation: &Preservation<'_>, best: &Candidate, obstacle: &Obstacle) -> String {
    let fewer = obstacle.fewer;
    let mut lowered = best.clone();
    lowered.bits[obstacle.layer] = fewer;
    match obstacle.below {
        Below::Refuted(Because::Counterexample(n)) => format!("with {fewer} {}", reason_text(preservation, n)),
        Below::Refuted(Because::Floor) => format!("{fewer} are too few whatever the other layers have"),
        Below::Undecided => match preservation.open(&lowered) {
            Some((property, bound)) => {
                let name = &preservation.task().wanted[property].name;
                format!("with {fewer} {name} is not proved in time (margin at least {})", number(bound))
            }
            None => format!("with {fewer} not everything was proved in time"),
        },
        Below::NotTried => format!("{fewer} was not tried"),
        Below::Accepted => format!("{fewer} would do, and cost as much"),
    }
}
