//! Convolution and pooling: windows with every default resolved.

use super::context::{Context, FIX};
use crate::model::build::Problem;
use crate::model::build::shape::{extent, same_padding, slide};
use crate::model::ir::{Op, Window};

type Done = Result<(), Problem>;

/// Turns the node into an operation.
pub(super) fn convert(op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    match op_type {
        "Conv" => {
            cx.arity(2, 3)?;
            let (window, group) = convolution(cx, 1)?;
            cx.direct(Op::Conv { window, group })
        }
        "MaxPool" => {
            cx.arity(1, 1)?;
            cx.one_output("the Indices output")?;
            cx.attrs.only("storage_order", 0, "export without Indices")?;
            let ceil = cx.opset >= 10 && cx.attrs.flag("ceil_mode", false)?;
            let spatial = spatial(cx, 0)?;
            let window = pooling(cx, &spatial, cx.opset >= 10, ceil)?;
            cx.direct(Op::MaxPool { window })
        }
        "AveragePool" => {
            cx.arity(1, 1)?;
            let count_include_pad = cx.attrs.flag("count_include_pad", false)?;
            let ceil = cx.opset >= 10 && cx.attrs.flag("ceil_mode", false)?;
            let spatial = spatial(cx, 0)?;
            let window = pooling(cx, &spatial, cx.opset >= 19, ceil)?;
            cx.direct(Op::AveragePool { window, count_include_pad })
        }
        _ => {
            cx.arity(1, 1)?;
            spatial(cx, 0)?;
            cx.direct(if op_type == "GlobalMaxPool" { Op::GlobalMaxPool } else { Op::GlobalAveragePool })
        }
    }
}

/// The spatial shape of an input [N, C, spatial]; only one or two spatial axes are supported.
pub(super) fn spatial(cx: &Context<'_, '_>, i: usize) -> Result<Vec<usize>, Problem> {
    let shape = cx.shape(i)?;
    match shape.len() {
        3 | 4 => Ok(shape[2..].to_vec()),
        5 => Err(Problem::input(i, format!("3-D (shape {shape:?}) is not supported"), "only 1-D and 2-D are")),
        _ => Err(Problem::input(i, format!("shape {shape:?} is not [N, C, spatial]"), FIX)),
    }
}

/// Window and group of a convolution with weights at input `w`.
pub(super) fn convolution(cx: &mut Context<'_, '_>, w: usize) -> Result<(Window, usize), Problem> {
    let spatial = spatial(cx, 0)?;
    let weights = cx.shape(w)?;
    let Some(kernel) = weights.get(2..).filter(|k| k.len() == spatial.len()) else {
        return Err(Problem::input(w, format!("weights {weights:?} do not fit {} spatial axes", spatial.len()), FIX));
    };
    let given = positive(cx, "kernel_shape", spatial.len())?;
    if given.is_some_and(|g| g != kernel) {
        return Err(Problem::attribute("kernel_shape", format!("differs from the weights {weights:?}"), FIX));
    }
    let group = cx.attrs.int("group", 1)?;
    let group = usize::try_from(group).map_err(|_| Problem::attribute("group", format!("is {group}"), FIX))?;
    Ok((window(cx, &spatial, kernel.to_vec(), true, false)?, group))
}

/// Window of a pooling operator.
pub(super) fn pooling(
    cx: &mut Context<'_, '_>,
    spatial: &[usize],
    dilated: bool,
    ceil: bool,
) -> Result<Window, Problem> {
    let kernel = positive(cx, "kernel_shape", spatial.len())?;
    let kernel = kernel.ok_or_else(|| Problem::attribute("kernel_shape", "missing, but required", FIX))?;
    window(cx, spatial, kernel, dilated, ceil)
}

/// A list of `n` positive numbers, if given.
fn positive(cx: &mut Context<'_, '_>, name: &str, n: usize) -> Result<Option<Vec<usize>>, Problem> {
    let Some(list) = cx.attrs.ints(name)? else { return Ok(None) };
    let numbers: Option<Vec<usize>> = list.iter().map(|&x| usize::try_from(x).ok().filter(|&x| x > 0)).collect();
    match numbers.filter(|numbers| numbers.len() == n) {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(Problem::attribute(name, format!("{list:?} is not a list of {n} positive numbers"), FIX)),
    }
}

fn window(
    cx: &mut Context<'_, '_>,
    spatial: &[usize],
    kernel: Vec<usize>,
    dilated: bool,
    ceil_mode: bool,
) -> Result<Window, Problem> {
    let n = spatial.len();
    let strides = positive(cx, "strides", n)?.unwrap_or_else(|| vec![1; n]);
    let dilations = if dilated { positive(cx, "dilations", n)? } else { None }.unwrap_or_else(|| vec![1; n]);
    let auto = cx.attrs.string("auto_pad", "NOTSET")?;
    let given = cx.attrs.ints("pads")?.unwrap_or_default();
    let mut w = Window { kernel, strides, dilations, pads_begin: vec![0; n], pads_end: vec![0; n], ceil_mode };
    if auto != "NOTSET" && given.iter().any(|&p| p != 0) {
        return Err(Problem::attribute("pads", format!("given together with auto_pad {auto}"), "give one of them"));
    }
    match auto.as_str() {
        "NOTSET" => explicit_pads(&mut w, given)?,
        "SAME_UPPER" | "SAME_LOWER" => same_pads(&mut w, spatial, auto == "SAME_UPPER")?,
        "VALID" => valid(&mut w, spatial)?,
        _ => return Err(Problem::attribute("auto_pad", format!("`{auto}` is not supported"), "use NOTSET and pads")),
    }
    Ok(w)
}

fn explicit_pads(w: &mut Window, given: &[i64]) -> Done {
    if given.is_empty() {
        return Ok(());
    }
    let pads: Option<Vec<usize>> = given.iter().map(|&p| usize::try_from(p).ok()).collect();
    let n = w.kernel.len();
    match pads.filter(|pads| pads.len() == 2 * n) {
        Some(pads) => {
            w.pads_begin.copy_from_slice(&pads[..n]);
            w.pads_end.copy_from_slice(&pads[n..]);
            Ok(())
        }
        None => Err(Problem::attribute("pads", format!("{given:?} is not a list of {} numbers from 0 up", 2 * n), FIX)),
    }
}

fn same_pads(w: &mut Window, spatial: &[usize], upper: bool) -> Done {
    if w.dilations.iter().any(|&d| d != 1) {
        let what = "runtimes disagree on the padding of dilated windows";
        return Err(Problem::attribute("auto_pad", what, "use auto_pad NOTSET and explicit pads"));
    }
    if w.ceil_mode {
        return Err(Problem::attribute("ceil_mode", "is ambiguous with auto_pad SAME", "use explicit pads"));
    }
    for (i, &input) in spatial.iter().enumerate() {
        let pads = extent(w.kernel[i], w.dilations[i]).and_then(|e| same_padding(input, e, w.strides[i], upper));
        let pads = pads.ok_or_else(|| Problem::attribute("auto_pad", "the padding overflows", FIX))?;
        (w.pads_begin[i], w.pads_end[i]) = pads;
    }
    Ok(())
}

fn valid(w: &mut Window, spatial: &[usize]) -> Done {
    if std::mem::replace(&mut w.ceil_mode, false) {
        let floor = slide(w, spatial);
        let ceil = slide(&Window { ceil_mode: true, ..w.clone() }, spatial);
        if floor != ceil {
            return Err(Problem::attribute("ceil_mode", "is ambiguous with auto_pad VALID", "use explicit pads"));
        }
    }
    Ok(())
}
