//! The gate before the networks: which rows thresholds hold for, and the cell of each.

use super::Refusal;
use super::builder::Builder;
use crate::guard::cells::Cells;
use crate::guard::plan::{Gate, SURE};
use crate::model::onnx::proto::data_type;
use crate::property::equivalence::INPUT_SLACK;

/// What is known of rows before a network runs.
pub(super) struct Seen {
    /// Whether thresholds hold for a row.
    pub known: String,
    /// The number of its cell times the number of classes, if there are several.
    pub cells: Option<String>,
}

/// Multiples from here on are not told apart by the guard's own rounding.
const MOST: f64 = 1_125_899_906_842_624.0;

/// Adds the gate for rows `[N, n]`.
///
/// # Claim
/// A row is known if and only if [`Gate::sum`] gives a sum, and its cell is the one of that sum.
///
/// # Why
/// The operations are the gate's own, on binary64 numbers. That all elements fit is asked of extreme ones: the smallest and the largest element and
/// the largest excess over the tolerance, where a binary64 difference is not positive exactly if the first number is not the larger one. NaN and
/// infinities of both signs make the sum NaN, whatever extremes are then; a single infinity is an extreme. Sums of multiples are exact in any order,
/// and cells have room for any order of other sums.
pub(super) fn gate(b: &mut Builder, rows: &str, gate: &Gate, cells: &Cells, classes: usize) -> Result<Seen, Refusal> {
    let least = b.reduce("ReduceMin", rows, 1, false);
    let largest = b.reduce("ReduceMax", rows, 1, false);
    let (least, largest) = (b.cast(&least, data_type::DOUBLE), b.cast(&largest, data_type::DOUBLE));
    let x = b.cast(rows, data_type::DOUBLE);
    let mut fits = vec![within(b, &least, &largest, gate.ends)];
    let terms = match gate.grid {
        None => x,
        Some((step, reciprocal, (first, last))) => {
            if first.abs().max(last.abs()) >= MOST {
                return Err(Refusal::new("the domain has too many multiples of its step", "use a larger step"));
            }
            let [k, excess] = multiples(b, &x, step, reciprocal, first < 0.0);
            let excess = b.reduce("ReduceMax", &excess, 1, false);
            let zero = b.double(&[0.0], &[]);
            fits.push(b.node("LessOrEqual", &[&excess, &zero]));
            let at = |x: f64| (x * reciprocal).round_ties_even();
            if at(gate.ends.0) != first || at(gate.ends.1) != last {
                let least = b.reduce("ReduceMin", &k, 1, false);
                let largest = b.reduce("ReduceMax", &k, 1, false);
                fits.push(within(b, &least, &largest, (first, last)));
            }
            k
        }
    };
    let sum = b.reduce("ReduceSum", &terms, 1, false);
    let lowest = b.double(&[f64::MIN], &[]);
    let mut known = b.node("GreaterOrEqual", &[&sum, &lowest]);
    for fit in fits {
        known = b.node("And", &[&known, &fit]);
    }
    Ok(Seen { known, cells: cell(b, &sum, cells, classes) })
}

/// Whether extremes are between two ends.
fn within(b: &mut Builder, least: &str, largest: &str, (lo, hi): (f64, f64)) -> String {
    let (lo, hi) = (b.double(&[lo], &[]), b.double(&[hi], &[]));
    let above = b.node("GreaterOrEqual", &[least, &lo]);
    let below = b.node("LessOrEqual", &[largest, &hi]);
    b.node("And", &[&above, &below])
}

/// The nearest multiples, and by how much elements are further from them than is tolerated.
fn multiples(b: &mut Builder, x: &str, step: f64, reciprocal: f64, signs: bool) -> [String; 2] {
    let tolerance = b.double(&[step * INPUT_SLACK * SURE], &[]);
    let (step, reciprocal) = (b.double(&[step], &[]), b.double(&[reciprocal], &[]));
    let quotient = b.node("Mul", &[x, &reciprocal]);
    let k = b.node("Round", &[&quotient]);
    let near = b.node("Mul", &[&k, &step]);
    let difference = b.node("Sub", &[x, &near]);
    let distance = b.node("Abs", &[&difference]);
    let size = if signs { b.node("Abs", &[&k]) } else { k.clone() };
    let tolerated = b.node("Mul", &[&size, &tolerance]);
    let excess = b.node("Sub", &[&distance, &tolerated]);
    [k, excess]
}

/// The number of borders that a sum reaches, times the number of classes.
fn cell(b: &mut Builder, sum: &str, cells: &Cells, classes: usize) -> Option<String> {
    let borders = cells.borders();
    if borders.is_empty() {
        return None;
    }
    let borders = b.double(borders, &[1, borders.len()]);
    let sum = b.column(sum);
    let reached = b.node("GreaterOrEqual", &[&sum, &borders]);
    let reached = b.cast(&reached, data_type::INT64);
    let cell = b.reduce("ReduceSum", &reached, 1, false);
    let classes = b.int64(&[classes as i64], &[]);
    Some(b.node("Mul", &[&cell, &classes]))
}
