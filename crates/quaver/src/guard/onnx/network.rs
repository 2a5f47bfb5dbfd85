//! A quantized network as ONNX operators whose results are its integers.
//!
//! # Claim
//! For every row of finite numbers, and for infinities as the limits of finite numbers, the scores are those of
//! [`Compiled::run`](crate::guard::kernels::Compiled::run).
//!
//! # Why
//! Every value is an integer below 2^53. Products of bytes are added by `MatMulInteger` in 32-bit integers that hold every sum; weights are unsigned
//! bytes with zero point 128, so that no kernel adds pairs in 16 bits with saturation. Wider products are added in binary64, exactly in any order.
//! Behind a layer the formula that was proved for it is executed in its own arithmetic: a product and a sum, a clip, and a rounding to the nearest
//! integer with ties to even, each an operator of its own.

use super::Refusal;
use super::builder::{Builder, ints};
use crate::guard::kernels::chain::{Chain, Row, Stage};
use crate::guard::kernels::formula::Arithmetic;
use crate::guard::kernels::input::{Formula, Method, Quotient};
use crate::guard::kernels::layer::{LayerSpec, Shape};
use crate::guard::kernels::requantizer::Requantizer;
use crate::model::onnx::proto::data_type;

/// Half of 2^53.
const EXACT: f64 = 4_503_599_627_370_496.0;

/// How elements of a row of the kernels are found in the rows of the graph, which are not padded.
struct Layout {
    places: Vec<u32>,
    width: usize,
}

impl Layout {
    fn plain(width: usize) -> Layout {
        Layout { places: (0..width as u32).collect(), width }
    }

    fn of(shape: Shape) -> Layout {
        let channels = shape.groups * shape.channels;
        let mut places = vec![0; shape.width()];
        for p in 0..shape.positions {
            for c in 0..channels {
                places[p * shape.padded_channels() + shape.column(c)] = (p * channels + c) as u32;
            }
        }
        Layout { places, width: shape.positions * channels }
    }

    /// The place in the graph's row; constants follow the row in both.
    fn place(&self, slot: u32) -> usize {
        let slot = slot as usize;
        self.places.get(slot).map_or_else(|| self.width + slot - self.places.len(), |p| *p as usize)
    }

    fn places(&self, slots: &[u32]) -> Vec<i64> {
        slots.iter().map(|&s| self.place(s) as i64).collect()
    }
}

/// A row in the graph: its name, what it holds, and whether as bytes.
struct Now {
    name: String,
    layout: Layout,
    constants: usize,
}

/// Adds the network, and gives the name of its scores `[N, classes]` as binary64 integers. Where `any` is set, rows may hold NaN.
pub(super) fn scores(b: &mut Builder, chain: &Chain, rows: &str, any: bool) -> Result<String, Refusal> {
    let narrow = narrow(chain);
    let row = quantized(b, chain, rows, narrow[0], any);
    let mut now = appended(b, row, Layout::plain(chain.rows[0].width), &chain.rows[0], narrow[0]);
    for (i, stage) in chain.stages.iter().enumerate() {
        let made = chain.rows.get(i + 1);
        let is_narrow = narrow.get(i + 1).copied().unwrap_or(false);
        let (name, layout) = match stage {
            Stage::Largest { starts, members } => largest(b, &now, starts, members),
            Stage::Layer(spec) => {
                let sums = products(b, &now, spec, narrow[i]);
                let layout = Layout::of(spec.shape);
                let values = match (&spec.requantizer, made) {
                    (Some(r), Some(_)) => requantized(b, &sums, spec.shape, r, is_narrow),
                    _ => sums,
                };
                let flat = if spec.shape.positions * spec.shape.groups == 1 {
                    values
                } else {
                    b.reshape(&values, &[-1, layout.width as i64])
                };
                (flat, layout)
            }
        };
        now = match made {
            Some(row) => appended(b, name, layout, row, is_narrow),
            None => Now { name, layout, constants: 0 },
        };
    }
    outputs(b, chain, &now)
}

/// The scores where the last values are.
fn outputs(b: &mut Builder, chain: &Chain, now: &Now) -> Result<String, Refusal> {
    let bases: Vec<f64> = chain.scores.bases().iter().map(|b| *b as f64).collect();
    let largest = bases.iter().fold(0.0f64, |m, b| m.max(b.abs())) + largest_value(chain);
    if largest * bases.len() as f64 >= EXACT {
        let cure = "use a larger scale for the last layer's weights";
        return Err(Refusal::new("scores need more than 52 bits", cure));
    }
    let places = now.layout.places(&chain.outputs);
    let mut scores = now.name.clone();
    if !is_all(&places, now.layout.width + now.constants) {
        let places = b.int64(&places, &[places.len()]);
        scores = b.gather(&scores, &places, 1);
    }
    if bases.iter().any(|b| *b != 0.0) {
        let bases = b.double(&bases, &[1, bases.len()]);
        scores = b.node("Add", &[&scores, &bases]);
    }
    Ok(scores)
}

/// No value behind the last stage is larger in magnitude.
fn largest_value(chain: &Chain) -> f64 {
    match chain.stages.last() {
        Some(Stage::Layer(spec)) if spec.requantizer.is_none() => {
            spec.weights.chunks(spec.depth).map(|row| reach(row, spec.largest)).max().unwrap_or(0) as f64
        }
        _ => f64::from(u16::MAX),
    }
}

fn reach(row: &[i16], largest: u16) -> i64 {
    row.iter().map(|k| i64::from(k.unsigned_abs())).sum::<i64>() * i64::from(largest)
}

fn is_all(places: &[i64], width: usize) -> bool {
    places.len() == width && places.iter().enumerate().all(|(i, p)| i as i64 == *p)
}

/// Which rows are bytes: those that a layer of bytes multiplies.
fn narrow(chain: &Chain) -> Vec<bool> {
    let mut next = false;
    let of = |stage: &Stage| {
        if let Stage::Layer(spec) = stage {
            let rows = || spec.weights.chunks(spec.depth);
            next = spec.largest <= 255
                && spec.weights.iter().all(|k| i8::try_from(*k).is_ok())
                && rows().all(|row| reach(row, spec.largest) <= i64::from(i32::MAX));
        }
        next
    };
    let mut narrow: Vec<bool> = chain.stages.iter().rev().map(of).collect();
    narrow.reverse();
    narrow
}

/// The integers of the input, `[N, width]`.
fn quantized(b: &mut Builder, chain: &Chain, rows: &str, narrow: bool, any: bool) -> String {
    let mut x = rows.to_string();
    if let Some(from) = &chain.input.gathered {
        let from = b.int64(&from.iter().map(|&f| f.into()).collect::<Vec<_>>(), &[from.len()]);
        x = b.gather(&x, &from, 1);
    }
    let by_operator = chain.input.quantizer.divides.filter(|f| narrow && f.high == 255 && (0..=255).contains(&f.zero));
    let made = match (&chain.input.quantizer.method, by_operator) {
        (_, Some(Formula { quotient: Quotient::Single(scale), zero, .. })) => {
            let x = if any { without_nan(b, &x, f32::MIN) } else { x };
            let (scale, zero) = (b.single(&[scale], &[]), b.bytes(vec![zero as u8], &[]));
            return b.node("QuantizeLinear", &[&x, &scale, &zero]);
        }
        (Method::Formula(f), _) => {
            let x = if any { without_nan(b, &x, f32::MIN) } else { x };
            divided(b, &x, f)
        }
        (Method::Table(thresholds), _) => {
            let x = b.cast(&x, data_type::DOUBLE);
            // An infinity is seen as the largest finite number: what none reaches is NaN, and what all reach infinite.
            let end = |t: &f32| match *t {
                f32::INFINITY => f64::NAN,
                t if t <= f32::MIN => f64::NEG_INFINITY,
                t => t.into(),
            };
            search(b, &x, &thresholds.iter().map(end).collect::<Vec<_>>())
        }
    };
    b.cast(&made, if narrow { data_type::UINT8 } else { data_type::DOUBLE })
}

fn without_nan(b: &mut Builder, x: &str, instead: f32) -> String {
    let (is_nan, instead) = (b.node("IsNaN", &[x]), b.single(&[instead], &[]));
    b.node("Where", &[&is_nan, &instead, x])
}

/// A quantizer's formula, in the arithmetic that it was proved in.
fn divided(b: &mut Builder, x: &str, f: &Formula) -> String {
    let (lo, hi) = (-f.zero as f64, (i64::from(f.high) - f.zero) as f64);
    let (op, single, double) = match f.quotient {
        Quotient::MultiplySingle(factor) => ("Mul", Some(factor), 0.0),
        Quotient::Single(scale) => ("Div", Some(scale), 0.0),
        Quotient::Multiply(factor) => ("Mul", None, factor),
        Quotient::Double(scale) => ("Div", None, scale),
    };
    let constant = |b: &mut Builder, x: f64| match single {
        Some(_) => b.single(&[x as f32], &[]),
        None => b.double(&[x], &[]),
    };
    let x = if single.is_some() { x.to_string() } else { b.cast(x, data_type::DOUBLE) };
    let by = constant(b, single.map_or(double, f64::from));
    let quotient = b.node(op, &[&x, &by]);
    let (lo, hi) = (constant(b, lo), constant(b, hi));
    let clipped = b.node("Clip", &[&quotient, &lo, &hi]);
    let rounded = b.node("Round", &[&clipped]);
    if f.zero == 0 {
        return rounded;
    }
    let zero = constant(b, f.zero as f64);
    b.node("Add", &[&rounded, &zero])
}

/// How many of some increasing numbers (which NaN may follow) each element reaches; NaN reaches none. The steps of a binary search.
fn search(b: &mut Builder, x: &str, sorted: &[f64]) -> String {
    let steps = (usize::BITS - sorted.len().leading_zeros()).max(1);
    // Places from 1 to 2^steps - 1; behind the numbers none is reached.
    let mut table = vec![f64::NEG_INFINITY];
    table.extend_from_slice(sorted);
    table.resize(1 << steps, f64::NAN);
    let table = b.double(&table, &[table.len()]);
    let mut place = b.int64(&[0], &[]);
    for step in (0..steps).rev() {
        let step = b.int64(&[1 << step], &[]);
        let further = b.node("Add", &[&place, &step]);
        let at = b.gather(&table, &further, 0);
        let reaches = b.node("GreaterOrEqual", &[x, &at]);
        place = b.node("Where", &[&reaches, &further, &place]);
    }
    b.cast(&place, data_type::DOUBLE)
}

/// A row with its constants.
fn appended(b: &mut Builder, name: String, layout: Layout, row: &Row, narrow: bool) -> Now {
    let mut name = name;
    for &constant in &row.constants {
        let pads = b.int64(&[0, 0, 0, 1], &[4]);
        let constant = if narrow { b.bytes(vec![constant as u8], &[]) } else { b.double(&[constant.into()], &[]) };
        name = b.node("Pad", &[&name, &pads, &constant]);
    }
    Now { name, layout, constants: row.constants.len() }
}

/// The largest of windows; shorter ones repeat an element.
fn largest(b: &mut Builder, now: &Now, starts: &[u32], members: &[u32]) -> (String, Layout) {
    let windows: Vec<&[u32]> = starts.windows(2).map(|w| &members[w[0] as usize..w[1] as usize]).collect();
    let longest = windows.iter().map(|w| w.len()).max().unwrap_or(1);
    let of = |w: &&[u32]| -> Vec<u32> { (0..longest).map(|i| w[i.min(w.len() - 1)]).collect() };
    let members = now.layout.places(&windows.iter().flat_map(of).collect::<Vec<_>>());
    let members = b.int64(&members, &[windows.len(), longest]);
    let gathered = b.gather(&now.name, &members, 1);
    (b.reduce("ReduceMax", &gathered, 2, false), Layout::plain(windows.len()))
}

/// Sums of products as binary64 numbers: `[N, channels]` for one position, or `[N, positions, channels]`.
fn products(b: &mut Builder, now: &Now, spec: &LayerSpec, narrow: bool) -> String {
    let Shape { positions, groups, channels, .. } = spec.shape;
    let (x, weights, shape) = match dense(now, spec) {
        Some((weights, depth)) => (now.name.clone(), weights, vec![depth, channels]),
        None => {
            let places = now.layout.places(&spec.columns);
            let sides = [groups, positions, spec.depth];
            let first = usize::from(groups == 1);
            let places = b.int64(&places, &sides[first..]);
            let weights: Vec<i16> =
                spec.weights.chunks(channels * spec.depth).flat_map(|w| transposed(w, spec.depth)).collect();
            let sides = [groups, spec.depth, channels];
            (b.gather(&now.name, &places, 1), weights, sides[first..].to_vec())
        }
    };
    let sums = if narrow {
        let weights = b.bytes(weights.iter().map(|&k| (k + 128) as u8).collect(), &shape);
        let zero = b.bytes(vec![128], &[]);
        let sums = b.node("MatMulInteger", &[&x, &weights, "", &zero]);
        b.cast(&sums, data_type::DOUBLE)
    } else {
        let weights = b.double(&weights.iter().map(|&k| k.into()).collect::<Vec<_>>(), &shape);
        b.node("MatMul", &[&x, &weights])
    };
    if groups == 1 {
        return sums;
    }
    let order = ints("perm", &[0, 2, 1, 3]);
    let sums = b.with("Transpose", &[&sums], vec![order]);
    b.reshape(&sums, &[-1, positions as i64, (groups * channels) as i64])
}

/// `[channels, depth]` as `[depth, channels]`.
fn transposed(weights: &[i16], depth: usize) -> Vec<i16> {
    (0..depth).flat_map(|j| weights.chunks(depth).map(move |row| row[j])).collect()
}

/// Weights of the whole row, where there is one position that reads most of it, each element once.
fn dense(now: &Now, spec: &LayerSpec) -> Option<(Vec<i16>, usize)> {
    let (width, channels) = (now.layout.width + now.constants, spec.shape.channels);
    let is_single = spec.shape.positions * spec.shape.groups == 1 && width <= 2 * spec.depth + 16;
    let mut used = vec![false; width];
    let places: Vec<usize> = spec.columns.iter().map(|&c| now.layout.place(c)).collect();
    if !is_single || !places.iter().all(|&p| !std::mem::replace(&mut used[p], true)) {
        return None;
    }
    let mut weights = vec![0; width * channels];
    for (c, row) in spec.weights.chunks(spec.depth).enumerate() {
        row.iter().zip(&places).for_each(|(k, p)| weights[p * channels + c] = *k);
    }
    Some((weights, width))
}

/// The integers behind sums, whose last axis is that of channels.
fn requantized(b: &mut Builder, sums: &str, shape: Shape, r: &Requantizer, narrow: bool) -> String {
    let channels = shape.groups * shape.channels;
    let pick = |from: &[f64]| (0..channels).map(|c| from[shape.column(c)]).collect::<Vec<_>>();
    // Two axes: a constant with one element alone might be drawn into the product before it.
    let (factors, shifts) = (pick(&r.factors), b.double(&pick(&r.shifts), &[1, channels]));
    let mut value = match r.arithmetic {
        Arithmetic::Double => {
            let factors = b.double(&factors, &[1, channels]);
            let product = b.node("Mul", &[sums, &factors]);
            let sum = b.node("Add", &[&product, &shifts]);
            rounded(b, &sum, r, |b, x| b.double(&[x], &[]))
        }
        Arithmetic::Single => {
            let sum = b.node("Add", &[sums, &shifts]);
            let sum = b.cast(&sum, data_type::FLOAT);
            let factors = b.single(&factors.iter().map(|f| *f as f32).collect::<Vec<_>>(), &[1, channels]);
            let product = b.node("Mul", &[&sum, &factors]);
            let value = rounded(b, &product, r, |b, x| b.single(&[x as f32], &[]));
            b.cast(&value, data_type::DOUBLE)
        }
    };
    value = corrected(b, sums, value, shape, r);
    if narrow { b.cast(&value, data_type::UINT8) } else { value }
}

/// Clips, rounds and perhaps lifts.
fn rounded(b: &mut Builder, x: &str, r: &Requantizer, constant: impl Fn(&mut Builder, f64) -> String) -> String {
    let lift = f64::from(r.lift);
    let (lo, hi) = (constant(b, -lift), constant(b, f64::from(r.high) - lift));
    let clipped = b.node("Clip", &[x, &lo, &hi]);
    let rounded = b.node("Round", &[&clipped]);
    if r.lift == 0 {
        return rounded;
    }
    let lift = constant(b, lift);
    b.node("Add", &[&rounded, &lift])
}

/// Replaces values where formulas are wrong or missing.
fn corrected(b: &mut Builder, sums: &str, value: String, shape: Shape, r: &Requantizer) -> String {
    let channels = shape.groups * shape.channels;
    let mut value = value;
    let of = |c: usize| r.exceptions.iter().filter(move |e| e.0 == shape.column(c));
    let most = (0..channels).map(|c| of(c).count()).max().unwrap_or(0);
    for i in 0..most {
        let pick = |f: &dyn Fn(&(usize, f64, u16)) -> f64| {
            (0..channels).map(|c| of(c).nth(i).map_or(f64::NAN, f)).collect::<Vec<_>>()
        };
        let (at, instead) = (pick(&|e| e.1), pick(&|e| e.2.into()));
        let (at, instead) = (b.double(&at, &[1, channels]), b.double(&instead, &[1, channels]));
        let is_at = b.node("Equal", &[sums, &at]);
        value = b.node("Where", &[&is_at, &instead, &value]);
    }
    for (column, thresholds) in &r.tables {
        let Some(channel) = (0..channels).find(|&c| shape.column(c) == *column) else { continue };
        let only = b.int64(&[channel as i64], &[1]);
        let own = b.gather(sums, &only, -1);
        let found = search(b, &own, &thresholds.inner.iter().map(|t| *t as f64).collect::<Vec<_>>());
        let below = b.double(&[thresholds.below.into()], &[]);
        let found = b.node("Add", &[&found, &below]);
        let mask = (0..channels).map(|c| u8::from(c == channel)).collect();
        let mask = b.bytes(mask, &[1, channels]);
        let mask = b.cast(&mask, data_type::BOOL);
        value = b.node("Where", &[&mask, &found, &value]);
    }
    value
}
