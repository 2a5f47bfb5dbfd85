//! The profile `fixed-point`: a float network on words of Q bits with F fractional bits.

use std::rc::Rc;

use super::call::{Call, Known, Stored};
use super::layout::spread;
use super::lower::{self, Lowering, Operator, Rule};
use super::quantized::Meaning;
use super::steps::{FLOATS, INTEGERS, float, steps};
use crate::net::Map;

/// Formats of the numbers.
#[derive(Clone, Copy)]
pub(super) struct Format {
    bits: i64,
    /// Of biases and results.
    fraction: i64,
    weights: i64,
    input: i64,
}

/// A value: its integers stand for multiples of 2^-fraction.
#[derive(Clone, Copy)]
pub(super) struct Word {
    fraction: i64,
    range: [i64; 2],
    /// What is still to be done to a sum.
    sum: Option<Pending>,
}

#[derive(Clone, Copy)]
struct Pending {
    shift: i64,
    /// Range of what was multiplied.
    of: [i64; 2],
    /// Whether a constant may be added.
    open: bool,
}

impl Format {
    /// Reads `fixed-point(Q,F[,weights=N][,input=N])`.
    pub fn parse(profile: &str) -> Result<Self, String> {
        let inner = profile.strip_prefix("fixed-point(").and_then(|rest| rest.strip_suffix(')'));
        let inner = inner.ok_or_else(|| {
            format!("the profile '{profile}' is not one of real, ort-fused, fixed-point(Q,F[,weights=N][,input=N])")
        })?;
        let number =
            |text: &str| text.trim().parse::<i64>().map_err(|_| format!("'{text}' in '{profile}' is no number"));
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        let &[bits, fraction, ref more @ ..] = &parts[..] else { return Err(format!("'{profile}' lacks Q or F")) };
        let (bits, fraction) = (number(bits)?, number(fraction)?);
        let (mut weights, mut input) = (None, None);
        for part in more {
            let (slot, text) = match part.split_once('=') {
                Some(("weights", text)) => (&mut weights, text),
                Some(("input", text)) => (&mut input, text),
                _ => return Err(format!("'{part}' in '{profile}' is not understood")),
            };
            if slot.replace(number(text)?).is_some() {
                return Err(format!("'{part}' is given twice in '{profile}'"));
            }
        }
        let format = Format { bits, fraction, weights: weights.unwrap_or(fraction), input: input.unwrap_or(8) };
        let fractions = [format.fraction, format.weights, format.input];
        if !(2..=16).contains(&bits) || fractions.iter().any(|n| !(-8..=24).contains(n)) {
            return Err(format!("'{profile}' is not within 2 to 16 bits and fractions of -8 to 24"));
        }
        Ok(format)
    }

    fn signed(self) -> [i64; 2] {
        [-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1]
    }

    /// A stored constant as signed words.
    fn words(self, known: &Known, fraction: i64) -> Result<Vec<f64>, String> {
        Ok(known.reals()?.iter().map(|&x| nearest(x, fraction, self.signed()) as f64).collect())
    }
}

/// The operators of the profile.
pub(super) fn operator(name: &str) -> Result<Operator, String> {
    let rule: Rule = match name {
        "Constant" => |_, c| c.stored(),
        "Gemm" | "MatMul" | "Conv" => Lowering::layer,
        "Add" => Lowering::layer_bias,
        "Relu" => Lowering::layer_relu,
        "MaxPool" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" => {
            Lowering::words_carried
        }
        _ => return Err("this checker has no rule for it under fixed-point".into()),
    };
    let (fewest, most, understood, _) = lower::operator(name).ok_or("it has no rule")?;
    Ok((fewest, most, understood, rule))
}

impl Lowering {
    /// The words that the input is made into.
    pub(super) fn fixed_input(&mut self, name: &str, x: &Known, format: Format) -> Result<Known, String> {
        let range = [0, 255];
        let step = steps(FLOATS, |at| nearest(float(at).into(), format.input, range), |at| float(at).into());
        let known = self.pieces(&format!("{name}/fixed"), x.id().ok_or("no input")?, &x.shape, vec![step])?;
        self.meanings.insert(name.into(), Meaning::Fixed(Word { fraction: format.input, range, sum: None }));
        Ok(known)
    }

    fn format(&self) -> Result<Format, String> {
        if let lower::Arithmetic::Fixed(format) = self.arithmetic { Ok(format) } else { Err("no format".into()) }
    }

    fn word(&self, name: Option<&String>) -> Result<Word, String> {
        match name.and_then(|name| self.meanings.get(name)) {
            Some(Meaning::Fixed(word)) => Ok(*word),
            _ => Err("its first operand is constant, which is not supported".into()),
        }
    }

    /// Rounds and clips a sum.
    fn shifted(&mut self, name: &str, sum: &Known, shift: i64, range: [i64; 2]) -> Result<(Known, Word), String> {
        let of = sum.id().ok_or("it is constant")?;
        self.net.values[of].name = format!("{name}/sum");
        let half = if shift > 0 { 1i64 << (shift - 1) } else { 0 };
        let step = steps(INTEGERS, |sum| ((sum + half) >> shift).clamp(range[0], range[1]), |sum| sum as f64);
        let known = self.pieces(name, of, &sum.shape, vec![step])?;
        Ok((known, Word { fraction: self.format()?.fraction, range, sum: None }))
    }

    /// The words of a tensor; a sum becomes signed ones.
    fn settled(&mut self, name: Option<&String>, known: &Known) -> Result<(Known, Word), String> {
        let word = self.word(name)?;
        match (word.sum, name) {
            (Some(sum), Some(name)) => self.shifted(name, known, sum.shift, word.range),
            _ => Ok((known.clone(), word)),
        }
    }

    fn words_carried(&mut self, call: &Call) -> Result<Known, String> {
        let (x, word) = self.settled(call.node.inputs.first(), call.input(0)?)?;
        let mut inputs = call.inputs.clone();
        inputs[0] = Some(x);
        let rule = lower::operator(&call.node.op).ok_or("it has no rule")?.3;
        let first = self.net.values.len();
        let known = rule(self, &Call { node: call.node, opset: call.opset, inputs })?;
        self.net.values[first..].iter_mut().for_each(|value| value.integer = true);
        self.meant(call, known, Meaning::Fixed(word))
    }

    fn layer(&mut self, call: &Call) -> Result<Known, String> {
        for name in ["alpha", "beta"] {
            if call.float(name)?.is_some_and(|factor| factor != 1.0) {
                return Err(format!("{name} is not 1"));
            }
        }
        let format = self.format()?;
        let (x, word) = self.settled(call.node.inputs.first(), call.input(0)?)?;
        let shift = word.fraction + format.weights - format.fraction;
        if shift < 0 {
            return Err(format!(
                "sums have {shift} fractional bits more than results; more bits for weights are needed"
            ));
        }
        let w = call.input(1)?;
        let weights = Stored::Reals(Rc::new(format.words(w, format.weights)?));
        let known = self.integer_sum(call, &x, 0, Known { shape: w.shape.clone(), data: weights })?;
        if call.has(2) {
            let bias = call.input(2)?;
            let mut shape = bias.shape.clone();
            if call.node.op == "Conv" {
                shape.extend(known.shape.iter().skip(2).map(|_| 1));
            }
            self.add_words(&known, bias, &shape, shift)?;
        }
        self.fits(&known, word.range)?;
        let sum = Pending { shift, of: word.range, open: call.node.op == "MatMul" };
        let made = Word { fraction: format.fraction, range: format.signed(), sum: Some(sum) };
        self.meant(call, known, Meaning::Fixed(made))
    }

    /// Adds a constant to a sum, as words that are shifted to its place.
    fn add_words(&mut self, sum: &Known, bias: &Known, shape: &[usize], shift: i64) -> Result<(), String> {
        let format = self.format()?;
        let words = format.words(bias, format.fraction)?;
        let places = spread(shape, &sum.shape)?;
        self.shift(sum, |i| words[places[i]] * power(shift))
    }

    /// Add of a constant to a MatMul.
    fn layer_bias(&mut self, call: &Call) -> Result<Known, String> {
        let (at, other) = if call.input(0)?.id().is_some() { (0, 1) } else { (1, 0) };
        let word = self.word(call.node.inputs.get(at))?;
        let (sum, constant) = (call.input(at)?.clone(), call.input(other)?);
        let Some(pending @ Pending { open: true, .. }) = word.sum else {
            return Err("it adds to something else than a MatMul".into());
        };
        self.add_words(&sum, constant, &constant.shape, pending.shift)?;
        self.fits(&sum, pending.of)?;
        let made = Word { sum: Some(Pending { open: false, ..pending }), ..word };
        self.meant(call, sum, Meaning::Fixed(made))
    }

    fn layer_relu(&mut self, call: &Call) -> Result<Known, String> {
        let Some(sum) = self.word(call.node.inputs.first())?.sum else {
            return Err("it does not follow a layer directly".into());
        };
        let range = [0, (1 << self.format()?.bits) - 1];
        let (known, word) = self.shifted(call.name(), call.input(0)?, sum.shift, range)?;
        self.meant(call, known, Meaning::Fixed(word))
    }

    /// The real numbers that the words of the output stand for.
    pub(super) fn fixed_output(&mut self, name: &str, known: &Known) -> Result<Known, String> {
        let (words, word) = self.settled(Some(&name.to_string()), known)?;
        let elements = self.room(&words.shape)?;
        let scale = Map::Scale(vec![power(-word.fraction); elements]);
        let of = words.id().ok_or("it is constant")?;
        Ok(self.affine(name, words.shape.clone(), (of, scale), vec![0.0; elements], 0.0))
    }
}

/// 2^n, for n of a few dozen.
fn power(n: i64) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

/// The nearest multiple of 2^-fraction, ties away from zero, as an integer in a range.
fn nearest(x: f64, fraction: i64, [low, high]: [i64; 2]) -> i64 {
    ((x * power(fraction)).round() as i64).clamp(low, high)
}
