//! Reading ONNX files.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use prost::Message;

use super::attributes::Attributes;
use super::context::Context;
use super::ops;
use super::proto::{Dimension, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, data_type};
use super::tensor::{TensorReader, element_number, element_type};
use crate::model::build::Assembly;
use crate::model::build::Problem;
use crate::model::build::shape::MAX_RANK;
use crate::model::import::{ImportError, NodeError, ReadOptions};
use crate::model::ir::{DType, Model, Source, ValueId};

/// Newest file format version whose fields are all known here.
const MAX_IR_VERSION: i64 = 13;
/// Supported versions of the default operator set.
pub const OPSETS: std::ops::RangeInclusive<i64> = 8..=26;

/// Reads a model from the bytes of an unpacked file; `path` serves for messages and for finding external data.
pub(in crate::model) fn decode(
    bytes: &[u8],
    path: &Path,
    sha256: String,
    options: &ReadOptions,
) -> Result<Model, ImportError> {
    let proto = ModelProto::decode(bytes).map_err(|e| ImportError::Decode {
        file: path.to_path_buf(),
        format: "an ONNX model",
        message: e.to_string(),
    })?;
    Importer { file: path, options }.model(proto, sha256)
}

/// Versions of the operator sets a node may use.
struct Opsets {
    default: i64,
    microsoft: Option<i64>,
}

/// Values by name.
type Names = HashMap<String, ValueId>;

struct Importer<'a> {
    file: &'a Path,
    options: &'a ReadOptions,
}

impl Importer<'_> {
    fn model_error(&self, what: impl Into<String>, cure: &str) -> ImportError {
        ImportError::Model { file: self.file.to_path_buf(), problem: Problem::whole(what, cure) }
    }

    fn value_error(&self, value: &str, problem: Problem) -> ImportError {
        ImportError::Value { file: self.file.to_path_buf(), value: value.to_string(), problem }
    }

    fn node_error(&self, node: &NodeProto, index: usize, problem: Problem) -> ImportError {
        let op = if domain(node).is_empty() {
            node.op_type().to_string()
        } else {
            format!("{}.{}", domain(node), node.op_type())
        };
        let (file, node) = (self.file.to_path_buf(), node_name(node, index));
        ImportError::Node(Box::new(NodeError { file, node, index, op, problem }))
    }

    fn model(&self, proto: ModelProto, sha256: String) -> Result<Model, ImportError> {
        let opsets = self.check_model(&proto)?;
        let source = Source {
            path: self.file.to_path_buf(),
            format: "onnx",
            sha256,
            producer: format!("{} {}", proto.producer_name(), proto.producer_version()).trim().to_string(),
            ir_version: proto.ir_version(),
            opset: opsets.default,
        };
        let graph = proto.graph.unwrap_or_default();
        self.graph(&graph, &opsets, source)
    }

    fn check_model(&self, proto: &ModelProto) -> Result<Opsets, ImportError> {
        match proto.ir_version {
            None => return Err(self.model_error("not an ONNX model: no ir_version", "check that this is an ONNX file")),
            Some(v) if !(1..=MAX_IR_VERSION).contains(&v) => {
                let what = format!("ir_version {v} is not supported, only 1 to {MAX_IR_VERSION}");
                return Err(self.model_error(what, "export the model for an older ONNX release"));
            }
            Some(_) => {}
        }
        let Some(graph) = &proto.graph else {
            return Err(self.model_error("not an ONNX model: no graph", "check that this is an ONNX file"));
        };
        if !proto.functions.is_empty() {
            return Err(self.model_error("model-local functions are not supported", "inline them (onnx.inliner)"));
        }
        if !proto.training_info.is_empty() {
            return Err(self.model_error("training information is not supported", "export the model for inference"));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(self.model_error("sparse initializers are not supported", "store weights as dense tensors"));
        }
        self.opsets(proto)
    }

    fn opsets(&self, proto: &ModelProto) -> Result<Opsets, ImportError> {
        let (mut default, mut microsoft) = (None, None);
        for set in &proto.opset_import {
            let slot = match set.domain() {
                "" | "ai.onnx" => &mut default,
                "com.microsoft" => &mut microsoft,
                _ => continue,
            };
            if slot.replace(set.version()).is_some_and(|old| old != set.version()) {
                return Err(self.model_error(
                    format!("operator set `{}` is imported in two versions", set.domain()),
                    "import each operator set once",
                ));
            }
        }
        let Some(version) = default else {
            return Err(self.model_error("no version of the default operator set is given", "export the model again"));
        };
        if !OPSETS.contains(&version) {
            let what = format!("opset {version} is not supported, only {} to {}", OPSETS.start(), OPSETS.end());
            return Err(
                self.model_error(what, "convert the model (onnx.version_converter) or export it for another opset")
            );
        }
        Ok(Opsets { default: version, microsoft })
    }

    fn graph(&self, graph: &GraphProto, opsets: &Opsets, source: Source) -> Result<Model, ImportError> {
        let declared = self.declarations(graph)?;
        let mut asm = Assembly::new(self.options.max_elements);
        let mut tensors = TensorReader::new(self.file, self.options.max_file_bytes);
        self.claim_names(graph, &mut asm)?;
        let mut names = Names::new();
        self.initializers(graph, &mut asm, &mut tensors, &mut names)?;
        let inputs = self.inputs(graph, &mut asm, &mut names)?;
        for index in self.order(graph, &names)? {
            let node = &graph.node[index];
            let outputs = self
                .node(node, index, opsets, &mut asm, &mut tensors, &names)
                .map_err(|problem| self.node_error(node, index, problem))?;
            for (name, id) in node.output.iter().zip(outputs) {
                if let Some(id) = id {
                    self.check_declared(&declared, &asm, name, id)
                        .map_err(|problem| self.node_error(node, index, problem))?;
                    names.insert(name.clone(), id);
                }
            }
        }
        let outputs = self.outputs(graph, &declared, &asm, &names)?;
        Ok(asm.finish(graph.name().to_string(), &inputs, &outputs, source))
    }

    /// Declared types by name, from value_info and the graph's outputs.
    fn declarations<'g>(&self, graph: &'g GraphProto) -> Result<HashMap<&'g str, Vec<&'g TypeProto>>, ImportError> {
        let mut declared: HashMap<&str, Vec<&TypeProto>> = HashMap::new();
        for info in graph.value_info.iter().chain(&graph.output).chain(&graph.input) {
            if let Some(kind) = &info.r#type {
                declared.entry(info.name()).or_default().push(kind);
            }
        }
        Ok(declared)
    }

    /// Claims every name the file defines; each may be defined once.
    fn claim_names(&self, graph: &GraphProto, asm: &mut Assembly) -> Result<(), ImportError> {
        let twice =
            |name: &str| self.value_error(name, Problem::whole("is defined twice", "give every value its own name"));
        let empty = || self.model_error("an input or initializer has no name", "export the model again");
        for tensor in &graph.initializer {
            if tensor.name().is_empty() {
                return Err(empty());
            }
            if !asm.claim(tensor.name()) {
                return Err(twice(tensor.name()));
            }
        }
        let mut initializers: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        for info in &graph.input {
            if info.name().is_empty() {
                return Err(empty());
            }
            // An input that is also an initializer is a constant; it may be listed once.
            if !initializers.remove(info.name()) && !asm.claim(info.name()) {
                return Err(twice(info.name()));
            }
        }
        for name in graph.node.iter().flat_map(|n| &n.output).filter(|name| !name.is_empty()) {
            if !asm.claim(name) {
                return Err(twice(name));
            }
        }
        Ok(())
    }

    fn initializers(
        &self,
        graph: &GraphProto,
        asm: &mut Assembly,
        tensors: &mut TensorReader<'_>,
        names: &mut Names,
    ) -> Result<(), ImportError> {
        for proto in &graph.initializer {
            let is_half = proto.data_type() == data_type::FLOAT16;
            let tensor = if is_half { tensors.read_float16(proto) } else { tensors.read(proto) };
            let tensor = tensor.map_err(|p| self.value_error(proto.name(), p))?;
            let id = asm.constant(proto.name().to_string(), Arc::new(tensor));
            if is_half {
                asm.float16.insert(id);
            }
            names.insert(proto.name().to_string(), id);
        }
        Ok(())
    }

    fn inputs(&self, graph: &GraphProto, asm: &mut Assembly, names: &mut Names) -> Result<Vec<ValueId>, ImportError> {
        let mut ids = Vec::new();
        for info in &graph.input {
            if let Some(&id) = names.get(info.name()) {
                let value = asm.value(id);
                let kinds: Vec<_> = info.r#type.iter().collect();
                check_kinds(&kinds, element_number(value.dtype), &value.shape)
                    .map_err(|p| self.value_error(info.name(), p))?;
                continue;
            }
            let id = input_kind(info)
                .and_then(|(dtype, shape)| asm.input(info.name().to_string(), dtype, shape))
                .map_err(|p| self.value_error(info.name(), p))?;
            names.insert(info.name().to_string(), id);
            ids.push(id);
        }
        Ok(ids)
    }

    /// Topological order of the nodes, the file's order where that is one.
    fn order(&self, graph: &GraphProto, names: &Names) -> Result<Vec<usize>, ImportError> {
        let mut maker: HashMap<&str, usize> = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            maker.extend(node.output.iter().filter(|n| !n.is_empty()).map(|name| (name.as_str(), i)));
        }
        let mut waits = vec![0usize; graph.node.len()];
        let mut readers = vec![Vec::new(); graph.node.len()];
        for (i, node) in graph.node.iter().enumerate() {
            for (position, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if let Some(&from) = maker.get(name.as_str()) {
                    readers[from].push(i);
                    waits[i] += 1;
                } else if !names.contains_key(name) {
                    let problem =
                        Problem::input(position, format!("`{name}` is not defined"), "export the model again");
                    return Err(self.node_error(node, i, problem));
                }
            }
        }
        let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&i| waits[i] == 0).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &reader in &readers[i] {
                waits[reader] -= 1;
                if waits[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
        match waits.iter().position(|&w| w > 0) {
            None => Ok(order),
            Some(i) => {
                let problem = Problem::whole("waits for a value that depends on it (cycle)", "export the model again");
                Err(self.node_error(&graph.node[i], i, problem))
            }
        }
    }

    fn node(
        &self,
        node: &NodeProto,
        index: usize,
        opsets: &Opsets,
        asm: &mut Assembly,
        tensors: &mut TensorReader<'_>,
        names: &Names,
    ) -> Result<Vec<Option<ValueId>>, Problem> {
        let opset = match domain(node) {
            "" => opsets.default,
            "com.microsoft" => opsets.microsoft.ok_or_else(|| {
                Problem::whole("the file does not import the operator set com.microsoft", "export the model again")
            })?,
            other => {
                let what = format!("operators of domain `{other}` are not supported");
                return Err(Problem::whole(what, "export with operators of the default domain"));
            }
        };
        if domain(node) == "com.microsoft" && opset != 1 {
            return Err(Problem::whole(format!("version {opset} of com.microsoft is unknown"), "export for version 1"));
        }
        if !node.overload().is_empty() {
            return Err(Problem::whole("function overloads are not supported", "inline functions first"));
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for (i, name) in node.input.iter().enumerate() {
            inputs.push(match names.get(name) {
                _ if name.is_empty() => None,
                Some(&id) => Some(id),
                None => return Err(Problem::input(i, format!("`{name}` is an unsupported output"), "remove its use")),
            });
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        if let Some(i) = inputs.iter().position(|id| id.is_some_and(|id| asm.float16.contains(&id)))
            && node.op_type() != "Cast"
        {
            // Measured: ONNX Runtime computes float16 nodes in float32 on CPUs, and rounds only where its optimizer leaves that.
            let cure =
                "cast to float32 before, and to float16 and back behind, as `quaver quantize --format float16` does";
            return Err(Problem::input(i, "is float16, which runtimes round where they like", cure));
        }
        let name = node_name(node, index);
        let attrs = Attributes::new(&node.attribute)?;
        let outputs = vec![None; node.output.len()];
        let mut cx = Context { asm, tensors, attrs, name: &name, opset, inputs, output_names: &node.output, outputs };
        ops::convert(domain(node), node.op_type(), &mut cx)?;
        cx.attrs.finish()?;
        Ok(cx.outputs)
    }

    /// Refuses a value that is not what the file declares it to be.
    fn check_declared(
        &self,
        declared: &HashMap<&str, Vec<&TypeProto>>,
        asm: &Assembly,
        name: &str,
        id: ValueId,
    ) -> Result<(), Problem> {
        let value = asm.value(id);
        let kinds = declared.get(name).map_or(&[][..], Vec::as_slice);
        let is_half = asm.float16.contains(&id);
        let element = if is_half { data_type::FLOAT16 } else { element_number(value.dtype) };
        check_kinds(kinds, element, &value.shape)
    }

    fn outputs(
        &self,
        graph: &GraphProto,
        declared: &HashMap<&str, Vec<&TypeProto>>,
        asm: &Assembly,
        names: &Names,
    ) -> Result<Vec<ValueId>, ImportError> {
        if graph.output.is_empty() {
            return Err(self.model_error("the graph has no outputs", "export the model again"));
        }
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        for info in &graph.output {
            let undefined = || Problem::whole("is an output, but nothing computes it", "export the model again");
            let &id = names.get(info.name()).ok_or_else(|| self.value_error(info.name(), undefined()))?;
            if !seen.insert(id) {
                let problem = Problem::whole("is listed as output twice", "list every output once");
                return Err(self.value_error(info.name(), problem));
            }
            self.check_declared(declared, asm, info.name(), id).map_err(|p| self.value_error(info.name(), p))?;
            ids.push(id);
        }
        Ok(ids)
    }
}

/// A node's domain, with the long name of the default one shortened.
fn domain(node: &NodeProto) -> &str {
    if node.domain() == "ai.onnx" { "" } else { node.domain() }
}

fn node_name(node: &NodeProto, index: usize) -> String {
    if node.name().is_empty() { format!("{}#{index}", node.op_type()) } else { node.name().to_string() }
}

/// Type and shape of a graph input.
fn input_kind(info: &ValueInfoProto) -> Result<(DType, Vec<usize>), Problem> {
    let kind = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let kind = kind.ok_or_else(|| Problem::whole("is an input that is not a dense tensor", "use tensor inputs"))?;
    let dtype = element_type(kind.elem_type())?;
    let shape = kind.shape.as_ref().ok_or_else(|| {
        Problem::whole("is an input without a declared shape", "declare it, for example when exporting")
    })?;
    if shape.dim.len() > MAX_RANK {
        return Err(Problem::whole(format!("has {} dimensions", shape.dim.len()), "use fewer dimensions"));
    }
    let mut out = Vec::with_capacity(shape.dim.len());
    for (i, dim) in shape.dim.iter().enumerate() {
        out.push(match &dim.value {
            Some(Dimension::DimValue(d)) => usize::try_from(*d).ok().filter(|&d| d > 0).ok_or_else(|| {
                Problem::whole(format!("dimension {i} is {d}"), "declare a positive or a symbolic dimension")
            })?,
            _ if i == 0 => 1,
            Some(Dimension::DimParam(name)) => {
                let what = format!("dimension {i} is symbolic (`{name}`); only the first, the batch, may be");
                return Err(Problem::whole(what, "fix the input's shape when exporting"));
            }
            None => {
                let what = format!("dimension {i} is unknown; only the first, the batch, may be");
                return Err(Problem::whole(what, "fix the input's shape when exporting"));
            }
        });
    }
    Ok((dtype, out))
}

/// Compares declared types with what was inferred; symbolic dimensions fit anything.
fn check_kinds(kinds: &[&TypeProto], element: i32, shape: &[usize]) -> Result<(), Problem> {
    for kind in kinds {
        let Some(tensor) = &kind.tensor_type else {
            return Err(Problem::whole("is declared to be something other than a dense tensor", "use tensors"));
        };
        let declared = tensor.elem_type();
        if declared != 0 && declared != element {
            let what = format!("declared as {}, but computed as {}", element_type(declared)?, data_type::name(element));
            return Err(Problem::whole(what, "run shape inference on the model again"));
        }
        let Some(dims) = tensor.shape.as_ref().map(|s| &s.dim) else { continue };
        let fits = dims.len() == shape.len()
            && dims.iter().zip(shape).all(|(d, &n)| match d.value {
                Some(Dimension::DimValue(d)) => usize::try_from(d) == Ok(n),
                _ => true,
            });
        if !fits {
            let dims: Vec<String> = dims
                .iter()
                .map(|d| match &d.value {
                    Some(Dimension::DimValue(d)) => d.to_string(),
                    Some(Dimension::DimParam(name)) => name.clone(),
                    None => "?".to_string(),
                })
                .collect();
            let what = format!("declared with shape [{}], but computed with shape {shape:?}", dims.join(", "));
            return Err(Problem::whole(what, "run shape inference on the model again"));
        }
    }
    Ok(())
}
