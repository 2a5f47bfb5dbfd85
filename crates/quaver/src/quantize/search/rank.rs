//! Who is better: domination, fronts and crowding distance. Nothing here is random. Smaller values are better.

/// Whether `a` dominates `b`: nowhere larger, somewhere smaller.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(x, y)| x <= y) && a.iter().zip(b).any(|(x, y)| x < y)
}

/// What is compared of a vector of bits: its objectives and how much it violates the constraint (0: not at all).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merit<'a> {
    /// Values of the objectives.
    pub values: &'a [f64],
    /// Amount of violation.
    pub violation: f64,
}

impl Merit<'_> {
    /// Whether `self` dominates `other` when constraints count: it violates less, or as much and its values dominate.
    ///
    /// # Source
    /// Deb, Pratap, Agarwal, Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002, section VI.
    pub fn dominates(&self, other: &Merit) -> bool {
        let is_alike = self.violation == other.violation;
        self.violation < other.violation || is_alike && dominates(self.values, other.values)
    }
}

/// Sorts points into fronts: front 0 is what no point dominates, front k + 1 what only points of fronts up to k dominate. Indices ascend
/// within a front. Each point has the same number of values, at least one, and none is NaN.
///
/// # Why
/// In lexicographic order no later point dominates an earlier one. So the front of a point is the first that holds no earlier point that
/// dominates it, and if front k holds one, so do all fronts before: the first can be found by bisection. With two objectives the last point of
/// a front has the least second value, so it alone decides.
///
/// # Source
/// Zhang, Tian, Cheng, Jin, An efficient approach to nondominated sorting, 2015.
pub fn fronts(points: &[&[f64]]) -> Vec<Vec<usize>> {
    let rest = |a: usize, b: usize| {
        let mut by_value = points[a].iter().zip(points[b]).map(|(x, y)| unsigned(*x).total_cmp(&unsigned(*y)));
        by_value.find(|o| o.is_ne()).unwrap_or(a.cmp(&b))
    };
    let mut order: Vec<(f64, usize)> = points.iter().map(|p| unsigned(p[0])).zip(0..).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| rest(a.1, b.1)));
    let mut fronts: Vec<Vec<usize>> = vec![];
    for (_, i) in order {
        let beats = |j: &usize| dominates(points[*j], points[i]);
        let k = if points[i].len() <= 2 {
            fronts.partition_point(|front| front.last().is_some_and(beats))
        } else {
            fronts.partition_point(|front| front.iter().rev().any(beats))
        };
        if k == fronts.len() {
            fronts.push(Vec::with_capacity(16));
        }
        fronts[k].push(i);
    }
    for front in &mut fronts {
        front.sort_unstable();
    }
    fronts
}

/// The same number; a zero without a sign, so that equal numbers are equal in a total order.
fn unsigned(x: f64) -> f64 {
    x + 0.0
}

/// Crowding distance of each point of a front: for each objective the gap between its two neighbours, as a share of the range of the front,
/// averaged over the objectives. Ends of the front are infinitely far from others; an objective in which all are equal counts for nothing.
pub fn crowding(points: &[&[f64]]) -> Vec<f64> {
    let n = points.len();
    if n <= 2 {
        return vec![f64::INFINITY; n];
    }
    let mut sum = vec![0.0; n];
    let mut column: Vec<(f64, usize)> = Vec::with_capacity(n);
    let objectives = points[0].len();
    for objective in 0..objectives {
        column.clear();
        column.extend(points.iter().map(|p| unsigned(p[objective])).zip(0..));
        add_gaps(&mut column, &mut sum);
    }
    sum.iter().map(|s| s / objectives as f64).collect()
}

/// Adds the gaps in one objective to the sum of each point. The column is sorted on the way.
fn add_gaps(column: &mut [(f64, usize)], sum: &mut [f64]) {
    let values = || column.iter().map(|c| c.0);
    let range = values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min);
    if range == 0.0 {
        return;
    }
    column.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (place, (value, point)) in column.iter().enumerate() {
        let below = if place == 0 { f64::INFINITY } else { value - column[place - 1].0 };
        let above = column.get(place + 1).map_or(f64::INFINITY, |next| next.0 - value);
        sum[*point] += below / range + above / range;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Fronts by their definition: take away what nothing left dominates.
    fn naive(points: &[&[f64]]) -> Vec<Vec<usize>> {
        let mut left: Vec<usize> = (0..points.len()).collect();
        let mut fronts = vec![];
        while !left.is_empty() {
            let free = |&i: &usize| !left.iter().any(|&j| dominates(points[j], points[i]));
            let front: Vec<usize> = left.iter().copied().filter(free).collect();
            left.retain(|i| !front.contains(i));
            fronts.push(front);
        }
        fronts
    }

    /// Crowding by its definition, where the values of each objective differ.
    fn naive_crowding(points: &[&[f64]], i: usize) -> f64 {
        let objectives = points[i].len();
        let share = |k: usize| {
            let column = || points.iter().map(|p| p[k]);
            let lower = column().filter(|v| *v < points[i][k]).fold(f64::NEG_INFINITY, f64::max);
            let upper = column().filter(|v| *v > points[i][k]).fold(f64::INFINITY, f64::min);
            (upper - lower) / (column().fold(f64::MIN, f64::max) - column().fold(f64::MAX, f64::min))
        };
        (0..objectives).map(share).sum::<f64>() / objectives as f64
    }

    fn points(objectives: usize, values: u32) -> impl Strategy<Value = Vec<Vec<f64>>> {
        let point = prop::collection::vec((0..values).prop_map(f64::from), objectives);
        prop::collection::vec(point, 0..40)
    }

    proptest! {
        #[test]
        fn fronts_are_those_of_the_definition(
            rows in (1usize..4, 2u32..12).prop_flat_map(|(objectives, values)| points(objectives, values)),
        ) {
            let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(fronts(&rows), naive(&rows));
        }

        #[test]
        fn crowding_is_the_gap_between_neighbours(rows in points(2, 1_000_000)) {
            let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
            let mut columns = [0, 1].map(|k| rows.iter().map(|r| r[k]).collect::<Vec<f64>>());
            columns.iter_mut().for_each(|c| c.sort_by(f64::total_cmp));
            prop_assume!(rows.len() > 2 && columns.iter().all(|c| c.windows(2).all(|w| w[0] < w[1])));
            for (i, found) in crowding(&rows).into_iter().enumerate() {
                let expected = naive_crowding(&rows, i);
                let same = found == expected || (found - expected).abs() < 1e-12;
                prop_assert!(same, "point {i}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn zeros_of_both_signs_are_equal() {
        assert_eq!(fronts(&[&[-0.0, 5.0], &[0.0, 3.0], &[0.0, 5.0]]), [vec![1], vec![0, 2]]);
        assert_eq!(crowding(&[&[-0.0], &[0.0], &[0.0]]), [0.0; 3]);
    }

    #[test]
    fn violation_counts_before_values() {
        let merit = |values, violation| Merit { values, violation };
        let (good, bad): (&[f64], &[f64]) = (&[1.0, 1.0], &[2.0, 2.0]);
        assert!(merit(bad, 0.0).dominates(&merit(good, 0.5)));
        assert!(!merit(good, 0.5).dominates(&merit(bad, 0.0)));
        assert!(merit(good, 0.5).dominates(&merit(bad, 0.5)));
        assert!(!merit(good, 0.0).dominates(&merit(good, 0.0)));
    }
}
