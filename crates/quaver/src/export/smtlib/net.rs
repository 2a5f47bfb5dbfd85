//! A net as definitions of bit vectors: one for each element that is not constant.

use std::fmt::Write;

use num_bigint::BigInt;

use super::function;
use super::term::{Term, ceil, exact, floor, literal, sum, width};
use crate::bounds::{Bounds, interval};
use crate::export::question::{ExportError, Network, comment};
use crate::export::sums::{last_bit, last_bit_of};
use crate::net::{Affine, From, Max, Move, Net, Node, NodeId, Op, Rounding};
use crate::num::float32;
use crate::property::Region;

/// What the integer n of an element stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// n 2^e.
    Exponent(i64),
    /// The float32 number n, counted from zero in the order of float32 numbers.
    Key,
}

/// The elements of a value.
#[derive(Clone, Debug)]
pub struct Value {
    /// What the integers stand for.
    pub scale: Scale,
    /// One for each element.
    pub elements: Vec<Term>,
}

/// Most products of one file: a line of text each.
const MOST_PRODUCTS: usize = 1 << 24;
/// Values of an element whose rounding to float32 is written as a table.
const MOST_ENTRIES: usize = 1 << 16;
const GRID: &str = "declare a grid of inputs, as in --grid 1/256";

/// Writes one net.
pub struct Encoder<'a> {
    pub net: &'a Net,
    letter: &'a str,
    /// Bounds on every value over the box.
    bounds: Vec<Bounds>,
    values: Vec<Option<Value>>,
    pub text: &'a mut String,
}

/// The value of a net's node, over the values of its input.
pub fn encode(
    (letter, network): (&str, &Network<'_>),
    (input, region): (&Value, &Region),
    target: NodeId,
    text: &mut String,
) -> Result<Value, ExportError> {
    let net = network.net();
    if net.multiplications() > MOST_PRODUCTS {
        let problem = format!("{}: {} products in one formula", network.name, net.multiplications());
        return Err(ExportError::new(problem, "use quaver robustness, or a smaller network"));
    }
    let needed = net.ancestors(target);
    let bounds = interval(net, region);
    let mut e = Encoder { net, letter, bounds, values: vec![None; net.nodes().len()], text };
    for id in net.ids().filter(|id| needed[id.0]) {
        let node = net.node(id);
        if !e.bounds[id.0].is_finite() {
            return Err(ExportError::at(node, "no bounds are proved on the box", "make the box smaller"));
        }
        let _ = writeln!(e.text, "; {letter}{} {}", id.0, comment(&node.name));
        let value = match &node.op {
            Op::Input(_) => input.clone(),
            Op::Affine(a) => e.affine(id, node, a)?,
            Op::Pointwise(p) => function::encode(&mut e, id, p)?,
            Op::Max(m) => e.max(id, m),
            Op::Move(m) => e.moved(id, node, m)?,
        };
        e.remark(&value);
        e.values[id.0] = Some(value);
    }
    Ok(e.values[target.0].take().unwrap_or_else(|| unreachable!("a node is its own ancestor")))
}

impl Encoder<'_> {
    /// A value that was written before.
    pub fn value(&self, id: NodeId) -> &Value {
        self.values[id.0].as_ref().unwrap_or_else(|| unreachable!("nodes are in topological order"))
    }

    /// Says what the integers of a value are and which widths hold them.
    fn remark(&mut self, value: &Value) {
        let unit = match value.scale {
            Scale::Exponent(0) => "integers".into(),
            Scale::Exponent(e) => format!("n 2^{e}"),
            Scale::Key => "float32 by rank".into(),
        };
        let fixed = value.elements.iter().filter(|t| t.value().is_some()).count();
        let widths = || value.elements.iter().filter(|t| t.value().is_none()).map(Term::width);
        let n = value.elements.len();
        let _ = match (widths().min(), widths().max()) {
            (Some(least), Some(most)) => {
                writeln!(
                    self.text,
                    ";   {n} elements, {unit}; {fixed} have one value in the box, the others {least} to {most} bits"
                )
            }
            _ => writeln!(self.text, ";   {n} elements, {unit}; all have one value in the box"),
        };
    }

    /// The integers that element i of a value is between, in units of 2^exponent.
    ///
    /// # Claim
    /// The element is between them for every input of the box.
    pub fn between(&self, id: NodeId, i: usize, exponent: i64) -> (BigInt, BigInt) {
        let b = &self.bounds[id.0];
        (ceil(&exact(b.lo[i]), exponent), floor(&exact(b.hi[i]), exponent))
    }

    /// Defines element i of a value between bounds; `expression` is given the width.
    ///
    /// # Why a width suffices
    /// Sums and products of bit vectors are those of integers modulo 2^width, whatever partial sums do; the element itself is between its bounds, and the
    /// width holds them.
    pub fn define(
        &mut self,
        (id, i): (NodeId, usize),
        (lo, hi): (BigInt, BigInt),
        expression: impl FnOnce(u64) -> String,
    ) -> Term {
        if lo == hi {
            return Term::constant(lo);
        }
        let w = width(&lo, &hi);
        let name = format!("{}{}_{i}", self.letter, id.0);
        let _ = writeln!(self.text, "(define-fun {name} () (_ BitVec {w}) {})", expression(w));
        Term::named(name, w, lo, hi)
    }

    fn affine(&mut self, id: NodeId, node: &Node, a: &Affine) -> Result<Value, ExportError> {
        if let Rounding::Slack { .. } = a.rounding {
            let problem = "a float32 runtime may sum in any order, so its result is not one number";
            let cure = format!("use --profile real for this model ({GRID}), or an integer model");
            return Err(ExportError::at(node, problem, cure));
        }
        let mut exponents = vec![];
        for (argument, map) in &a.terms {
            match self.value(*argument).scale {
                Scale::Exponent(e) => exponents.push(e + last_bit_of(map.weights().iter())),
                Scale::Key => {
                    return Err(ExportError::at(node, "is a sum of float32 inputs, which have no common unit", GRID));
                }
            }
        }
        if a.rounding == Rounding::Nearest32 {
            return self.rounded(id, node, a);
        }
        let exponent =
            exponents.into_iter().chain(a.bias.data.iter().filter_map(|b| last_bit(*b))).min().unwrap_or(0).min(0);
        let elements = (0..node.len()).map(|o| self.affine_element((id, o), a, exponent)).collect();
        Ok(Value { scale: Scale::Exponent(exponent), elements })
    }

    fn affine_element(&mut self, (id, o): (NodeId, usize), a: &Affine, exponent: i64) -> Term {
        let mut constant = floor(&exact(*a.bias.at(o)), exponent);
        let mut products: Vec<(BigInt, Term)> = vec![];
        for (argument, map) in &a.terms {
            let value = self.value(*argument);
            let Scale::Exponent(e) = value.scale else { unreachable!("refused before") };
            map.for_each_term(o, |i, w| {
                let factor = floor(&exact(w), exponent - e);
                match value.elements[i].value() {
                    Some(n) => constant += factor * n,
                    None if w != 0.0 => products.push((factor, value.elements[i].clone())),
                    None => {}
                }
            });
        }
        let bounds = self.between(id, o, exponent);
        self.define((id, o), bounds, |w| {
            let mut parts: Vec<String> = products.iter().map(|(c, x)| x.times(c, w)).collect();
            parts.push(literal(&constant, w));
            sum(&parts, w)
        })
    }

    /// An element-wise map of an integer whose result is rounded to float32 once: a table over the integers in the box.
    fn rounded(&mut self, id: NodeId, node: &Node, a: &Affine) -> Result<Value, ExportError> {
        let refuse = || {
            let problem = "a sum that the runtime rounds to float32, which is not written as a formula";
            ExportError::at(node, problem, "use --profile real for this model, or an integer model")
        };
        let [(argument, crate::net::LinearMap::Diagonal { scale, .. })] = &a.terms[..] else { return Err(refuse()) };
        let Scale::Exponent(0) = self.value(*argument).scale else { return Err(refuse()) };
        let mut tables = vec![];
        for (i, x) in self.value(*argument).elements.iter().enumerate() {
            let first = i64::try_from(&x.lo).map_err(|_| refuse())?;
            let count = usize::try_from(&x.hi - &x.lo).ok().filter(|n| *n < MOST_ENTRIES).ok_or_else(refuse)?;
            let (w, b) = (exact(*scale.at(i)), exact(*a.bias.at(i)));
            let of = |q: i64| f64::from((&(&w * &crate::num::Dyadic::from_int(q)) + &b).to_f32());
            tables.push((first..=first + count as i64).map(of).collect::<Vec<f64>>());
        }
        let exponent = last_bit_of(tables.iter().flatten());
        let arguments = self.value(*argument).elements.clone();
        let elements = (0..node.len()).map(|i| {
            let places: Vec<BigInt> = (1..tables[i].len()).map(|k| &arguments[i].lo + k).collect();
            let values: Vec<BigInt> = tables[i].iter().map(|v| floor(&exact(*v), exponent)).collect();
            let bounds = self.between(id, i, exponent);
            self.define((id, i), bounds, |w| function::stairs(&arguments[i], &places, &values, w))
        });
        Ok(Value { scale: Scale::Exponent(exponent), elements: elements.collect() })
    }

    fn max(&mut self, id: NodeId, m: &Max) -> Value {
        let x = self.value(m.input).clone();
        let larger = |a: &BigInt, b: &BigInt| a.max(b).clone();
        let elements = (0..self.net.node(id).len()).map(|o| {
            let mut best = x.elements[m.window(o)[0] as usize].clone();
            for (k, &j) in m.window(o).iter().enumerate().skip(1) {
                let next = &x.elements[j as usize];
                if next.hi <= best.lo {
                    continue;
                }
                let (lo, hi) = (larger(&best.lo, &next.lo), larger(&best.hi, &next.hi));
                best = match () {
                    () if best.hi <= next.lo => next.clone(),
                    () => {
                        let w = width(&(&best.lo).min(&next.lo).clone(), &hi);
                        let name = format!("{}{}_{o}_{k}", self.letter, id.0);
                        let (a, b) = (best.at(w), next.at(w));
                        let _ =
                            writeln!(self.text, "(define-fun {name} () (_ BitVec {w}) (ite (bvsge {a} {b}) {a} {b}))");
                        Term::named(name, w, lo, hi)
                    }
                };
            }
            best
        });
        let elements = elements.collect();
        Value { scale: x.scale, elements }
    }

    fn moved(&mut self, id: NodeId, node: &Node, m: &Move) -> Result<Value, ExportError> {
        let constants = || m.from.iter().filter_map(|f| if let From::Constant(c) = f { Some(*c) } else { None });
        let scales: Vec<Scale> = m.sources.iter().map(|s| self.value(*s).scale).collect();
        let keys = scales.iter().filter(|s| **s == Scale::Key).count();
        if keys > 0 {
            if keys < scales.len() || constants().any(|c| f64::from(c as f32) != c) {
                return Err(ExportError::at(node, "puts float32 inputs and other numbers together", GRID));
            }
            let elements = m.from.iter().map(|f| match f {
                From::Element { source, index } => {
                    self.value(m.sources[*source as usize]).elements[*index as usize].clone()
                }
                From::Constant(c) => Term::constant(float32::key(*c as f32).into()),
            });
            return Ok(Value { scale: Scale::Key, elements: elements.collect() });
        }
        let exponent_of = |s: &Scale| if let Scale::Exponent(e) = s { Some(*e) } else { None };
        let exponent = scales.iter().filter_map(exponent_of).chain(constants().filter_map(last_bit)).min().unwrap_or(0);
        let elements = m.from.iter().enumerate().map(|(i, f)| match f {
            From::Constant(c) => Term::constant(floor(&exact(*c), exponent)),
            From::Element { source, index } => {
                let x = self.value(m.sources[*source as usize]).elements[*index as usize].clone();
                let shift = exponent_of(&scales[*source as usize]).unwrap_or(0) - exponent;
                self.rescaled((id, i), &x, shift as usize)
            }
        });
        Ok(Value { scale: Scale::Exponent(exponent), elements: elements.collect() })
    }

    /// x 2^shift.
    fn rescaled(&mut self, place: (NodeId, usize), x: &Term, shift: usize) -> Term {
        if shift == 0 {
            return x.clone();
        }
        let factor = BigInt::from(1) << shift;
        self.define(place, (&x.lo * &factor, &x.hi * &factor), |w| x.times(&factor, w))
    }
}
