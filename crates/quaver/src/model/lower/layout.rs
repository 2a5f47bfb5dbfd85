//! Layout operations: all are index maps.

use std::sync::Arc;

use super::{Known, LowerError, Lowering};
use crate::model::ir::{Node as ModelNode, Op, PadMode};
use crate::net::{From, Grid, Move, NodeId, Op as NetOp};

/// Where each element of a result comes from: (input position, element) or a constant.
type Origins = Vec<Option<(usize, usize)>>;

impl Lowering<'_> {
    pub(super) fn layout(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        let out = self.shape_out(node).to_vec();
        let shape = self.shape_in(node, 0)?.to_vec();
        let mut fill = 0.0;
        let origins: Origins = match &node.op {
            Op::Transpose { perm } => by_index(&out, |index| Some((0, transposed_index(&shape, perm, index)))),
            Op::Slice { starts, steps } => by_index(&out, |index| {
                let at = |a: usize| (starts[a] + steps[a] * index[a] as i64) as usize;
                Some((0, flat(&shape, &(0..shape.len()).map(at).collect::<Vec<_>>())))
            }),
            Op::Pad { begin, mode, .. } => {
                if let PadMode::Constant(c) = mode {
                    fill = *c;
                }
                by_index(&out, |index| padded(&shape, index, begin, *mode).map(|s| (0, flat(&shape, &s))))
            }
            Op::Gather { axis } => {
                let indices = self.constant(node, 1).ok_or_else(|| {
                    self.refuse(node, "the indices depend on the input", "gather with constant indices")
                })?;
                let rank = self.shape_in(node, 1)?.len();
                by_index(&out, |index| {
                    let which = flat(&out[*axis..axis + rank], &index[*axis..axis + rank]);
                    let mut source = index[..*axis].to_vec();
                    source.push(indices[which] as usize);
                    source.extend(&index[axis + rank..]);
                    Some((0, flat(&shape, &source)))
                })
            }
            Op::Expand => by_index(&out, |index| Some((0, broadcast_index(&shape, index)))),
            Op::Tile { .. } => by_index(&out, |index| {
                Some((0, flat(&shape, &index.iter().zip(&shape).map(|(i, n)| i % n).collect::<Vec<_>>())))
            }),
            Op::Concat { axis } => {
                let shapes = (0..node.inputs.len())
                    .map(|p| self.shape_in(node, p).map(<[usize]>::to_vec))
                    .collect::<Result<Vec<_>, _>>()?;
                by_index(&out, |index| Some(part_index(&shapes, *axis, index)))
            }
            _ => unreachable!("not a layout operation"),
        };
        self.gathered(node, &out, origins, fill)
    }

    /// The result of an index map over the inputs of a node.
    fn gathered(
        &mut self,
        node: &ModelNode,
        shape: &[usize],
        origins: Origins,
        fill: f64,
    ) -> Result<Known, LowerError> {
        let inputs: Vec<Known> = (0..node.inputs.len()).filter_map(|p| self.input(node, p)).collect();
        let constants: Option<Vec<&Arc<Vec<f64>>>> = inputs
            .iter()
            .map(|k| match k {
                Known::Constant(c) => Some(c),
                Known::Node(_) => None,
            })
            .collect();
        if let Some(constants) = constants {
            let data = origins.iter().map(|o| o.map_or(fill, |(p, i)| constants[p][i])).collect();
            return Ok(Known::Constant(Arc::new(data)));
        }
        let from = origins
            .iter()
            .map(|o| match o {
                None => From::Constant(fill),
                Some((p, i)) => match &inputs[*p] {
                    Known::Constant(c) => From::Constant(c[*i]),
                    Known::Node(_) => From::Element { source: *p as u32, index: *i as u32 },
                },
            })
            .collect();
        let name = self.name_of(node);
        // Constant sources are not read; any node stands in for them.
        let first = inputs.iter().find_map(|k| if let Known::Node(n) = k { Some(*n) } else { None });
        let stand_in = first.unwrap_or(NodeId(0));
        let sources = inputs.iter().map(|k| if let Known::Node(n) = k { *n } else { stand_in }).collect();
        Ok(Known::Node(self.move_node(&name, shape, sources, from)))
    }

    /// Adds an index map.
    pub(super) fn move_node(&mut self, name: &str, shape: &[usize], sources: Vec<NodeId>, from: Vec<From>) -> NodeId {
        let quantization = match &sources[..] {
            // A per-tensor quantization survives any index map.
            [one] => self.net.node(*one).quantization.clone().filter(|q| q.scale.data.len() == 1),
            _ => None,
        };
        let op = NetOp::Move(Move { sources, from });
        let grid = if self.net.makes_integers(&op) { Grid::Integer } else { self.profile.float_grid() };
        self.add(name, shape, op, grid, quantization)
    }

    /// A value seen in another shape by numpy broadcasting.
    pub(super) fn broadcast(&mut self, id: NodeId, shape: &[usize], out: &[usize]) -> NodeId {
        if shape.iter().product::<usize>() == out.iter().product::<usize>() {
            return id;
        }
        let from = by_index(out, |index| From::Element { source: 0, index: broadcast_index(shape, index) as u32 });
        let name = format!("{}_broadcast", self.net.node(id).name);
        self.move_node(&name, out, vec![id], from)
    }

    /// A value with its axes permuted.
    pub(super) fn transpose(&mut self, id: NodeId, shape: &[usize], perm: &[usize]) -> NodeId {
        let out: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
        let element = |index: &[usize]| transposed_index(shape, perm, index) as u32;
        let from = by_index(&out, |index| From::Element { source: 0, index: element(index) });
        let name = format!("{}_transposed", self.net.node(id).name);
        self.move_node(&name, &out, vec![id], from)
    }
}

/// Row-major position of an index.
pub(super) fn flat(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |sum, (n, i)| sum * n + i)
}

/// Calls f with every index of a shape, in order.
pub(super) fn by_index<T>(shape: &[usize], mut f: impl FnMut(&[usize]) -> T) -> Vec<T> {
    let total: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(total);
    for _ in 0..total {
        out.push(f(&index));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Element of a tensor that numpy broadcasting reads at an index of the result.
pub(super) fn broadcast_index(shape: &[usize], index: &[usize]) -> usize {
    let skip = index.len() - shape.len();
    shape.iter().zip(&index[skip..]).fold(0, |sum, (&n, &i)| sum * n + if n == 1 { 0 } else { i })
}

/// Element of a tensor that a permutation of its axes reads at an index of the result.
fn transposed_index(shape: &[usize], perm: &[usize], index: &[usize]) -> usize {
    let mut source = vec![0; shape.len()];
    perm.iter().zip(index).for_each(|(&axis, &i)| source[axis] = i);
    flat(shape, &source)
}

/// Part of a concatenation, and its element, at an index of the result.
pub(super) fn part_index(shapes: &[Vec<usize>], axis: usize, index: &[usize]) -> (usize, usize) {
    let (mut part, mut source) = (0, index.to_vec());
    while source[axis] >= shapes[part][axis] {
        source[axis] -= shapes[part][axis];
        part += 1;
    }
    (part, flat(&shapes[part], &source))
}

/// Source index of a padded element; `None` where the constant fills.
fn padded(shape: &[usize], index: &[usize], begin: &[i64], mode: PadMode) -> Option<Vec<usize>> {
    let mut source = Vec::with_capacity(shape.len());
    for ((&n, &i), &b) in shape.iter().zip(index).zip(begin) {
        let (n, at) = (n as i64, i as i64 - b);
        let inside = match mode {
            PadMode::Constant(_) => at,
            PadMode::Edge => at.clamp(0, n - 1),
            PadMode::Reflect if n == 1 => 0,
            PadMode::Reflect => {
                let period = 2 * (n - 1);
                let m = at.rem_euclid(period);
                if m < n { m } else { period - m }
            }
        };
        if inside < 0 || inside >= n {
            return None;
        }
        source.push(inside as usize);
    }
    Some(source)
}
