//! `any-engine`: one proof for several runtimes. A requantization may give any integer between a lower and an upper step function.

use std::sync::Arc;

use super::{
    Addition, Average, Averaging, Bias, Engine, Inexact, Limits, OrtFused, Profile, Quantizer, Requantizer, Rescale,
    Resolved, TfLite, Torch, accumulator_step, float32_step, qdq,
};
use crate::model::ir::{Model, Node, Op};
use crate::model::lower::{LowerError, lower};
use crate::net::{Band, Cut, Rounding, ScalarFn, Spread, Step};
use crate::num::round::U32;

/// Several runtimes at once.
pub struct AnyEngine {
    /// The profiles whose results are all allowed.
    members: Vec<Arc<dyn Profile>>,
    /// Whether everything else that rounds the real value once, within a few float32 roundings, is allowed too.
    margin: bool,
    /// Profiles that were asked for and do not take the model: name and reason.
    left_out: Vec<(String, String)>,
}

/// Roundings of a float32 requantization that the margin covers.
const ROUNDINGS: f64 = 12.0;

impl AnyEngine {
    /// All runtimes that a model's format has profiles for, and every other whose requantization is one rounding of the real value.
    pub fn all() -> Self {
        AnyEngine { members: vec![], margin: true, left_out: vec![] }
    }

    /// Exactly these runtimes.
    pub fn of(members: Vec<Box<dyn Profile>>) -> Self {
        AnyEngine { members: members.into_iter().map(Arc::from).collect(), margin: false, left_out: vec![] }
    }

    /// The runtimes that run a model of this format.
    fn candidates(&self, model: &Model) -> Vec<Arc<dyn Profile>> {
        match model.source.format {
            _ if !self.members.is_empty() => self.members.clone(),
            "tflite" => vec![Arc::new(TfLite::Reference), Arc::new(TfLite::Xnnpack), Arc::new(TfLite::Micro)],
            _ => {
                let torch = Engine::ALL.map(|engine| Arc::new(Torch { engine }) as Arc<dyn Profile>);
                torch.into_iter().chain([Arc::new(OrtFused { any_x86: false }) as _]).collect()
            }
        }
    }

    /// What several members give, and the margin where it counts: from the smallest to the largest.
    fn hull(
        &self,
        found: Vec<Result<ScalarFn, Inexact>>,
        margin: impl FnOnce() -> [Step; 2],
    ) -> Result<ScalarFn, Inexact> {
        let mut steps = vec![];
        for f in found {
            match f? {
                ScalarFn::Step(s) => steps.push(s),
                ScalarFn::Band(b) => steps.extend([b.lower().clone(), b.upper().clone()]),
                ScalarFn::Piecewise(_) => return Err(Inexact::new("a runtime's function is not a step")),
            }
        }
        if self.margin || steps.is_empty() {
            steps.extend(margin());
        }
        Ok(between(&steps))
    }

    /// One member's requantization as a function of this accumulator.
    fn of_member(&self, member: &dyn Profile, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        let unit = r.input_scale * r.weight_scale;
        let moved = |by: i64, bias: Bias| {
            let accumulator = (r.accumulator.0 + by, r.accumulator.1 + by);
            member.requantize(&Requantizer { bias, accumulator, ..*r }).map(|f| shifted(f, by))
        };
        match (member.takes_float_biases(), r.bias) {
            (true, Bias::Integer(b)) => moved(-b, Bias::Float(b as f32 * unit)),
            (false, Bias::Float(b)) => {
                let rounded = (b / unit).round_ties_even();
                if rounded.abs() >= 2_147_483_648.0 {
                    return Err(Inexact::new("a float bias does not fit an int32"));
                }
                moved(rounded as i64, Bias::Integer(rounded as i64))
            }
            _ => member.requantize(r),
        }
    }
}

impl Profile for AnyEngine {
    fn id(&self) -> String {
        let names: Vec<String> = self.members.iter().map(|m| m.id()).collect();
        if self.margin { "any-engine".into() } else { format!("any-engine({})", names.join(",")) }
    }

    fn describe(&self) -> &'static str {
        "every runtime at once: what each of them may compute"
    }

    fn resolve(&self, model: &Model) -> Result<Option<Resolved>, LowerError> {
        let operations = integer_operations(&qdq::fuse(model, qdq::Biases::AsStored)?);
        let mut resolved = AnyEngine { members: vec![], margin: self.margin, left_out: vec![] };
        let mut members = vec![];
        for member in self.candidates(model) {
            let same = member.rewrite(model).map(|m| integer_operations(&m) == operations);
            match same.and_then(|same| Ok((same, lower(model, &*member)?))) {
                Ok((true, lowered)) => {
                    resolved.members.push(member);
                    members.push(lowered);
                }
                Ok((false, _)) => {
                    resolved.left_out.push((member.id(), "it executes another graph, with parts in float32".into()));
                }
                Err(e) => resolved.left_out.push((member.id(), e.problem().to_string())),
            }
        }
        if let (false, Some((name, reason))) = (self.margin, resolved.left_out.first()) {
            let problem = format!("{name} does not take this model: {reason}");
            return Err(LowerError::at(model, None, problem, "leave it out of the list"));
        }
        Ok(Some(Resolved { profile: Box::new(resolved), members, is_conjunction: !self.margin }))
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        let fused = qdq::fuse(model, qdq::Biases::AsStored)?;
        let is_open = |n: &&Node| matches!(n.op, Op::QGemm { .. }) && n.inputs.get(7).copied().flatten().is_none();
        match fused.nodes.iter().find(is_open) {
            None => Ok(fused),
            Some(node) => {
                let problem = "an integer product with a float result has no envelope";
                Err(LowerError::new(&fused, node, problem, "quantize the result, or use --profile ort-fused"))
            }
        }
    }

    /// Margin: |x / s - v| <= 4 u |x / s|, u = 2^-24 (a division, or a reciprocal and a product), ties to either side.
    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        let found = self.members.iter().map(|m| Ok(m.quantize(q))).collect();
        let scale = f64::from(q.scale);
        let side = |sign: f64| {
            let f = |x: f32| {
                let v = f64::from(x) / scale;
                to_integer(v + sign * (4.5 * U32 * v.abs()), sign, q)
            };
            float32_step(q.range, f, |k| (k as f64 - q.zero_point as f64 - 0.5) * scale)
        };
        self.hull(found, || [side(-1.0), side(1.0)]).unwrap_or_else(|_| unreachable!("quantizers are steps"))
    }

    /// Margin: v = acc m (+ b / sy for a float bias) in exact arithmetic with m = sx sw / sy; the result is v + d rounded to a nearest
    /// integer (ties to either side) with |d| <= 12 u (|acc m| + |b / sy| + |zy|), u = 2^-24. A float
    /// bias may be rounded to a nearest multiple of sx sw first.
    ///
    /// # Rounding
    /// f64 operations are off by less than 2^-50 of the terms, which 12.01 instead of 12 covers.
    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        let found = self.members.iter().map(|m| self.of_member(&**m, r)).collect();
        let (out, sy) = (r.output, f64::from(r.output.scale));
        let m = f64::from(r.input_scale) * f64::from(r.weight_scale) / sy;
        let (bias, offsets) = match r.bias {
            Bias::Integer(b) => (b as f64 * m, [0.0, 0.0]),
            Bias::Float(b) => {
                let exact = f64::from(b) / sy;
                let units = exact / m;
                // Two ways to round to an integer where the quotient is within some float32 roundings of a tie.
                let near = [1.0 - 8.0 * U32, 1.0 + 8.0 * U32].map(|s| (units * s).round_ties_even() * m);
                let ends = [exact, near[0], near[1]];
                (exact, [ends.iter().copied().fold(exact, f64::min), ends.iter().copied().fold(exact, f64::max)])
            }
        };
        let rest = bias.abs() + m + out.zero_point.unsigned_abs() as f64;
        let side = |sign: f64| {
            let offset = offsets[usize::from(sign > 0.0)];
            let f = |a: i64| {
                let v = a as f64 * m;
                let margin = (ROUNDINGS + 0.01) * U32 * (v.abs() + rest);
                to_integer(v + offset + sign * margin, sign, &out)
            };
            accumulator_step(out.range, f, |k| (k as f64 - 0.5 - out.zero_point as f64 - offset) / m)
        };
        self.hull(found, || [side(-1.0), side(1.0)])
    }

    fn reads_biases(&self) -> bool {
        true
    }

    fn clip_end(&self, end: f32, q: &Quantizer) -> (i64, i64) {
        let all = self.members.iter().map(|m| m.clip_end(end, q));
        all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_else(|| TfLite::Reference.clip_end(end, q))
    }

    /// The real sum (sa (a - za) + sb (b - zb)) / sc within a proved error, rounded to a nearest integer, ties to either side.
    ///
    /// # Why
    /// In steps of the result, with r = max(sa, sb) / sc, the error allowed is 264 r 2^-20 + 8 u (512 (sa + sb) / sc + |zc|), u = 2^-24.
    /// - XNNPACK rounds two factors by half a unit of at most 2^-20 r, times 255 each, and the ratios by u of 510 r: 255 + 32 of r 2^-20,
    ///   and the second term alone is at least 256 of them.
    /// - The reference kernels round each operand by at most one unit of 2^-19 r, and the result by one more: 6.3 of r 2^-20, and less than
    ///   one for their multipliers.
    /// - A float32 sum makes at most 8 roundings, each of terms below 512 (sa + sb) / sc or of the zero point.
    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, out: &Quantizer) -> Result<Addition, Inexact> {
        let (sa, sb, sc) = (f64::from(a.scale), f64::from(b.scale), f64::from(out.scale));
        let fixed = 264.0 * sa.max(sb) * 2f64.powi(-20);
        let float = 8.0 * U32 * (512.0 * (sa + sb) + sc * out.zero_point.unsigned_abs() as f64);
        let slack = (fixed + float) * (1.0 + 1e-9);
        let of = |o: &Quantizer, scale: f64| Rescale::Affine {
            scale,
            bias: -scale * o.zero_point as f64,
            rounding: Rounding::Exact,
        };
        let tie = |strict: bool| super::real::half_integer_step(out, |_, _| strict);
        Ok(Addition {
            operands: [of(a, sa), of(b, if subtract { -sb } else { sb })],
            bias: 0.0,
            rounding: Rounding::Slack { relative: 0.0, absolute: Spread::all(slack) },
            finish: ScalarFn::Band(Band::new(tie(true), tie(false))),
        })
    }

    /// Margin: v = (S - n zx) sx / (n sy) within (n + 8) roundings of terms up to 255 sx / sy and of the zero point.
    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        let (n, x, out) = (average.count as f64, average.input, average.output);
        let mut found = vec![];
        for member in &self.members {
            match member.average(average)? {
                Averaging::OfSum(f) => found.push(Ok(f)),
                // Inside the margin, by its bound on float sums.
                Averaging::OfFloatSum(_) if self.margin => {}
                Averaging::OfFloatSum(_) => return Err(Inexact::new("a mean that one runtime sums in float32")),
            }
        }
        let unit = f64::from(x.scale) / (n * f64::from(out.scale));
        let largest = 256.0 * n * unit + out.zero_point.unsigned_abs() as f64;
        let side = |sign: f64| {
            let f = |s: i64| {
                let v = (s as f64 - n * x.zero_point as f64) * unit;
                to_integer(v + sign * (n + 8.01) * U32 * largest, sign, &out)
            };
            accumulator_step(out.range, f, |k| {
                (k as f64 - 0.5 - out.zero_point as f64) / unit + n * x.zero_point as f64
            })
        };
        Ok(Averaging::OfSum(self.hull(found, || [side(-1.0), side(1.0)])?))
    }

    /// Margin: v = (q - z) s / s' within 4 roundings of it and of the zero point.
    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        let found = self.members.iter().map(|m| m.rescale(from, to)).collect();
        let unit = f64::from(from.scale) / f64::from(to.scale);
        let side = |sign: f64| {
            let f = |q: i64| {
                let v = (q - from.zero_point) as f64 * unit;
                to_integer(v + sign * 4.5 * U32 * (v.abs() + to.zero_point.unsigned_abs() as f64), sign, to)
            };
            accumulator_step(to.range, f, |k| (k - to.zero_point) as f64 / unit + from.zero_point as f64)
        };
        self.hull(found, || [side(-1.0), side(1.0)])
    }

    fn limits(&self) -> Limits {
        let limits = self.members.iter().map(|m| m.limits());
        let accumulator = limits.clone().filter_map(|l| l.accumulator).chain([1 << 31]).min();
        Limits { accumulator, saturating_pairs: limits.clone().any(|l| l.saturating_pairs) }
    }

    fn assumptions(&self) -> Vec<String> {
        let names: Vec<String> = self.members.iter().map(|m| m.id()).collect();
        let mut all = vec![match (names.is_empty(), self.margin) {
            (true, _) => "the runtime's results lie in the envelope of any-engine".into(),
            (false, true) => format!(
                "the runtime is one of {}, or another whose results lie in the envelope of any-engine",
                names.join(", ")
            ),
            (false, false) => format!("the runtime is one of {}", names.join(", ")),
        }];
        all.extend(self.left_out.iter().map(|(name, why)| format!("the runtime is not {name}: {why}")));
        for assumption in self.members.iter().flat_map(|m| m.assumptions()) {
            if !all.contains(&assumption) {
                all.push(assumption);
            }
        }
        all
    }
}

/// floor(v + 1/2) + z for the upper side (sign 1), ceil(v - 1/2) + z for the lower (sign -1), clipped.
fn to_integer(v: f64, sign: f64, q: &Quantizer) -> i64 {
    // An f64 sum may round 1/2 - ulp up to a tie: v is far from both where the margin is more than that, and a step away from v never
    // makes the band narrower.
    let rounded = if sign > 0.0 { (v.next_up() + 0.5).floor() } else { (v.next_down() - 0.5).ceil() };
    (rounded as i64).saturating_add(q.zero_point).clamp(q.range.0, q.range.1)
}

/// The operations of a rewritten graph that compute on integers, by name, without what only moves or clips.
fn integer_operations(model: &Model) -> Vec<&'static str> {
    let counts = |op: &Op| {
        !matches!(op, Op::Identity | Op::QLinearClip { .. } | Op::Reshape | Op::Flatten | Op::Transpose { .. })
    };
    let on_constants = |n: &Node| n.inputs.iter().flatten().all(|v| model.value(*v).constant.is_some());
    let plain = |op: &Op| if *op == Op::QLinearMatMul { "QGemm" } else { op.name() };
    let mut names: Vec<_> =
        model.nodes.iter().filter(|n| counts(&n.op) && !on_constants(n)).map(|n| plain(&n.op)).collect();
    names.sort_unstable();
    names
}

/// A step function of x + by as one of x.
fn shifted(f: ScalarFn, by: i64) -> ScalarFn {
    let of = |s: &Step| {
        let cuts = s.cuts().iter().map(|c| Cut { at: c.at - by as f64, ..*c }).collect();
        Step::new(cuts, s.values().to_vec())
    };
    match f {
        ScalarFn::Step(s) => ScalarFn::Step(of(&s)),
        ScalarFn::Band(b) => ScalarFn::Band(Band::new(of(b.lower()), of(b.upper()))),
        ScalarFn::Piecewise(_) => f,
    }
}

/// The band from the smallest to the largest of several step functions with integer values, or the function itself where they agree.
fn between(steps: &[Step]) -> ScalarFn {
    let lo = steps.iter().map(|s| s.values()[0]).fold(f64::INFINITY, f64::min);
    let hi = steps.iter().map(|s| s.values()[s.values().len() - 1]).fold(f64::NEG_INFINITY, f64::max);
    let later = |a: Cut, b: Cut| (a.at, a.strict) > (b.at, b.strict);
    let end = |upper: bool| {
        let first = if upper { lo_of(steps, f64::max) } else { lo };
        let (mut cuts, mut values) = (vec![], vec![first]);
        let mut k = first + 1.0;
        while k <= hi {
            // `None`: already reached everywhere is the earliest place, never reached the latest.
            let reach = steps.iter().map(|s| reaching(s, k));
            let found = if upper {
                reach.flatten().reduce(|a, b| if later(a, b) { b } else { a })
            } else {
                reach
                    .collect::<Option<Vec<Cut>>>()
                    .and_then(|c| c.into_iter().reduce(|a, b| if later(a, b) { a } else { b }))
            };
            let Some(cut) = found else { break };
            cuts.push(cut);
            values.push(k);
            k += 1.0;
        }
        Step::new(cuts, values)
    };
    let (lower, upper) = (end(false), end(true));
    if lower == upper { ScalarFn::Step(lower) } else { ScalarFn::Band(Band::new(lower, upper)) }
}

fn lo_of(steps: &[Step], choose: fn(f64, f64) -> f64) -> f64 {
    steps.iter().map(|s| s.values()[0]).reduce(choose).unwrap_or(0.0)
}

/// Where a step function first reaches a value above its first one; `None` if it never does.
fn reaching(s: &Step, value: f64) -> Option<Cut> {
    let k = s.values().partition_point(|v| *v < value);
    match k {
        // Everywhere: a place before every argument.
        0 => Some(Cut::at(-f64::from(f32::MAX))),
        k if k == s.values().len() => None,
        k => Some(s.cuts()[k - 1]),
    }
}
