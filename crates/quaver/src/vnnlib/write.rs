//! Queries to text.

use std::fmt::Write;

use super::{Constraint, Decimal, Equivalence, Relation, Side, Spec, Tensor, Variable, Version};

/// Writes a query, in the language of its version. What is read back is equal, but for `!=` and constants that were folded.
pub fn write(spec: &Spec) -> String {
    let mut text = String::new();
    match spec.version {
        Version::V1 => numbered(spec, &mut text),
        Version::V2 => networks(spec, &mut text),
    }
    text.push('\n');
    for constraint in spec.listed(&spec.always) {
        line(&mut text, format_args!("(assert {})", comparison(spec, constraint)));
    }
    cases(spec, &mut text);
    text
}

fn line(text: &mut String, what: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{what}");
}

fn numbered(spec: &Spec, text: &mut String) {
    for (side, letter) in [(Side::Input, 'X'), (Side::Output, 'Y')] {
        let elements: usize = spec.networks.iter().flat_map(|n| n.tensors(side)).map(Tensor::len).sum();
        (0..elements).for_each(|i| line(text, format_args!("(declare-const {letter}_{i} Real)")));
    }
}

fn networks(spec: &Spec, text: &mut String) {
    line(text, format_args!("(vnnlib-version <2.0>)\n"));
    for network in &spec.networks {
        line(text, format_args!("(declare-network {}", network.name));
        match network.same {
            Some(Equivalence::EqualTo(i)) => line(text, format_args!("  (equal-to {})", spec.networks[i].name)),
            Some(Equivalence::IsomorphicTo(i)) => {
                line(text, format_args!("  (isomorphic-to {})", spec.networks[i].name))
            }
            None => {}
        }
        for (side, word) in [(Side::Input, "declare-input"), (Side::Output, "declare-output")] {
            for t in network.tensors(side) {
                line(text, format_args!("  ({word} {} {} {})", t.name, t.element.name(), index(&t.shape)));
            }
        }
        line(text, format_args!(")"));
    }
}

fn cases(spec: &Spec, text: &mut String) {
    match &spec.cases[..] {
        // An element differs from itself nowhere.
        [] => {
            let v = Variable { network: 0, side: Side::Input, tensor: 0, element: 0 };
            line(text, format_args!("(assert (< {0} {0}))", element(spec, v)));
        }
        [only] => spec.listed(only).for_each(|c| line(text, format_args!("(assert {})", comparison(spec, c)))),
        several => {
            line(text, format_args!("(assert (or"));
            for case in several {
                let all: Vec<String> = spec.listed(case).map(|c| comparison(spec, c)).collect();
                line(text, format_args!("  (and {})", all.join(" ")));
            }
            line(text, format_args!("))"));
        }
    }
}

fn index(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// `X[0,3]`, `X`, `X_3`.
pub(super) fn element(spec: &Spec, v: Variable) -> String {
    let tensor = spec.tensor(v);
    match spec.version {
        Version::V1 => format!("{}_{}", tensor.name, v.element),
        Version::V2 if tensor.shape.is_empty() => tensor.name.clone(),
        Version::V2 => {
            let mut rest = v.element;
            let mut place: Vec<usize> = tensor.shape.iter().rev().map(|&d| (rest % d, rest /= d).0).collect();
            place.reverse();
            format!("{}{}", tensor.name, index(&place))
        }
    }
}

fn comparison(spec: &Spec, c: &Constraint) -> String {
    let (word, swapped) = match c.relation {
        Relation::LessEqual => ("<=", ">="),
        Relation::Less => ("<", ">"),
        Relation::Equal => ("==", "=="),
    };
    let word = if spec.version == Version::V1 && c.relation == Relation::Equal { "=" } else { word };
    let name = |v: Variable| element(spec, v);
    let number = |d: &Decimal| numeral(spec, c, d);
    match &c.terms[..] {
        [(v, a)] if a.is_unit() && !a.is_negative() => format!("({word} {} {})", name(*v), number(&c.bound)),
        [(v, a)] if a.is_unit() && c.relation != Relation::Equal => {
            format!("({swapped} {} {})", name(*v), number(&c.bound.negated()))
        }
        [(v, a), (w, b)] if a.is_unit() && *b == a.negated() && c.bound.is_zero() && !c.computed => {
            let (left, right) = if a.is_negative() { (w, v) } else { (v, w) };
            format!("({word} {} {})", name(*left), name(*right))
        }
        terms => {
            let parts: Vec<String> = terms.iter().map(|(v, a)| term(a, &number(a), &name(*v))).collect();
            let sum = if parts.len() == 1 { parts[0].clone() } else { format!("(+ {})", parts.join(" ")) };
            format!("({word} {sum} {})", number(&c.bound))
        }
    }
}

fn term(a: &Decimal, number: &str, name: &str) -> String {
    if a.is_unit() && !a.is_negative() { name.into() } else { format!("(* {number} {name})") }
}

/// A number as its type has it: integers without a point.
fn numeral(spec: &Spec, c: &Constraint, d: &Decimal) -> String {
    let text = d.to_string();
    let is_float = c.terms.iter().all(|t| spec.tensor(t.0).element.is_float());
    let integer = text.strip_suffix(".0").filter(|_| !is_float);
    integer.map(str::to_string).unwrap_or(text)
}
