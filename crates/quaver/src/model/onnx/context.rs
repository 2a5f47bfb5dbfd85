//! One node of the file while it is turned into operations.

use std::sync::Arc;

use super::attributes::Attributes;
use super::tensor::TensorReader;
use crate::model::build::Assembly;
use crate::model::build::Hint;
use crate::model::build::Problem;
use crate::model::ir::{DType, Data, Op, Tensor, Value, ValueId};

pub(super) const FIX: &str = "correct the model, or export it again";

/// A node of the file, its resolved inputs, and the outputs made for it so far.
pub(super) struct Context<'a, 'b> {
    /// The model so far.
    pub asm: &'a mut Assembly,
    /// For tensors in attributes.
    pub tensors: &'a mut TensorReader<'b>,
    /// The node's attributes.
    pub attrs: Attributes<'a>,
    /// The node's name, or `op_type#index`.
    pub name: &'a str,
    /// Version of the node's operator set.
    pub opset: i64,
    /// Values at the input positions.
    pub inputs: Vec<Option<ValueId>>,
    /// Names of the outputs; empty for those left out.
    pub output_names: &'a [String],
    /// Values of the outputs.
    pub outputs: Vec<Option<ValueId>>,
}

impl Context<'_, '_> {
    /// Refuses a wrong number of inputs.
    pub fn arity(&self, min: usize, max: usize) -> Result<(), Problem> {
        let n = self.inputs.len();
        if (min..=max).contains(&n) {
            return Ok(());
        }
        Err(Problem::whole(format!("has {n} inputs, needs {min} to {max}"), FIX))
    }

    /// Whether an input is there.
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).copied().flatten().is_some()
    }

    /// Id of a required input.
    pub fn id(&self, i: usize) -> Result<ValueId, Problem> {
        self.inputs.get(i).copied().flatten().ok_or_else(|| Problem::input(i, "missing, but required", FIX))
    }

    /// A required input.
    pub fn value(&self, i: usize) -> Result<&Value, Problem> {
        Ok(self.asm.value(self.id(i)?))
    }

    /// Shape of a required input.
    pub fn shape(&self, i: usize) -> Result<Vec<usize>, Problem> {
        Ok(self.value(i)?.shape.clone())
    }

    /// Rank of a required input.
    pub fn rank(&self, i: usize) -> Result<usize, Problem> {
        Ok(self.value(i)?.shape.len())
    }

    /// The number that a scalar input surely has, even behind quantizers (see `Assembly::known_scalar`).
    pub fn known_scalar(&self, i: usize) -> Option<f64> {
        self.id(i).ok().and_then(|id| self.asm.known_scalar(id))
    }

    /// A required input that must be constant.
    pub fn constant(&self, i: usize) -> Result<Arc<Tensor>, Problem> {
        let value = self.value(i)?;
        value.constant.clone().ok_or_else(|| {
            Problem::input(i, format!("`{}` is not a constant", value.name), "export with static shapes and parameters")
        })
    }

    /// Integers of a constant int32 or int64 list, if the input is there.
    pub fn opt_ints(&self, i: usize) -> Result<Option<Vec<i64>>, Problem> {
        if !self.has(i) {
            return Ok(None);
        }
        let tensor = self.constant(i)?;
        match &tensor.data {
            Data::I64(v) if tensor.shape.len() <= 1 => Ok(Some(v.clone())),
            Data::I32(v) if tensor.shape.len() <= 1 => Ok(Some(v.iter().map(|&x| x as i64).collect())),
            _ => {
                let what = format!("is {} of shape {:?}, a list of int64 is needed", tensor.dtype(), tensor.shape);
                Err(Problem::input(i, what, FIX))
            }
        }
    }

    /// Integers of a required constant list.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Problem> {
        self.id(i)?;
        Ok(self.opt_ints(i)?.unwrap_or_default())
    }

    /// Integers from an attribute in older opsets, from an input since `since`.
    pub fn ints_at(&mut self, name: &str, input: usize, since: i64) -> Result<Option<Vec<i64>>, Problem> {
        if self.opset < since {
            return Ok(self.attrs.ints(name)?.map(<[i64]>::to_vec));
        }
        self.opt_ints(input)
    }

    /// The single float32 of a constant input, if it is there.
    pub fn opt_scalar(&self, i: usize) -> Result<Option<f32>, Problem> {
        if !self.has(i) {
            return Ok(None);
        }
        let tensor = self.constant(i)?;
        match tensor.as_f32() {
            Some(&[x]) if !x.is_nan() => Ok(Some(x)),
            _ => Err(Problem::input(
                i,
                format!("is {} of shape {:?}, one float32 number is needed", tensor.dtype(), tensor.shape),
                FIX,
            )),
        }
    }

    /// An axis counted from the end when negative.
    pub fn axis(&self, value: i64, rank: usize) -> Result<usize, Problem> {
        crate::model::build::shape::axis(value, rank)
            .ok_or_else(|| Problem::attribute("axis", format!("{value} is out of range for rank {rank}"), FIX))
    }

    /// The first `n` inputs; absent trailing ones are left off.
    pub fn take_inputs(&self, n: usize) -> Vec<Option<ValueId>> {
        let mut list: Vec<_> = self.inputs.iter().take(n).copied().collect();
        while list.last().is_some_and(Option::is_none) {
            list.pop();
        }
        list
    }

    /// Adds the operation for output 0, applied to the node's inputs as they are.
    pub fn direct(&mut self, op: Op) -> Result<(), Problem> {
        let inputs = self.take_inputs(usize::MAX);
        self.emit(0, op, &inputs, &Hint::default())
    }

    /// Adds the operation for output 0, applied to input 0, with a known output shape.
    pub fn shaped(&mut self, op: Op, shape: Vec<usize>) -> Result<(), Problem> {
        let x = self.id(0)?;
        self.emit(0, op, &[Some(x)], &Hint { shape: Some(shape), dtype: None })
    }

    /// Adds the operation for output `k`.
    pub fn emit(&mut self, k: usize, op: Op, inputs: &[Option<ValueId>], hint: &Hint) -> Result<(), Problem> {
        let Some(name) = self.output_names.get(k).filter(|name| !name.is_empty()) else { return Ok(()) };
        let node = if self.output_names.len() > 1 { format!("{}:{k}", self.name) } else { self.name.to_string() };
        let id = self.asm.emit(&node, name.clone(), op, inputs, hint)?;
        self.outputs[k] = Some(id);
        Ok(())
    }

    /// Adds an operation for an intermediate value.
    pub fn intermediate(&mut self, op: Op, inputs: &[Option<ValueId>], hint: &Hint) -> Result<ValueId, Problem> {
        let name = self.asm.fresh(&format!("{}_part", self.name));
        self.asm.emit(&name.clone(), name, op, inputs, hint)
    }

    /// Makes output 0 a constant.
    pub fn bind(&mut self, tensor: Tensor) -> Result<(), Problem> {
        let Some(name) = self.output_names.first().filter(|name| !name.is_empty()) else { return Ok(()) };
        self.outputs[0] = Some(self.asm.constant(name.clone(), Arc::new(tensor)));
        Ok(())
    }

    /// A new constant beside the outputs.
    pub fn new_constant(&mut self, what: &str, tensor: Tensor) -> ValueId {
        let name = self.asm.fresh(&format!("{}_{what}", self.name));
        self.asm.constant(name, Arc::new(tensor))
    }

    /// Refuses a second output that is asked for.
    pub fn one_output(&self, what: &str) -> Result<(), Problem> {
        match self.output_names.iter().skip(1).position(|name| !name.is_empty()) {
            None => Ok(()),
            Some(i) => Err(Problem::output(i + 1, format!("{what} is not supported"), "remove that output")),
        }
    }

    /// The element type an attribute names.
    pub fn element_type(&mut self, attribute: &str) -> Result<Option<DType>, Problem> {
        let Some(number) = self.attrs.opt_int(attribute)? else { return Ok(None) };
        let number = i32::try_from(number).unwrap_or(-1);
        super::tensor::element_type(number).map(Some).map_err(|p| Problem::attribute(attribute, p.what, p.cure))
    }
}
