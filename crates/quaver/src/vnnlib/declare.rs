//! Declarations of both versions.

use super::error::{Fault, shown};
use super::scope::Scope;
use super::tree::{Kind, Node};
use super::{ElementType, Equivalence, Network, Tensor};

/// `(declare-const X_0 Real)`, `(declare-fun X_0 () Real)`.
pub(super) fn constant(scope: &mut Scope, items: &[Node], at: usize) -> Result<(), Fault> {
    let (name, sort) = match items {
        [_, name, sort] => (name, sort),
        [_, name, Node { kind: Kind::List { items, .. }, .. }, sort] if items.is_empty() => (name, sort),
        _ => return Err(Fault::new(at, "not a declaration", "write (declare-const X_0 Real)")),
    };
    if sort.word() != Some("Real") {
        return Err(Fault::new(sort.at, format!("{} is not a type here", sort.shown()), "declare it as Real"));
    }
    scope.declare_numbered(name.word().unwrap_or_default(), name.at)
}

/// `(declare-network f ...)`.
pub(super) fn network(scope: &mut Scope, items: &[Node], at: usize) -> Result<(), Fault> {
    let mut network = Network { name: identifier(items.get(1), at)?, same: None, inputs: vec![], outputs: vec![] };
    for node in items.iter().skip(2) {
        let Kind::List { items, .. } = &node.kind else {
            return Err(Fault::new(node.at, format!("{} is no declaration", node.shown()), "see (declare-input ...)"));
        };
        match items.first().and_then(Node::word) {
            Some("declare-input") => network.inputs.push(tensor(items, node.at)?),
            Some("declare-output") => network.outputs.push(tensor(items, node.at)?),
            Some("declare-hidden") => {
                let name = items.get(1).and_then(Node::word).unwrap_or_default();
                let problem = format!("hidden tensor `{}`: hidden tensors are not supported", shown(name));
                let cure = "make it an output of the model and declare it as (declare-output ...)";
                return Err(Fault::new(node.at, problem, cure));
            }
            Some(word @ ("equal-to" | "isomorphic-to")) if network.same.is_none() => {
                let other = items.get(1).and_then(Node::word).unwrap_or_default();
                let index = scope.network(other).filter(|&i| scope.networks[i].same.is_none()).ok_or_else(|| {
                    let cure = "name a network that is declared above and has no such statement itself";
                    Fault::new(node.at, format!("`{}` cannot be referred to", shown(other)), cure)
                })?;
                network.same = Some(if word == "equal-to" {
                    Equivalence::EqualTo(index)
                } else {
                    Equivalence::IsomorphicTo(index)
                });
            }
            _ => {
                let cure = "use declare-input, declare-output, and one of equal-to and isomorphic-to";
                return Err(Fault::new(node.at, format!("{} has no meaning in a network", node.shown()), cure));
            }
        }
    }
    complete(scope, &network, at)?;
    scope.declare(network, at)
}

fn complete(scope: &Scope, network: &Network, at: usize) -> Result<(), Fault> {
    if network.inputs.is_empty() || network.outputs.is_empty() {
        let problem = format!("network `{}` has no input or no output", network.name);
        return Err(Fault::new(at, problem, "declare every input and output of the model, in order"));
    }
    let (other, typed) = match network.same {
        None => return Ok(()),
        Some(Equivalence::EqualTo(i)) => (&scope.networks[i], true),
        Some(Equivalence::IsomorphicTo(i)) => (&scope.networks[i], false),
    };
    let agree = |a: &[Tensor], b: &[Tensor]| {
        let pair = |(a, b): (&Tensor, &Tensor)| a.shape == b.shape && (!typed || a.element == b.element);
        a.len() == b.len() && a.iter().zip(b).all(pair)
    };
    if agree(&network.inputs, &other.inputs) && agree(&network.outputs, &other.outputs) {
        return Ok(());
    }
    let problem = format!("networks `{}` and `{}` have other tensors", network.name, other.name);
    Err(Fault::new(at, problem, "declare the same inputs and outputs in both, but for their names"))
}

/// `(declare-input X real [1,5])`.
fn tensor(items: &[Node], at: usize) -> Result<Tensor, Fault> {
    let name = identifier(items.get(1), at)?;
    if let Some(extra) = items.get(4) {
        let problem = format!("`{name}`: {} is not supported", extra.shown());
        return Err(Fault::new(extra.at, problem, "remove it; constrain the input with assertions instead"));
    }
    let (Some(word), Some(Kind::Index(shape))) = (items.get(2).and_then(Node::word), items.get(3).map(|n| &n.kind))
    else {
        return Err(Fault::new(at, format!("`{name}` has no type or shape"), "write (declare-input X real [1,5])"));
    };
    let element = ElementType::parse(word).ok_or_else(|| {
        let cure = "use real, or a type of ONNX such as float32, int8 or uint8";
        Fault::new(items[2].at, format!("`{}` is no element type", shown(word)), cure)
    })?;
    Ok(Tensor { name, element, shape: shape.clone() })
}

fn identifier(node: Option<&Node>, at: usize) -> Result<String, Fault> {
    let word = node.and_then(Node::word).unwrap_or_default();
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(letters) {
        return Ok(word.into());
    }
    let problem = format!("`{}` is not a name", shown(word));
    Err(Fault::new(node.map_or(at, |n| n.at), problem, "begin with a letter; use letters, digits and _"))
}
