//! The negated claim of a question as a formula over bit vectors: a model is a counterexample.

mod function;
mod net;
mod term;

use std::fmt::Write;

use num_bigint::BigInt;

use super::question::{ExportError, Network, Question, comment, units};
use super::sums::{last_bit, last_bit_of};
use crate::model::ir::DType;
use crate::net::{Node, execute_exact};
use crate::num::{Dyadic, Ratio, float32};
use crate::property::Region;
use crate::property::score;
use net::{Scale, Value, encode};
use term::{Term, ceil, exact, floor, literal, width};

/// Which inputs of the box a formula is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputForm {
    /// All of them: integers, or float32 numbers.
    Type,
    /// Multiples of 2^-n.
    Grid(u32),
}

/// The question in SMT-LIB 2 (QF_BV): satisfiable if and only if the claim fails for an input of the box.
///
/// # Claim
/// For every input (see [`InputForm`]) the bit vectors are the numbers of exact execution, in the units that the comments give. No width loses anything.
///
/// # Errors
/// If a sum is not one number (float32 in any order), inputs need a grid, or a bound is not finite.
pub fn write_smtlib(question: &Question<'_>, form: InputForm) -> Result<String, ExportError> {
    let (mut text, input, region) = inputs(question, form)?;
    let top1 = question.claim.epsilon().is_none();
    let mut outputs = vec![];
    for (letter, network) in ["a", "b"].iter().zip(&question.networks) {
        let _ = writeln!(
            text,
            "\n; {letter}: {} under profile {}",
            comment(network.name),
            comment(&network.lowered.profile)
        );
        let output = network.output_id();
        let target = if top1 { score(network.net(), output) } else { output };
        if target != output {
            let _ =
                writeln!(text, "; The class is that of {letter}{}: what follows it is strictly increasing.", target.0);
        }
        let value = encode((letter, network), (&input, &region), target, &mut text)?;
        outputs.push((value, network.net().node(target)));
    }
    if let (Some(center), [network]) = (&question.center, &question.networks[..]) {
        let id = if top1 { score(network.net(), network.output_id()) } else { network.output_id() };
        outputs.push((constant_value(network, id, center), network.net().node(id)));
    }
    let [a, b] = &outputs[..] else { unreachable!("two networks, or one and an input") };
    let _ = writeln!(text, "\n; The claim does not hold.");
    if top1 {
        other_class(&a.0, &b.0, &mut text)
    } else {
        apart(question, a, b, &mut text)?
    }
    let names: Vec<String> = (0..input.elements.len()).map(|i| format!("x_{i}")).collect();
    let _ = writeln!(text, "(check-sat)\n; The counterexample of a sat answer:\n; (get-value ({}))", names.join(" "));
    Ok(text)
}

/// The head of the file: what is asked, the declared inputs and their box. Also the inputs as a value, and the smallest box around them.
fn inputs(question: &Question<'_>, form: InputForm) -> Result<(String, Value, Region), ExportError> {
    let mut text = String::from(
        "; A question about neural networks, written by Quaver: sat is a counterexample, unsat says that the claim holds.\n",
    );
    question.remarks().iter().for_each(|r| text += &format!("; {}\n", comment(r)));
    text += ";\n; Numbers are exact. An element is an integer n of two's complement in a unit that is given for each value, and a proved interval on the\n";
    text += "; box (Quaver's bounds::interval) says which integers it can be; its width is the smallest that holds them. Sums and products are taken modulo\n";
    text += "; 2^width, so partial sums may wrap and the result is still the element.\n";
    let keys = form == InputForm::Type && question.networks[0].lowered.input_types[0] == DType::F32;
    let exponent = match form {
        InputForm::Type => 0,
        InputForm::Grid(bits) => -i64::from(bits),
    };
    let bounds = if keys { key_bounds(&question.region) } else { grid_bounds(question, exponent)? };
    text += &match form {
        InputForm::Type if keys => {
            "; Input: x_i is a float32 number, the bits of IEEE 754; k_i is its rank among all of them.\n".into()
        }
        InputForm::Type => "; Input: x_i is an integer, in two's complement.\n".into(),
        InputForm::Grid(bits) => {
            format!("; Input: x_i stands for x_i / 2^{bits}, in two's complement; only such inputs are meant.\n")
        }
    };
    text += "(set-logic QF_BV)\n(set-option :produce-models true)\n";
    let widest = bounds.iter().map(|(lo, hi)| width(lo, hi)).max().unwrap_or(1);
    let declare = |i: usize, b: &(BigInt, BigInt)| if keys { declare_key(i, b) } else { declare_integer(i, widest, b) };
    let mut elements = vec![];
    for (i, (lo, hi)) in bounds.iter().enumerate() {
        text += &declare(i, &(lo.clone(), hi.clone()));
        let (name, w) = if keys { (format!("k_{i}"), 32) } else { (format!("x_{i}"), widest) };
        elements.push(if lo == hi { Term::constant(lo.clone()) } else { Term::named(name, w, lo.clone(), hi.clone()) });
    }
    let real = |n: &BigInt| if keys { key_value(n) } else { scaled(n, exponent) };
    let region = if keys {
        question.region.clone()
    } else {
        Region { lo: bounds.iter().map(|b| real(&b.0)).collect(), hi: bounds.iter().map(|b| real(&b.1)).collect() }
    };
    let scale = if keys { Scale::Key } else { Scale::Exponent(exponent) };
    Ok((text, Value { scale, elements }, region))
}

fn key_bounds(region: &Region) -> Vec<(BigInt, BigInt)> {
    let key = |x: &f64| BigInt::from(float32::key(*x as f32));
    region.lo.iter().zip(&region.hi).map(|(lo, hi)| (key(lo), key(hi))).collect()
}

fn key_value(n: &BigInt) -> f64 {
    f64::from(float32::from_key(i64::try_from(n).unwrap_or(0)))
}

/// n 2^e, which f64 holds.
fn scaled(n: &BigInt, e: i64) -> f64 {
    let n = i64::try_from(n).unwrap_or_else(|_| unreachable!("checked to be a float32 number"));
    n as f64 * 2f64.powi(e as i32)
}

/// The multiples of a unit in the box; all of them must be numbers of the input's type.
fn grid_bounds(question: &Question<'_>, exponent: i64) -> Result<Vec<(BigInt, BigInt)>, ExportError> {
    let float = question.networks[0].lowered.input_types[0] == DType::F32;
    let most = BigInt::from(1i64 << 24);
    if !float && exponent != 0 {
        return Err(ExportError::new("the input is an integer and has no grid", "leave out --grid"));
    }
    let of = |(i, (lo, hi)): (usize, (&f64, &f64))| {
        let (lo, hi) = (ceil(&exact(*lo), exponent), floor(&exact(*hi), exponent));
        if lo > hi {
            let problem = format!("no multiple of 2^{exponent} is in the box for element {i} of the input");
            return Err(ExportError::new(problem, "declare a finer grid, or a larger radius"));
        }
        if float && (hi > most || lo < -&most || exponent < -125) {
            let problem =
                format!("not every multiple of 2^{exponent} is a float32 number for element {i} of the input");
            return Err(ExportError::new(problem, "declare a coarser grid"));
        }
        Ok((lo, hi))
    };
    question.region.lo.iter().zip(&question.region.hi).enumerate().map(of).collect()
}

fn declare_integer(i: usize, w: u64, (lo, hi): &(BigInt, BigInt)) -> String {
    let (l, h) = (literal(lo, w), literal(hi, w));
    let inside = if lo == hi { format!("(= x_{i} {l})") } else { format!("(and (bvsle {l} x_{i}) (bvsle x_{i} {h}))") };
    format!("(declare-const x_{i} (_ BitVec {w}))\n(assert {inside})\n")
}

/// A float32 number and its rank; both zeros have rank 0.
fn declare_key(i: usize, (lo, hi): &(BigInt, BigInt)) -> String {
    let magnitude = format!("(concat #b0 ((_ extract 30 0) x_{i}))");
    let rank = format!("(ite (= ((_ extract 31 31) x_{i}) #b1) (bvneg {magnitude}) {magnitude})");
    let inside = format!("(and (bvsle {} k_{i}) (bvsle k_{i} {}))", literal(lo, 32), literal(hi, 32));
    format!("(declare-const x_{i} (_ BitVec 32))\n(define-fun k_{i} () (_ BitVec 32) {rank})\n(assert {inside})\n")
}

/// A value at one input.
fn constant_value(network: &Network<'_>, id: crate::net::NodeId, center: &[f64]) -> Value {
    let x = center.iter().map(|&x| exact(x)).collect();
    let values = execute_exact(network.net(), &[x]).swap_remove(id.0);
    let bit = |v: &Dyadic| (v.signum() != 0).then(|| v.parts().1);
    let exponent = values.iter().filter_map(bit).min().unwrap_or(0);
    Value {
        scale: Scale::Exponent(exponent),
        elements: values.iter().map(|v| Term::constant(floor(v, exponent))).collect(),
    }
}

/// Asserts that the first largest elements are at different places.
fn other_class(a: &Value, b: &Value, text: &mut String) {
    let mut same = vec![];
    for k in 0..a.elements.len() {
        for (letter, value) in [("a", a), ("b", b)] {
            let _ = writeln!(text, "(define-fun {letter}_class_{k} () Bool {})", wins(value, k));
        }
        same.push(format!("(and a_class_{k} b_class_{k})"));
    }
    let _ = writeln!(text, "(assert (not {}))", any(&same));
}

/// Whether element k is the first largest.
fn wins(value: &Value, k: usize) -> String {
    let x = &value.elements;
    let mut parts = vec![];
    for j in (0..x.len()).filter(|&j| j != k) {
        let (word, always, never) = match j < k {
            true => ("bvsgt", x[k].lo > x[j].hi, x[k].hi <= x[j].lo),
            false => ("bvsge", x[k].lo >= x[j].hi, x[k].hi < x[j].lo),
        };
        if never {
            return "false".into();
        }
        if !always {
            let w = x[k].width().max(x[j].width());
            parts.push(format!("({word} {} {})", x[k].at(w), x[j].at(w)));
        }
    }
    match &parts[..] {
        [] => "true".into(),
        [only] => only.clone(),
        _ => format!("(and {})", parts.join(" ")),
    }
}

fn any(parts: &[String]) -> String {
    match parts {
        [] => "false".into(),
        [only] => only.clone(),
        _ => format!("(or {})", parts.join(" ")),
    }
}

/// An output element as a sum: factor * term + constant, in units of 2^exponent.
fn real(value: &Value, node: &Node, i: usize, exponent: i64) -> (BigInt, BigInt) {
    let Scale::Exponent(e) = value.scale else { unreachable!("checked by the caller") };
    match units(node, i) {
        None => (BigInt::from(1) << (e - exponent) as usize, 0.into()),
        Some((scale, zero)) => {
            let factor = floor(&exact(scale), exponent - e);
            let offset = floor(&(&exact(scale) * &Dyadic::from_int(-zero)), exponent);
            (factor, offset)
        }
    }
}

/// The exponent of a unit for the real numbers that an output stands for.
fn unit(value: &Value, node: &Node) -> Result<i64, ExportError> {
    let Scale::Exponent(e) = value.scale else {
        return Err(ExportError::at(node, "is a float32 input itself", "declare a grid of inputs, as in --grid 1/256"));
    };
    let scales: Vec<f64> = (0..node.len()).filter_map(|i| units(node, i)).map(|u| u.0).collect();
    let of_offsets = scales.iter().filter_map(|s| last_bit(*s)).min();
    Ok((e + last_bit_of(scales.iter())).min(of_offsets.unwrap_or(e)).min(e))
}

/// Asserts that some elements of the outputs are further apart than the claim allows.
fn apart(
    question: &Question<'_>,
    a: &(Value, &Node),
    b: &(Value, &Node),
    text: &mut String,
) -> Result<(), ExportError> {
    let Some(epsilon) = question.claim.epsilon() else { return Ok(()) };
    let exponent = unit(&a.0, a.1)?.min(unit(&b.0, b.1)?);
    let power = Ratio::from_dyadic(&power_of_two(-exponent));
    let most = epsilon.times(&power).floor();
    let _ = writeln!(
        text,
        "; d_i = a_i - b_i in units of 2^{exponent}; apart from {} on they are too far from one another.",
        &most + 1
    );
    let mut violations = vec![];
    for i in 0..a.1.len() {
        let (fa, ca) = real(&a.0, a.1, i, exponent);
        let (fb, cb) = real(&b.0, b.1, i, exponent);
        let (x, y) = (&a.0.elements[i], &b.0.elements[i]);
        let ends = |f: &BigInt, t: &Term| ((f * &t.lo).min(f * &t.hi), (f * &t.lo).max(f * &t.hi));
        let ((al, ah), (bl, bh)) = (ends(&fa, x), ends(&fb, y));
        let offset = &ca - &cb;
        let (lo, hi) = (al - bh + &offset, ah - bl + &offset);
        let w = width(&lo.clone().min(-&most), &hi.clone().max(most.clone()));
        let difference = format!("(bvadd (bvsub {} {}) {})", x.times(&fa, w), y.times(&fb, w), literal(&offset, w));
        let _ = writeln!(text, "(define-fun d_{i} () (_ BitVec {w}) {difference})");
        violations.push(format!("(bvsgt d_{i} {})", literal(&most, w)));
        violations.push(format!("(bvslt d_{i} {})", literal(&-&most, w)));
    }
    let _ = writeln!(text, "(assert {})", any(&violations));
    Ok(())
}

/// 2^e.
fn power_of_two(e: i64) -> Dyadic {
    let (one, two) = (Dyadic::from_int(1), Dyadic::from_int(2));
    let half = exact(0.5);
    (0..e.abs()).fold(one, |p, _| &p * if e >= 0 { &two } else { &half })
}
