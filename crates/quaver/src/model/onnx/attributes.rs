//! Attributes of a node: typed access, and the check that none was left unread.

use super::proto::{AttributeProto, TensorProto, attribute_type as ty, data_type};
use crate::model::build::Problem;

/// No operator has nearly as many attributes.
const MAX_ATTRIBUTES: usize = 64;

/// The attributes of one node; remembers which were asked for.
pub(super) struct Attributes<'a> {
    list: &'a [AttributeProto],
    used: Vec<bool>,
}

impl<'a> Attributes<'a> {
    /// Wraps the attributes of a node, which must have distinct names and no references to function parameters.
    pub fn new(list: &'a [AttributeProto]) -> Result<Self, Problem> {
        if list.len() > MAX_ATTRIBUTES {
            return Err(Problem::whole(format!("has {} attributes", list.len()), "export the model again"));
        }
        for (i, attribute) in list.iter().enumerate() {
            let name = attribute.name();
            if list[..i].iter().any(|a| a.name() == name) {
                return Err(Problem::attribute(name, "given twice", "give each attribute once"));
            }
            if !attribute.ref_attr_name().is_empty() {
                return Err(Problem::attribute(name, "refers to a function's parameter", "inline functions first"));
            }
        }
        Ok(Attributes { list, used: vec![false; list.len()] })
    }

    /// Reads and drops an attribute that has no bearing on inference.
    pub fn ignore(&mut self, name: &str) {
        if let Some(i) = self.list.iter().position(|a| a.name() == name) {
            self.used[i] = true;
        }
    }

    fn find(&mut self, name: &str, kind: i32, wanted: &str) -> Result<Option<&'a AttributeProto>, Problem> {
        let Some(i) = self.list.iter().position(|a| a.name() == name) else { return Ok(None) };
        self.used[i] = true;
        let found = self.list[i].r#type.unwrap_or(0);
        if found != 0 && found != kind {
            return Err(Problem::attribute(name, format!("has type number {found}, not {wanted}"), "correct its type"));
        }
        Ok(Some(&self.list[i]))
    }

    /// An integer, if given.
    pub fn opt_int(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        Ok(self.find(name, ty::INT, "INT")?.map(|a| a.i()))
    }

    /// Whether an integer is given that is the number of float16.
    pub fn is_float16(&mut self, name: &str) -> bool {
        matches!(self.opt_int(name), Ok(Some(n)) if n == i64::from(data_type::FLOAT16))
    }

    /// An integer with a default.
    pub fn int(&mut self, name: &str, default: i64) -> Result<i64, Problem> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer that must be given.
    pub fn required_int(&mut self, name: &str) -> Result<i64, Problem> {
        self.opt_int(name)?.ok_or_else(|| Problem::attribute(name, "missing, but required", "add it"))
    }

    /// A flag: 0 or 1.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.int(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Problem::attribute(name, format!("is {other}"), "use 0 or 1")),
        }
    }

    /// Refuses any value of an integer attribute but one.
    pub fn only(&mut self, name: &str, value: i64, cure: &str) -> Result<(), Problem> {
        match self.int(name, value)? {
            found if found == value => Ok(()),
            found => Err(Problem::attribute(name, format!("{found} is not supported, only {value}"), cure)),
        }
    }

    /// A float, if given; it must not be NaN.
    pub fn opt_float(&mut self, name: &str) -> Result<Option<f32>, Problem> {
        match self.find(name, ty::FLOAT, "FLOAT")?.map(|a| a.f()) {
            Some(x) if x.is_nan() => Err(Problem::attribute(name, "is not a number", "correct its value")),
            other => Ok(other),
        }
    }

    /// A finite float with a default.
    pub fn float(&mut self, name: &str, default: f32) -> Result<f32, Problem> {
        let x = self.opt_float(name)?.unwrap_or(default);
        if x.is_finite() { Ok(x) } else { Err(Problem::attribute(name, "is infinite", "correct its value")) }
    }

    /// A string with a default.
    pub fn string(&mut self, name: &str, default: &str) -> Result<String, Problem> {
        match self.find(name, ty::STRING, "STRING")? {
            None => Ok(default.to_string()),
            Some(a) => String::from_utf8(a.s().to_vec())
                .map_err(|_| Problem::attribute(name, "is not UTF-8", "correct its value")),
        }
    }

    /// A list of integers, if given.
    pub fn ints(&mut self, name: &str) -> Result<Option<&'a [i64]>, Problem> {
        Ok(self.find(name, ty::INTS, "INTS")?.map(|a| a.ints.as_slice()))
    }

    /// A list of floats, if given.
    pub fn floats(&mut self, name: &str) -> Result<Option<&'a [f32]>, Problem> {
        Ok(self.find(name, ty::FLOATS, "FLOATS")?.map(|a| a.floats.as_slice()))
    }

    /// A tensor, if given.
    pub fn tensor(&mut self, name: &str) -> Result<Option<&'a TensorProto>, Problem> {
        match self.find(name, ty::TENSOR, "TENSOR")? {
            None => Ok(None),
            Some(a) => {
                a.t.as_ref().map(Some).ok_or_else(|| Problem::attribute(name, "holds no tensor", "correct its value"))
            }
        }
    }

    /// Refuses attributes that nothing asked for.
    pub fn finish(&self) -> Result<(), Problem> {
        match self.used.iter().position(|used| !used) {
            None => Ok(()),
            Some(i) => Err(Problem::attribute(
                self.list[i].name(),
                "not understood for this operator and opset",
                "remove it, or export the model for a supported opset (8 to 26)",
            )),
        }
    }
}
