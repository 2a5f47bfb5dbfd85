//! Sliding windows: padding as an index map, pooling as windows or unit-weight convolutions.

use super::layout::flat;
use super::{Known, LowerError, Lowering};
use crate::model::ir::{Node as ModelNode, Window};
use crate::net::{Conv, From, Geometry, LinearMap, Max, NodeId, Op as NetOp, Weights};

/// Elements of a padded image, and taps of all windows of one channel.
const LARGEST: usize = 1 << 24;

/// A window operation on [N, C, spatial...] with N = 1 folded in, lifted to two spatial axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub batch: usize,
    pub in_channels: usize,
    pub in_size: [usize; 2],
    pub out_channels: usize,
    pub out_size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    pub pad_begin: [usize; 2],
    pub pad_end: [usize; 2],
}

impl Plane {
    /// Size of the padded image that the windows need on an axis.
    fn needed(&self, axis: usize) -> usize {
        (self.out_size[axis].max(1) - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Whether the padded image, and all windows of one channel together, stay at a size that a network may have.
    fn is_affordable(&self) -> bool {
        let product = |factors: &[usize]| factors.iter().try_fold(1usize, |n, &f| n.checked_mul(f));
        let small = |n: Option<usize>| n.is_some_and(|n| n <= LARGEST);
        let spans = [0, 1].map(|a| {
            let kernel = (self.kernel[a].max(1) - 1).checked_mul(self.dilation[a])?;
            (self.out_size[a].max(1) - 1).checked_mul(self.stride[a])?.checked_add(kernel)?.checked_add(1)
        });
        let [Some(height), Some(width)] = spans else { return false };
        let image = product(&[self.batch, self.in_channels, height, width]);
        let taps = product(&[self.kernel[0], self.kernel[1], self.out_size[0], self.out_size[1]]);
        small(image) && small(taps)
    }

    /// Whether the only window is the unpadded image.
    pub fn is_whole_image(&self) -> bool {
        self.kernel == self.in_size && self.pad_begin == [0, 0] && self.pad_end == [0, 0]
    }

    /// Coordinates on an axis that window o reads, as positions of the unpadded image (possibly outside).
    fn reads(&self, axis: usize, o: usize) -> impl Iterator<Item = i64> + use<> {
        let first = (o * self.stride[axis]) as i64 - self.pad_begin[axis] as i64;
        let dilation = self.dilation[axis] as i64;
        (0..self.kernel[axis] as i64).map(move |k| first + k * dilation)
    }

    /// How many elements the average of a window divides by.
    pub fn count(&self, o: [usize; 2], include_pad: bool) -> usize {
        let on = |axis: usize| {
            let (begin, end) = if include_pad {
                (-(self.pad_begin[axis] as i64), (self.in_size[axis] + self.pad_end[axis]) as i64)
            } else {
                (0, self.in_size[axis] as i64)
            };
            self.reads(axis, o[axis]).filter(|&i| i >= begin && i < end).count()
        };
        on(0) * on(1)
    }
}

impl Lowering<'_> {
    /// The geometry of a window node between two shapes [N, C, spatial...] with one or two spatial axes.
    pub(super) fn plane(&self, node: &ModelNode, window: &Window) -> Result<Plane, LowerError> {
        let (input, output) = (self.shape_in(node, 0)?, self.shape_out(node));
        let axes = window.kernel.len();
        if input.len() != axes + 2 || output.len() != axes + 2 || !(1..=2).contains(&axes) {
            return Err(self.refuse(node, "only one or two spatial axes are supported", "use a 1-D or 2-D layer"));
        }
        let lift = |v: &[usize], fill: usize| if axes == 2 { [v[0], v[1]] } else { [fill, v[0]] };
        let plane = Plane {
            batch: input[0],
            in_channels: input[1],
            in_size: lift(&input[2..], 1),
            out_channels: output[1],
            out_size: lift(&output[2..], 1),
            kernel: lift(&window.kernel, 1),
            stride: lift(&window.strides, 1),
            dilation: lift(&window.dilations, 1),
            pad_begin: lift(&window.pads_begin, 0),
            pad_end: lift(&window.pads_end, 0),
        };
        if !plane.is_affordable() {
            return Err(self.refuse(node, "its windows are too large for its image", "repair the window of the model"));
        }
        Ok(plane)
    }

    /// The image with `fill` around it, as large as the windows need; also its size.
    pub(super) fn padded(&mut self, input: NodeId, p: &Plane, fill: f64) -> (NodeId, [usize; 2]) {
        let size = [0, 1].map(|a| p.needed(a).max(p.in_size[a] + p.pad_begin[a]));
        if size == p.in_size {
            return (input, size);
        }
        let mut from = Vec::with_capacity(p.batch * p.in_channels * size[0] * size[1]);
        for channel in 0..p.batch * p.in_channels {
            for y in 0..size[0] {
                for x in 0..size[1] {
                    let at = [y as i64 - p.pad_begin[0] as i64, x as i64 - p.pad_begin[1] as i64];
                    let inside = (0..2).all(|a| at[a] >= 0 && at[a] < p.in_size[a] as i64);
                    from.push(if inside {
                        let shape = [p.batch * p.in_channels, p.in_size[0], p.in_size[1]];
                        let index = flat(&shape, &[channel, at[0] as usize, at[1] as usize]);
                        From::Element { source: 0, index: index as u32 }
                    } else {
                        From::Constant(fill)
                    });
                }
            }
        }
        let name = format!("{}_padded", self.net.node(input).name);
        let id = self.move_node(&name, &[p.batch, p.in_channels, size[0], size[1]], vec![input], from);
        (id, size)
    }

    /// The convolution map of a padded image.
    pub(super) fn convolution(
        &self,
        node: &ModelNode,
        p: &Plane,
        size: [usize; 2],
        groups: usize,
        weights: Weights,
    ) -> Result<LinearMap, LowerError> {
        if p.batch != 1 {
            return Err(self.refuse(node, format!("a fixed batch of {} images", p.batch), "export with batch size 1"));
        }
        let geometry = Geometry {
            groups,
            in_channels: p.in_channels,
            in_size: size,
            out_channels: p.out_channels,
            out_size: p.out_size,
            kernel: p.kernel,
            stride: p.stride,
            dilation: p.dilation,
        };
        Ok(LinearMap::Conv(Conv { geometry, weights }))
    }

    /// Sum pooling: a convolution with unit weights and a group for each channel.
    pub(super) fn sum_pool(&self, node: &ModelNode, p: &Plane, size: [usize; 2]) -> Result<LinearMap, LowerError> {
        let weights = Weights::new(vec![1.0; p.in_channels * p.kernel[0] * p.kernel[1]]);
        self.convolution(node, p, size, p.in_channels, weights)
    }

    pub(super) fn max_pool(&mut self, node: &ModelNode, window: &Window) -> Result<Known, LowerError> {
        let p = self.plane(node, window)?;
        let (mut starts, mut members) = (vec![0u32], vec![]);
        for channel in 0..p.batch * p.in_channels {
            for oy in 0..p.out_size[0] {
                for ox in 0..p.out_size[1] {
                    for y in p.reads(0, oy).filter(|&y| y >= 0 && y < p.in_size[0] as i64) {
                        for x in p.reads(1, ox).filter(|&x| x >= 0 && x < p.in_size[1] as i64) {
                            let base = channel * p.in_size[0] + y as usize;
                            members.push((base * p.in_size[1] + x as usize) as u32);
                        }
                    }
                    if members.len() as u32 == starts[starts.len() - 1] {
                        return Err(self.refuse(node, "a window holds only padding", "repair the pads of the model"));
                    }
                    starts.push(members.len() as u32);
                }
            }
        }
        self.max(node, starts, members)
    }

    pub(super) fn global_max_pool(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let (outputs, inputs) = (self.value(node.output).len(), self.value(self.input_id(node, 0)?).len());
        let each = inputs / outputs.max(1);
        let starts = (0..=outputs).map(|o| (o * each) as u32).collect();
        self.max(node, starts, (0..inputs as u32).collect())
    }

    fn max(&mut self, node: &ModelNode, starts: Vec<u32>, members: Vec<u32>) -> Result<Known, LowerError> {
        let input = self.argument(node, 0)?;
        let source = self.net.node(input);
        let grid = source.grid;
        let quantization = source.quantization.clone().filter(|q| q.scale.data.len() == 1);
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let op = NetOp::Max(Max { input, starts, members });
        Ok(Known::Node(self.add(&name, &shape, op, grid, quantization)))
    }
}
