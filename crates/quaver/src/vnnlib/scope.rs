//! Names of a query and what they stand for.

use std::collections::{HashMap, HashSet};

use super::error::{Fault, shown};
use super::{ElementType, Network, Side, Tensor, Variable};

/// Most elements of one tensor.
const ELEMENTS: usize = 1 << 24;

/// The declared names.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub networks: Vec<Network>,
    /// Declared `X_i` and `Y_i` of VNN-LIB 1.0, whose tensors grow as they are declared.
    numbered: bool,
    declared: HashSet<(Side, usize)>,
    names: HashMap<String, Name>,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Network,
    Tensor { network: usize, side: Side, tensor: usize },
}

impl Scope {
    /// The one network of VNN-LIB 1.0, without a name of its own.
    pub fn numbered() -> Scope {
        let tensor = |name: &str| Tensor { name: name.into(), element: ElementType::Real, shape: vec![0] };
        let network =
            Network { name: String::new(), same: None, inputs: vec![tensor("X")], outputs: vec![tensor("Y")] };
        Scope { networks: vec![network], numbered: true, ..Scope::default() }
    }

    /// Declares `X_3` or `Y_0`.
    pub fn declare_numbered(&mut self, name: &str, at: usize) -> Result<(), Fault> {
        let Some((side, element)) = numbered(name).filter(|n| n.1 < ELEMENTS) else {
            let cure = "name inputs X_0, X_1, ... and outputs Y_0, Y_1, ...";
            return Err(Fault::new(at, format!("`{}` is neither an input nor an output", shown(name)), cure));
        };
        if !self.declared.insert((side, element)) {
            return Err(Fault::new(at, format!("`{name}` is declared twice"), "remove one of the two"));
        }
        let network = &mut self.networks[0];
        let tensor = match side {
            Side::Input => &mut network.inputs[0],
            Side::Output => &mut network.outputs[0],
        };
        tensor.shape[0] = tensor.shape[0].max(element + 1);
        Ok(())
    }

    /// Whether every element up to the last is declared; else the first that is not.
    pub fn gap(&self) -> Option<String> {
        let network = self.networks.first()?;
        let missing = |side, tensor: &Tensor| {
            let element = (0..tensor.len()).find(|&e| !self.declared.contains(&(side, e)));
            element.or((tensor.len() == 0).then_some(0)).map(|e| format!("{}_{e}", tensor.name))
        };
        missing(Side::Input, &network.inputs[0]).or_else(|| missing(Side::Output, &network.outputs[0]))
    }

    /// Declares a network with its tensors.
    pub fn declare(&mut self, network: Network, at: usize) -> Result<(), Fault> {
        let index = self.networks.len();
        self.name(&network.name, Name::Network, at)?;
        for (side, tensors) in [(Side::Input, &network.inputs), (Side::Output, &network.outputs)] {
            for (tensor, declared) in tensors.iter().enumerate() {
                self.name(&declared.name, Name::Tensor { network: index, side, tensor }, at)?;
                let elements = declared.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
                if elements.is_none_or(|n| n > ELEMENTS || n == 0) {
                    let problem = format!("`{}` has no elements, or more than {ELEMENTS}", declared.name);
                    return Err(Fault::new(at, problem, "declare the shape of the model's tensor"));
                }
            }
        }
        self.networks.push(network);
        Ok(())
    }

    fn name(&mut self, name: &str, what: Name, at: usize) -> Result<(), Fault> {
        match self.names.insert(name.into(), what) {
            None => Ok(()),
            Some(_) => Err(Fault::new(at, format!("`{}` is declared twice", shown(name)), "give each its own name")),
        }
    }

    /// The position of a declared network.
    pub fn network(&self, name: &str) -> Option<usize> {
        self.networks.iter().position(|n| n.name == name)
    }

    /// The element that `X[0,3]`, `X` or `X_3` names.
    pub fn element(&self, name: &str, index: Option<&[usize]>, at: usize) -> Result<Variable, Fault> {
        let unknown = || {
            let cure = if self.numbered {
                "declare it with (declare-const NAME Real)"
            } else {
                "declare its tensor in a network"
            };
            Fault::new(at, format!("`{}` is not declared", shown(name)), cure)
        };
        if self.numbered && index.is_none() {
            let declared = numbered(name).filter(|n| self.declared.contains(n));
            let (side, element) = declared.ok_or_else(unknown)?;
            return Ok(Variable { network: 0, side, tensor: 0, element });
        }
        match self.names.get(name) {
            Some(&Name::Tensor { network, side, tensor }) => {
                let declared = self.networks[network].tensor(side, tensor);
                let element = offset(declared, index.unwrap_or(&[]), at)?;
                Ok(Variable { network, side, tensor, element })
            }
            Some(Name::Network) => {
                let problem = format!("`{}` is a network, not a tensor", shown(name));
                Err(Fault::new(at, problem, "name an element of one of its tensors"))
            }
            None => Err(unknown()),
        }
    }
}

/// `X_3`, `Y_0`.
fn numbered(name: &str) -> Option<(Side, usize)> {
    let (letter, number) = name.split_once('_')?;
    let side = match letter {
        "X" => Side::Input,
        "Y" => Side::Output,
        _ => return None,
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
    digits.then(|| number.parse().ok()).flatten().map(|n: usize| (side, n))
}

/// Position of an element in row-major order.
fn offset(tensor: &Tensor, index: &[usize], at: usize) -> Result<usize, Fault> {
    let place = || format!("`{}` of shape {:?}", tensor.name, tensor.shape);
    if index.len() != tensor.shape.len() {
        let (given, wanted) = (index.len(), tensor.shape.len());
        let problem = format!("{given} indices for {}", place());
        return Err(Fault::new(at, problem, format!("give {wanted}, each from 0 to one below the dimension")));
    }
    if index.iter().zip(&tensor.shape).any(|(i, d)| i >= d) {
        let cure = "count from 0 to one below the dimension";
        return Err(Fault::new(at, format!("element {index:?} is outside of {}", place()), cure));
    }
    Ok(index.iter().zip(&tensor.shape).fold(0, |n, (i, d)| n * d + i))
}
