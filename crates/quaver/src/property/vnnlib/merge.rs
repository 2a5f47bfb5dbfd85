//! Several nets, or several inputs and outputs, as one net with one input and one output.

use std::sync::Arc;

use super::SpecError;
use super::boxes::Element;
use crate::model::lower::Lowered;
use crate::net::{Affine, From, Grid, Max, Move, Net, Node, NodeId, Op, Pointwise};

/// Which input elements are one and the same variable.
#[derive(Debug)]
pub(in crate::property) struct Layout {
    /// The free variable of each input element; elements of all inputs of all networks in a row.
    pub free_of: Vec<usize>,
    /// What each free variable can be.
    pub elements: Vec<Element>,
    /// Number of output elements of all networks.
    pub outputs: usize,
}

impl Layout {
    /// Elements that are equated become one variable.
    pub fn new(nets: &[Arc<Lowered>], equated: impl Iterator<Item = (usize, usize)>) -> Result<Layout, SpecError> {
        let all: Vec<Element> = nets.iter().flat_map(|lowered| elements(lowered)).collect();
        let mut leader: Vec<usize> = (0..all.len()).collect();
        for (a, b) in equated {
            let (a, b) = (find(&mut leader, a), find(&mut leader, b));
            if all[a] != all[b] {
                let problem = format!("an input of type {} is equated with one of type {}", all[a].dtype, all[b].dtype);
                return Err(SpecError::new(problem, "give models with inputs of one type"));
            }
            leader[a.max(b)] = a.min(b);
        }
        let mut layout = Layout { free_of: vec![0; all.len()], elements: vec![], outputs: 0 };
        for (i, &element) in all.iter().enumerate() {
            let first = find(&mut leader, i);
            layout.free_of[i] = if first == i { layout.elements.len() } else { layout.free_of[first] };
            if first == i {
                layout.elements.push(element);
            }
        }
        layout.outputs = nets.iter().map(|l| outputs(l)).sum();
        Ok(layout)
    }

    /// Whether each variable is one element.
    pub fn is_identity(&self) -> bool {
        self.free_of.len() == self.elements.len()
    }
}

fn find(leader: &mut [usize], mut i: usize) -> usize {
    while leader[i] != i {
        leader[i] = leader[leader[i]];
        i = leader[i];
    }
    i
}

fn elements(lowered: &Lowered) -> impl Iterator<Item = Element> {
    let of = |(id, dtype): (&NodeId, _)| {
        let node = lowered.net.node(*id);
        std::iter::repeat_n(Element { grid: node.grid, dtype }, node.len())
    };
    lowered.net.inputs().iter().zip(lowered.input_types.iter().copied()).flat_map(of)
}

fn outputs(lowered: &Lowered) -> usize {
    lowered.net.outputs().iter().map(|&id| lowered.net.node(id).len()).sum()
}

/// Whether the nets are one net of the form that a query needs.
pub(super) fn is_single(nets: &[Arc<Lowered>], layout: &Layout, with_inputs: bool) -> bool {
    let form = |l: &Lowered| l.net.inputs().len() == 1 && l.net.outputs().len() == 1;
    matches!(nets, [only] if form(only)) && layout.is_identity() && !with_inputs
}

/// The merged net: its output is every output in a row, then its input if that is asked for.
pub(in crate::property) fn merged(
    nets: &[Arc<Lowered>],
    layout: &Layout,
    with_inputs: bool,
) -> Result<Lowered, SpecError> {
    if nets.iter().any(|l| !l.members.is_empty()) {
        let problem =
            format!("profile {} is about several runtimes, and the query needs a merged net", nets[0].profile);
        return Err(SpecError::new(problem, "choose the profile of one runtime with --profile"));
    }
    let mut net = Net::new();
    let input = net.add(input(layout)?);
    let (mut copies, mut first) = (vec![], 0);
    for lowered in nets {
        let count = lowered.net.inputs().iter().map(|&id| lowered.net.node(id).len()).sum::<usize>();
        copies.push(Copy { from: &lowered.net, input, free_of: &layout.free_of[first..first + count], ids: vec![] });
        first += count;
    }
    if let [a, b, ..] = &mut copies[..] {
        append_twins(&mut net, a, b);
    }
    copies.iter_mut().for_each(|copy| copy.append_all(&mut net));
    let outputs = copies.iter().flat_map(|copy| copy.from.outputs().iter().map(|id| copy.ids[id.0]));
    let mut sources: Vec<NodeId> = outputs.collect();
    if with_inputs {
        sources.push(input);
    }
    let output = concatenated(&net, sources);
    let output = net.add(output);
    net.set_outputs(vec![output]);
    let output_type = nets[0].output_types[0];
    Ok(Lowered::merged(net, nets, layout.elements[0].dtype, output_type))
}

fn input(layout: &Layout) -> Result<Node, SpecError> {
    let grid = layout.elements[0].grid;
    if layout.elements.iter().any(|e| e.grid != grid) {
        let problem = "some inputs are integers and others are not, and the query needs a merged net";
        return Err(SpecError::new(problem, "give models whose inputs are all integers, or all float32"));
    }
    let everything = (f64::NEG_INFINITY, f64::INFINITY);
    let hull = |(lo, hi): (f64, f64), e: &Element| {
        let (least, most) = e.dtype.integer_range().map_or(everything, |r| (r.0 as f64, r.1 as f64));
        (lo.min(least), hi.max(most))
    };
    let range = layout.elements.iter().fold((f64::INFINITY, f64::NEG_INFINITY), hull);
    let shape = vec![layout.elements.len()];
    Ok(Node { name: "inputs".into(), shape, op: Op::Input(0), grid, range, quantization: None })
}

/// A net on its way into the merged one.
struct Copy<'c> {
    from: &'c Net,
    input: NodeId,
    /// The variable of each element of its inputs.
    free_of: &'c [usize],
    /// The new ids of the nodes so far.
    ids: Vec<NodeId>,
}

impl Copy<'_> {
    fn append_all(&mut self, net: &mut Net) {
        (self.ids.len()..self.from.nodes().len()).for_each(|_| self.append(net));
    }

    /// Adds the nodes up to one; gives its new id.
    fn append_to(&mut self, net: &mut Net, last: NodeId) -> NodeId {
        (self.ids.len()..=last.0).for_each(|_| self.append(net));
        self.ids[last.0]
    }

    /// Adds the next node.
    fn append(&mut self, net: &mut Net) {
        let node = self.from.node(NodeId(self.ids.len()));
        let new = |id: &NodeId| self.ids[id.0];
        let op = match &node.op {
            Op::Input(_) => {
                let (variables, rest) = self.free_of.split_at(node.len());
                self.free_of = rest;
                let element = |&v: &usize| From::Element { source: 0, index: v as u32 };
                Op::Move(Move { sources: vec![self.input], from: variables.iter().map(element).collect() })
            }
            Op::Affine(a) => {
                let terms = a.terms.iter().map(|(id, map)| (new(id), map.clone())).collect();
                Op::Affine(Affine { terms, ..a.clone() })
            }
            Op::Pointwise(p) => Op::Pointwise(Pointwise { input: new(&p.input), ..p.clone() }),
            Op::Max(m) => Op::Max(Max { input: new(&m.input), ..m.clone() }),
            Op::Move(m) => Op::Move(Move { sources: m.sources.iter().map(new).collect(), from: m.from.clone() }),
        };
        // Ranges stay: inputs of a region are within the range of their type.
        self.ids.push(net.add(Node { op, ..node.clone() }));
    }
}

/// Adds two nets layer by layer up to the last of their twins: each second twin comes right after the first, before everything that reads that.
fn append_twins(net: &mut Net, a: &mut Copy<'_>, b: &mut Copy<'_>) {
    for [first, second] in twins(a.from, b.from) {
        let first = a.append_to(net, first);
        let second = b.append_to(net, second);
        net.declare_twins(first, second);
    }
}

/// Functions of two nets that probably correspond, of those that outputs depend on: a longest common subsequence of their layers of functions, told
/// apart by their sizes.
fn twins(a: &Net, b: &Net) -> Vec<[NodeId; 2]> {
    let functions = |net: &Net| -> Vec<(NodeId, usize)> {
        let needed = net.needed();
        let is_function = |id: &NodeId| needed[id.0] && matches!(net.node(*id).op, Op::Pointwise(_));
        net.ids().filter(is_function).map(|id| (id, net.node(id).len())).collect()
    };
    let (a, b) = (functions(a), functions(b));
    // The length of a longest common subsequence of what comes from i and j on.
    let mut longest = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            let skip = longest[i + 1][j].max(longest[i][j + 1]);
            longest[i][j] = if a[i].1 == b[j].1 { skip.max(1 + longest[i + 1][j + 1]) } else { skip };
        }
    }
    let (mut i, mut j, mut twins) = (0, 0, vec![]);
    while i < a.len() && j < b.len() {
        if a[i].1 == b[j].1 && longest[i][j] == 1 + longest[i + 1][j + 1] {
            twins.push([a[i].0, b[j].0]);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    twins
}

fn concatenated(net: &Net, sources: Vec<NodeId>) -> Node {
    let element = |(source, id): (usize, &NodeId)| {
        (0..net.node(*id).len()).map(move |i| From::Element { source: source as u32, index: i as u32 })
    };
    let from: Vec<From> = sources.iter().enumerate().flat_map(element).collect();
    let grids: Vec<Grid> = sources.iter().map(|&id| net.node(id).grid).collect();
    let grid = if grids.iter().all(|g| *g == grids[0]) { grids[0] } else { Grid::Real };
    let shape = vec![from.len()];
    let op = Op::Move(Move { sources, from });
    let range = net.range_of(&op);
    Node { name: "outputs".into(), shape, op, grid, range, quantization: None }
}
