//! A layer's weights as integers, and the real numbers that its accumulators stand for.

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive, Zero};

use super::chain::{Integers, Sums, rounded};
use super::cuts::shared;
use super::error::KernelError;
use super::exact::{Line, multiples};
use super::layer::{LayerSpec, Shape};
use crate::net::{Affine, LinearMap, Node, Rounding, Spread};
use crate::num::Dyadic;

/// Accumulators stay below this in magnitude, so that binary64 holds them.
const EXACT: i64 = 1 << 53;

/// What the accumulators of a channel stand for, and between which ends they are.
pub(super) type ChannelLine = (Line, (i64, i64));

/// The rows of a weight matrix, each an integer row times a unit.
pub(super) struct WeightRows {
    /// `[channels, depth]` row-major.
    pub integers: Vec<i16>,
    depth: usize,
    units: Vec<Dyadic>,
}

impl WeightRows {
    /// Finds the units.
    pub fn new(map: &LinearMap, node: &Node) -> Result<Self, KernelError> {
        let depth = map.fan_in();
        let (mut integers, mut units) = (vec![], vec![]);
        for row in map.weights().chunks(depth) {
            let narrow = |(unit, k): (Dyadic, Vec<i64>)| {
                let k = k.into_iter().map(|k| i16::try_from(k).ok()).collect::<Option<Vec<i16>>>()?;
                Some((unit, k))
            };
            let (unit, row) = multiples(row).and_then(narrow).ok_or_else(|| {
                let cure = "quantize weights to at most 16 bits (15 with zero points): `quaver quantize --bits`";
                KernelError::new(&node.name, "weights are not multiples of a unit within 16 bits", cure)
            })?;
            integers.extend(row);
            units.push(unit);
        }
        Ok(WeightRows { integers, depth, units })
    }

    /// What the accumulators of each channel stand for, and between which ends they are, for stored integers x.
    ///
    /// # Claim
    /// sum over j of w_j (scale q_j + shift) + bias = unit acc + offset, with acc the sum of k_j (q_j - low).
    ///
    /// # Why
    /// scale q + shift = scale (q - low) + (scale low + shift), and w_j = unit_w k_j; unit = unit_w scale.
    pub fn lines(
        &self,
        x: &Integers,
        bias: &Spread<f64>,
        shape: Shape,
        node: &Node,
    ) -> Result<Vec<ChannelLine>, KernelError> {
        let lowest = x.at(x.low);
        let of = |(channel, row): (usize, &[i16])| {
            let place = shared(bias, shape.elements(channel)).ok_or_else(|| {
                let cure = "use one bias for each channel";
                KernelError::new(&node.name, "positions of a channel have different biases", cure)
            })?;
            let total = Dyadic::from_int(row.iter().map(|&k| i64::from(k)).sum());
            // Local invariant: constants of a net are finite.
            let bias = Dyadic::from_f64(bias.data[place]).unwrap_or_else(Dyadic::zero);
            let offset = &bias + &(&(&lowest * &self.units[channel]) * &total);
            let ends = reach(row, x.high - x.low);
            if ends.0 <= -EXACT || ends.1 >= EXACT {
                let problem = "accumulators may need more than 53 bits";
                return Err(KernelError::new(&node.name, problem, "use fewer bits"));
            }
            Ok((Line::new(&self.units[channel] * &x.scale, offset), ends))
        };
        self.integers.chunks(self.depth).enumerate().map(of).collect()
    }
}

/// Smallest and largest sum of products with integers from 0 to `span`, over the constants of padding as well.
fn reach(row: &[i16], span: i64) -> (i64, i64) {
    let sum = |sign: i64| row.iter().map(|&k| (sign * i64::from(k)).max(0)).sum::<i64>() * span;
    (-sum(-1), sum(1))
}

/// |x|.
pub(super) fn magnitude(x: Dyadic) -> Dyadic {
    if x.signum() < 0 { -&x } else { x }
}

/// Whether one number is an integer times another, positive one.
pub(super) fn is_multiple(x: &Dyadic, of: &Dyadic) -> bool {
    let ((m, e), (u, f)) = (x.parts(), of.parts());
    let lowest = e.min(f);
    ((m << (e - lowest) as usize) % (u << (f - lowest) as usize)).is_zero()
}

/// Whether rounding to float32 keeps different multiples of a step different, up to a magnitude.
///
/// # Why
/// Two of them are at least the step apart. Up to 2^22 steps, float32 numbers are less than the step apart, in the range of normal numbers and
/// below it: two reals further apart than float32 numbers there do not round to the same one.
pub(super) fn stays_increasing(largest: &Dyadic, step: &Dyadic) -> bool {
    let is_normal = (1e-25..1e25).contains(&step.to_f64());
    is_normal && *largest <= step * &Dyadic::from_int(1 << 22)
}

/// Accumulators that stand for other real numbers: a positive scale for each channel.
pub(super) fn scaled_sums<'n>(
    sums: Sums<'n>,
    scale: &Spread<f64>,
    a: &Affine,
    node: &Node,
    shape: Shape,
) -> Result<Sums<'n>, KernelError> {
    let refuse = || {
        KernelError::new(
            &node.name,
            "results of a layer are scaled in different ways",
            "fold the scales into the weights",
        )
    };
    if sums.largest.is_some() || a.terms.len() != 1 {
        return Err(rounded(node));
    }
    let mut largest = Dyadic::zero();
    let mut lines = vec![];
    for (channel, (line, ends)) in sums.lines.into_iter().enumerate() {
        let s =
            shared(scale, shape.elements(channel)).map(|k| scale.data[k]).filter(|s| *s > 0.0).ok_or_else(refuse)?;
        let b = shared(&a.bias, shape.elements(channel)).map(|k| a.bias.data[k]).ok_or_else(refuse)?;
        // Local invariant: constants of a net are finite.
        let (s, b) = (Dyadic::from_f64(s).ok_or_else(refuse)?, Dyadic::from_f64(b).ok_or_else(refuse)?);
        let line = Line::new(&line.unit * &s, &(&line.offset * &s) + &b);
        for end in [ends.0, ends.1] {
            largest = largest.max(magnitude(&(&line.unit * &Dyadic::from_int(end)) + &line.offset));
        }
        lines.push((line, ends));
    }
    let largest = match a.rounding {
        Rounding::Exact => None,
        Rounding::Nearest32 => {
            // Local invariant: constants of a net are finite.
            let step = Dyadic::from_f64(scale.data[0]).unwrap_or_else(Dyadic::zero);
            let fits = scale.data.len() == 1
                && lines.iter().all(|(l, _)| is_multiple(&l.unit, &step) && is_multiple(&l.offset, &step))
                && stays_increasing(&largest, &step);
            Some(largest).filter(|_| fits).ok_or_else(|| rounded(node))?.into()
        }
        Rounding::Slack { .. } => return Err(rounded(node)),
    };
    Ok(Sums { lines, functions: sums.functions, largest })
}

/// One unit for all channels of the last layer, whose weights are changed to suit; and the channels' offsets.
///
/// # Why
/// Units are `mantissas` times one power of two, and all are multiples of the mantissas' greatest common divisor.
pub(super) fn common_unit(lines: &[ChannelLine], layer: &mut LayerSpec) -> Result<(Dyadic, Vec<Dyadic>), KernelError> {
    // A row of zeros is one on any unit.
    let is_used: Vec<bool> = layer.weights.chunks(layer.depth).map(|row| row.iter().any(|k| *k != 0)).collect();
    let used = || lines.iter().zip(&is_used).filter(|u| *u.1).map(|u| u.0.0.unit.parts());
    let lowest = used().map(|(_, e)| e).min().unwrap_or(0);
    let mantissas = || used().map(|(m, e)| m << (e - lowest) as usize);
    let common = mantissas().fold(BigInt::zero(), |g, m| g.gcd(&m));
    let rows = layer.weights.chunks_mut(layer.depth).zip(&is_used).filter(|r| *r.1).map(|r| r.0);
    for (row, mantissa) in rows.zip(mantissas()) {
        let factor = (mantissa / &common).abs().to_i64().unwrap_or(i64::MAX);
        for k in row.iter_mut() {
            *k = i64::from(*k).checked_mul(factor).and_then(|k| i16::try_from(k).ok()).ok_or_else(|| {
                let cure = "quantize the last layer with one scale for the tensor (without --per-channel)";
                KernelError::new(&layer.name, "classes have weights on different scales", cure)
            })?;
        }
    }
    let ends = layer.weights.chunks(layer.depth).map(|row| reach(row, i64::from(layer.largest)));
    if ends.map(|(lo, hi)| hi.max(-lo)).max().unwrap_or(0) >= EXACT {
        return Err(KernelError::new(&layer.name, "accumulators may need more than 53 bits", "use fewer bits"));
    }
    let unit = if common.is_zero() { Dyadic::from_int(1) } else { from_big(&common, lowest) };
    Ok((unit, lines.iter().map(|l| l.0.offset.clone()).collect()))
}

/// m 2^exponent.
fn from_big(m: &BigInt, exponent: i64) -> Dyadic {
    let digits = m.iter_u32_digits().rev();
    let base = Dyadic::from_int(1 << 32);
    let integer = digits.fold(Dyadic::zero(), |x, d| &(&x * &base) + &Dyadic::from_int(d.into()));
    let factor = Dyadic::from_f64(if exponent < 0 { 0.5 } else { 2.0 }).unwrap_or_else(Dyadic::zero);
    (0..exponent.unsigned_abs()).fold(integer, |x, _| &x * &factor)
}
