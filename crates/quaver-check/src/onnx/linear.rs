//! Operators that are affine maps: sums, products with constants, normalization.

use super::call::{Call, Known};
use super::layout::{common_shape, spread};
use super::lower::Lowering;
use crate::net::{Affine, Map, Op};

/// A bound on what one rounding to f64 changes, relative to the result, with room to spare.
const ROUNDING: f64 = 4.0 * (f64::EPSILON / 2.0);

impl Lowering {
    /// a + sign b.
    pub(super) fn sum(&mut self, call: &Call, sign: f64) -> Result<Known, String> {
        let operands = [(call.input(0)?, 1.0), (call.input(1)?, sign)];
        let shape = common_shape(&operands[0].0.shape, &operands[1].0.shape);
        let elements = self.room(&shape)?;
        let (mut terms, mut bias) = (vec![], vec![0.0; elements]);
        for (operand, sign) in operands {
            if operand.id().is_some() {
                let stretched = self.stretched(call, operand, &shape)?;
                terms.extend(stretched.id().map(|id| (id, Map::Scale(vec![sign; elements]))));
            } else {
                let constant = operand.reals()?;
                bias = spread(&operand.shape, &shape)?.into_iter().map(|place| sign * constant[place]).collect();
            }
        }
        if terms.is_empty() {
            return Err("both operands are constant, which is not supported".into());
        }
        Ok(self.push(call.name(), shape, Op::Affine(Affine { terms, bias, slack: 0.0 })))
    }

    pub(super) fn multiply(&mut self, call: &Call) -> Result<Known, String> {
        let (a, b) = (call.input(0)?, call.input(1)?);
        match (a.id(), b.id()) {
            (Some(_), Some(_)) => Err("both operands are computed; only products with constants are supported".into()),
            (None, Some(_)) => self.scaled(call, b, a, a.reals()?, 0.0),
            _ => self.scaled(call, a, b, b.reals()?, 0.0),
        }
    }

    pub(super) fn divide(&mut self, call: &Call) -> Result<Known, String> {
        let (a, b) = (call.input(0)?, call.input(1)?);
        let (factors, slack) = reciprocals(b.reals().map_err(|why| format!("the divisor: {why}"))?)?;
        self.scaled(call, a, b, &factors, slack)
    }

    /// Multiplies a value by factors in the shape of a constant.
    fn scaled(&mut self, call: &Call, x: &Known, by: &Known, factors: &[f64], slack: f64) -> Result<Known, String> {
        let shape = common_shape(&x.shape, &by.shape);
        let elements = self.room(&shape)?;
        let id = self.stretched(call, x, &shape)?.id().ok_or("both operands are constant, which is not supported")?;
        let factors = spread(&by.shape, &shape)?.into_iter().map(|place| factors[place]).collect();
        Ok(self.affine(call.name(), shape, (id, Map::Scale(factors)), vec![0.0; elements], slack))
    }

    pub(super) fn matmul(&mut self, call: &Call) -> Result<Known, String> {
        if call.input(0)?.id().is_none() {
            return self.matrix_times_vector(call);
        }
        let (id, x) = call.value(0)?;
        let (w_shape, w) = call.constant(1)?;
        let (&[inputs, ..], 1 | 2) = (w_shape, w_shape.len()) else {
            return Err(format!("weights of shape {w_shape:?} are not supported, only vectors and matrices"));
        };
        let Some((&last, outer)) = x.shape.split_last().filter(|last| *last.0 == inputs) else {
            return Err(format!("the shapes {:?} and {w_shape:?} do not fit", x.shape));
        };
        let (outputs, shape) = (w.len() / last, [outer, &w_shape[1..]].concat());
        let elements = self.room(&shape)?;
        let map = Map::Dense { outer: elements / outputs, inputs, outputs, weights: swapped(w, outputs) };
        Ok(self.affine(call.name(), shape, (id, map), vec![0.0; elements], 0.0))
    }

    fn matrix_times_vector(&mut self, call: &Call) -> Result<Known, String> {
        let ((w_shape, w), (id, x)) = (call.constant(0)?, call.value(1)?);
        let (&[outputs, inputs], true) = (w_shape, w_shape.get(1..) == Some(&x.shape[..])) else {
            return Err(format!(
                "a product of shapes {w_shape:?} and {:?} is not supported, only of a matrix and a vector",
                x.shape
            ));
        };
        let shape = vec![outputs];
        self.room(&shape)?;
        let map = Map::Dense { outer: 1, inputs, outputs, weights: w.to_vec() };
        Ok(self.affine(call.name(), shape, (id, map), vec![0.0; outputs], 0.0))
    }

    pub(super) fn gemm(&mut self, call: &Call) -> Result<Known, String> {
        call.only("transA", 0)?;
        let (id, x) = call.value(0)?;
        let (w_shape, w) = call.constant(1)?;
        let (inputs, outputs, weights) = match (call.int("transB", 0)?, w_shape) {
            (0, &[inputs, outputs]) => (inputs, outputs, swapped(w, outputs)),
            (1, &[outputs, inputs]) => (inputs, outputs, w.to_vec()),
            (transposed, _) => return Err(format!("weights of shape {w_shape:?} with transB {transposed}")),
        };
        let (weights, mut slack) = multiples(&weights, call.float("alpha")?.unwrap_or(1.0))?;
        let &[outer, last] = &x.shape[..] else { return Err(format!("a matrix of shape {:?}", x.shape)) };
        if last != inputs {
            return Err(format!("the shapes {:?} and {w_shape:?} do not fit", x.shape));
        }
        let shape = vec![outer, outputs];
        let mut bias = vec![0.0; self.room(&shape)?];
        if call.has(2) {
            let (c_shape, c) = call.constant(2)?;
            let (c, inexact) = multiples(c, call.float("beta")?.unwrap_or(1.0))?;
            bias = spread(c_shape, &shape)?.into_iter().map(|place| c[place]).collect();
            slack = inexact.max(slack);
        }
        Ok(self.affine(call.name(), shape, (id, Map::Dense { outer, inputs, outputs, weights }), bias, slack))
    }

    /// gain (x - mean) / sqrt(variance + epsilon) + offset for each channel: x - mean is exact, the factor is rounded.
    pub(super) fn batch_normalization(&mut self, call: &Call) -> Result<Known, String> {
        call.only("spatial", 1)?;
        call.only("training_mode", 0)?;
        let (id, x) = call.value(0)?;
        let channels = *x.shape.get(1).ok_or("the value has no channels")?;
        let elements = self.room(&x.shape)?;
        let by_channel =
            spread(&[&[channels], &x.shape[2..].iter().map(|_| 1).collect::<Vec<_>>()[..]].concat(), &x.shape)?;
        let parameter = |position: usize| match call.constant(position)? {
            (&[n], numbers) if n == channels => Ok(numbers),
            (shape, _) => Err(format!("input {position} has the shape {shape:?}, not [{channels}]")),
        };
        let (gain, offset, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let epsilon = call.float("epsilon")?.unwrap_or(1e-5f32.into());
        let mut factors = vec![];
        for (gain, variance) in gain.iter().zip(variance) {
            // A sum, a square root and a quotient are rounded.
            let factor = gain / (variance + epsilon).sqrt();
            factors.push(if *gain == 0.0 && variance + epsilon > 0.0 { 0.0 } else { normal(factor)? });
        }
        self.room(&x.shape)?;
        let each =
            |numbers: &[f64], sign: f64| by_channel.iter().map(|&place| sign * numbers[place]).collect::<Vec<_>>();
        let centre = (id, Map::Scale(vec![1.0; elements]));
        let centred = self.affine(&format!("{}/centred", call.name()), x.shape.clone(), centre, each(mean, -1.0), 0.0);
        let term = (centred.id().unwrap_or(id), Map::Scale(each(&factors, 1.0)));
        Ok(self.affine(call.name(), x.shape.clone(), term, each(offset, 1.0), 3.0 * ROUNDING))
    }

    /// A sum divided by counts.
    pub(super) fn mean(&mut self, name: &str, sum: &Known, counts: &[f64]) -> Result<Known, String> {
        let elements = self.room(&sum.shape)?;
        let (factors, slack) = reciprocals(counts)?;
        let id = sum.id().ok_or("a mean of a constant")?;
        Ok(self.affine(name, sum.shape.clone(), (id, Map::Scale(factors)), vec![0.0; elements], slack))
    }
}

/// A matrix of so many columns, stored by columns.
fn swapped(matrix: &[f64], columns: usize) -> Vec<f64> {
    let rows = matrix.len() / columns.max(1);
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

/// 1 / x for each, and the slack.
fn reciprocals(of: &[f64]) -> Result<(Vec<f64>, f64), String> {
    let quotients = of.iter().map(|x| normal(1.0 / x)).collect::<Result<Vec<_>, _>>()?;
    let exact = of.iter().zip(&quotients).all(|(x, quotient)| x.mul_add(*quotient, -1.0) == 0.0);
    Ok((quotients, if exact { 0.0 } else { ROUNDING }))
}

/// factor x for each, and the slack.
fn multiples(of: &[f64], factor: f64) -> Result<(Vec<f64>, f64), String> {
    let product = |x: &f64| match x * factor {
        p if p == 0.0 && (*x == 0.0 || factor == 0.0) => Ok(0.0),
        p => normal(p),
    };
    let products = of.iter().map(product).collect::<Result<Vec<_>, _>>()?;
    // The error of a product that is not tiny is itself a float.
    let exact = |(x, p): (&f64, &f64)| *p == 0.0 || (p.abs() > 1e-200 && x.mul_add(factor, -p) == 0.0);
    let exact = factor == 1.0 || of.iter().zip(&products).all(exact);
    Ok((products, if exact { 0.0 } else { ROUNDING }))
}

/// Refuses results whose relative rounding error is not bounded.
fn normal(x: f64) -> Result<f64, String> {
    if x.is_normal() { Ok(x) } else { Err(format!("a factor is {x}; it cannot be represented")) }
}
