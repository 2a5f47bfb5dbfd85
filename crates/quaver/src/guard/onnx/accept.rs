//! From the scores of a quantized network to its class, and whether they are enough.

use super::Refusal;
use super::builder::{Builder, int};
use crate::guard::kernels::Scores;
use crate::model::onnx::proto::data_type;

/// What a network says of rows.
pub(super) struct Said {
    pub class: String,
    /// By how much the scores are more than enough.
    pub margin: String,
    /// In real numbers.
    pub scores: String,
}

/// What is known of a network's scores.
pub(super) struct Meaning<'a> {
    pub scores: &'a Scores,
    /// For each cell, class and rival the difference that is enough, and the least one that is.
    pub tables: Vec<Vec<[i64; 2]>>,
    /// A score of the network's output in real numbers and the output that stands for zero.
    pub scale: f64,
    pub zero: f64,
}

/// Adds the class, the margin and the outputs of scores `[N, classes]`; `cells` holds each row's cell times the number of classes.
///
/// # Claim
/// The class is [`Scores::argmax`], and the margin is not negative if and only if the guard is sure of it.
///
/// # Why
/// All differences are integers below 2^53, exact in binary64; a table's entry beyond that is rounded and stays beyond, so that signs are right. The
/// margin is the smallest, over rivals, of the larger excess over the two entries. The class's own entry is the smallest integer.
pub(super) fn accept(
    b: &mut Builder,
    scores: &str,
    cells: Option<&str>,
    meaning: &Meaning<'_>,
) -> Result<Said, Refusal> {
    let n = meaning.scores.classes();
    let class = class(b, scores, meaning.scores)?;
    let row = cells.map_or_else(|| class.clone(), |cells| b.node("Add", &[cells, &class]));
    let own = b.reduce("ReduceMax", scores, 1, true);
    let lead = b.node("Sub", &[&own, scores]);
    let flat =
        |of: &dyn Fn(&[i64; 2]) -> i64| meaning.tables.iter().flatten().map(|t| of(t) as f64).collect::<Vec<_>>();
    let rows = meaning.tables.len() * n;
    let excess = if n == 2 {
        // One rival: its lead is the least lead.
        let table = b.double(&flat(&|t| t[0].min(t[1])), &[rows, n]);
        let enough = b.gather(&table, &row, 0);
        b.node("Sub", &[&lead, &enough])
    } else {
        let [pair, least] = [0, 1].map(|i| b.double(&flat(&|t| t[i]), &[rows, n]));
        let (pair, least) = (b.gather(&pair, &row, 0), b.gather(&least, &row, 0));
        let others = others(b, &lead, &class, n);
        let by_pair = b.node("Sub", &[&lead, &pair]);
        let by_least = b.node("Sub", &[&others, &least]);
        b.node("Max", &[&by_pair, &by_least])
    };
    let margin = b.reduce("ReduceMin", &excess, 1, false);
    let unit = meaning.scores.unit().to_f64() * meaning.scale;
    let unit = b.double(&[unit], &[]);
    let margin = b.node("Mul", &[&margin, &unit]);
    Ok(Said { class, margin, scores: outputs(b, scores, meaning) })
}

/// The first class with the largest output.
fn class(b: &mut Builder, scores: &str, meaning: &Scores) -> Result<String, Refusal> {
    let n = meaning.classes();
    let pairs = || (0..n).flat_map(|c| (0..n).map(move |k| (c, k))).filter(|(c, k)| c != k);
    if !pairs().all(|(c, k)| (0..=1).contains(&meaning.beats(c, k))) {
        return Err(Refusal::new("classes are ordered by more than a score", "quantize the last layer again"));
    }
    let attributes = || vec![int("axis", 1), int("keepdims", 0)];
    if pairs().all(|(c, k)| (meaning.beats(c, k) == 0) == (c < k)) {
        return Ok(b.with("ArgMax", &[scores], attributes()));
    }
    // Among equal scores the class that comes before more of the others.
    let rank = |c: usize| (0..n).filter(|&k| k != c && meaning.beats(c, k) == 0).count() as f64;
    let ranks = b.double(&(0..n).map(rank).collect::<Vec<_>>(), &[1, n]);
    let count = b.double(&[n as f64], &[]);
    let scaled = b.node("Mul", &[scores, &count]);
    let keys = b.node("Add", &[&scaled, &ranks]);
    Ok(b.with("ArgMax", &[&keys], attributes()))
}

/// The least lead over another class, `[N, 1]`.
fn others(b: &mut Builder, lead: &str, class: &str, n: usize) -> String {
    let far = |i: usize| if i / n == i % n { 2f64.powi(52) } else { 0.0 };
    let far = b.double(&(0..n * n).map(far).collect::<Vec<_>>(), &[n, n]);
    let own = b.gather(&far, class, 0);
    let others = b.node("Add", &[lead, &own]);
    b.reduce("ReduceMin", &others, 1, true)
}

/// The network's outputs in float32: unit score + offset, or what the integers that it gives stand for.
///
/// # Rounding
/// A product in binary64, which is exact where the unit has no more than 24 bits and scores no more than 29, then a sum, then to float32.
fn outputs(b: &mut Builder, scores: &str, meaning: &Meaning<'_>) -> String {
    let offsets: Vec<f64> =
        meaning.scores.offsets().iter().map(|o| (o.to_f64() - meaning.zero) * meaning.scale).collect();
    let unit = b.double(&[meaning.scores.unit().to_f64() * meaning.scale], &[]);
    let mut real = b.node("Mul", &[scores, &unit]);
    if offsets.iter().any(|o| *o != 0.0) {
        let offsets = b.double(&offsets, &[1, offsets.len()]);
        real = b.node("Add", &[&real, &offsets]);
    }
    b.cast(&real, data_type::FLOAT)
}
