//! A quantized chain of layers as a program of integer kernels.
//!
//! # Claim
//! For every input in the domain of the net (finite float32 numbers), [`Compiled::run`] gives scores s with output_k = unit `s_k` + `offset_k` exactly
//! ([`Scores`]), where output is what the [`Net`](crate::net::Net) of the [`Lowered`] denotes. It is the same on every machine.
//!
//! # Why
//! Stored integers are those of the net (less the smallest of their range): for the input by `input.rs`, behind each layer by `requantizer.rs`. A layer's
//! weights are an
//! integer matrix times a unit, found exactly (`exact.rs`), so that an accumulator is an integer sum of products of integers.
//!
//! # Rounding
//! None: products are added in 32-bit integers in parts whose sums of magnitudes stay below 2^31 (`layer.rs`), and parts in binary64 below 2^53.

mod accumulators;
pub(in crate::guard) mod chain;
mod cuts;
mod error;
mod exact;
pub mod float;
mod float_dense;
pub(in crate::guard) mod formula;
mod gather;
pub(in crate::guard) mod input;
pub(in crate::guard) mod layer;
mod portable;
pub(in crate::guard) mod requantizer;
mod scores;
mod selftest;
mod simd;
mod thresholds;

use chain::{Chain, Input, Row, Stage};
pub use error::KernelError;
pub(super) use formula::MAGIC;
use layer::{Buffers, Layer, SLACK};
pub use scores::Scores;
use simd::Machine;

use crate::model::lower::Lowered;

/// Instruction sets that have kernels. All give the same integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 of x86-64: pairs of products of 16-bit integers.
    Avx2,
    /// AVX2 with VNNI (of AVX-512 or without): four products of 8-bit integers, where activations and weights have 8 bits.
    Vnni,
}

impl Isa {
    /// The fastest that this processor has.
    pub fn best() -> Isa {
        Machine::detect(Isa::Vnni).isa()
    }

    /// All that this processor has and that pass their self-test.
    pub fn available() -> Vec<Isa> {
        [Isa::Portable, Isa::Avx2, Isa::Vnni].into_iter().filter(|&isa| Machine::detect(isa).isa() == isa).collect()
    }
}

/// What makes a row from the row before.
enum Step {
    Layer(Layer),
    Largest { starts: Vec<u32>, members: Vec<u32> },
}

/// A network that runs in integers.
pub struct Compiled {
    machine: Machine,
    inputs: usize,
    input: Input,
    rows: Vec<Row>,
    steps: Vec<Step>,
    outputs: Vec<u32>,
    scores: Scores,
    bits: Option<u8>,
    multiplications: u64,
}

/// Memory for [`Compiled::run`], to be used again and again, by one thread at a time.
#[derive(Default)]
pub struct Scratch {
    now: Vec<u16>,
    next: Vec<u16>,
    sums: Vec<f64>,
    buffers: Buffers,
}

impl Scratch {
    /// Empty: grows to what a network needs.
    pub fn new() -> Self {
        Scratch::default()
    }
}

/// Rows that go through the network together: at most this many, and at most this many sums of a layer.
const BLOCK: usize = 64;
const BLOCK_SUMS: usize = 1 << 15;

impl Compiled {
    /// Compiles a net for an instruction set, or the best one below that this processor has.
    ///
    /// # Errors
    /// If the net is not a chain of dense and convolutional layers (with moves and maxima) on quantized activations, if integers need more than 16 bits, or if
    /// float32 roundings lie between layers.
    pub fn new(lowered: &Lowered, isa: Isa) -> Result<Compiled, KernelError> {
        let machine = Machine::detect(isa);
        let chain = Chain::new(&lowered.net)?;
        let inputs = lowered.net.node(lowered.net.inputs()[0]).len();
        let (mut bits, mut multiplications, mut steps) = (None, 0, vec![]);
        for (stage, row) in chain.stages.into_iter().zip(&chain.rows) {
            steps.push(match stage {
                Stage::Largest { starts, members } => Step::Largest { starts, members },
                Stage::Layer(spec) => {
                    bits = bits.max(Some(spec.bits()));
                    multiplications += spec.multiplications();
                    Step::Layer(Layer::new(spec, row.width, machine))
                }
            });
        }
        let Chain { input, rows, outputs, scores, .. } = chain;
        Ok(Compiled { machine, inputs, input, rows, steps, outputs, scores, bits, multiplications })
    }

    /// The instruction set that runs.
    pub fn isa(&self) -> Isa {
        self.machine.isa()
    }

    /// Numbers of one input row.
    pub fn input_len(&self) -> usize {
        self.inputs
    }

    /// Scores of one row.
    pub fn classes(&self) -> usize {
        self.outputs.len()
    }

    /// What scores mean.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Widest bits of the integers that are multiplied, signed weights and unsigned activations; `None` without layers.
    pub fn effective_bits(&self) -> Option<u8> {
        self.bits
    }

    /// Multiplications of one row, without those by padding of the kernels.
    pub fn multiplications(&self) -> u64 {
        self.multiplications
    }

    /// Smallest and largest integer of the quantized input.
    pub fn input_levels(&self) -> (i64, i64) {
        self.input.levels
    }

    /// Appends the scores of some rows, row-major. Infinities are taken as the largest finite numbers, NaN as the smallest level of the quantizer: the
    /// caller decides whether such an input is meant at all.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn run(&self, rows: &[f32], scratch: &mut Scratch, out: &mut Vec<i64>) {
        let widest = self.steps.iter().map(Step::sums_len).max().unwrap_or(1).max(1);
        let block = (BLOCK_SUMS / widest).clamp(1, BLOCK);
        assert!(rows.len().is_multiple_of(self.inputs), "rows of {} numbers", self.inputs);
        for rows in rows.chunks(block * self.inputs) {
            self.block(rows, scratch, out);
        }
    }

    /// Appends the integers that the network makes of its input, less the smallest of [`Self::input_levels`], in the order of the first value that is
    /// quantized (the input's order unless it is moved first).
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn quantized_input(&self, rows: &[f32], out: &mut Vec<u16>) {
        assert!(rows.len().is_multiple_of(self.inputs), "rows of {} numbers", self.inputs);
        let (start, width) = (out.len(), self.rows[0].width);
        out.resize(start + rows.len() / self.inputs * width, 0);
        self.quantize(rows, width, &mut out[start..]);
    }

    /// Quantizes rows to places that are `pitch` apart.
    fn quantize(&self, rows: &[f32], pitch: usize, out: &mut [u16]) {
        let (width, Input { quantizer, gathered, .. }) = (self.rows[0].width, &self.input);
        if gathered.is_none() && pitch == width {
            return self.machine.quantize(quantizer, rows, &mut out[..rows.len()]);
        }
        for (x, out) in rows.chunks_exact(self.inputs).zip(out.chunks_mut(pitch)) {
            match gathered {
                Some(from) => quantizer.gather(x, from, &mut out[..width]),
                None => self.machine.quantize(quantizer, x, &mut out[..width]),
            }
        }
    }

    /// Appends the scores of at most [`BLOCK`] rows.
    fn block(&self, rows: &[f32], scratch: &mut Scratch, out: &mut Vec<i64>) {
        let n = rows.len() / self.inputs;
        let Scratch { now, next, sums, buffers } = scratch;
        now.resize(n * self.rows[0].len() + SLACK, 0);
        self.quantize(rows, self.rows[0].len(), now);
        self.rows[0].fill(now);
        for (i, step) in self.steps.iter().enumerate() {
            let (pitch, made) = (self.rows[i].len(), self.rows.get(i + 1));
            next.resize(n * made.map_or(0, Row::len) + SLACK, 0);
            match (step, made) {
                (Step::Layer(layer), made) => {
                    sums.resize(sums.len().max(n * layer.sums_len()), 0.0);
                    let sums = &mut sums[..n * layer.sums_len()];
                    layer.multiply(self.machine, (now, pitch, n), buffers, sums);
                    // The last layer's sums are scores.
                    let Some(row) = made else { return self.append(sums, layer.sums_len(), |&sum| sum as i64, out) };
                    layer.requantize(self.machine, sums, next, row.len());
                }
                (Step::Largest { starts, members }, Some(row)) => {
                    for (x, y) in now.chunks_exact(pitch).zip(next.chunks_exact_mut(row.len())).take(n) {
                        largest(x, starts, members, y);
                    }
                }
                (Step::Largest { .. }, None) => unreachable!("a maximum makes a row"),
            }
            if let Some(row) = made {
                row.fill(next);
            }
            std::mem::swap(now, next);
        }
        let pitch = self.rows[self.rows.len() - 1].len();
        self.append(&now[..n * pitch], pitch, |&stored| i64::from(stored), out);
    }

    /// Appends the scores in rows that are `pitch` long.
    fn append<T>(&self, rows: &[T], pitch: usize, integer: impl Fn(&T) -> i64, out: &mut Vec<i64>) {
        for row in rows.chunks_exact(pitch) {
            let places = self.outputs.iter().zip(self.scores.bases());
            out.extend(places.map(|(&slot, base)| integer(&row[slot as usize]) + base));
        }
    }
}

impl Row {
    /// Writes the constants of all rows.
    fn fill(&self, rows: &mut [u16]) {
        if !self.constants.is_empty() {
            rows.chunks_exact_mut(self.len()).for_each(|row| row[self.width..].copy_from_slice(&self.constants));
        }
    }
}

impl Step {
    fn sums_len(&self) -> usize {
        match self {
            Step::Layer(layer) => layer.sums_len(),
            Step::Largest { starts, .. } => starts.len(),
        }
    }
}

fn largest(x: &[u16], starts: &[u32], members: &[u32], out: &mut [u16]) {
    for (window, out) in starts.windows(2).zip(out) {
        let members = &members[window[0] as usize..window[1] as usize];
        *out = members.iter().map(|&i| x[i as usize]).max().unwrap_or(0);
    }
}
