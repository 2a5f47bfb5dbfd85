//! From TensorFlow Lite operators to [`Op`]: dispatch, element-wise operators, products, softmax.

use super::context::{Context, EXPORT, Kind, Step, Values};
use super::graph::Layout;
use super::names;
use super::schema::{
    AddOptions, DequantizeOptions, FullyConnectedOptions, MulOptions, QuantizeOptions, SoftmaxOptions, SubOptions,
};
use super::{ops_layout, ops_window};
use crate::model::build::Problem;
use crate::model::ir::{DType, Op, ValueId};

pub(super) type Done = Result<(), Problem>;

/// Turns the operator with this number into operations.
pub(super) fn convert(code: i32, cx: &mut Context<'_, '_>) -> Done {
    match code {
        0 => {
            let options = cx.opt_options::<AddOptions>()?;
            binary(cx, Op::Add, Op::QLinearAdd, options.map_or(0, |o| o.activation()))
        }
        41 => {
            let options = cx.opt_options::<SubOptions>()?;
            binary(cx, Op::Sub, Op::QLinearSub, options.map_or(0, |o| o.activation()))
        }
        18 => {
            let options = cx.opt_options::<MulOptions>()?;
            one_constant(cx)?;
            binary(cx, Op::Mul, Op::QLinearMul, options.map_or(0, |o| o.activation()))
        }
        1 => ops_window::average_pool(cx),
        17 => ops_window::max_pool(cx),
        3 => ops_window::convolution(cx),
        4 => ops_window::depthwise(cx),
        9 => fully_connected(cx),
        19 => relu(cx, 1),
        20 => relu(cx, 2),
        21 => relu(cx, 3),
        25 => softmax(cx),
        6 => dequantize(cx),
        114 => quantize(cx),
        2 => ops_layout::concatenation(cx),
        22 => ops_layout::reshape(cx),
        34 | 60 => ops_layout::pad(cx, code == 60),
        39 => ops_layout::transpose(cx),
        40 => ops_layout::mean(cx),
        43 => ops_layout::squeeze(cx),
        70 => ops_layout::expand_dims(cx),
        _ => Err(unsupported(code)),
    }
}

/// Refusal of an operator by name, with what to do where that is known.
fn unsupported(code: i32) -> Problem {
    let name = names::operator(code);
    let cure = match name.as_str() {
        "IF" | "WHILE" | "CALL_ONCE" => "control flow is not supported; convert a network without it",
        "LSTM"
        | "RNN"
        | "SVDF"
        | "UNIDIRECTIONAL_SEQUENCE_LSTM"
        | "UNIDIRECTIONAL_SEQUENCE_RNN"
        | "BIDIRECTIONAL_SEQUENCE_LSTM"
        | "BIDIRECTIONAL_SEQUENCE_RNN" => "recurrent layers are not supported; unroll them into feed-forward ones",
        "LOGISTIC" | "TANH" | "ELU" | "GELU" | "HARD_SWISH" | "PRELU" | "LEAKY_RELU" | "EXP" => {
            "use RELU or RELU6 as the activation function"
        }
        "SHAPE" | "PACK" | "STRIDED_SLICE" => {
            "shapes that are computed while the network runs are not supported; convert with a fixed input shape"
        }
        "DENSIFY" => "store weights as dense tensors",
        "RESIZE_BILINEAR" | "RESIZE_NEAREST_NEIGHBOR" | "TRANSPOSE_CONV" => {
            "upsampling is not supported; use CONV_2D and pooling"
        }
        _ => "rewrite the network with supported operators, such as FULLY_CONNECTED, CONV_2D, ADD and RELU",
    };
    Problem::whole("the operator is not supported", cure)
}

/// MUL of two computed values is no linear map.
fn one_constant(cx: &Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    if cx.graph.is_constant(cx.tensor(0)?) || cx.graph.is_constant(cx.tensor(1)?) {
        return Ok(());
    }
    Err(Problem::whole("the product of two computed values is not supported", "multiply by a constant"))
}

fn binary(cx: &mut Context<'_, '_>, float: Op, quantized: Op, activation: i8) -> Done {
    cx.arity(2, 2)?;
    let (kind, layout) = (cx.kind(&[0, 1])?, cx.layout(&[0, 1])?);
    let step = match kind {
        Kind::Float => Step::new(float, vec![Some(cx.value(0, layout)?), Some(cx.value(1, layout)?)]),
        Kind::Int8 => {
            let (a, b) = (cx.operand(0, layout)?, cx.operand(1, layout)?);
            Step::new(quantized, [&a[..], &b, &cx.output_quantizer()?].concat())
        }
    };
    let clip = cx.activation(activation, kind)?;
    cx.finish(layout, [step].into_iter().chain(clip))
}

/// RELU and its relatives, by the number of the fused activation that does the same. Where int8 parameters change, runtimes disagree:
/// TensorFlow Lite Micro's RELU6 copies integers, and XNNPACK leaves RELU to kernels that round otherwise than its change of scale.
fn relu(cx: &mut Context<'_, '_>, activation: i8) -> Done {
    cx.arity(1, 1)?;
    cx.no_options()?;
    let (kind, layout) = (cx.kind(&[0])?, cx.layout(&[0])?);
    if kind == Kind::Int8 && cx.parameters(0)? != cx.output_parameters()? {
        let what = "has another scale or zero point than the output, and runtimes do not agree on what that means";
        let cure = "convert the model so that the activation is fused into the operator before it";
        return Err(cx.refuse(0, Problem::whole(what, cure)));
    }
    let x = cx.value(0, layout)?;
    let clip = cx.activation(activation, kind)?;
    let clip = clip.map(|clip| Step { inputs: [&[Some(x)], &clip.inputs[..]].concat(), ..clip });
    cx.finish(layout, clip)
}

fn softmax(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let beta = cx.options::<SoftmaxOptions>()?.beta();
    if beta != 1.0 {
        return Err(Problem::attribute("beta", format!("{beta} is not supported, only 1"), "scale before SOFTMAX"));
    }
    let (kind, layout) = (cx.kind(&[0])?, cx.layout(&[0])?);
    let rank = cx.shape(0)?.len();
    let last = rank.checked_sub(1).ok_or_else(|| Problem::input(0, "has no dimensions", EXPORT))?;
    let axis = layout.axis(last);
    let step = match kind {
        Kind::Float => Step::new(Op::Softmax { axis }, vec![Some(cx.value(0, layout)?)]),
        Kind::Int8 => {
            let y = cx.output_parameters()?;
            if (y.scale, y.zero_point) != (1.0 / 256.0, -128) {
                let what =
                    format!("has scale {} and zero point {}, runtimes need 1/256 and -128", y.scale, y.zero_point);
                return Err(Problem::output(0, what, EXPORT));
            }
            let inputs = [&cx.operand(0, layout)?[..], &cx.output_quantizer()?].concat();
            Step::new(Op::QLinearSoftmax { axis }, inputs)
        }
    };
    cx.finish(layout, [step])
}

fn quantize(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    cx.opt_options::<QuantizeOptions>()?;
    let layout = cx.layout(&[0])?;
    match (cx.info(0)?.dtype, cx.output_info()?.dtype) {
        (DType::F32, DType::I8) => {
            let inputs = [&[Some(cx.value(0, layout)?)][..], &cx.output_quantizer()?].concat();
            cx.finish(layout, [Step::new(Op::QuantizeLinear { axis: 0 }, inputs)])
        }
        (DType::I8, DType::I8) => {
            let inputs = [&cx.operand(0, layout)?[..], &cx.output_quantizer()?].concat();
            cx.finish(layout, [Step::new(Op::QLinearRequantize, inputs)])
        }
        (x, y) => Err(Problem::whole(format!("from {x} to {y} is not supported"), "quantize to int8")),
    }
}

fn dequantize(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    cx.opt_options::<DequantizeOptions>()?;
    let layout = cx.layout(&[0])?;
    match (cx.info(0)?.dtype, cx.output_info()?.dtype) {
        (DType::I8, DType::F32) => {
            let inputs = cx.operand(0, layout)?.to_vec();
            cx.finish(layout, [Step::new(Op::DequantizeLinear { axis: 0 }, inputs)])
        }
        (x, y) => Err(Problem::whole(format!("from {x} to {y} is not supported"), "use int8 and float32")),
    }
}

fn fully_connected(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 3)?;
    let options = cx.options::<FullyConnectedOptions>()?;
    check_fully_connected(&options)?;
    let kind = product_kind(cx)?;
    let (x, weights) = (cx.shape(0)?, cx.shape(1)?);
    let &[n, k] = &weights[..] else {
        return Err(cx.refuse(1, Problem::whole(format!("has shape {weights:?}, needs 2 dimensions"), EXPORT)));
    };
    let total: usize = x.iter().product();
    let keep = options.keep_num_dims();
    if k == 0 || !total.is_multiple_of(k) || total == 0 || (keep && x.last() != Some(&k)) {
        let what = format!("has shape {x:?}, which does not fit weights {weights:?}");
        return Err(cx.refuse(0, Problem::whole(what, EXPORT)));
    }
    let rows = total / k;
    let mut output = if keep { x.clone() } else { vec![rows, k] };
    output.pop();
    output.push(n);

    let mut steps = vec![];
    let input = cx.value(0, Layout::File)?;
    let flat = x == [rows, k];
    if !flat {
        steps.push(Step { suffix: "_input", ..Step::shaped(Op::Reshape, vec![Some(input)], vec![rows, k]) });
    }
    let mut product = dense(cx, kind, n, flat.then_some(input))?;
    let clip = cx.activation(options.activation(), kind)?;
    if clip.is_none() {
        product.suffix = "_rows";
    }
    steps.push(product);
    steps.extend(clip);
    if output != [rows, n] {
        steps.push(Step { suffix: "_shaped", ..Step::shaped(Op::Reshape, vec![], output) });
    }
    cx.finish(Layout::File, steps)
}

/// The product itself; without `x` its first input is the step before.
fn dense(cx: &mut Context<'_, '_>, kind: Kind, n: usize, x: Option<ValueId>) -> Result<Step, Problem> {
    let (w, bias) = (cx.value(1, Layout::File)?, bias(cx, kind, n)?);
    let mut inputs: Values = x.into_iter().map(Some).collect();
    let op = match kind {
        Kind::Float => {
            inputs.extend([Some(w)]);
            inputs.extend(bias.map(Some));
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }
        }
        Kind::Int8 => {
            inputs.extend(cx.input_quantizer(0)?);
            inputs.push(Some(w));
            inputs.extend(weight_quantizer(cx, 0, n)?);
            check_bias_scale(cx)?;
            inputs.push(bias);
            inputs.extend(cx.output_quantizer()?);
            Op::QGemm { alpha: 1.0, trans_a: false, trans_b: true }
        }
    };
    Ok(Step::new(op, inputs))
}

fn check_fully_connected(options: &FullyConnectedOptions<'_>) -> Done {
    if options.weights_format() != 0 {
        let what = format!("format {} is not supported, only DEFAULT", options.weights_format());
        return Err(Problem::attribute("weights_format", what, "convert without shuffled weights"));
    }
    if options.quant_spec() {
        return Err(Problem::attribute("quant_spec", "is not supported", "convert with plain int8 quantization"));
    }
    bias_type(options.bias_type())
}

/// Refuses a bias that is accumulated in another type than int32.
pub(super) fn bias_type(number: i8) -> Done {
    match number {
        0 | 2 => Ok(()),
        other => {
            let what = format!("{} is not supported, only int32", names::element_type(other));
            Err(Problem::attribute("quantized_bias_type", what, "convert with int32 biases"))
        }
    }
}

/// What a product with weights at input 1 is; refuses weights that are of another type or computed.
pub(super) fn product_kind(cx: &Context<'_, '_>) -> Result<Kind, Problem> {
    let kind = cx.kind(&[0])?;
    if kind == Kind::Float && cx.info(1)?.dtype == DType::I8 {
        let what = "float32 activations with int8 weights (dynamic-range, or hybrid, quantization) are not supported: \
                    the runtime chooses scales from the values it meets";
        return Err(Problem::input(1, what, "convert with full integer quantization, or without quantization"));
    }
    cx.kind(&[0, 1])?;
    if !cx.graph.is_constant(cx.tensor(1)?) {
        return Err(cx.refuse(1, Problem::whole("is computed", "only constant weights are supported")));
    }
    Ok(kind)
}

/// Scale and zero point of int8 weights whose output channels lie on `axis`.
pub(super) fn weight_quantizer(
    cx: &mut Context<'_, '_>,
    axis: i32,
    channels: usize,
) -> Result<[Option<ValueId>; 2], Problem> {
    let tensor = cx.tensor(1)?;
    let Some(q) = cx.info(1)?.quantization.clone() else {
        let problem = Problem::whole("is int8, but has no scale", "convert the model with full integer quantization");
        return Err(cx.refuse(1, problem));
    };
    let refuse = |what: String, cure: &str| Err(cx.refuse(1, Problem::whole(what, cure)));
    if let Some(z) = q.zero_points.iter().find(|z| **z != 0) {
        return refuse(format!("has zero point {z}"), "quantize weights symmetrically, with zero point 0");
    }
    let n = q.scales.len();
    if n != 1 && q.axis != axis {
        return refuse(format!("has scales along axis {}, and the output channels lie on {axis}", q.axis), EXPORT);
    }
    if n != 1 && n != channels {
        return refuse(format!("has {n} scales for {channels} output channels"), EXPORT);
    }
    let scales = cx.graph.scales(tensor, &q.scales);
    Ok([Some(scales), Some(cx.graph.zero_points(tensor, &vec![0; n]))])
}

/// The bias at input 2, if there is one: one int32 (or float32) for each channel. Runtimes compute nothing with its scale.
pub(super) fn bias(cx: &mut Context<'_, '_>, kind: Kind, channels: usize) -> Result<Option<ValueId>, Problem> {
    if !cx.has(2) {
        return Ok(None);
    }
    let (tensor, info) = (cx.tensor(2)?, cx.info(2)?);
    let wanted = if kind == Kind::Int8 { DType::I32 } else { DType::F32 };
    let refuse = |what: String, cure: &str| Err(cx.refuse(2, Problem::whole(what, cure)));
    if info.dtype != wanted {
        return refuse(format!("is a bias of type {}, {wanted} is needed", info.dtype), "convert the model again");
    }
    if info.shape != [channels] {
        return refuse(format!("is a bias of shape {:?}, [{channels}] is needed", info.shape), EXPORT);
    }
    if !cx.graph.is_constant(tensor) {
        return refuse("is computed".into(), "only constant biases are supported");
    }
    if info.quantization.as_ref().is_some_and(|q| q.zero_points.iter().any(|&z| z != 0)) {
        return refuse("is a bias with a zero point".into(), EXPORT);
    }
    cx.value(2, Layout::File).map(Some)
}

/// A bias has as many scales as the weights: where not, XNNPACK leaves the layer to other kernels. Runtimes refuse one scale of a bias that
/// is far from that of the products it is added to, as seen from the output.
pub(super) fn check_bias_scale(cx: &Context<'_, '_>) -> Done {
    if !cx.has(2) {
        return Ok(());
    }
    let count = |position: usize| -> Result<usize, Problem> {
        Ok(cx.info(position)?.quantization.as_ref().map_or(0, |q| q.scales.len()))
    };
    let (weights, biases) = (count(1)?, count(2)?);
    if weights != biases {
        let what = format!(
            "is a bias with {biases} scales, and the weights have {weights}: runtimes choose other kernels then"
        );
        return Err(cx.refuse(2, Problem::whole(what, EXPORT)));
    }
    let one = |position: usize| -> Result<Option<f64>, Problem> {
        let scales = cx.info(position)?.quantization.as_ref().map(|q| &q.scales[..]);
        Ok(scales.filter(|s| s.len() == 1).map(|s| f64::from(s[0])))
    };
    let (Some(weights), Some(bias)) = (one(1)?, one(2)?) else { return Ok(()) };
    let (input, output) = (f64::from(cx.parameters(0)?.scale), f64::from(cx.output_parameters()?.scale));
    if (input * weights - bias).abs() / output <= 0.02 {
        return Ok(());
    }
    let what = format!("is a bias of scale {bias}, but that of the products is {}", input * weights);
    Err(cx.refuse(2, Problem::whole(what, EXPORT)))
}
