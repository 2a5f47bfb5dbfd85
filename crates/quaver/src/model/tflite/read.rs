//! Reading TensorFlow Lite files.

use std::path::Path;

use super::context::{Context, EXPORT};
use super::graph::{Graph, Layout};
use super::schema::{self, Operator, OperatorCode, SubGraph};
use super::tensors::{self, known};
use super::{names, ops};
use crate::model::build::{Assembly, Problem};
use crate::model::import::{ImportError, NodeError, ReadOptions};
use crate::model::ir::{Model, Source, ValueId};

/// The only version of the schema.
const VERSION: u32 = 3;
/// Number of the operator that has a name of its own.
const CUSTOM: i32 = 32;

/// Reads a model from the bytes of an unpacked file; `path` serves for messages.
pub(in crate::model) fn decode(
    bytes: &[u8],
    path: &Path,
    sha256: String,
    options: &ReadOptions,
) -> Result<Model, ImportError> {
    let model = schema::root(bytes).map_err(|e| ImportError::Decode {
        file: path.to_path_buf(),
        format: "a TensorFlow Lite model",
        message: one_line(&e.to_string()),
    })?;
    // Tensors may share bytes, but not so many that a small file grows large.
    let constant_bytes = bytes.len().saturating_mul(4);
    Importer { file: path, options, constant_bytes }.model(&model, sha256)
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Operators of the file by position: number, and name where that is its own.
struct Code {
    builtin: i32,
    custom: String,
}

impl Code {
    fn name(&self) -> String {
        if self.builtin == CUSTOM { format!("CUSTOM({})", self.custom) } else { names::operator(self.builtin) }
    }
}

struct Importer<'a> {
    file: &'a Path,
    options: &'a ReadOptions,
    constant_bytes: usize,
}

impl Importer<'_> {
    fn model_error(&self, problem: Problem) -> ImportError {
        ImportError::Model { file: self.file.to_path_buf(), problem }
    }

    fn refuse<T>(&self, what: impl Into<String>, cure: &str) -> Result<T, ImportError> {
        Err(self.model_error(Problem::whole(what, cure)))
    }

    fn value_error(&self, value: &str, problem: Problem) -> ImportError {
        ImportError::Value { file: self.file.to_path_buf(), value: value.to_string(), problem }
    }

    fn model(&self, model: &schema::Model<'_>, sha256: String) -> Result<Model, ImportError> {
        known(model).map_err(|p| self.model_error(p))?;
        if model.version() != VERSION {
            let what = format!("schema version {} is not supported, only {VERSION}", model.version());
            return self.refuse(what, "convert the model again");
        }
        if model.external_buffer_groups() || model.external_buffers() {
            return self.refuse("weights in other files are not supported", "export the model to one file");
        }
        let subgraphs = model.subgraphs();
        let Some((graph, count)) = subgraphs.and_then(|list| list.iter().next().map(|g| (g, list.len()))) else {
            return self.refuse("has no graph", EXPORT);
        };
        if count > 1 {
            let what = format!("has {count} subgraphs; control flow and several entry points are not supported");
            return self.refuse(what, "convert one function, without control flow");
        }
        known(&graph).map_err(|p| self.model_error(p))?;
        let source = Source {
            path: self.file.to_path_buf(),
            format: "tflite",
            sha256,
            producer: model.description().unwrap_or_default().to_string(),
            ir_version: VERSION.into(),
            opset: 0,
        };
        let codes = self.codes(model)?;
        self.graph(model, &graph, &codes, source)
    }

    fn codes(&self, model: &schema::Model<'_>) -> Result<Vec<Code>, ImportError> {
        let one = |code: OperatorCode<'_>| {
            known(&code)?;
            let builtin = code.builtin_code().max(code.deprecated_builtin_code().into());
            Ok(Code { builtin, custom: code.custom_code().unwrap_or_default().to_string() })
        };
        let codes = model.operator_codes().iter().flat_map(|list| list.iter()).map(one).collect::<Result<_, _>>();
        codes.map_err(|p| self.model_error(p))
    }

    fn graph(
        &self,
        model: &schema::Model<'_>,
        subgraph: &SubGraph<'_>,
        codes: &[Code],
        source: Source,
    ) -> Result<Model, ImportError> {
        let tensors = || subgraph.tensors().into_iter().flat_map(|list| list.iter());
        let names = tensors().enumerate().map(|(i, t)| match t.name() {
            Some(name) if !name.is_empty() => name.to_string(),
            _ => format!("tensor_{i}"),
        });
        let infos = tensors().map(|t| tensors::read(&t, model.buffers())).collect();
        let asm = Assembly::new(self.options.max_elements);
        let mut graph = Graph::new(asm, names.collect(), infos, self.constant_bytes);
        let inputs = self.inputs(subgraph, &mut graph)?;
        for (index, operator) in subgraph.operators().into_iter().flat_map(|list| list.iter()).enumerate() {
            self.operator(index, operator, codes, &mut graph)?;
        }
        let outputs = self.outputs(subgraph, &mut graph)?;
        let name = subgraph.name().unwrap_or_default().to_string();
        Ok(graph.asm.finish(name, &inputs, &outputs, source))
    }

    fn inputs(&self, subgraph: &SubGraph<'_>, graph: &mut Graph<'_>) -> Result<Vec<ValueId>, ImportError> {
        let mut ids = vec![];
        for tensor in subgraph.inputs().into_iter().flat_map(|list| list.iter()) {
            let tensor = graph.index(tensor).map_err(|p| self.model_error(p))?;
            let id = input(graph, tensor).map_err(|p| self.value_error(graph.name(tensor), p))?;
            graph.set(tensor, Layout::File, id);
            ids.push(id);
        }
        if ids.is_empty() {
            return self.refuse("the graph has no inputs", EXPORT);
        }
        Ok(ids)
    }

    fn operator<'a>(
        &self,
        index: usize,
        operator: Operator<'a>,
        codes: &[Code],
        graph: &mut Graph<'a>,
    ) -> Result<(), ImportError> {
        let at = usize::try_from(operator.opcode_index()).ok();
        let Some(code) = at.and_then(|at| codes.get(at)) else {
            let what = format!("operator {index} has code {}, which does not exist", operator.opcode_index());
            return self.refuse(what, EXPORT);
        };
        let op = code.name();
        // The file has no names for operators; people know them by what they make.
        let first = operator.outputs().and_then(|list| list.iter().next());
        let output = first.and_then(|tensor| graph.index(tensor).ok()).map(|tensor| graph.name(tensor).to_string());
        convert(&operator, code, format!("{op}#{index}"), graph).map_err(|problem| {
            let node = output.unwrap_or_else(|| format!("{op}#{index}"));
            ImportError::Node(Box::new(NodeError { file: self.file.to_path_buf(), node, index, op, problem }))
        })
    }

    fn outputs(&self, subgraph: &SubGraph<'_>, graph: &mut Graph<'_>) -> Result<Vec<ValueId>, ImportError> {
        let mut ids = vec![];
        let mut seen = std::collections::HashSet::new();
        for tensor in subgraph.outputs().into_iter().flat_map(|list| list.iter()) {
            let tensor = graph.index(tensor).map_err(|p| self.model_error(p))?;
            let id = match graph.value(tensor, Layout::File) {
                _ if !seen.insert(tensor) => Err(Problem::whole("is listed as output twice", "list every output once")),
                result => result,
            };
            ids.push(id.map_err(|p| self.value_error(graph.name(tensor), p))?);
        }
        if ids.is_empty() {
            return self.refuse("the graph has no outputs", EXPORT);
        }
        Ok(ids)
    }
}

/// Adds a model input.
fn input(graph: &mut Graph<'_>, tensor: usize) -> Result<ValueId, Problem> {
    let info = graph.info(tensor)?;
    let (dtype, shape) = (info.dtype, info.shape.clone());
    if graph.is_constant(tensor) || graph.is_computed(tensor) {
        return Err(Problem::whole("is an input, and a constant or another input too", EXPORT));
    }
    if shape.len() > 1 && shape[0] > 1 {
        return Err(Problem::whole(format!("has shape {shape:?}: a batch of {}", shape[0]), "convert for batch 1"));
    }
    let name = graph.fresh(tensor, "");
    graph.asm.input(name, dtype, shape)
}

/// Adds what one operator computes.
fn convert<'a>(operator: &Operator<'a>, code: &Code, name: String, graph: &mut Graph<'a>) -> Result<(), Problem> {
    check_operator(operator, code)?;
    let mut inputs = vec![];
    for tensor in operator.inputs().into_iter().flat_map(|list| list.iter()) {
        inputs.push(if tensor == -1 { None } else { Some(graph.index(tensor)?) });
    }
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    let outputs: Vec<i32> = operator.outputs().into_iter().flat_map(|list| list.iter()).take(2).collect();
    let &[output] = &outputs[..] else {
        return Err(Problem::whole("has not exactly one output", EXPORT));
    };
    let output = graph.index(output)?;
    if graph.is_constant(output) || graph.is_computed(output) {
        return Err(Problem::output(0, format!("`{}` has a value already", graph.name(output)), EXPORT));
    }
    ops::convert(code.builtin, &mut Context { graph, operator: *operator, name, inputs, output })
}

/// Refuses what no supported operator has.
fn check_operator(operator: &Operator<'_>, code: &Code) -> Result<(), Problem> {
    known(operator)?;
    if code.builtin == CUSTOM {
        let what = format!("the custom operator `{}` is not supported", code.custom);
        return Err(Problem::whole(what, "use builtin operators"));
    }
    if operator.options_2_type() != 0 || operator.options_2() {
        return Err(Problem::whole("has options of a newer kind (builtin_options_2)", "use a supported operator"));
    }
    if operator.custom_options().is_some_and(|o| !o.is_empty()) || operator.large_options_offset() > 1 {
        return Err(Problem::whole("has custom options", "use builtin operators"));
    }
    if operator.mutating_variable_inputs().is_some_and(|list| list.iter().any(|b| b)) {
        return Err(Problem::whole("changes its inputs", "export the model without state"));
    }
    if operator.intermediates().is_some_and(|list| !list.is_empty()) {
        return Err(Problem::whole("has intermediate tensors", "use operators without state"));
    }
    Ok(())
}
