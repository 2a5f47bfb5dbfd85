//! A layer as the kernels see it: where inputs are read, packed weights, and how sums are divided so that none overflows.

use super::gather::Gather;
use super::portable::{LANES, Product};
use super::requantizer::Requantizer;
use super::simd::Machine;
use crate::net::LinearMap;

/// What a layer makes: `groups` times `channels` channels at each of `positions` positions.
#[derive(Clone, Copy, Debug)]
pub(in crate::guard) struct Shape {
    pub positions: usize,
    pub groups: usize,
    /// In one group.
    pub channels: usize,
    /// Whether channels are neighbours in the net's order of elements, and not positions.
    channels_last: bool,
}

impl Shape {
    /// # Panics
    /// If the map is element-wise.
    pub fn of(map: &LinearMap) -> Shape {
        match map {
            LinearMap::Dense(d) => Shape { positions: d.outer, groups: 1, channels: d.n_out, channels_last: true },
            LinearMap::Conv(c) => {
                let g = &c.geometry;
                let positions = g.out_size[0] * g.out_size[1];
                Shape { positions, groups: g.groups, channels: g.out_channels / g.groups, channels_last: false }
            }
            LinearMap::Diagonal { .. } => unreachable!("an element-wise map is no layer"),
        }
    }

    /// Element of the net's value.
    pub fn element(self, position: usize, channel: usize) -> usize {
        if self.channels_last { position * self.channels + channel } else { channel * self.positions + position }
    }

    /// The elements of a channel.
    pub fn elements(self, channel: usize) -> impl Iterator<Item = usize> {
        (0..self.positions).map(move |p| self.element(p, channel))
    }

    /// The channel of an element.
    pub fn channel(self, element: usize) -> usize {
        if self.channels_last { element % self.channels } else { element / self.positions }
    }

    /// Panels of one group.
    pub fn panels(self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Channels as they are stored for each position: every group fills panels.
    pub fn padded_channels(self) -> usize {
        self.groups * self.panels() * LANES
    }

    /// Place of a channel among the stored ones.
    pub fn column(self, channel: usize) -> usize {
        channel / self.channels * self.panels() * LANES + channel % self.channels
    }

    /// Stored integers.
    pub fn width(self) -> usize {
        self.positions * self.padded_channels()
    }

    /// Place in the stored row of each element of the net's value.
    pub fn slots(self) -> Vec<u32> {
        let slot = |e: usize| {
            let channel = self.channel(e);
            let position = if self.channels_last { e / self.channels } else { e % self.positions };
            position * self.padded_channels() + self.column(channel)
        };
        (0..self.positions * self.groups * self.channels).map(|e| slot(e) as u32).collect()
    }
}

/// A layer as the chain describes it.
pub(in crate::guard) struct LayerSpec {
    pub name: String,
    pub shape: Shape,
    /// Products of one output.
    pub depth: usize,
    /// Places in the input row: `[groups, positions, depth]`.
    pub columns: Vec<u32>,
    /// `[groups * channels, depth]`.
    pub weights: Vec<i16>,
    /// Largest stored input.
    pub largest: u16,
    pub requantizer: Option<Requantizer>,
}

impl LayerSpec {
    /// Bits of the widest integer: of stored inputs, or of weights with their sign.
    pub fn bits(&self) -> u8 {
        let weight = |k: &i16| 17 - if *k < 0 { !*k } else { *k }.leading_zeros();
        let weights = self.weights.iter().map(weight).max().unwrap_or(1);
        // At most 16.
        weights.max(16 - self.largest.leading_zeros()) as u8
    }

    /// Multiplications of one row.
    pub fn multiplications(&self) -> u64 {
        (self.shape.positions * self.weights.len()) as u64
    }
}

/// Packed weights of each group.
enum Packed {
    /// Inputs of at most 15 bits, or their upper and lower 8 bits one after the other (`split`).
    Words {
        weights: Vec<i16>,
        split: bool,
    },
    Bytes(Vec<i8>),
}

/// Where a group's inputs are.
enum Access {
    /// In the row, from `offset` on, those of the next position `pitch` further.
    Direct { offset: usize, pitch: usize },
    /// Copied together first; one for each group.
    Gathered(Vec<Gather>),
}

/// A layer that runs.
pub(super) struct Layer {
    shape: Shape,
    packed: Packed,
    access: Access,
    /// Groups of inputs in the kernels' sense, for one output.
    depth: usize,
    /// Ends of the parts of a sum that cannot overflow 32 bits.
    parts: Vec<usize>,
    pub requantizer: Option<Requantizer>,
}

/// Memory that a layer needs while it runs.
#[derive(Default)]
pub(super) struct Buffers {
    words: Vec<u16>,
    bytes: Vec<u8>,
    gathered_words: Vec<u16>,
    gathered_bytes: Vec<u8>,
}

/// Integers behind the last row that a kernel may read (they meet weights of zero).
pub(super) const SLACK: usize = 8;

impl Layer {
    /// Packs a layer for a machine; `width` is what the stage before makes, before constants.
    pub fn new(spec: LayerSpec, width: usize, machine: Machine) -> Layer {
        let (access, rows, depth) = arrange(&spec, width);
        let narrow = spec.largest <= 255 && spec.weights.iter().all(|k| i8::try_from(*k).is_ok());
        let group = if narrow && machine.isa() == super::Isa::Vnni { 4 } else { 2 };
        let groups = depth.div_ceil(group);
        let parts_of = |largest: u16| parts(&rows, depth, largest, group);
        let (split, parts) = match parts_of(spec.largest).filter(|_| spec.largest <= 32_767) {
            Some(parts) => (false, parts),
            // Local invariant: 32 products of 15 and 8 bits fit into 31 bits.
            None => (true, parts_of(255).unwrap_or_default()),
        };
        let weights = pack(&rows, depth, spec.shape, group);
        let packed = match group {
            4 => Packed::Bytes(weights.iter().map(|&k| k as i8).collect()),
            _ => Packed::Words { weights, split },
        };
        Layer { shape: spec.shape, packed, access, depth: groups, parts, requantizer: spec.requantizer }
    }

    /// Sums of one row of inputs.
    pub fn sums_len(&self) -> usize {
        self.shape.width()
    }

    /// Multiplies rows that are `pitch` apart; `sums` holds finite numbers and gets `[rows, positions, padded channels]`.
    pub fn multiply(
        &self,
        machine: Machine,
        (inputs, pitch, rows): (&[u16], usize, usize),
        buffers: &mut Buffers,
        sums: &mut [f64],
    ) {
        let Buffers { words, bytes, gathered_words, gathered_bytes } = buffers;
        match &self.packed {
            Packed::Words { weights, split: false } => {
                let run = |p: Product<u16, i16>, out: &mut [f64]| machine.words(p, out);
                self.product((inputs, pitch, rows), weights, (2, 0.0), gathered_words, sums, run);
            }
            Packed::Words { weights, split: true } => {
                let run = |p: Product<u16, i16>, out: &mut [f64]| machine.words(p, out);
                words.clear();
                words.extend(inputs.iter().map(|x| x >> 8));
                self.product((words, pitch, rows), weights, (2, 0.0), gathered_words, sums, run);
                words.clear();
                words.extend(inputs.iter().map(|x| x & 255));
                self.product((words, pitch, rows), weights, (2, 256.0), gathered_words, sums, run);
            }
            Packed::Bytes(weights) => {
                let run = |p: Product<u8, i8>, out: &mut [f64]| machine.bytes(p, out);
                bytes.clear();
                bytes.extend(inputs.iter().map(|&x| x as u8));
                self.product((bytes, pitch, rows), weights, (4, 0.0), gathered_bytes, sums, run);
            }
        }
    }

    /// The integers behind sums, in rows that are `pitch` apart.
    pub fn requantize(&self, machine: Machine, sums: &[f64], out: &mut [u16], pitch: usize) {
        let Some(requantizer) = &self.requantizer else { return };
        let width = self.shape.width();
        for (sums, out) in sums.chunks_exact(width).zip(out.chunks_mut(pitch)) {
            machine.requantize(requantizer, sums, &mut out[..width]);
            requantizer.correct(sums, &mut out[..width]);
        }
    }

    /// `keep` times what is in `sums`, plus products in groups of `group`.
    fn product<X: Copy + Default, W>(
        &self,
        (inputs, pitch, rows): (&[X], usize, usize),
        weights: &[W],
        (group, keep): (usize, f64),
        gathered: &mut Vec<X>,
        sums: &mut [f64],
        run: impl Fn(Product<X, W>, &mut [f64]),
    ) {
        let (positions, panels, groups) = (self.shape.positions, self.shape.panels(), self.depth);
        let all = (self.shape.padded_channels(), self.shape.width());
        let each = |inputs: &[X], pitch: usize, rows: usize, weights: &[W], out: &mut [f64]| {
            let mut from = 0;
            for (i, &to) in self.parts.iter().enumerate() {
                let keep = if i == 0 { keep } else { 1.0 };
                run(Product { inputs, pitch, rows, weights, panels, groups, from, to, out_pitch: all.0, keep }, out);
                from = to;
            }
        };
        match &self.access {
            Access::Direct { offset, .. } if positions == 1 => each(&inputs[*offset..], pitch, rows, weights, sums),
            Access::Direct { offset, pitch: step } => {
                for (r, sums) in sums.chunks_exact_mut(all.1).enumerate().take(rows) {
                    each(&inputs[r * pitch + offset..], *step, positions, weights, sums);
                }
            }
            Access::Gathered(gathers) => {
                gathered.resize(positions * groups * group, X::default());
                for (r, sums) in sums.chunks_exact_mut(all.1).enumerate().take(rows) {
                    for (g, gather) in gathers.iter().enumerate() {
                        gather.copy(&inputs[r * pitch..], gathered, groups * group);
                        let weights = &weights[g * panels * groups * LANES * group..];
                        each(gathered, groups * group, positions, weights, &mut sums[g * panels * LANES..]);
                    }
                }
            }
        }
    }
}

/// Where a layer reads its inputs, its weight rows in that order, and their length.
fn arrange(spec: &LayerSpec, width: usize) -> (Access, Vec<i16>, usize) {
    if let Some((offset, pitch, span)) = direct(spec) {
        let mut rows = vec![0; spec.shape.channels * span];
        for (row, new) in spec.weights.chunks(spec.depth).zip(rows.chunks_mut(span)) {
            row.iter().zip(&spec.columns).for_each(|(k, slot)| new[*slot as usize - offset] = *k);
        }
        return (Access::Direct { offset, pitch }, rows, span);
    }
    let (channels, depth) = (spec.shape.channels, spec.depth);
    let mut rows = Vec::with_capacity(spec.weights.len());
    let mut gathers = vec![];
    for (columns, weights) in
        spec.columns.chunks(spec.shape.positions * depth).zip(spec.weights.chunks(channels * depth))
    {
        let (gather, order) = Gather::new(columns, depth, width);
        weights.chunks(depth).for_each(|row| rows.extend(order.iter().map(|&j| row[j])));
        gathers.push(gather);
    }
    (Access::Gathered(gathers), rows, depth)
}

/// Offset, distance between positions and length, where all positions read the same pattern of distinct places.
fn direct(spec: &LayerSpec) -> Option<(usize, usize, usize)> {
    let depth = spec.depth;
    let first = spec.columns.get(..depth).filter(|c| !c.is_empty() && spec.shape.groups == 1)?;
    let mut sorted = first.to_vec();
    sorted.sort_unstable();
    let (lo, hi) = (sorted[0], sorted[depth - 1]);
    let span = (hi - lo) as usize + 1;
    let pitch = spec.columns.get(depth).map_or(Some(0), |next| next.checked_sub(first[0]))?;
    let shifted = |(p, columns): (usize, &[u32])| {
        columns.iter().zip(first).all(|(c, f)| *c as usize == *f as usize + p * pitch as usize)
    };
    let distinct = sorted.windows(2).all(|w| w[0] < w[1]);
    let fits = distinct && span <= 2 * depth + 16 && spec.columns.chunks(depth).enumerate().all(shifted);
    fits.then_some((lo as usize, pitch as usize, span))
}

/// Ends, in groups, of parts of rows whose sums of products with inputs up to `largest` stay below 2^31: as few as can be, none shorter than 16 groups.
fn parts(rows: &[i16], depth: usize, largest: u16, group: usize) -> Option<Vec<usize>> {
    let groups = depth.div_ceil(group);
    let fits = |length: usize| {
        let sum = |part: &[i16]| part.iter().map(|k| i64::from(k.unsigned_abs())).sum::<i64>() * i64::from(largest);
        rows.chunks(depth).all(|row| row.chunks(length * group).all(|part| sum(part) <= i64::from(i32::MAX)))
    };
    let mut count = 1;
    loop {
        let length = groups.div_ceil(count);
        if fits(length) {
            let ends = (1..=groups.div_ceil(length)).map(|i| (i * length).min(groups));
            return Some(ends.collect());
        }
        if length <= 16 {
            return None;
        }
        count *= 2;
    }
}

/// Weights in the kernels' order: `[groups of channels, panels, groups of inputs, LANES, group]`.
fn pack(rows: &[i16], depth: usize, shape: Shape, group: usize) -> Vec<i16> {
    let groups = depth.div_ceil(group);
    let mut packed = vec![0; shape.padded_channels() * groups * group];
    for (channel, row) in rows.chunks(depth).enumerate() {
        let column = shape.column(channel);
        let (panel, lane) = (column / LANES, column % LANES);
        for (j, k) in row.iter().enumerate() {
            packed[((panel * groups + j / group) * LANES + lane) * group + j % group] = *k;
        }
    }
    packed
}
