//! The searches for bits: the exact one against enumeration, the genetic one against pymoo's sorting and against known optima, the greedy one against
//! its promise.

use std::collections::BTreeSet;

use proptest::prelude::*;
use quaver::quantize::search::nsga2::{Options, Valued, minimise};
use quaver::quantize::search::rank::{Merit, crowding, fronts};
use quaver::quantize::search::{
    Answer, BadSpace, BadState, Because, Below, Bits, Evolution, Exact, Greedy, Objective, Oracle, Progress, Search,
    Sensitivity, Space, State, Variation,
};

/// Counterexamples that refute vectors at will: fewer bits are refuted more often, and not monotonically.
struct World {
    seed: u64,
    most: Bits,
    /// Counterexamples that exist and those that are known.
    counterexamples: usize,
    known: BTreeSet<usize>,
    /// Of 100 vectors so many are not decided at first.
    undecided: u64,
}

impl World {
    fn draw(&self, bits: &[u8], salt: usize) -> u64 {
        let mut hash = self.seed ^ (salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for b in bits {
            hash = (hash ^ u64::from(*b)).wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29);
        }
        (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
    }

    fn refutes(&self, counterexample: usize, bits: &[u8]) -> bool {
        let missing: u64 = bits.iter().zip(&self.most).map(|(b, m)| u64::from(m - b)).sum();
        self.draw(bits, counterexample) % 100 < (4 + missing * 12).min(90)
    }

    fn is_good(&self, bits: &[u8]) -> bool {
        (0..self.counterexamples).all(|c| !self.refutes(c, bits))
    }

    /// Verifies; a new counterexample becomes known.
    fn verify(&mut self, bits: &[u8], is_patient: bool) -> Answer {
        if !is_patient && self.draw(bits, 1000) % 100 < self.undecided {
            return Answer::Undecided;
        }
        let Some(found) = (0..self.counterexamples).find(|c| self.refutes(*c, bits)) else { return Answer::Accepted };
        self.known.insert(found);
        Answer::Refuted(found)
    }
}

impl Oracle for World {
    fn layers(&self) -> usize {
        self.most.len()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        self.known.iter().filter(|c| self.refutes(**c, bits)).count() as f64
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        self.known.iter().copied().find(|c| self.refutes(*c, bits))
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        1.0 - self.draw(bits, 2000) as f64 / (1u64 << 24) as f64
    }
}

fn all(space: &Space) -> Vec<Bits> {
    let widen = |all: Vec<Bits>, l: usize| -> Vec<Bits> {
        let more = |v: &Bits| space.widths(l).map(|b| v.iter().copied().chain([b]).collect()).collect::<Vec<Bits>>();
        all.iter().flat_map(more).collect()
    };
    (0..space.layers()).fold(vec![vec![]], widen)
}

fn world(seed: u64, space: &Space, undecided: u64) -> World {
    World { seed, most: space.most().to_vec(), counterexamples: 4, known: BTreeSet::new(), undecided }
}

fn spaces() -> impl Strategy<Value = Space> {
    prop::collection::vec((1u64..30, 2u8..4, 1u8..5), 1..5).prop_map(|layers| {
        let widths: Vec<_> = layers.iter().map(|(_, least, more)| *least..=least + more).collect();
        Space::new(layers.iter().map(|l| l.0).collect(), &widths).expect("a space")
    })
}

fn least_cost(world: &World, space: &Space) -> Option<u64> {
    all(space).iter().filter(|bits| world.is_good(bits)).map(|bits| space.cost(bits)).min()
}

/// Runs a search with a verifier that decides everything, or leaves something open.
fn run(search: &mut dyn Search, world: &mut World, is_patient: bool) -> Vec<Bits> {
    let mut proposed = vec![];
    while let Some(bits) = search.next(world) {
        let answer = world.verify(&bits, is_patient);
        search.tell(&bits, answer);
        proposed.push(bits);
    }
    proposed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_exact_search_returns_an_optimum(space in spaces(), seed: u64, undecided in prop::sample::select(vec![0u64, 30])) {
        let mut world = world(seed, &space, undecided);
        let least = least_cost(&world, &space);
        let mut search = Exact::new(space.clone());
        let mut proposed = run(&mut search, &mut world, false);
        if let Progress::Open { best, lower_bound } = search.progress() {
            prop_assert!(undecided > 0);
            prop_assert!(best.is_none_or(|bits| space.cost(&bits) > lower_bound && world.is_good(&bits)));
            prop_assert!(least.is_none_or(|least| lower_bound <= least));
            search.retry();
            proposed.extend(run(&mut search, &mut world, true));
        }
        match search.progress() {
            Progress::Optimal(best) => {
                prop_assert_eq!(Some(space.cost(&best)), least);
                prop_assert!(world.is_good(&best));
            }
            Progress::Impossible => prop_assert_eq!(least, None),
            Progress::Open { .. } => prop_assert!(false, "everything was decided"),
        }
        if undecided == 0 {
            prop_assert!(proposed.windows(2).all(|w| space.cost(&w[0]) <= space.cost(&w[1])));
            prop_assert_eq!(proposed.iter().collect::<BTreeSet<_>>().len(), proposed.len());
        }
    }

    #[test]
    fn certified_facts_do_not_change_the_optimum(space in spaces(), seed: u64, budget in 0u8..6) {
        let mut world = world(seed, &space, 0);
        let good: Vec<Bits> = all(&space).into_iter().filter(|bits| world.is_good(bits)).collect();
        let least = good.iter().map(|bits| space.cost(bits)).min();
        let mut search = Exact::new(space.clone());
        for layer in 0..space.layers() {
            let floor = good.iter().map(|bits| bits[layer]).min().unwrap_or(*space.widths(layer).end());
            search.floor(layer, floor);
        }
        // A true additive model: missing bits, where every vector that misses so few is good.
        let missing = |bits: &[u8]| bits.iter().zip(space.most()).map(|(b, m)| m - b).sum::<u8>();
        let is_sound = all(&space).iter().all(|bits| missing(bits) > budget || good.contains(bits));
        if is_sound {
            let costs = (0..space.layers()).map(|l| space.widths(l).map(|b| f64::from(space.most()[l] - b)).collect());
            let model = Sensitivity::new(&space, f64::from(budget), costs.collect()).expect("a model");
            search.certify(model);
            prop_assert!(search.best().is_some_and(|best| missing(best) <= budget), "an upper bound at once");
        }
        let proposed = run(&mut search, &mut world, true);
        match search.progress() {
            Progress::Optimal(best) => prop_assert_eq!(Some(space.cost(&best)), least),
            Progress::Impossible => prop_assert_eq!(least, None),
            Progress::Open { .. } => prop_assert!(false, "everything was decided"),
        }
        prop_assert!(!is_sound || proposed.iter().all(|bits| missing(bits) > budget), "no verification of what is certified");
    }

    #[test]
    fn a_saved_search_goes_on_where_it_was(space in spaces(), seed: u64, stop in 0usize..12, in_flight: bool) {
        let mut one = world(seed, &space, 20);
        let mut two = world(seed, &space, 20);
        let mut whole = Exact::new(space.clone());
        let mut first = Exact::new(space);
        for _ in 0..stop {
            let Some(bits) = first.next(&mut two) else { break };
            let answer = two.verify(&bits, false);
            first.tell(&bits, answer);
        }
        if in_flight {
            first.next(&mut two);
        }
        let text = serde_json::to_string(&first.save()).expect("a text");
        let mut second = Exact::resume(serde_json::from_str(&text).expect("a state")).expect("a search");
        prop_assert_eq!(second.save(), first.save());
        run(&mut whole, &mut one, false);
        run(&mut second, &mut two, false);
        prop_assert_eq!(whole.progress(), second.progress());
        prop_assert_eq!(whole.obstacles(&mut one), second.obstacles(&mut two));
    }

    #[test]
    fn obstacles_are_what_became_of_one_bit_less(space in spaces(), seed: u64) {
        let mut world = world(seed, &space, 20);
        let mut search = Exact::new(space.clone());
        run(&mut search, &mut world, false);
        let Some(best) = search.best().map(<[u8]>::to_vec) else { return Ok(()) };
        let obstacles = search.obstacles(&mut world);
        let reducible = (0..best.len()).filter(|l| best[*l] > space.least()[*l]);
        prop_assert_eq!(obstacles.iter().map(|o| o.layer).collect::<Vec<_>>(), reducible.collect::<Vec<_>>());
        for obstacle in obstacles {
            let mut fewer = best.clone();
            fewer[obstacle.layer] -= 1;
            match obstacle.below {
                Below::Refuted(Because::Counterexample(by)) => prop_assert!(world.refutes(by, &fewer)),
                Below::Undecided => prop_assert_eq!(world.verify(&fewer, false), Answer::Undecided),
                other => prop_assert!(false, "a cheaper vector cannot be {:?}", other),
            }
        }
    }

    #[test]
    fn no_layer_of_a_greedy_result_can_be_lowered(space in spaces(), seed: u64) {
        let mut world = world(seed, &space, 0);
        let mut search = Greedy::new(space.clone(), usize::MAX);
        run(&mut search, &mut world, true);
        match search.best() {
            None => prop_assert!(!world.is_good(space.most())),
            Some(best) => {
                prop_assert!(world.is_good(best));
                let is_refuted = |o: &quaver::quantize::search::Obstacle| {
                    let mut fewer = best.to_vec();
                    fewer[o.layer] -= 1;
                    matches!(o.below, Below::Refuted(Because::Counterexample(by)) if world.refutes(by, &fewer))
                };
                let obstacles = search.obstacles(&mut world_again(&world));
                prop_assert!(obstacles.iter().all(is_refuted), "{:?}", obstacles);
            }
        }
    }

    #[test]
    fn evolution_ends_at_a_good_vector(space in spaces(), seed: u64) {
        let mut world = world(seed, &space, 10);
        let least = least_cost(&world, &space);
        let options = Options { population: 10, generations: 20, ..Options::default() };
        let mut search = Evolution::new(space.clone(), Objective::StoredBits { parameters: weights(&space) }, options);
        run(&mut search, &mut world, false);
        let best = search.best().map(<[u8]>::to_vec);
        prop_assert!(best.as_ref().is_none_or(|bits| world.is_good(bits)));
        prop_assert!(best.is_none_or(|bits| least.is_some_and(|l| l <= space.cost(&bits))));
    }
}

fn world_again(world: &World) -> World {
    World { most: world.most.clone(), known: world.known.clone(), ..*world }
}

fn weights(space: &Space) -> Vec<u64> {
    (0..space.layers()).map(|l| space.weight(l)).collect()
}

/// Every layer needs at least so many bits: a separable constraint.
struct Needs(Bits);

impl Oracle for Needs {
    fn layers(&self) -> usize {
        self.0.len()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        bits.iter().zip(&self.0).map(|(b, need)| f64::from(need.saturating_sub(*b))).sum()
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        bits.iter().zip(&self.0).position(|(b, need)| b < need)
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        1.0 - bits.iter().zip(1..).map(|(b, l)| f64::from(l) * 2f64.powi(-i32::from(*b))).sum::<f64>() / 16.0
    }

    fn margin(&mut self, bits: &[u8]) -> f64 {
        bits.iter().zip(&self.0).map(|(b, need)| f64::from(*b) - f64::from(*need)).fold(f64::INFINITY, f64::min)
    }
}

fn reaches_optimum(needs: &Bits, space: &Space, options: &Options) -> bool {
    let found = minimise(&mut Needs(needs.clone()), space, &Objective::TotalBits, options);
    found.front.first().is_some_and(|v| v.bits == *needs)
}

/// The thesis's table 1: without a constraint, widths 1 to 52, population 5; layers, generations and the share of 100 runs that ended at the fewest bits.
#[test]
fn the_genetic_search_is_as_good_as_the_thesis_says() {
    for (layers, generations, reported) in
        [(7, 800, 100), (7, 750, 100), (7, 700, 98), (2, 250, 100), (2, 200, 100), (2, 150, 96)]
    {
        let space = Space::uniform(vec![1; layers], 1..=52).expect("a space");
        let run = |seed| {
            let options = Options { population: 5, generations, seed, ..Options::default() };
            reaches_optimum(&vec![1; layers], &space, &options)
        };
        let reached = (0..100).filter(|seed| run(*seed)).count();
        assert!(
            reached >= reported,
            "{layers} layers, {generations} generations: {reached} of 100, the thesis has {reported}"
        );
    }
}

#[test]
fn two_runs_with_a_seed_are_the_same() {
    let space = Space::uniform(vec![1; 5], Space::WIDTHS).expect("a space");
    let run = |seed| {
        let options =
            Options { population: 12, generations: 40, seed, variation: Variation::wide(), ..Options::default() };
        minimise(&mut Needs(vec![4, 7, 3, 9, 5]), &space, &Objective::BitsAndAccuracy, &options)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
    assert_eq!(run(3).population.len(), 12);
}

#[test]
fn what_violates_nothing_is_found_where_nothing_is_good() {
    struct Never;
    impl Oracle for Never {
        fn layers(&self) -> usize {
            3
        }
        fn violation(&mut self, bits: &[u8]) -> f64 {
            1.0 + bits.iter().map(|b| f64::from(b.abs_diff(11))).sum::<f64>()
        }
        fn refuted_by(&mut self, _: &[u8]) -> Option<usize> {
            Some(0)
        }
        fn accuracy(&mut self, _: &[u8]) -> f64 {
            panic!("nobody asks for the accuracy of what is refuted")
        }
    }
    let space = Space::uniform(vec![1; 3], Space::WIDTHS).expect("a space");
    let found =
        minimise(&mut Never, &space, &Objective::BitsAndAccuracy, &Options { generations: 100, ..Options::default() });
    assert_eq!(found.front, vec![]);
    assert_eq!(found.least_violating, Valued { bits: vec![11; 3], values: vec![], violation: 1.0 });
    let mut search =
        Evolution::new(space.clone(), Objective::TotalBits, Options { generations: 10, ..Options::default() });
    assert_eq!(search.next(&mut Never), None);
    let mut search = Exact::new(Space::uniform(vec![1; 3], 2..=6).expect("a space"));
    assert_eq!((search.next(&mut Never), search.progress()), (None, Progress::Impossible));
    assert_eq!(Greedy::new(space, 10).next(&mut Never), None);
}

#[test]
fn greedy_needs_few_verifications_for_many_layers() {
    let needs: Bits = (0..60).map(|l| 3 + l % 9).collect();
    let space = Space::uniform((1..=60).map(|l| l * 100).collect(), Space::WIDTHS).expect("a space");
    let mut search = Greedy::new(space.clone(), 10_000);
    let mut nothing_known =
        World { seed: 0, most: space.most().to_vec(), counterexamples: 0, known: BTreeSet::new(), undecided: 0 };
    let mut asked = 0;
    while let Some(bits) = search.next(&mut nothing_known) {
        asked += 1;
        let refuted = Needs(needs.clone()).refuted_by(&bits);
        search.tell(&bits, refuted.map_or(Answer::Accepted, Answer::Refuted));
    }
    assert_eq!(search.best(), Some(needs.as_slice()));
    assert!(asked <= 60 * 12, "{asked} verifications");
    let mut limited = Greedy::new(space, 5);
    assert_eq!(
        std::iter::from_fn(|| {
            let bits = limited.next(&mut nothing_known)?;
            limited.tell(&bits, Answer::Accepted);
            Some(bits)
        })
        .count(),
        5
    );
}

#[test]
fn wrong_spaces_and_states_are_refused() {
    assert_eq!(Space::uniform(vec![], 2..=3), Err(BadSpace::NoLayers));
    #[expect(clippy::reversed_empty_ranges)]
    let empty = Space::uniform(vec![1, 1], 9..=3);
    assert_eq!(empty, Err(BadSpace::EmptyRange { layer: 0, least: 9, most: 3 }));
    assert_eq!(Space::new(vec![1], &[2..=3, 2..=3]), Err(BadSpace::Lengths { weights: 1, widths: 2 }));
    assert_eq!(Space::uniform(vec![u64::MAX / 3], 2..=3), Err(BadSpace::Cost));
    let mut search = Exact::new(Space::uniform(vec![1, 2], 2..=4).expect("a space"));
    search.tell(&[3, 3], Answer::Undecided);
    search.floor(0, 3);
    let text = serde_json::to_string(&search.save()).expect("a text");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        serde_json::from_str::<State>(&text.replace(from, to)).map_err(|e| e.to_string()).map(Exact::resume)
    };
    assert!(changed("[3,3]", "[3,3]").expect("a state").is_ok());
    assert_eq!(changed("[[[3,3]", "[[[3,9]").expect("a state").err(), Some(BadState::Vector(vec![3, 9])));
    assert_eq!(
        changed("\"floors\":[3,2]", "\"floors\":[3]").expect("a state").err(),
        Some(BadState::Floors { floors: 1, layers: 2 })
    );
    assert_eq!(changed("\"cost\":0", "\"cost\":5").expect("a state").err(), Some(BadState::Position { cost: 5 }));
    let below = changed("[[3,3],\"undecided\"]", "[[2,3],\"accepted\"]").expect("a state").err();
    assert_eq!(below, Some(BadState::Contradiction(vec![2, 3])));
    assert!(changed("\"weights\":[1,2]", "\"weights\":[1]").is_err());
}

/// What pymoo computes on random populations (`tools/nsga2_compare.py --goldens`). Numbers are the bits of an `f64`.
#[derive(serde::Deserialize)]
struct Golden {
    values: Vec<Vec<u64>>,
    violations: Vec<u64>,
    fronts: Vec<Vec<usize>>,
    /// For each front.
    crowding: Vec<Vec<u64>>,
    /// 1 where the row dominates the column, -1 where it is dominated.
    relation: Vec<Vec<i8>>,
}

#[test]
fn fronts_and_crowding_are_those_of_pymoo() {
    let text = include_str!("golden/nsga2.json");
    let goldens: Vec<Golden> = serde_json::from_str(text).expect("goldens");
    assert!(goldens.len() >= 20);
    let numbers = |bits: &[u64]| bits.iter().map(|b| f64::from_bits(*b)).collect::<Vec<f64>>();
    for golden in goldens {
        let values: Vec<Vec<f64>> = golden.values.iter().map(|row| numbers(row)).collect();
        let rows: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
        let found = fronts(&rows);
        assert_eq!(found, golden.fronts);
        for (front, expected) in found.iter().zip(&golden.crowding) {
            let points: Vec<&[f64]> = front.iter().map(|i| rows[*i]).collect();
            assert_eq!(crowding(&points), numbers(expected), "{points:?}");
        }
        let merits: Vec<Merit> = rows
            .iter()
            .zip(numbers(&golden.violations))
            .map(|(values, violation)| Merit { values, violation })
            .collect();
        for (i, a) in merits.iter().enumerate() {
            for (j, b) in merits.iter().enumerate() {
                let relation = i8::from(a.dominates(b)) - i8::from(b.dominates(a));
                assert_eq!(relation, golden.relation[i][j], "{a:?} and {b:?}");
            }
        }
    }
}
