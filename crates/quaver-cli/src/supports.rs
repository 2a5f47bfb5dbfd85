//! `quaver supports`: what the VNN-LIB standard lets tools ask a verifier.

use anyhow::Result;
use quaver::model::onnx::OPSETS;

use crate::session::{Session, fail};

/// Say which queries and networks can be verified, as the VNN-LIB standard asks.
#[derive(clap::Args)]
#[group(multiple = true)]
pub struct Args {
    /// Oldest and newest ONNX opset
    #[arg(long)]
    onnx_opset_versions: bool,
    /// Element types that queries can declare
    #[arg(long)]
    onnx_element_types: bool,
    /// ONNX operators
    #[arg(long)]
    onnx_operators: bool,
    /// Oldest and newest version of the query language
    #[arg(long)]
    vnnlib_versions: bool,
    /// Whether queries can name hidden tensors (H) or not (NH)
    #[arg(long)]
    hidden_node_theories: bool,
    /// Whether networks can have several inputs and outputs (MIO) or one (SIO)
    #[arg(long, alias = "multiple-inputs-output-theories")]
    multiple_input_output_theories: bool,
    /// Whether queries can be about several networks
    #[arg(long)]
    multiple_network_theories: bool,
    /// Whether constraints can relate several tensors of a network (MNC)
    #[arg(long)]
    multiple_node_comparison_theories: bool,
    /// Bounds, comparisons of outputs, linear constraints
    #[arg(long)]
    arithmetic_complexity_theories: bool,
    /// Whether disjunctions are more than translated to normal form
    #[arg(long)]
    optimised_disjunctive_reasoning: bool,
    /// Whether `verify --serialise-assignments` is understood
    #[arg(long)]
    serialise_assignments: bool,
}

/// Operators that are executed exactly under some profile, or folded away.
const OPERATORS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "MatMulInteger",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QuantizeLinear",
    "Range",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Shape",
    "Sign",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Types of tensors that a model can take or give.
const TYPES: &[&str] = &["real", "float32", "int8", "uint8", "int16", "uint16", "int32"];

impl Args {
    /// Each capability: whether it is asked for, its name, and its lines.
    fn capabilities(&self) -> Vec<(bool, &'static str, Vec<String>)> {
        let words = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        vec![
            (
                self.onnx_opset_versions,
                "onnx-opset-versions",
                vec![OPSETS.start().to_string(), OPSETS.end().to_string()],
            ),
            (self.onnx_element_types, "onnx-element-types", words(TYPES)),
            (self.onnx_operators, "onnx-operators", words(OPERATORS)),
            (self.vnnlib_versions, "vnnlib-versions", words(&["1.0", "2.0"])),
            (self.hidden_node_theories, "hidden-node-theories", words(&["NH"])),
            (self.multiple_input_output_theories, "multiple-input-output-theories", words(&["SIO", "MIO"])),
            (self.multiple_network_theories, "multiple-network-theories", words(&["SNET", "MENET", "MINET", "MNET"])),
            (self.multiple_node_comparison_theories, "multiple-node-comparison-theories", words(&["SNC", "MNC"])),
            (self.arithmetic_complexity_theories, "arithmetic-complexity-theories", words(&["BND", "COUT", "LIN"])),
            (self.optimised_disjunctive_reasoning, "optimised-disjunctive-reasoning", words(&["true"])),
            (self.serialise_assignments, "serialise-assignments", words(&["true"])),
        ]
    }
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let asked: Vec<_> = args.capabilities().into_iter().filter(|c| c.0).collect();
    if asked.is_empty() {
        let names: Vec<String> = args.capabilities().iter().map(|c| format!("--{}", c.1)).collect();
        return Err(fail("no capability is named", format!("name one of: {}", names.join(" "))));
    }
    if session.json {
        let object: serde_json::Map<_, _> =
            asked.into_iter().map(|c| (c.1.to_string(), serde_json::json!(c.2))).collect();
        return session.line(&object);
    }
    asked.iter().flat_map(|c| &c.2).try_for_each(|line| session.say(line))
}
