//! Convolution and pooling, channels first.

use super::context::{Context, EXPORT, Kind, Step};
use super::graph::Layout;
use super::ops::{Done, bias, bias_type, check_bias_scale, product_kind, weight_quantizer};
use super::schema::{Conv2DOptions, DepthwiseConv2DOptions, Pool2DOptions};
use crate::model::build::shape::{extent, same_padding};
use crate::model::build::{Hint, Problem};
use crate::model::ir::{Op, ValueId, Window};

const FIRST: Layout = Layout::ChannelsFirst;

/// Two positive numbers of the options, height first.
fn pair(name: &str, h: i32, w: i32) -> Result<Vec<usize>, Problem> {
    let numbers: Option<Vec<usize>> = [h, w].iter().map(|&x| usize::try_from(x).ok().filter(|&x| x > 0)).collect();
    numbers.ok_or_else(|| Problem::attribute(name, format!("{h} x {w}: both must be positive"), EXPORT))
}

/// The window over an image [N, H, W, C] with its padding made explicit.
fn window(
    image: [usize; 4],
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    padding: i8,
) -> Result<Window, Problem> {
    let (mut begin, mut end) = (vec![0; 2], vec![0; 2]);
    match padding {
        0 => {
            for i in 0..2 {
                let pads = extent(kernel[i], dilations[i])
                    .and_then(|extent| same_padding(image[i + 1], extent, strides[i], true));
                (begin[i], end[i]) = pads.ok_or_else(|| Problem::attribute("padding", "SAME overflows", EXPORT))?;
            }
        }
        1 => {}
        other => return Err(Problem::attribute("padding", format!("number {other} is unknown"), EXPORT)),
    }
    Ok(Window { kernel, strides, dilations, pads_begin: begin, pads_end: end, ceil_mode: false })
}

/// What the options of both kinds of convolution say.
struct Convolution {
    strides: (i32, i32),
    dilations: (i32, i32),
    padding: i8,
    activation: i8,
}

/// CONV_2D: weights [O, H, W, I].
pub(super) fn convolution(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 3)?;
    let o = cx.options::<Conv2DOptions>()?;
    bias_type(o.bias_type())?;
    let kind = product_kind(cx)?;
    let ([_, _, _, channels], [_, _, _, inputs]) = (cx.image(0)?, cx.image(1)?);
    if channels != inputs {
        let what = format!("has {inputs} input channels, the image {channels}: grouped convolution is not supported");
        return Err(cx.refuse(1, Problem::whole(what, "use CONV_2D without groups, or DEPTHWISE_CONV_2D")));
    }
    let weights = cx.value(1, FIRST)?;
    let c = Convolution {
        strides: (o.stride_h(), o.stride_w()),
        dilations: (o.dilation_h(), o.dilation_w()),
        padding: o.padding(),
        activation: o.activation(),
    };
    finish(cx, kind, &c, weights, 1, 0)
}

/// DEPTHWISE_CONV_2D: weights [1, H, W, channels x multiplier].
pub(super) fn depthwise(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 3)?;
    let o = cx.options::<DepthwiseConv2DOptions>()?;
    let kind = product_kind(cx)?;
    let ([_, _, _, channels], [one, _, _, filters]) = (cx.image(0)?, cx.image(1)?);
    let multiplier = usize::try_from(o.depth_multiplier()).ok();
    if one != 1 || multiplier.and_then(|m| m.checked_mul(channels)) != Some(filters) {
        let what = format!("has shape {:?}, which does not fit {channels} channels", cx.shape(1)?);
        let what = format!("{what} with depth_multiplier {}", o.depth_multiplier());
        return Err(cx.refuse(1, Problem::whole(what, EXPORT)));
    }
    let (tensor, in_file) = (cx.tensor(1)?, cx.value(1, Layout::File)?);
    let name = cx.graph.fresh(tensor, "_oihw");
    let op = Op::Transpose { perm: vec![3, 0, 1, 2] };
    let weights = cx.graph.asm.emit(&name.clone(), name, op, &[Some(in_file)], &Hint::default())?;
    let c = Convolution {
        strides: (o.stride_h(), o.stride_w()),
        dilations: (o.dilation_h(), o.dilation_w()),
        padding: o.padding(),
        activation: o.activation(),
    };
    finish(cx, kind, &c, weights, channels, 3)
}

/// Convolution with weights [O, I, H, W]; `axis` is that of the output channels in the file's weights.
fn finish(cx: &mut Context<'_, '_>, kind: Kind, c: &Convolution, weights: ValueId, group: usize, axis: i32) -> Done {
    let (image, [_, h, w, _]) = (cx.image(0)?, cx.image(1)?);
    let strides = pair("stride", c.strides.0, c.strides.1)?;
    let dilations = pair("dilation_factor", c.dilations.0, c.dilations.1)?;
    let window = window(image, vec![h, w], strides, dilations, c.padding)?;
    let filters = cx.graph.asm.value(weights).shape[0];
    let bias = bias(cx, kind, filters)?;
    let step = match kind {
        Kind::Float => {
            let mut inputs = vec![Some(cx.value(0, FIRST)?), Some(weights)];
            inputs.extend(bias.map(Some));
            Step::new(Op::Conv { window, group }, inputs)
        }
        Kind::Int8 => {
            let mut inputs = cx.operand(0, FIRST)?.to_vec();
            inputs.push(Some(weights));
            inputs.extend(weight_quantizer(cx, axis, filters)?);
            check_bias_scale(cx)?;
            inputs.extend(cx.output_quantizer()?);
            inputs.extend(bias.map(Some));
            Step::new(Op::QLinearConv { window, group }, inputs)
        }
    };
    let clip = cx.activation(c.activation, kind)?;
    cx.finish(FIRST, [step].into_iter().chain(clip))
}

fn pool(cx: &mut Context<'_, '_>) -> Result<(Window, i8, Kind), Problem> {
    cx.arity(1, 1)?;
    let o = cx.options::<Pool2DOptions>()?;
    let kind = cx.kind(&[0])?;
    let kernel = pair("filter", o.filter_height(), o.filter_width())?;
    let strides = pair("stride", o.stride_h(), o.stride_w())?;
    Ok((window(cx.image(0)?, kernel, strides, vec![1; 2], o.padding())?, o.activation(), kind))
}

/// AVERAGE_POOL_2D: padding does not count.
pub(super) fn average_pool(cx: &mut Context<'_, '_>) -> Done {
    let (window, activation, kind) = pool(cx)?;
    let count_include_pad = false;
    let step = match kind {
        Kind::Float => Step::new(Op::AveragePool { window, count_include_pad }, vec![Some(cx.value(0, FIRST)?)]),
        Kind::Int8 => {
            let inputs = [&cx.operand(0, FIRST)?[..], &cx.output_quantizer()?].concat();
            Step::new(Op::QLinearAveragePool { window, count_include_pad, channels_last: false }, inputs)
        }
    };
    let clip = cx.activation(activation, kind)?;
    cx.finish(FIRST, [step].into_iter().chain(clip))
}

/// MAX_POOL_2D: the largest integers, whatever they stand for.
pub(super) fn max_pool(cx: &mut Context<'_, '_>) -> Done {
    let (window, activation, kind) = pool(cx)?;
    if kind == Kind::Int8 {
        cx.same_parameters(&[0])?;
    }
    let step = Step::new(Op::MaxPool { window }, vec![Some(cx.value(0, FIRST)?)]);
    let clip = cx.activation(activation, kind)?;
    cx.finish(FIRST, [step].into_iter().chain(clip))
}
