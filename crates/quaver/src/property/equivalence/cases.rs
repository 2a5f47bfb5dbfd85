//! Relations as unions of polyhedra on the outputs of both networks in a row: first those of A, then those of B.

use super::{Difference, Norm, PairError, Relation, refused};
use crate::net::Quantization;
use crate::num::Ratio;
use crate::property::{Constraint, Polyhedron};

/// Most constraints of all polyhedra together: some hundred bytes each.
const CONSTRAINTS: u64 = 300_000;
/// Most outputs whose combinations of signs are listed.
const SIGNED: usize = 12;

type Cases = Vec<(Polyhedron, Difference)>;

/// See [`super::Pair::cases`].
pub(super) fn cases(
    outputs: usize,
    meanings: &[Option<Quantization>; 2],
    relation: &Relation,
) -> Result<Cases, PairError> {
    let apart = |by: &Ratio| {
        let one = |output| [false, true].map(|reversed| Difference::Output { output, reversed, by: by.clone() });
        let difference = |d: Difference| (outside(outputs, meanings, &d), d);
        Ok((0..outputs).flat_map(one).map(difference).collect())
    };
    match relation {
        Relation::Strict => apart(&integer(0)),
        Relation::Epsilon { norm: Norm::LInf, epsilon } => apart(epsilon),
        Relation::Epsilon { norm: Norm::L1, epsilon } => signed(outputs, meanings, epsilon),
        Relation::Epsilon { norm: Norm::L2, .. } => {
            Err(refused("a distance in L2 is not linear", "write it for --norm linf or l1"))
        }
        Relation::Top1 => ranked(outputs, 1, |class, rival| first(0, class, rival)),
        Relation::Top1Beyond(margin) => ranked(outputs, 1, |class, rival| ahead(&meanings[0], class, rival, margin)),
        Relation::TopK(k) => ranked(outputs, *k, |class, rival| first(0, class, rival)),
    }
}

fn integer(n: i64) -> Ratio {
    Ratio::from_f64(n as f64).unwrap_or_else(|| unreachable!("an integer is a number"))
}

/// The real number that an output stands for: scale * output + offset.
fn meaning(quantization: Option<&Quantization>, i: usize) -> (Ratio, Ratio) {
    match quantization {
        None => (integer(1), integer(0)),
        Some(q) => {
            // Local invariant: a net's constants are finite.
            let scale = Ratio::from_f64(*q.scale.at(i)).unwrap_or_else(|| integer(1));
            let offset = scale.times(&integer(-*q.zero_point.at(i)));
            (scale, offset)
        }
    }
}

/// sum of signs (A_i - B_i) > by, in real numbers.
fn beyond(outputs: usize, meanings: &[Option<Quantization>; 2], signs: &[(usize, bool)], by: &Ratio) -> Polyhedron {
    let (mut terms, mut bound) = (vec![], by.negated());
    for (network, quantization) in meanings.iter().enumerate() {
        for &(i, reversed) in signs {
            let (scale, offset) = meaning(quantization.as_ref(), i);
            // Written as sum <= bound: the sum of the negated terms is below -by.
            let taken = (network == 0) != reversed;
            terms.push((network * outputs + i, if taken { scale.negated() } else { scale }));
            bound = if taken { bound.plus(&offset) } else { bound.minus(&offset) };
        }
    }
    Polyhedron::new(vec![Constraint { terms, bound, strict: true }])
}

fn outside(outputs: usize, meanings: &[Option<Quantization>; 2], difference: &Difference) -> Polyhedron {
    match difference {
        Difference::Output { output, reversed, by } => beyond(outputs, meanings, &[(*output, *reversed)], by),
        Difference::Distance(..) | Difference::Classes { .. } => unreachable!("made for outputs"),
    }
}

/// The sum of magnitudes is above epsilon where it is with the right signs, and with no others.
fn signed(outputs: usize, meanings: &[Option<Quantization>; 2], epsilon: &Ratio) -> Result<Cases, PairError> {
    if outputs > SIGNED {
        let problem =
            format!("a distance in L1 of {outputs} outputs has 2^{outputs} cases, and {SIGNED} outputs are the most");
        return Err(refused(problem, "write it for --norm linf, or decide it by `quaver equivalence`"));
    }
    let of = |combination: u32| {
        let signs: Vec<(usize, bool)> = (0..outputs).map(|i| (i, combination >> i & 1 == 1)).collect();
        (beyond(outputs, meanings, &signs, epsilon), Difference::Distance(Norm::L1, epsilon.clone()))
    };
    Ok((0..1u32 << outputs).map(of).collect())
}

/// A's class is not among the k first of B: for each class, k others that B puts before it. What makes i A's class beside j is `in_a(i, j)`.
///
/// # Claim
/// The union of the polyhedra is where A's class i, its first largest output, has at least k outputs of B before it. Output j is before i if it is
/// larger, or as large and j < i; for k = 1 that is where the classes differ.
fn ranked(outputs: usize, k: usize, in_a: impl Fn(usize, usize) -> Constraint) -> Result<Cases, PairError> {
    if k == 0 || k >= outputs {
        let problem = format!("the first {k} of {outputs} classes say nothing");
        return Err(refused(
            problem,
            format!("ask for 1 to {} classes, of at least 2", outputs.saturating_sub(1).max(1)),
        ));
    }
    let count = (0..k as u64).try_fold(outputs as u64, |n, i| Some(n.checked_mul(outputs as u64 - 1 - i)? / (i + 1)));
    let constraints = count.and_then(|n| n.checked_mul((outputs - 1 + k) as u64));
    if constraints.is_none_or(|n| n > CONSTRAINTS) {
        let problem = format!("{outputs} classes and the first {k} of them are more than {CONSTRAINTS} constraints");
        return Err(refused(problem, "ask for fewer classes, or compare outputs by --epsilon"));
    }
    let mut cases = vec![];
    for class in 0..outputs {
        let others: Vec<usize> = (0..outputs).filter(|&c| c != class).collect();
        for before in subsets(&others, k) {
            let in_b = before.iter().map(|&j| first(outputs, j, class));
            // Rivals that B prefers come first: what A says of them matters most.
            let rest = others.iter().filter(|o| !before.contains(o));
            let in_a = before.iter().chain(rest).map(|&rival| in_a(class, rival));
            cases.push((
                Polyhedron::new(in_b.chain(in_a).collect()),
                Difference::Classes { class, before: before.clone() },
            ));
        }
    }
    Ok(cases)
}

/// One network, whose outputs begin at `start`, puts a class before another: it is larger, or as large and has the smaller number.
fn first(start: usize, class: usize, other: usize) -> Constraint {
    let terms = vec![(start + other, integer(1)), (start + class, integer(-1))];
    Constraint { terms, bound: integer(0), strict: class > other }
}

/// A's real number for a class is above that of another one by more than a margin.
fn ahead(meaning_of_a: &Option<Quantization>, class: usize, other: usize, margin: &Ratio) -> Constraint {
    let [(scale, offset), (scale2, offset2)] = [class, other].map(|i| meaning(meaning_of_a.as_ref(), i));
    let terms = vec![(other, scale2), (class, scale.negated())];
    Constraint { terms, bound: offset.minus(&offset2).minus(margin), strict: true }
}

/// All choices of k elements, in order.
fn subsets(of: &[usize], k: usize) -> Vec<Vec<usize>> {
    if k == 0 {
        return vec![vec![]];
    }
    let with_first =
        |i: usize| subsets(&of[i + 1..], k - 1).into_iter().map(move |rest| [&[of[i]], &rest[..]].concat());
    (0..of.len()).flat_map(with_first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_all_and_different() {
        assert_eq!(subsets(&[1, 2, 4], 2), [[1, 2], [1, 4], [2, 4]]);
        assert_eq!(subsets(&[0, 1, 2, 3, 4, 5], 3).len(), 20);
        assert_eq!(subsets(&[7], 2), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_scale_moves_the_bound_exactly() {
        // 0.5 (a - 3) - b > 1/3 is written -0.5 a + b < -1/3 - 1.5.
        let q = Quantization { scale: crate::net::Spread::all(0.5), zero_point: crate::net::Spread::all(3) };
        let by: Ratio = "1/3".parse().expect("a number");
        let p = beyond(1, &[Some(q), None], &[(0, false)], &by);
        let c = &p.constraints[0];
        assert_eq!((c.terms[0].0, c.terms[0].1.approx(), c.terms[1].0, c.terms[1].1.approx()), (0, -0.5, 1, 1.0));
        assert!(c.bound.minus(&"-11/6".parse().expect("a number")).is_zero() && c.strict);
    }

    #[test]
    fn too_many_and_too_few_classes_are_refused() {
        let in_a = |class, rival| first(0, class, rival);
        assert_eq!(ranked(10, 1, in_a).map(|c| c.len()).ok(), Some(90));
        assert_eq!(ranked(10, 3, in_a).map(|c| c.len()).ok(), Some(840));
        for (outputs, k) in [(10, 0), (10, 10), (1, 1), (1000, 1), (60, 5), (usize::MAX >> 1, 7)] {
            assert!(ranked(outputs, k, in_a).is_err(), "{outputs} {k}");
        }
    }
}
