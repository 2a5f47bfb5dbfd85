//! What is refused, and how it is said.

use super::super::write::{Place, Place::*};
use super::super::{Activation, Builtin, ElementType, ModelWriter, OperatorOptions, Padding, TensorSpec};
use super::{Path, ReadOptions};
use crate::model::{ImportError, read_bytes};

/// Parts of a model that the cases below change.
struct Parts {
    input: TensorSpec,
    weights: TensorSpec,
    bias: TensorSpec,
    output: TensorSpec,
    op: Builtin,
    options: OperatorOptions,
    extra: Vec<(Place, u16, u64)>,
    version: u32,
    subgraphs: usize,
}

const DENSE: OperatorOptions =
    OperatorOptions::FullyConnected { activation: Activation::None, weights_format: 0, keep_num_dims: false };

fn dense() -> Parts {
    Parts {
        input: TensorSpec::int8("x", &[1, 2], 0.1, 3),
        weights: TensorSpec::int8_weights("w", &[3, 2], &[1, -2, 3, 4, 5, -6], &[0.1], 0),
        bias: TensorSpec {
            scales: vec![0.1 * 0.1],
            zero_points: vec![0],
            ..TensorSpec::int32_constant("b", &[3], &[1, 2, 3])
        },
        output: TensorSpec::int8("y", &[1, 3], 0.2, 0),
        op: Builtin::FullyConnected,
        options: DENSE,
        extra: vec![],
        version: 3,
        subgraphs: 1,
    }
}

fn conv() -> Parts {
    let options = OperatorOptions::Conv2D {
        padding: Padding::Valid,
        strides: (1, 1),
        dilations: (1, 1),
        activation: Activation::None,
    };
    Parts {
        input: TensorSpec::int8("x", &[1, 2, 2, 2], 0.1, 3),
        weights: TensorSpec::int8_weights("w", &[3, 1, 1, 2], &[1; 6], &[0.1, 0.2, 0.3], 0),
        bias: TensorSpec {
            scales: [0.1, 0.2, 0.3].map(|s| 0.1 * s).to_vec(),
            zero_points: vec![0; 3],
            ..TensorSpec::int32_constant("b", &[3], &[1, 2, 3])
        },
        output: TensorSpec::int8("y", &[1, 2, 2, 3], 0.2, 0),
        op: Builtin::Conv2D,
        options,
        ..dense()
    }
}

impl Parts {
    fn write(self) -> Vec<u8> {
        let mut writer = ModelWriter::new();
        let inputs = [writer.input(self.input), writer.tensor(self.weights), writer.tensor(self.bias)];
        let y = writer.tensor(self.output);
        writer.operator(self.op, &inputs, &[y], self.options);
        writer.output(y);
        (writer.extra, writer.version, writer.subgraphs) = (self.extra, self.version, self.subgraphs);
        writer.finish()
    }
}

fn refusal(bytes: &[u8]) -> String {
    match read_bytes(bytes, Path::new("m.tflite"), &ReadOptions::default()) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

fn kind(kind: ElementType, spec: TensorSpec) -> TensorSpec {
    TensorSpec { kind, ..spec }
}

#[test]
fn the_models_are_accepted_as_they_are() {
    assert_eq!(refusal(&dense().write()), "accepted");
    assert_eq!(refusal(&conv().write()), "accepted");
}

#[test]
fn whole_files_are_refused_by_name() {
    let with = |place, slot, x| Parts { extra: vec![(place, slot, x)], ..dense() };
    let cases = [
        (Parts { version: 2, ..dense() }, "schema version 2 is not supported"),
        (Parts { subgraphs: 2, ..dense() }, "has 2 subgraphs"),
        (Parts { subgraphs: 0, ..dense() }, "has no graph"),
        (with(Model, 8, 1), "weights in other files"),
        (with(Model, 30, 1), "field 30 of Model is unknown: the file was made for a newer runtime"),
        (with(SubGraph, 7, 1), "field 7 of SubGraph is unknown"),
        (with(Code, 9, 1), "field 9 of OperatorCode is unknown"),
        (with(Operator(0), 20, 1), "field 20 of Operator is unknown"),
        (with(Operator(0), 11, 7), "builtin_options_2"),
        (with(Operator(0), 9, 4096), "has custom options"),
        (with(Options(0), 8, 1), "field 8 of FullyConnectedOptions is unknown"),
        (with(Options(0), 5, 1), "attribute `quant_spec`"),
        (with(Options(0), 4, 4), "attribute `quantized_bias_type`: int64 is not supported"),
        (with(Operator(0), 3, 5), "has options of type 5, needs FullyConnectedOptions (8)"),
        (with(Operator(0), 0, 5), "operator 0 has code 5, which does not exist"),
        (with(Tensor(1), 5, 1), "input 1: `w` is a variable"),
        (with(Tensor(1), 6, 1), "input 1: `w` is sparse"),
        (with(Tensor(1), 9, 1), "input 1: `w` is a variant"),
        (with(Tensor(1), 10, 1), "input 1: `w` is stored in another file"),
        (with(Tensor(1), 2, 99), "input 1: `w` refers to buffer 99"),
        (with(Tensor(1), 12, 1), "input 1: `w` field 12 of Tensor is unknown"),
        (with(Buffer(2), 1, 4096), "input 1: `w` is stored behind the tables"),
        (with(Buffer(2), 4, 1), "input 1: `w` field 4 of Buffer is unknown"),
        (with(Quantization(1), 4, 1), "input 1: `w` has quantization of an unknown kind"),
        (with(Quantization(1), 8, 1), "input 1: `w` field 8 of QuantizationParameters is unknown"),
    ];
    for (parts, wanted) in cases {
        let text = refusal(&parts.write());
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert!(text.contains("; "), "no advice: {text}");
    }
}

#[test]
fn tensors_and_quantization_are_refused_by_name() {
    let x = |spec| Parts { input: spec, ..dense() };
    let w = |spec| Parts { weights: spec, ..dense() };
    let b = |spec| Parts { bias: spec, ..dense() };
    let int8 = |scales: &[f32], zero_points: &[i64]| TensorSpec {
        scales: scales.to_vec(),
        zero_points: zero_points.to_vec(),
        ..dense().input
    };
    let signed = |signature: &[i32]| TensorSpec { signature: signature.to_vec(), ..dense().input };
    let weights = |scales: &[f32], axis| TensorSpec::int8_weights("w", &[3, 2], &[1; 6], scales, axis);
    let float = |shape: &[i32]| TensorSpec::float("x", shape);
    let cases = [
        (x(kind(ElementType::Uint8, dense().input)), "`x`: is uint8, which is not supported"),
        (x(kind(ElementType::Int16, dense().input)), "`x`: is int16, which is not supported"),
        (x(kind(ElementType::Float16, dense().input)), "`x`: is float16, which is not supported"),
        (w(kind(ElementType::Int4, dense().weights)), "`w` is int4, which is not supported"),
        (x(int8(&[], &[])), "`x` is int8, but has no scale"),
        (x(int8(&[], &[3])), "`x`: has zero points without scales"),
        (x(int8(&[0.1, 0.2], &[0, 0])), "`x` has 2 scales, but one is needed here"),
        (x(int8(&[0.1, 0.2], &[0])), "`x`: has 2 scales and 1 zero points"),
        (x(int8(&[0.1], &[200])), "`x` has a zero point outside [-128, 127]"),
        (x(int8(&[f32::NAN], &[0])), "`x`: has the scale NaN"),
        (x(int8(&[0.0], &[0])), "`x` has the scale 0"),
        (x(signed(&[1, -1])), "`x`: dimension 1 is dynamic; only the first, the batch, may be"),
        (x(signed(&[1, 3])), "`x`: has shape [1, 2], but signature [1, 3]"),
        (x(TensorSpec::int8("x", &[4, 2], 0.1, 3)), "`x`: has shape [4, 2]: a batch of 4"),
        (x(TensorSpec::int8("x", &[1, -2], 0.1, 3)), "`x`: has shape [1, -2]"),
        (x(TensorSpec::int8("x", &[0, 2], 0.1, 3)), "has no elements"),
        (x(TensorSpec::int8("x", &[1, i32::MAX, i32::MAX, 1 << 20], 0.1, 3)), "has shape"),
        (x(float(&[1, 2])), "input 0: `x` is float32, but the output is int8"),
        (w(weights(&[0.1; 3], 1)), "`w` has scales along axis 1, and the output channels lie on 0"),
        (w(weights(&[0.1; 2], 0)), "`w` has 2 scales for 3 output channels"),
        (w(TensorSpec { zero_points: vec![5], ..dense().weights }), "`w` has zero point 5"),
        (w(TensorSpec { data: vec![], ..dense().weights }), "`w` is computed"),
        (w(TensorSpec { data: vec![1; 5], ..dense().weights }), "`w` has 5 bytes, which does not fit int8"),
        (b(TensorSpec::int32_constant("b", &[2], &[1, 2])), "`b` is a bias of shape [2], [3] is needed"),
        (b(TensorSpec::int32_constant("b", &[3], &[1, 2, 3])), "`b` is a bias with 0 scales, and the weights have 1"),
        (b(TensorSpec::float_constant("b", &[3], &[0.0; 3])), "`b` is a bias of type float32, int32 is needed"),
        (b(TensorSpec { data: vec![], ..dense().bias }), "`b` is computed"),
        (b(TensorSpec { scales: vec![0.5], zero_points: vec![0], ..dense().bias }), "`b` is a bias of scale 0.5"),
        (b(TensorSpec { scales: vec![0.5], zero_points: vec![1], ..dense().bias }), "`b` is a bias with a zero point"),
        (Parts { output: TensorSpec::int8("y", &[1, 4], 0.2, 0), ..dense() }, "is declared as int8 [1, 4]"),
    ];
    for (parts, wanted) in cases {
        let text = refusal(&parts.write());
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn operators_are_refused_by_name() {
    let fc = |activation, weights_format| OperatorOptions::FullyConnected {
        activation,
        weights_format,
        keep_num_dims: false,
    };
    let op = |op| Parts { op, options: OperatorOptions::None, ..dense() };
    let hybrid = Parts { input: TensorSpec::float("x", &[1, 2]), output: TensorSpec::float("y", &[1, 3]), ..dense() };
    let grouped = Parts { weights: TensorSpec::int8_weights("w", &[3, 1, 1, 1], &[1; 3], &[0.1], 0), ..conv() };
    let strides = |strides, dilations| OperatorOptions::Conv2D {
        padding: Padding::Same,
        strides,
        dilations,
        activation: Activation::None,
    };
    let cases = [
        (op(Builtin::Logistic), "node `y` (#0, LOGISTIC): the operator is not supported; use RELU"),
        (op(Builtin::StablehloAdd), "node `y` (#0, STABLEHLO_ADD): the operator is not supported"),
        (op(Builtin::Custom), "(#0, CUSTOM(Quaver_Test)): the custom operator `Quaver_Test` is not supported"),
        (op(Builtin::FullyConnected), "(#0, FULLY_CONNECTED): FullyConnectedOptions are missing"),
        (op(Builtin::Relu), "has 3 inputs, needs 1"),
        (
            Parts { options: fc(Activation::None, 1), ..dense() },
            "attribute `weights_format`: format 1 is not supported",
        ),
        (Parts { options: fc(Activation::Tanh, 0), ..dense() }, "`fused_activation_function`: TANH is not supported"),
        (Parts { extra: vec![(Options(0), 0, 77)], ..dense() }, "`fused_activation_function`: number 77"),
        (hybrid, "float32 activations with int8 weights (dynamic-range, or hybrid, quantization)"),
        (grouped, "`w` has 1 input channels, the image 2: grouped convolution is not supported"),
        (Parts { options: strides((0, 1), (1, 1)), ..conv() }, "attribute `stride`: 0 x 1: both must be positive"),
        (Parts { options: strides((1, 1), (1, -1)), ..conv() }, "attribute `dilation_factor`: 1 x -1"),
        (Parts { extra: vec![(Options(0), 0, 9)], ..conv() }, "attribute `padding`: number 9 is unknown"),
    ];
    for (parts, wanted) in cases {
        let text = refusal(&parts.write());
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// A model with one operator on int8 inputs (and lists of integers), all of scale 0.1 but the output.
fn single(op: Builtin, options: OperatorOptions, specs: &[TensorSpec], output: TensorSpec) -> Vec<u8> {
    let mut writer = ModelWriter::new();
    let add = |writer: &mut ModelWriter, spec: &TensorSpec| match spec.data.is_empty() {
        true => writer.input(spec.clone()),
        false => writer.tensor(spec.clone()),
    };
    let inputs: Vec<i32> = specs.iter().map(|spec| add(&mut writer, spec)).collect();
    let y = writer.tensor(output);
    writer.operator(op, &inputs, &[y], options);
    writer.output(y);
    writer.finish()
}

#[test]
fn operators_on_other_shapes_and_scales_are_refused() {
    let x = |name: &str| TensorSpec::int8(name, &[1, 4], 0.1, 0);
    let y = |shape: &[i32], scale| TensorSpec::int8("y", shape, scale, 0);
    let ints = |list: &[i32]| TensorSpec::int32_constant("list", &[list.len() as i32], list);
    let (none, keep) = (OperatorOptions::None, OperatorOptions::Reducer { keep_dims: true });
    let cat = |activation, axis| OperatorOptions::Concatenation { axis, activation };
    let mul = OperatorOptions::Mul { activation: Activation::None };
    let pads = |list: &[i32]| TensorSpec::int32_constant("pads", &[2, 2], list);
    let cases = [
        (single(Builtin::Mul, mul, &[x("a"), x("b")], y(&[1, 4], 0.1)), "the product of two computed values"),
        (single(Builtin::Relu6, none.clone(), &[x("a")], y(&[1, 4], 0.2)), "runtimes do not agree on what that means"),
        (single(Builtin::Reshape, none.clone(), &[x("a"), ints(&[2, 2])], y(&[2, 2], 0.3)), "`a` has scale 0.1"),
        (single(Builtin::Reshape, none.clone(), &[x("a"), ints(&[2, 3])], y(&[2, 3], 0.1)), "cannot become [2, 3]"),
        (single(Builtin::Reshape, none.clone(), &[x("a"), x("b")], y(&[1, 4], 0.1)), "needs a short list of int32"),
        (single(Builtin::Reshape, none.clone(), &[x("a")], y(&[1, 4], 0.1)), "has no new shape"),
        (single(Builtin::Mean, keep.clone(), &[x("a"), ints(&[7])], y(&[1, 1], 0.1)), "axis 7 is out of range"),
        (single(Builtin::Mean, keep, &[x("a"), x("b")], y(&[1, 1], 0.1)), "needs a short list of int32"),
        (single(Builtin::Pad, none.clone(), &[x("a"), pads(&[0, 0, -1, 0])], y(&[1, 3], 0.1)), "do not fit"),
        (single(Builtin::Transpose, none.clone(), &[x("a"), ints(&[0, 0])], y(&[1, 4], 0.1)), "does not permute"),
        (
            single(Builtin::Concatenation, cat(Activation::None, 0), &[x("a"), x("b")], y(&[2, 4], 0.2)),
            "`a` has scale 0.1 and zero point 0, the output 0.2 and 0",
        ),
        (
            single(Builtin::Concatenation, cat(Activation::Relu, 0), &[x("a"), x("b")], y(&[2, 4], 0.1)),
            "fused_activation_function",
        ),
        (
            single(Builtin::Softmax, OperatorOptions::Softmax { beta: 2.0 }, &[x("a")], y(&[1, 4], 0.1)),
            "attribute `beta`: 2 is not supported",
        ),
        (
            single(Builtin::Softmax, OperatorOptions::Softmax { beta: 1.0 }, &[x("a")], y(&[1, 4], 0.1)),
            "runtimes need 1/256 and -128",
        ),
        (
            single(Builtin::Quantize, none, &[x("a")], TensorSpec::new("y", ElementType::Int32, &[1, 4])),
            "from int8 to int32 is not supported",
        ),
    ];
    for (bytes, wanted) in cases {
        let text = refusal(&bytes);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// Adds operators and outputs to a graph with three tensors, of which the first is its input.
type Edit = fn(&mut ModelWriter, [i32; 3]);

#[test]
fn graphs_that_do_not_fit_together_are_refused() {
    let int8 = |name: &str| TensorSpec::int8(name, &[1, 4], 0.1, 0);
    let build = |edit: Edit| {
        let mut writer = ModelWriter::new();
        let x = writer.input(int8("x"));
        let (y, z) = (writer.tensor(int8("y")), writer.tensor(int8("z")));
        edit(&mut writer, [x, y, z]);
        refusal(&writer.finish())
    };
    fn relu(writer: &mut ModelWriter, from: i32, to: i32) {
        writer.operator(Builtin::Relu, &[from], &[to], OperatorOptions::None);
    }
    let cases: [(Edit, &str); 8] = [
        (|w, [x, y, _]| relu(w, x, y), "the graph has no outputs"),
        (|w, [_, y, _]| w.output(y), "value `y`: is read before anything computes it"),
        (|w, [_, y, z]| relu(w, y, z), "input 0: `y` is read before anything computes it"),
        (|w, [x, _, _]| relu(w, x, x), "`x` has a value already"),
        (|w, [x, _, _]| relu(w, x, 9), "refers to tensor 9, which does not exist"),
        (|w, [x, _, _]| relu(w, -7, x), "refers to tensor -7, which does not exist"),
        (
            |w, [x, y, _]| {
                relu(w, x, y);
                w.output(y);
                w.output(y);
            },
            "is listed as output twice",
        ),
        (|w, [x, y, z]| w.operator(Builtin::Relu, &[x], &[y, z], OperatorOptions::None), "has not exactly one output"),
    ];
    for (edit, wanted) in cases {
        let text = build(edit);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn other_bytes_with_the_identifier_are_refused() {
    for bytes in [&b"\x08\0\0\0TFL3"[..], b"\xff\xff\xff\xffTFL3", b"\0\0\0\0TFL3\0\0\0\0\0\0"] {
        let error = read_bytes(bytes, Path::new("m.tflite"), &ReadOptions::default()).expect_err("no model");
        let text = error.to_string();
        let decode = matches!(error, ImportError::Decode { .. });
        assert!(!decode || text.contains("not a TensorFlow Lite model"), "{text}");
    }
}

/// Constants may share bytes, but a small file must not become a large model.
#[test]
fn shared_bytes_are_bounded() {
    let mut writer = ModelWriter::new();
    let mut x = writer.input(TensorSpec::int8("x", &[1, 64], 0.1, 0));
    let first = TensorSpec::int8_weights("w", &[64, 64], &[1; 4096], &[0.1], 0);
    for i in 0..40 {
        let spec = if i == 0 { first.clone() } else { TensorSpec { data: vec![], ..first.clone() } };
        let (w, y) = (writer.tensor(spec), writer.tensor(TensorSpec::int8("y", &[1, 64], 0.1, 0)));
        if i > 0 {
            writer.extra.push((Tensor(w as usize), 2, 2));
        }
        writer.operator(Builtin::FullyConnected, &[x, w], &[y], DENSE);
        x = y;
    }
    writer.output(x);
    assert!(refusal(&writer.finish()).contains("shares its bytes with too many other tensors"));
}
