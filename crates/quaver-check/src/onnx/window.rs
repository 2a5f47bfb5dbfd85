//! Convolution and pooling: windows over one or two axes.

use super::call::{Call, Known};
use super::layout::margins;
use super::lower::Lowering;
use crate::net::{Conv, Map, Op};

/// Windows over the padded planes of a value; with one axis, the other has the size 1.
struct Plane {
    channels: usize,
    /// Size of a plane.
    size: [usize; 2],
    begin: [usize; 2],
    /// Size with padding.
    padded: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    out: [usize; 2],
}

impl Lowering {
    pub(super) fn convolution(&mut self, call: &Call) -> Result<Known, String> {
        let x = call.value(0)?.1;
        let (shape, weights) = call.constant(1)?;
        let &[out_channels, per_group, ..] = shape else { return Err(format!("weights of shape {shape:?}")) };
        let p = plane(call, x, Some(&shape[2..]))?;
        let groups = usize::try_from(call.int("group", 1)?).unwrap_or(0);
        if groups == 0 || per_group.checked_mul(groups) != Some(p.channels) || out_channels % groups != 0 {
            return Err(format!("weights of shape {shape:?} do not fit {groups} groups of {} channels", p.channels));
        }
        let out = shape_of(out_channels, p.out, x);
        let mut bias = vec![0.0; self.room(&out)?];
        if call.has(2) {
            let (&[n], given) = call.constant(2)? else { return Err("the bias is not a vector".into()) };
            if n != out_channels {
                return Err(format!("{n} biases for {out_channels} channels"));
            }
            bias.iter_mut().enumerate().for_each(|(i, b)| *b = given[i / (p.out[0] * p.out[1])]);
        }
        let id = self.with_margin(call, x, &p)?;
        let conv = p.convolution(groups, out_channels, weights.to_vec());
        Ok(self.affine(call.name(), out, (id, Map::Conv(conv)), bias, 0.0))
    }

    pub(super) fn max_pool(&mut self, call: &Call) -> Result<Known, String> {
        call.only("ceil_mode", 0)?;
        call.only("storage_order", 0)?;
        let (of, x) = call.value(0)?;
        let p = plane(call, x, None)?;
        let out = shape_of(p.channels, p.out, x);
        self.room(&out)?;
        let places = self.places(&p)?;
        let window = |at| p.taps(at).filter_map(|place| places[place]).map(|place| place as u32).collect();
        let windows: Vec<Vec<u32>> = p.positions().map(window).collect();
        if windows.iter().any(Vec::is_empty) {
            return Err("a window holds only padding".into());
        }
        Ok(self.push(call.name(), out, Op::Max { of, windows }))
    }

    /// The sum over each window, divided by how many elements count.
    pub(super) fn average_pool(&mut self, call: &Call) -> Result<Known, String> {
        call.only("ceil_mode", 0)?;
        let x = call.value(0)?.1;
        let p = plane(call, x, None)?;
        let all_count = match call.int("count_include_pad", 0)? {
            given @ (0 | 1) => given == 1,
            given => return Err(format!("count_include_pad = {given} is not understood")),
        };
        let out = shape_of(p.channels, p.out, x);
        let elements = self.room(&out)?;
        let places = self.places(&p)?;
        let count = |at| p.taps(at).filter(|&place| all_count || places[place].is_some()).count() as f64;
        let counts: Vec<f64> = p.positions().map(count).collect();
        let id = self.with_margin(call, x, &p)?;
        let ones = p.convolution(p.channels, p.channels, vec![1.0; p.channels * p.kernel[0] * p.kernel[1]]);
        let sum = format!("{}/sum", call.name());
        let sum = self.affine(&sum, out, (id, Map::Conv(ones)), vec![0.0; elements], 0.0);
        self.mean(call.name(), &sum, &counts)
    }

    pub(super) fn global_average_pool(&mut self, call: &Call) -> Result<Known, String> {
        let (id, x) = call.value(0)?;
        if x.shape.len() < 3 {
            return Err(format!("the shape {:?} has no planes", x.shape));
        }
        let shape: Vec<usize> = x.shape.iter().enumerate().map(|(i, &size)| if i < 2 { size } else { 1 }).collect();
        let outer = self.room(&shape)?;
        let inputs = x.len() / outer;
        let ones = Map::Dense { outer, inputs, outputs: 1, weights: vec![1.0; inputs] };
        let sum = self.affine(&format!("{}/sum", call.name()), shape, (id, ones), vec![0.0; outer], 0.0);
        self.mean(call.name(), &sum, &vec![inputs as f64; outer])
    }

    /// The value with its margin.
    fn with_margin(&mut self, call: &Call, x: &Known, p: &Plane) -> Result<usize, String> {
        let all = |[y, x]: [usize; 2]| [0, 0, y, x];
        let planes = Known { shape: vec![1, p.channels, p.size[0], p.size[1]], data: x.data.clone() };
        let end = [p.padded[0] - p.size[0] - p.begin[0], p.padded[1] - p.size[1] - p.begin[1]];
        let padded = self.padded(&format!("{}/padded", call.name()), &planes, &all(p.begin), &all(end), self.margin)?;
        padded.id().ok_or_else(|| "a constant is padded".into())
    }

    /// For each element with the margin its place in the value. Takes room for all windows.
    fn places(&mut self, p: &Plane) -> Result<Vec<Option<usize>>, String> {
        self.room(&[p.channels, p.out[0], p.out[1], p.kernel[0], p.kernel[1]])?;
        let shape = [p.channels, p.padded[0], p.padded[1]];
        self.room(&shape)?;
        Ok(margins(&[p.channels, p.size[0], p.size[1]], &[0, p.begin[0], p.begin[1]], &shape))
    }
}

impl Plane {
    /// Each channel and place of the result, in order.
    fn positions(&self) -> impl Iterator<Item = [usize; 3]> {
        let [height, width] = self.out;
        (0..self.channels * height * width).map(move |i| [i / width / height, i / width % height, i % width])
    }

    /// Places in the padded value under a window.
    fn taps(&self, [channel, y, x]: [usize; 3]) -> impl Iterator<Item = usize> {
        let [height, width] = self.padded;
        let (first_y, first_x, [dy, dx]) = (y * self.stride[0], x * self.stride[1], self.dilation);
        let [rows, columns] = self.kernel;
        (0..rows * columns)
            .map(move |i| (channel * height + first_y + i / columns * dy) * width + first_x + i % columns * dx)
    }

    fn convolution(&self, groups: usize, out_channels: usize, weights: Vec<f64>) -> Conv {
        Conv {
            groups,
            in_channels: self.channels,
            in_size: self.padded,
            out_channels,
            out_size: self.out,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            weights,
        }
    }
}

/// Reads the windows of a node; `kernel` is the shape of its weights' windows, if it has weights.
fn plane(call: &Call, x: &Known, kernel: Option<&[usize]>) -> Result<Plane, String> {
    let (&[1, channels, ref size @ ..], axes @ (1 | 2)) = (&x.shape[..], x.shape.len().saturating_sub(2)) else {
        return Err(format!("the shape {:?} is not supported, only [1, channels, size, size or none]", x.shape));
    };
    let given = sizes(call, "kernel_shape", axes, 1)?;
    let kernel = match (kernel, &given) {
        (Some(own), Some(given)) if own != given => return Err(format!("kernel_shape is {given:?}, not {own:?}")),
        (Some(own), _) if own.len() == axes && !own.contains(&0) => own.to_vec(),
        (Some(own), _) => return Err(format!("windows of shape {own:?} do not fit {axes} axes")),
        (None, _) => given.ok_or("kernel_shape is missing")?,
    };
    let pads = sizes(call, "pads", 2 * axes, 0)?.unwrap_or(vec![0; 2 * axes]);
    match call.text("auto_pad", "NOTSET")?.as_str() {
        "NOTSET" => {}
        "VALID" if pads.iter().all(|&p| p == 0) => {}
        other => return Err(format!("auto_pad {other} with pads {pads:?} is not supported")),
    }
    let pair = |list: &[usize], other: usize| if let [y, x] = *list { [y, x] } else { [other, list[0]] };
    let ones = || vec![1; axes];
    let (size, kernel) = (pair(size, 1), pair(&kernel, 1));
    let stride = pair(&sizes(call, "strides", axes, 1)?.unwrap_or_else(ones), 1);
    let dilation = pair(&sizes(call, "dilations", axes, 1)?.unwrap_or_else(ones), 1);
    let (begin, end) = (pair(&pads[..axes], 0), pair(&pads[axes..], 0));
    let padded = [size[0] + begin[0] + end[0], size[1] + begin[1] + end[1]];
    let mut out = [0; 2];
    for i in 0..2 {
        let room = padded[i].checked_sub(dilation[i] * (kernel[i] - 1) + 1);
        out[i] =
            room.ok_or_else(|| format!("a window {kernel:?} is larger than the padded {padded:?}"))? / stride[i] + 1;
    }
    Ok(Plane { channels, size, begin, padded, kernel, stride, dilation, out })
}

/// A list of so many numbers, each at least `least` and not absurdly large.
fn sizes(call: &Call, name: &str, count: usize, least: usize) -> Result<Option<Vec<usize>>, String> {
    let Some(list) = call.ints(name)? else { return Ok(None) };
    let numbers = list.iter().map(|&n| usize::try_from(n).ok().filter(|n| (least..1 << 24).contains(n)));
    let numbers: Option<Vec<usize>> = numbers.collect();
    let numbers = numbers.filter(|numbers| numbers.len() == count);
    Ok(Some(numbers.ok_or_else(|| format!("{name} = {list:?} is not a list of {count} numbers from {least}"))?))
}

fn shape_of(channels: usize, [height, width]: [usize; 2], like: &Known) -> Vec<usize> {
    if like.shape.len() == 3 { vec![1, channels, width] } else { vec![1, channels, height, width] }
}
