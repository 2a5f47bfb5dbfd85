//! Refinement against trying every vector of bits.

#[path = "common/two_layers.rs"]
mod two_layers;

use std::sync::Arc;
use std::time::Duration;

use quaver::model::lower::lower;
use quaver::model::profile::{Float32, Profile, Real};
use quaver::num::Ratio;
use quaver::property::Region;
use quaver::property::equivalence::{Norm, Pair, Relation};
use quaver::quantize::refine::{Effort, Place, Refinement, Task};
use quaver::quantize::search::{Exact, Objective, Search, Space};
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};
use quaver::verify::{Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use two_layers::two_layers;

const WIDTHS: std::ops::RangeInclusive<u8> = 2..=7;
const INPUTS: usize = 3;
const OUTPUTS: usize = 2;

fn relation(kind: u8) -> Relation {
    let small = Ratio::from_f64(0.25).unwrap();
    match kind {
        0 => Relation::Epsilon { norm: Norm::LInf, epsilon: small },
        1 => Relation::Top1Beyond(small),
        _ => Relation::Top1,
    }
}

fn scheme(bits: u8) -> LayerScheme {
    LayerScheme { biases: BiasRule::Same, ..LayerScheme::new(bits, WeightRule::Symmetric) }
}

fn options() -> Options {
    Options { timeout: Duration::from_secs(20), threads: 1, ..Options::default() }
}

/// How many vectors the model of costs certifies, and whether the search found bits.
fn check(seed: u64) -> (usize, bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let model = two_layers(&mut rng, INPUTS, OUTPUTS);
    let kind = (seed % 3) as u8;
    let profile: &dyn Profile = if seed.is_multiple_of(2) { &Real } else { &Float32 };
    let original = Arc::new(lower(&model, profile).unwrap());
    let places: Vec<Place> = (0..2)
        .map(|_| {
            let center: Vec<f64> = (0..INPUTS).map(|_| f64::from(rng.random_range(-1.0_f32..1.0))).collect();
            let corner = |side: f64| center.iter().map(|c| c + side * 0.0625).collect();
            Place { region: Region { lo: corner(-1.0), hi: corner(1.0) }, inside: None, center: Some(center) }
        })
        .collect();
    let quantizer = Quantizer::new(&model).unwrap();
    let space = Space::uniform(Objective::TotalBits.weights(2), WIDTHS).unwrap();
    let holds = |bits: &[u8]| -> bool {
        let schemes: Vec<LayerScheme> = bits.iter().map(|&b| scheme(b)).collect();
        let quantized = Arc::new(lower(&quantizer.at(&schemes).unwrap().model, profile).unwrap());
        let question = Pair::new(original.clone(), quantized).unwrap().question(&relation(kind)).unwrap();
        let verifier = Verifier::new(question.lowered()).unwrap();
        places.iter().all(|p| {
            let verdict = verifier.decide(&question.query(p.region.clone(), None, vec![]), &options()).unwrap();
            matches!(verdict, Verdict::Holds(_))
        })
    };
    let vectors = WIDTHS.flat_map(|a| WIDTHS.map(move |b| vec![a, b]));
    let good: Vec<Vec<u8>> = vectors.clone().filter(|bits| holds(bits)).collect();
    let task = Task {
        quantizer: &quantizer,
        scheme: scheme(2),
        profile,
        original: original.clone(),
        relation: relation(kind),
        places: places.clone(),
        data: None,
    };
    let effort = Effort { verification: options(), timeout: Duration::from_secs(60) };
    let mut refinement = Refinement::new(task, effort).unwrap();
    let costs = refinement.sensitivity(&space).unwrap();
    let certified: Vec<Vec<u8>> =
        costs.iter().flat_map(|c| vectors.clone().filter(|bits| c.certifies(&space, bits))).collect();
    assert!(certified.iter().all(|bits| good.contains(bits)), "{seed}: {certified:?} of {good:?}");
    for with_costs in [false, true] {
        let mut search = Exact::new(space.clone());
        costs.iter().filter(|_| with_costs).for_each(|c| search.certify(c.clone()));
        refinement.run(&space, &mut search, &mut |_| {}).unwrap();
        let least = good.iter().map(|bits| space.cost(bits)).min();
        assert_eq!(search.best().map(|bits| space.cost(bits)), least, "{seed}: {:?} of {good:?}", search.best());
        assert!(search.best().is_none_or(|bits| good.contains(&bits.to_vec())), "{seed}");
    }
    (certified.len(), !good.is_empty())
}

#[test]
fn the_fewest_bits_are_found_and_costs_of_layers_certify_only_what_holds() {
    let found: Vec<(usize, bool)> = (0..30).map(check).collect();
    let (certified, solved) = (found.iter().filter(|f| f.0 > 0).count(), found.iter().filter(|f| f.1).count());
    assert!(certified >= 10 && solved >= 20, "{certified} of {solved}");
}
