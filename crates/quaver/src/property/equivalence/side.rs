//! Two networks side by side: one net whose output is all outputs of the first, then all of the second.

use super::{Pair, PairError, refused, together};
use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::{
    Affine, Cut, From, Grid, LinearMap, Move, Net, Node, NodeId, Op, Pointwise, Rounding, ScalarFn, Spread, Step,
};
use crate::num::Ratio;

/// How far, relatively, an input may be from the multiple of a step that it stands for: four units in the last place of a float32, so that k / 255,
/// k R(1 / 255) and the like are the same inputs.
pub const INPUT_SLACK: f64 = 2.384185791015625e-7;

/// Most values of an input's element.
const MOST: i64 = 1 << 16;

/// Inputs that are whole multiples of a step.
#[derive(Clone, Debug)]
pub struct InputGrid {
    /// The step.
    pub step: Ratio,
    /// The least and the largest multiple of it.
    pub range: (i64, i64),
}

impl Pair {
    /// Both networks on one input of float32 numbers (or integers, where theirs are).
    ///
    /// # Errors
    /// If they cannot be put on one input.
    pub fn side_by_side(&self) -> Result<Lowered, PairError> {
        together(self.a.clone(), self.b.clone())
    }

    /// Both networks on one input of integers k, each of which stands for every number within a relative 2^-22 of k times the step.
    ///
    /// # Errors
    /// If they cannot be put on one input, their input is not float32, or the grid has too many values.
    pub fn on_grid(&self, grid: &InputGrid) -> Result<Lowered, PairError> {
        let both = self.side_by_side()?;
        if both.input_types[0] != DType::F32 {
            return Err(refused(
                format!("the networks take {}, and a grid of inputs is asked for", both.input_types[0]),
                "leave the grid out: integers are a grid already",
            ));
        }
        if grid.range.1 - grid.range.0 >= MOST || grid.range.1 <= grid.range.0 || grid.step.is_zero() {
            return Err(refused(
                format!("a grid of the multiples {} to {} of {}", grid.range.0, grid.range.1, grid.step.approx()),
                "give a positive step with at most 65536 multiples in the box",
            ));
        }
        let net = on_integers(&both.net, grid);
        let dtype = if grid.range.0 >= 0 && grid.range.1 <= 255 { DType::U8 } else { DType::I32 };
        let profile = both.profile.clone();
        Ok(Lowered { profile, ..Lowered::merged(net, &[self.a.clone(), self.b.clone()], dtype, both.output_types[0]) })
    }
}

/// The net with its input made from integers; functions that quantize it read these.
fn on_integers(net: &Net, grid: &InputGrid) -> Net {
    let mut new = Net::new();
    let shape = net.node(net.inputs()[0]).shape.clone();
    let range = (grid.range.0 as f64, grid.range.1 as f64);
    let input =
        Node { name: "multiples".into(), shape, op: Op::Input(0), grid: Grid::Integer, range, quantization: None };
    let integers = new.add(input);
    let mut copy = Copy { grid, ids: vec![], sources: vec![], integers };
    net.ids().for_each(|id| copy.append(net, id, &mut new));
    let new_id = |id: &NodeId| copy.ids[id.0];
    new.set_outputs(net.outputs().iter().map(new_id).collect());
    for [a, b] in net.twins().iter().map(|twins| [new_id(&twins[0]), new_id(&twins[1])]) {
        if [a, b].iter().all(|id| matches!(new.node(*id).op, Op::Pointwise(_))) {
            new.declare_twins(a, b);
        }
    }
    new
}

struct Copy<'c> {
    grid: &'c InputGrid,
    ids: Vec<NodeId>,
    /// For each value whose elements are each made of one element of the input: which, and what it is for every multiple, as an interval.
    sources: Vec<Option<Source>>,
    integers: NodeId,
}

#[derive(Clone)]
struct Source {
    from: Vec<u32>,
    values: Vec<(f64, f64)>,
}

impl Copy<'_> {
    fn append(&mut self, net: &Net, id: NodeId, new: &mut Net) {
        let node = net.node(id);
        let source = self.source(node);
        let made = match (&node.op, &source) {
            (Op::Input(_), _) => self.input(node, new),
            (Op::Pointwise(_), Some(source)) if node.grid == Grid::Integer => self.quantized(node, source, new),
            (Op::Affine(_) | Op::Pointwise(_) | Op::Max(_) | Op::Move(_), _) => None,
        };
        let made = made.unwrap_or_else(|| new.add(Node { op: self.renumbered(&node.op), ..node.clone() }));
        self.ids.push(made);
        self.sources.push(source);
    }

    /// The numbers that the integers stand for.
    fn input(&self, node: &Node, new: &mut Net) -> Option<NodeId> {
        let scale = Spread::all(self.grid.step.approx());
        let terms = vec![(self.integers, LinearMap::Diagonal { len: node.len(), scale })];
        let rounding = Rounding::Slack { relative: INPUT_SLACK, absolute: Spread::all(0.0) };
        let op = Op::Affine(Affine { terms, bias: Spread::all(0.0), rounding });
        let (lo, hi) = self.grid.range;
        let end = |k: i64, outward: f64| {
            let x = k as f64 * self.grid.step.approx();
            x + outward * 2.0 * INPUT_SLACK * x.abs()
        };
        let range = (end(lo, -1.0).max(node.range.0), end(hi, 1.0).min(node.range.1));
        Some(new.add(Node { op, grid: Grid::Real, range, ..node.clone() }))
    }

    /// An integer that is known for every multiple, as a function of the multiple.
    fn quantized(&self, node: &Node, source: &Source, new: &mut Net) -> Option<NodeId> {
        if source.values.iter().any(|(lo, hi)| lo != hi) {
            return None;
        }
        let values: Vec<f64> = source.values.iter().map(|v| v.0).collect();
        let element = |&index: &u32| From::Element { source: 0, index };
        let moved = Move { sources: vec![self.integers], from: source.from.iter().map(element).collect() };
        let (range, quantization) = (new.node(self.integers).range, None);
        let shape = node.shape.clone();
        let name = format!("{}_multiples", node.name);
        let x = new.add(Node { name, shape, op: Op::Move(moved), grid: Grid::Integer, range, quantization });
        let first = self.grid.range.0 as f64;
        let slope = values[1] - values[0];
        let is_line = slope >= 0.0 && values.windows(2).all(|w| w[1] - w[0] == slope);
        let op = match is_line {
            true => Op::Affine(Affine {
                terms: vec![(x, LinearMap::Diagonal { len: node.len(), scale: Spread::all(slope) })],
                bias: Spread::all(values[0] - slope * first),
                rounding: Rounding::Exact,
            }),
            false => {
                let cuts = (1..values.len()).map(|k| Cut::at(first + k as f64)).collect();
                let functions = Spread::all(ScalarFn::Step(Step::new(cuts, values)));
                Op::Pointwise(Pointwise { input: x, functions })
            }
        };
        Some(new.add(Node { op, ..node.clone() }))
    }

    fn renumbered(&self, op: &Op) -> Op {
        let id = |id: &NodeId| self.ids[id.0];
        match op {
            Op::Input(_) => unreachable!("there is one input"),
            Op::Affine(a) => {
                Op::Affine(Affine { terms: a.terms.iter().map(|(x, map)| (id(x), map.clone())).collect(), ..a.clone() })
            }
            Op::Pointwise(p) => Op::Pointwise(Pointwise { input: id(&p.input), ..p.clone() }),
            Op::Max(m) => Op::Max(crate::net::Max { input: id(&m.input), ..m.clone() }),
            Op::Move(m) => Op::Move(Move { sources: m.sources.iter().map(id).collect(), from: m.from.clone() }),
        }
    }

    /// What is known of a value.
    ///
    /// # Why
    /// The interval of the input for a multiple k is k times the step, widened by the slack and by what binary64 rounds; functions are monotone, and the
    /// same for all elements.
    fn source(&self, node: &Node) -> Option<Source> {
        match &node.op {
            Op::Input(_) => {
                let step = self.grid.step.approx();
                let of = |k: i64| {
                    let x = k as f64 * step;
                    let wide = 2.0 * INPUT_SLACK * x.abs();
                    (x - wide, x + wide)
                };
                let values = (self.grid.range.0..=self.grid.range.1).map(of).collect();
                Some(Source { from: (0..node.len() as u32).collect(), values })
            }
            Op::Pointwise(p) => {
                let Source { from, values } = self.sources[p.input.0].clone()?;
                let [f] = &p.functions.data[..] else { return None };
                let values = values.into_iter().map(|(lo, hi)| (f.value_down(lo), f.value_up(hi))).collect();
                Some(Source { from, values })
            }
            Op::Move(m) => {
                let [of] = m.sources[..] else { return None };
                let source = self.sources[of.0].as_ref()?;
                let index = |f: &From| match f {
                    From::Element { index, .. } => Some(source.from[*index as usize]),
                    From::Constant(_) => None,
                };
                let from = m.from.iter().map(index).collect::<Option<_>>()?;
                Some(Source { from, values: source.values.clone() })
            }
            Op::Affine(_) | Op::Max(_) => None,
        }
    }
}
