//! Schemes: how many bits a layer has, and which evenly spaced values they stand for.
//!
//! Every scheme ends in [`Levels`]: the float32 numbers R(R(q - z) s) for the integers q of a range, R being the rounding to float32. That is what
//! DequantizeLinear computes, so a quantized model means the same whether it holds the numbers or the integers.

use super::QuantizeError;

/// Fewest and most bits of a weight.
pub const BITS: (u8, u8) = (2, 32);

/// How the weights of a layer are mapped to integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightRule {
    /// One scale for the weights and biases of the layer, beta = max |u|, s = 2 beta / (2^b - 1), integers -2^(b-1) ..= 2^(b-1) - 1, half away
    /// from zero: the rule of CEG4N. There is no level at beta itself, nor at the last half step below it.
    Ceg4n,
    /// s = max |w| / (2^(b-1) - 1), zero point 0, integers -(2^(b-1) - 1) ..= 2^(b-1) - 1, ties to even.
    Symmetric,
    /// s = (max(w, 0) - min(w, 0)) / (2^b - 1), a zero point such that 0 is a level, ties to even.
    Asymmetric,
    /// s = 2 max |w| / (2^b - 1), zero point 0, integers -2^(b-1) ..= 2^(b-1) - 1, ties to even: the rule of CoMPAQt. The largest weight is clipped
    /// by half a step.
    MinMax,
    /// s = 2 max |w| / m for the integer m of 2^(b-1) ..= 2^b - 1 (the 2^16 largest of them) with which the weights are rounded least, by the sum of
    /// the magnitudes; integers as with `MinMax`. It finds the steps that weights are multiples of.
    Fitted,
    /// Signed fixed point `<Q,F>` with Q = b and one F for weights and biases of the layer, half away from zero: the rule of Quadapter.
    PowerOfTwo,
}

impl WeightRule {
    /// Whether weights and biases of a layer share one scale.
    pub fn is_joint(self) -> bool {
        matches!(self, WeightRule::Ceg4n | WeightRule::PowerOfTwo)
    }

    /// The name users type.
    pub fn name(self) -> &'static str {
        match self {
            WeightRule::Ceg4n => "ceg4n",
            WeightRule::Symmetric => "symmetric",
            WeightRule::Asymmetric => "asymmetric",
            WeightRule::MinMax => "min-max",
            WeightRule::Fitted => "fitted",
            WeightRule::PowerOfTwo => "power-of-two",
        }
    }
}

/// What happens to biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BiasRule {
    /// The bits and the rule of the weights; one scale for all biases of the layer.
    Same,
    /// The rule of the weights with other bits.
    Bits(u8),
    /// They stay float32.
    Float,
    /// int32 at the scale of the accumulator, R(sx sw), as integer kernels add them: only where activations are quantized
    /// ([`super::qdq`]); they stay float32 otherwise.
    Accumulator,
}

/// The scheme of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerScheme {
    /// Bits of a weight, 2 to 32.
    pub bits: u8,
    /// How weights are mapped.
    pub rule: WeightRule,
    /// Whether each output channel has a scale of its own.
    pub per_channel: bool,
    /// What happens to biases.
    pub biases: BiasRule,
}

impl LayerScheme {
    /// Weights and biases at these bits by a rule, one scale for each tensor (or for both, if the rule says so).
    pub fn new(bits: u8, rule: WeightRule) -> Self {
        LayerScheme { bits, rule, per_channel: false, biases: BiasRule::Same }
    }

    /// Bits of a bias, if biases are quantized.
    pub fn bias_bits(&self) -> Option<u8> {
        match self.biases {
            BiasRule::Same => Some(self.bits),
            BiasRule::Bits(bits) => Some(bits),
            BiasRule::Float | BiasRule::Accumulator => None,
        }
    }

    /// Refuses bits out of range, and scales for each channel where the rule has one for the layer.
    pub(super) fn check(&self, layer: &str) -> Result<(), QuantizeError> {
        let bits = [Some(self.bits), self.bias_bits()];
        if let Some(bad) = bits.into_iter().flatten().find(|b| !(BITS.0..=BITS.1).contains(b)) {
            let problem = format!("{bad} bits are asked for");
            return Err(QuantizeError::new(layer, problem, "give 2 to 32 bits"));
        }
        if self.per_channel && self.rule.is_joint() {
            let problem = format!("the rule `{}` has one scale for weights and biases of a layer", self.rule.name());
            return Err(QuantizeError::new(
                layer,
                problem,
                "leave per-channel scales out, or use symmetric or asymmetric",
            ));
        }
        Ok(())
    }
}

/// How a number becomes an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    /// rne of the quotient in binary64: the nearest integer, ties to even, of the exact quotient up to 24 bits.
    TiesToEven,
    /// trunc(R(R(u / s) +- 1/2)): float32 arithmetic, as PyTorch does it.
    AwayInFloat32,
    /// Half away from zero, exact: the scale is a power of two.
    AwayExact,
}

/// Evenly spaced float32 values: R(R(q - z) s) for the integers q of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// Distance s of two levels, a normal float32.
    pub scale: f32,
    /// The integer z that stands for zero.
    pub zero_point: i64,
    /// Smallest and largest integer.
    pub range: (i64, i64),
    rounding: Rounding,
}

/// Smallest and largest of some numbers and 0.
fn extent(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(lo, hi), &u| (lo.min(u), hi.max(u)))
}

/// The smallest normal float32 not below a positive number.
fn scale_above(x: f64) -> f32 {
    let nearest = x as f32;
    let above = if f64::from(nearest) < x { nearest.next_up() } else { nearest };
    above.clamp(f32::MIN_POSITIVE, f32::MAX)
}

fn signed(bits: u8) -> (i64, i64) {
    (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
}

impl Levels {
    /// Levels for numbers (of a tensor, a channel, or of weights and biases together) by a rule.
    ///
    /// # Source
    /// `Ceg4n`: Matos Junior, CEG4N (thesis), section 2.3 and the published program; `MinMax`: Kabaha and Drachsler Cohen, CoMPAQt (2025);
    /// `Symmetric`, `Asymmetric`: Nagel et al., A White Paper on Neural Network Quantization (2021), section 2.2, and QuantizeLinear of ONNX;
    /// `PowerOfTwo`: Quadapter's published program.
    pub fn fit(rule: WeightRule, bits: u8, values: impl IntoIterator<Item = f32>) -> Levels {
        let values: Vec<f32> = values.into_iter().collect();
        let (lo, hi) = extent(&values);
        let largest = f64::from(hi.max(-lo));
        let full = signed(bits);
        let steps = (full.1 - full.0) as f64;
        match rule {
            WeightRule::Ceg4n => {
                // All zero: any scale does.
                let scale = if largest == 0.0 { 1.0 } else { ((2.0 * largest / steps) as f32).max(f32::MIN_POSITIVE) };
                Levels { scale, zero_point: 0, range: full, rounding: Rounding::AwayInFloat32 }
            }
            WeightRule::Symmetric => {
                let scale = if largest == 0.0 { 1.0 } else { scale_above(largest / full.1 as f64) };
                Levels { scale, zero_point: 0, range: (-full.1, full.1), rounding: Rounding::TiesToEven }
            }
            WeightRule::Asymmetric => Levels::between(f64::from(lo), f64::from(hi), full),
            WeightRule::MinMax => Levels::spanning(largest, steps, full),
            WeightRule::Fitted => Levels::fitted(largest, full, &values),
            WeightRule::PowerOfTwo => {
                let fraction = i32::from(bits) - integer_bits(lo, hi);
                let scale = 2.0_f64.powi(-fraction) as f32;
                Levels { scale, zero_point: 0, range: full, rounding: Rounding::AwayExact }
            }
        }
    }

    /// Levels around zero, as many steps as are given from -largest to largest.
    fn spanning(largest: f64, steps: f64, range: (i64, i64)) -> Levels {
        let scale = if largest == 0.0 { 1.0 } else { ((2.0 * largest / steps) as f32).max(f32::MIN_POSITIVE) };
        Levels { scale, zero_point: 0, range, rounding: Rounding::TiesToEven }
    }

    /// Of [`Self::spanning`] levels those that round some numbers least; of equals those with more steps.
    fn fitted(largest: f64, range: (i64, i64), values: &[f32]) -> Levels {
        let most = range.1 - range.0;
        let mut best = (Levels::spanning(largest, most as f64, range), f64::INFINITY);
        // Nearly the best with few numbers is nearly the best with all: a sum that is too large already is given up.
        for steps in ((most + 1) / 2..=most).rev().take(1 << 16) {
            let levels = Levels::spanning(largest, steps as f64, range);
            let mut error = 0.0;
            for &w in values {
                error += (f64::from(levels.value(levels.quantize(w))) - f64::from(w)).abs();
                if error >= best.1 {
                    break;
                }
            }
            if error < best.1 {
                best = (levels, error);
            }
        }
        best.0
    }

    /// The same around the same zero, with a scale that divides a step; itself where the step is too small for that.
    ///
    /// Numbers that are multiples of the step are levels then.
    pub(super) fn dividing(self, step: f64, lo: f64) -> Levels {
        let parts = (step / f64::from(self.scale)).floor();
        if parts < 1.0 {
            return self;
        }
        let scale = (step / parts) as f32;
        let zero = self.range.0 as f64 - (lo / f64::from(scale)).round_ties_even();
        let zero_point = if self.zero_point == 0 { 0 } else { (zero as i64).clamp(self.range.0, self.range.1) };
        Levels { scale, zero_point, ..self }
    }

    /// Levels from lo <= 0 to hi >= 0, zero among them, with all integers of a range.
    pub(super) fn between(lo: f64, hi: f64, range: (i64, i64)) -> Levels {
        let (width, steps) = (hi - lo, (range.1 - range.0) as f64);
        let scale = if width == 0.0 { 1.0 } else { scale_above(width / steps) };
        let zero = range.0 as f64 - (lo / f64::from(scale)).round_ties_even();
        let zero_point = (zero as i64).clamp(range.0, range.1);
        Levels { scale, zero_point, range, rounding: Rounding::TiesToEven }
    }

    /// Levels around zero: integers of a range with zero point 0 that reach `largest`.
    pub(super) fn around(largest: f64, range: (i64, i64)) -> Levels {
        let scale = if largest == 0.0 { 1.0 } else { scale_above(largest / range.1 as f64) };
        Levels { scale, zero_point: 0, range, rounding: Rounding::TiesToEven }
    }

    /// The integer of a number.
    pub fn quantize(&self, u: f32) -> i64 {
        let (lo, hi) = self.range;
        let s = self.scale;
        // A float to integer conversion saturates.
        let q = match self.rounding {
            Rounding::TiesToEven => (f64::from(u) / f64::from(s)).round_ties_even() as i64,
            Rounding::AwayInFloat32 => (u / s + if u < 0.0 { -0.5 } else { 0.5 }) as i64,
            Rounding::AwayExact => (f64::from(u) / f64::from(s)).round() as i64,
        };
        q.saturating_add(self.zero_point).clamp(lo, hi)
    }

    /// The number that an integer stands for: R(R(q - z) s).
    pub fn value(&self, q: i64) -> f32 {
        (q - self.zero_point) as f32 * self.scale
    }
}

/// Integer bits I (sign included) of the fixed point that Quadapter gives a layer whose parameters lie between lo and hi.
pub fn integer_bits(lo: f32, hi: f32) -> i32 {
    let m = f64::from(lo.round_ties_even().abs().max(hi.round_ties_even().abs()));
    match m {
        m if m < 1.0 => 1,
        m if m < 2.0 => 2,
        // The exponent of a whole number is floor(log2 m).
        m => {
            let floor = (m.to_bits() >> 52) as i32 - 1023;
            floor + i32::from(m != 2.0_f64.powi(floor)) + 1
        }
    }
}
