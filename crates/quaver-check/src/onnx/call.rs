//! One node with its inputs resolved, and typed access to what it is given.

use std::rc::Rc;

use super::graph::{Attribute, Data, Node, Tensor};

/// A tensor of the graph: a value of the net, or a constant.
#[derive(Clone)]
pub(super) struct Known {
    /// All axes, with the batch.
    pub shape: Vec<usize>,
    pub data: Stored,
}

#[derive(Clone)]
pub(super) enum Stored {
    /// The number of a value of the net.
    Value(usize),
    Reals(Rc<Vec<f64>>),
    Ints(Rc<Vec<i64>>),
}

impl From<Tensor> for Known {
    fn from(tensor: Tensor) -> Self {
        let data = match tensor.data {
            Data::Reals(reals) => Stored::Reals(Rc::new(reals)),
            Data::Ints(ints) => Stored::Ints(Rc::new(ints)),
        };
        Known { shape: tensor.shape, data }
    }
}

impl Known {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of the value, if it is computed.
    pub fn id(&self) -> Option<usize> {
        if let Stored::Value(id) = self.data { Some(id) } else { None }
    }

    /// The numbers of a real constant, which must be finite.
    pub fn reals(&self) -> Result<&[f64], String> {
        match &self.data {
            Stored::Reals(reals) if reals.iter().all(|x| x.is_finite()) => Ok(reals),
            Stored::Reals(_) => Err("a constant is not finite".into()),
            Stored::Ints(_) => Err("a constant holds integers where real numbers are needed".into()),
            Stored::Value(_) => Err("a computed value stands where a constant is needed".into()),
        }
    }
}

/// A node that is being lowered.
pub(super) struct Call<'a> {
    pub node: &'a Node,
    pub opset: i64,
    /// Without those left out at the end.
    pub inputs: Vec<Option<Known>>,
}

impl Call<'_> {
    /// The name of the result.
    pub fn name(&self) -> &str {
        self.node.outputs.first().map_or("", String::as_str)
    }

    pub fn has(&self, position: usize) -> bool {
        self.inputs.get(position).is_some_and(Option::is_some)
    }

    pub fn input(&self, position: usize) -> Result<&Known, String> {
        self.inputs.get(position).and_then(Option::as_ref).ok_or_else(|| format!("input {position} is missing"))
    }

    /// An input that is computed, and its number.
    pub fn value(&self, position: usize) -> Result<(usize, &Known), String> {
        let known = self.input(position)?;
        Ok((known.id().ok_or_else(|| format!("input {position} is constant, which is not supported"))?, known))
    }

    /// Shape and numbers of an input that is a real constant.
    pub fn constant(&self, position: usize) -> Result<(&[usize], &[f64]), String> {
        let known = self.input(position)?;
        Ok((&known.shape, known.reals().map_err(|why| format!("input {position}: {why}"))?))
    }

    fn attribute<T>(&self, name: &str, pick: impl Fn(&Attribute) -> Option<T>) -> Result<Option<T>, String> {
        let Some((_, given)) = self.node.attributes.iter().find(|a| a.0 == name) else { return Ok(None) };
        pick(given).map(Some).ok_or_else(|| format!("attribute '{name}' has the wrong type"))
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        let given = self.attribute(name, |a| if let Attribute::Int(i) = a { Some(*i) } else { None })?;
        Ok(given.unwrap_or(default))
    }

    /// Refuses every value of an attribute but one, which is also what it is if not given.
    pub fn only(&self, name: &str, value: i64) -> Result<(), String> {
        match self.int(name, value)? {
            given if given == value => Ok(()),
            given => Err(format!("{name} = {given} is not supported")),
        }
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>, String> {
        self.attribute(name, |a| if let Attribute::Float(x) = a { Some(f64::from(*x)) } else { None })
    }

    pub fn text(&self, name: &str, default: &str) -> Result<String, String> {
        let given = self.attribute(name, |a| if let Attribute::Text(s) = a { Some(s.clone()) } else { None })?;
        Ok(given.unwrap_or_else(|| default.into()))
    }

    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, String> {
        self.attribute(name, |a| if let Attribute::Ints(list) = a { Some(list.clone()) } else { None })
    }

    /// The constant in the attributes of a Constant.
    pub fn stored(&self) -> Result<Known, String> {
        let [(_, given)] = &self.node.attributes[..] else { return Err("needs exactly one attribute".into()) };
        let (shape, data) = match given.clone() {
            Attribute::Tensor(tensor) => return Ok(tensor.into()),
            Attribute::Float(x) => (vec![], Data::Reals(vec![x.into()])),
            Attribute::Int(i) => (vec![], Data::Ints(vec![i])),
            Attribute::Floats(list) => (vec![list.len()], Data::Reals(list.into_iter().map(f64::from).collect())),
            Attribute::Ints(list) => (vec![list.len()], Data::Ints(list)),
            Attribute::Text(_) => return Err("a text is not a number".into()),
        };
        Ok(Tensor { name: String::new(), shape, kind: 0, data }.into())
    }

    /// Whether a parameter is an input: since some opset, an attribute before. Refuses it in the other form.
    fn is_input(&self, name: &str, position: usize, since: i64) -> Result<bool, String> {
        let (now, other) = match self.opset >= since {
            true => ("input", self.node.attributes.iter().any(|a| a.0 == name)),
            false => ("attribute", self.has(position)),
        };
        if other { Err(format!("{name} must be an {now} in opset {}", self.opset)) } else { Ok(now == "input") }
    }

    /// A list of integers that is an input since some opset, an attribute before.
    pub fn ints_at(&self, name: &str, position: usize, since: i64) -> Result<Option<Vec<i64>>, String> {
        match self.is_input(name, position, since)? {
            false => self.ints(name),
            true if !self.has(position) => Ok(None),
            true => match &self.input(position)?.data {
                Stored::Ints(list) => Ok(Some(list.to_vec())),
                _ => Err(format!("{name} must be constant integers")),
            },
        }
    }

    /// A number that is an input since some opset, an attribute before; it may be infinite.
    pub fn float_at(&self, name: &str, position: usize, since: i64) -> Result<Option<f64>, String> {
        match self.is_input(name, position, since)? {
            false => self.float(name),
            true if !self.has(position) => Ok(None),
            true => match &self.input(position)?.data {
                Stored::Reals(list) if list.len() == 1 => Ok(Some(list[0])),
                _ => Err(format!("{name} must be one constant real number")),
            },
        }
    }
}
