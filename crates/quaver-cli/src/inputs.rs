//! Batches of inputs for a net, read from files and checked against the model.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::net::{Net, Node};

use crate::format;
use crate::npy::Array;
use crate::session::{Files, fail};

/// One batch for each input of a net; all have the same number of rows.
pub struct Inputs {
    /// Rows in the batch.
    pub rows: usize,
    /// Arrays, each with the elements of one row.
    arrays: Vec<(Array, usize)>,
}

impl Inputs {
    /// Reads one file for each input of the net, in order.
    pub fn read(files: Files, paths: &[PathBuf], lowered: &Lowered) -> Result<Inputs> {
        let net = &lowered.net;
        let names: Vec<&str> = net.inputs().iter().map(|&id| net.node(id).name.as_str()).collect();
        if paths.len() != names.len() {
            let given = if paths.len() == 1 { "1 is".into() } else { format!("{} are", paths.len()) };
            let problem = format!("the model has {}, and {given} given", format::count(names.len(), "input"));
            return Err(fail(problem, format!("repeat --inputs for each of: {}", names.join(", "))));
        }
        let mut inputs = Inputs { rows: 0, arrays: vec![] };
        for (k, path) in paths.iter().enumerate() {
            let node = net.node(net.inputs()[k]);
            let array = Array::read(files, path)?;
            let rows = rows_of(&array, node)?;
            check_type(&array, node, lowered.input_types[k])?;
            if k > 0 && rows != inputs.rows {
                let problem = format!("{}: has {rows} rows, and the first input has {}", array.place, inputs.rows);
                return Err(fail(problem, "give the same number of rows for each input"));
            }
            inputs.rows = rows;
            inputs.arrays.push((array, node.len()));
        }
        Ok(inputs)
    }

    /// Rows `first..last`, as one batch for each input.
    pub fn batch(&self, first: usize, last: usize) -> Vec<Vec<f64>> {
        self.arrays.iter().map(|(array, n)| (first * n..last * n).map(|i| array.at(i)).collect()).collect()
    }
}

/// Rows that one thread should execute at once: few enough that all values with their radii stay below 256 MiB.
pub fn rows_at_once(nets: &[&Net]) -> usize {
    let elements: usize = nets.iter().flat_map(|net| net.nodes()).map(Node::len).sum();
    ((1 << 24) / elements.max(1)).clamp(1, 256)
}

/// The shape without a leading batch of 1.
pub fn row_shape(node: &Node) -> &[usize] {
    match &node.shape[..] {
        [1, rest @ ..] => rest,
        all => all,
    }
}

/// How many rows an array has for an input: `[N, shape]`, `[N, elements]`, or one row without N. Axes of length 1 do not matter: they
/// change no order.
fn rows_of(array: &Array, node: &Node) -> Result<usize> {
    let row = row_shape(node);
    let squeezed = |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|d| *d != 1).collect() };
    let is_row = |shape: &[usize]| squeezed(shape) == squeezed(row) || *shape == [node.len()];
    let rows = match &array.shape[..] {
        [n, rest @ ..] if is_row(rest) => *n,
        whole if is_row(whole) => 1,
        _ => {
            let wanted: String = row.iter().map(|d| format!(", {d}")).collect();
            let flat = if row.len() > 1 { format!(" or [N, {}]", node.len()) } else { String::new() };
            let problem = format!(
                "{}: shape {} does not fit input `{}` of shape {}",
                array.place,
                format::shape(&array.shape),
                node.name,
                format::shape(&node.shape)
            );
            return Err(fail(problem, format!("give N rows as an array of shape [N{wanted}]{flat}")));
        }
    };
    if rows == 0 {
        return Err(fail(format!("{}: has no rows", array.place), "give at least one"));
    }
    Ok(rows)
}

/// How many rows an array has whose elements bound the elements of a model's input: its type, or float64 for a float.
pub fn rows_between(array: &Array, lowered: &Lowered) -> Result<usize> {
    let (node, wanted) = (lowered.net.node(lowered.net.inputs()[0]), lowered.input_types[0]);
    let rows = rows_of(array, node)?;
    let float = wanted.integer_range().is_none();
    if array.dtype() != Some(wanted) && !(float && array.dtype().is_none()) {
        let problem = format!("{}: is {}, and input `{}` is {wanted}", array.place, array.type_name(), node.name);
        return Err(fail(problem, format!("save the corners as x.astype(numpy.{wanted})")));
    }
    match (0..array.len()).find(|&i| !array.at(i).is_finite()) {
        Some(i) => Err(fail(format!("{} is {}", array.element(i), array.at(i)), "give finite corners")),
        None => Ok(rows),
    }
}

/// Refuses elements that are not exactly values of the input's type, naming the first.
fn check_type(array: &Array, node: &Node, wanted: quaver::model::ir::DType) -> Result<()> {
    let float = wanted.integer_range().is_none();
    if array.dtype() != Some(wanted) && !(float && array.dtype().is_none()) {
        let problem = format!("{}: is {}, and input `{}` is {wanted}", array.place, array.type_name(), node.name);
        let cure = format!("convert the values as the model was trained on them, then save x.astype(numpy.{wanted})");
        return Err(fail(problem, cure));
    }
    let (lo, hi) = node.range;
    for i in 0..array.len() {
        let x = array.at(i);
        if !x.is_finite() {
            return Err(fail(format!("{} is {x}", array.element(i)), "remove rows with NaN or infinite elements"));
        }
        if float && f64::from(x as f32) != x {
            let problem = format!("{} is {x:?}, which is not a float32 (the file is float64)", array.element(i));
            return Err(fail(
                problem,
                "save x.astype(numpy.float32), which rounds each value to what the model is given",
            ));
        }
        if x < lo || x > hi {
            let problem =
                format!("{} is {x}, outside the range [{lo}, {hi}] of input `{}`", array.element(i), node.name);
            return Err(fail(problem, "clip the values to the range"));
        }
    }
    Ok(())
}
