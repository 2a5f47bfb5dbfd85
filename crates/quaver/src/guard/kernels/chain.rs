//! A net as a chain of integer layers: what is stored, which integers are multiplied, and the real numbers that accumulators stand for.

use num_traits::ToPrimitive;

use super::accumulators::{
    ChannelLine, WeightRows, common_unit, is_multiple, magnitude, scaled_sums, stays_increasing,
};
use super::cuts::{Reached, Unfit, reached, shared};
use super::error::KernelError;
use super::exact::Line;
use super::input::InputQuantizer;
use super::layer::{LayerSpec, Shape};
use super::requantizer::{Channel, Requantizer};
use super::scores::Scores;
use crate::net::{
    Affine, Cut, From, Grid, LinearMap, Max, Move, Net, Node, NodeId, Op, Pointwise, Rounding, ScalarFn, Spread,
};
use crate::num::Dyadic;

/// A row of stored integers: `width` made by a stage, then constants.
#[derive(Clone, Debug, Default)]
pub(in crate::guard) struct Row {
    pub width: usize,
    pub constants: Vec<u16>,
}

impl Row {
    pub fn len(&self) -> usize {
        self.width + self.constants.len()
    }
}

/// What makes a row from the row before.
pub(in crate::guard) enum Stage {
    /// Products, and rounding unless it is the last.
    Layer(LayerSpec),
    /// Element i is the largest of `members[starts[i]..starts[i + 1]]`.
    Largest { starts: Vec<u32>, members: Vec<u32> },
}

/// How the first integers are made.
pub(in crate::guard) struct Input {
    pub quantizer: InputQuantizer,
    /// For each stored integer the input that it comes from; `None` where that is its own place.
    pub gathered: Option<Vec<u32>>,
    /// Smallest and largest integer.
    pub levels: (i64, i64),
}

/// A net that was understood.
pub(in crate::guard) struct Chain {
    pub input: Input,
    /// The input of each stage, and what the last one makes if that is integers.
    pub rows: Vec<Row>,
    pub stages: Vec<Stage>,
    /// Where the scores are in the last row, or in the last layer's accumulators.
    pub outputs: Vec<u32>,
    pub scores: Scores,
}

/// Integers q = low + stored, which stand for scale q + shift.
pub(super) struct Integers {
    /// Place of each element in the last row.
    slots: Vec<u32>,
    pub low: i64,
    pub high: i64,
    pub scale: Dyadic,
    shift: Dyadic,
    /// Whether the real number is rounded to float32.
    is_rounded: bool,
}

/// Accumulators of the last layer of the stages, behind functions.
pub(super) struct Sums<'n> {
    /// What the accumulators of each channel stand for, and between which ends they are.
    pub lines: Vec<ChannelLine>,
    pub functions: Vec<&'n Spread<ScalarFn>>,
    /// Where the real numbers are rounded to float32: none is larger in magnitude.
    pub largest: Option<Dyadic>,
}

enum State<'n> {
    /// The input as it comes: the place of each element, and functions.
    Raw {
        from: Vec<u32>,
        functions: Vec<&'n Spread<ScalarFn>>,
    },
    Integers(Integers),
    Sums(Sums<'n>),
}

struct Walk<'n> {
    net: &'n Net,
    input: Option<Input>,
    rows: Vec<Row>,
    stages: Vec<Stage>,
}

/// Most entries of the index tables of a layer.
const MOST_COLUMNS: usize = 1 << 27;
const RESIDUAL: &str = "use a network whose layers form one chain";

impl Chain {
    /// Reads a net of one input and one output.
    pub fn new(net: &Net) -> Result<Chain, KernelError> {
        let ids = path(net)?;
        let mut walk = Walk { net, input: None, rows: vec![], stages: vec![] };
        let mut state = walk.start(net.node(ids[0]));
        for (i, &id) in ids.iter().enumerate().skip(1) {
            let (node, before) = (net.node(id), net.node(ids[i - 1]));
            state = walk.step(state, node, before)?;
        }
        walk.end(state, net.node(ids[ids.len() - 1]))
    }
}

/// The values from the input to the output.
fn path(net: &Net) -> Result<Vec<NodeId>, KernelError> {
    let ([_], &[output]) = (net.inputs(), net.outputs()) else {
        let found = format!("{} inputs and {} outputs", net.inputs().len(), net.outputs().len());
        return Err(KernelError::new("", found, "use a network with one input and one output"));
    };
    let mut ids = vec![output];
    while let Some(node) = ids.last().map(|id| net.node(*id)) {
        match node.arguments()[..] {
            [argument] => ids.push(argument),
            [] if matches!(node.op, Op::Input(_)) => break,
            [] => return Err(KernelError::new(&node.name, "it does not depend on the input", RESIDUAL)),
            _ => return Err(KernelError::new(&node.name, "it has several arguments", RESIDUAL)),
        }
    }
    ids.reverse();
    Ok(ids)
}

impl<'n> Walk<'n> {
    fn start(&mut self, node: &Node) -> State<'n> {
        let slots: Vec<u32> = (0..node.len() as u32).collect();
        let (lo, hi) = node.range;
        if node.grid != Grid::Integer || hi - lo > 65_535.0 {
            return State::Raw { from: slots, functions: vec![] };
        }
        let (low, high) = (lo as i64, hi as i64);
        let quantizer = InputQuantizer::of_integers(low, (high - low) as u16);
        self.input = Some(Input { quantizer, gathered: None, levels: (low, high) });
        self.rows.push(Row { width: slots.len(), constants: vec![] });
        State::Integers(Integers::new(slots, (low, high)))
    }

    fn step(&mut self, state: State<'n>, node: &'n Node, before: &'n Node) -> Result<State<'n>, KernelError> {
        match &node.op {
            Op::Input(_) => unreachable!("an input has no argument"),
            Op::Pointwise(p) => pointwise(state, p, node),
            Op::Move(m) => match state {
                State::Raw { from, functions } if before.grid != Grid::Integer => {
                    let moved = moved_input(m, &from).ok_or_else(|| {
                        let cure = "quantize the input before it is padded";
                        KernelError::new(&node.name, "constants are put beside inputs that are not quantized", cure)
                    })?;
                    Ok(State::Raw { from: moved, functions })
                }
                state @ (State::Raw { .. } | State::Integers(_) | State::Sums(_)) => {
                    let integers = self.closed(state, before)?;
                    self.moved(integers, m, node)
                }
            },
            Op::Max(m) => {
                let integers = self.closed(state, before)?;
                Ok(State::Integers(self.largest(integers, m, node)?))
            }
            Op::Affine(a) => match (&a.terms[0].1, state) {
                (LinearMap::Diagonal { scale, .. }, State::Sums(sums)) if sums.functions.is_empty() => {
                    Ok(State::Sums(scaled_sums(sums, scale, a, node, self.shape())?))
                }
                (LinearMap::Diagonal { scale, .. }, state) => {
                    Ok(State::Integers(scaled(self.closed(state, before)?, scale, a, node)?))
                }
                (map @ (LinearMap::Dense(_) | LinearMap::Conv(_)), state) => {
                    let integers = self.closed(state, before)?;
                    Ok(State::Sums(self.layer(integers, map, a, node)?))
                }
            },
        }
    }

    /// Turns what is behind functions into stored integers; `node` is the value.
    fn closed(&mut self, state: State<'n>, node: &Node) -> Result<Integers, KernelError> {
        let refuse = |problem: &str| {
            let cure = "quantize what every layer multiplies (`quaver quantize --activations`)";
            Err(KernelError::new(&node.name, problem, cure))
        };
        let levels = match state {
            State::Integers(integers) => return Ok(integers),
            _ if node.grid != Grid::Integer => return refuse("its numbers are not integers"),
            State::Raw { .. } | State::Sums(_) => (node.range.0, node.range.1),
        };
        if !(levels.0.is_finite() && levels.1 - levels.0 <= 65_535.0) {
            return refuse("its integers need more than 16 bits");
        }
        let levels = (levels.0 as i64, levels.1 as i64);
        match state {
            State::Integers(integers) => Ok(integers),
            State::Raw { from, functions } => self.quantized_input(from, &functions, levels, node),
            State::Sums(sums) => self.requantized(&sums, levels, node),
        }
    }

    fn quantized_input(
        &mut self,
        from: Vec<u32>,
        functions: &[&Spread<ScalarFn>],
        levels: (i64, i64),
        node: &Node,
    ) -> Result<Integers, KernelError> {
        if functions.iter().any(|f| f.data.len() > 1) {
            let cure = "quantize the input with one scale";
            return Err(KernelError::new(&node.name, "inputs are quantized with different scales", cure));
        }
        let functions: Vec<&ScalarFn> = functions.iter().map(|f| &f.data[0]).collect();
        let reached = all_reached(&functions, levels, node)?;
        let parameters = node.quantization.as_ref().map(|q| (*q.scale.at(0), q.zero_point.at(0) - levels.0));
        let quantizer = InputQuantizer::new(&reached, parameters);
        let is_identity = from.len() == self.net.node(self.net.inputs()[0]).len()
            && from.iter().enumerate().all(|(i, f)| i == *f as usize);
        let width = from.len();
        self.input = Some(Input { quantizer, gathered: (!is_identity).then_some(from), levels });
        self.rows.push(Row { width, constants: vec![] });
        Ok(Integers::new((0..width as u32).collect(), levels))
    }

    /// The integers behind the functions of accumulators.
    fn requantized(&mut self, sums: &Sums, levels: (i64, i64), node: &Node) -> Result<Integers, KernelError> {
        let shape = self.shape();
        let mut known: Option<(Vec<usize>, Vec<Reached>)> = None;
        let mut channels = vec![];
        for (channel, (line, reach)) in sums.lines.iter().enumerate() {
            let places: Option<Vec<usize>> =
                sums.functions.iter().map(|f| shared(f, shape.elements(channel))).collect();
            let places = places.ok_or_else(|| {
                let cure = "quantize with one scale for each output channel or for the tensor";
                KernelError::new(&node.name, "positions of a channel are quantized differently", cure)
            })?;
            if known.as_ref().is_none_or(|k| k.0 != places) {
                let functions: Vec<&ScalarFn> = sums.functions.iter().zip(&places).map(|(f, &k)| &f.data[k]).collect();
                known = Some((places, all_reached(&functions, levels, node)?));
            }
            let reached = known.as_ref().map_or(&[][..], |k| &k.1);
            channels.push(Channel::new(line, reached, *reach));
        }
        let zero = known.map_or(0, |k| k.1.iter().filter(|r| r.holds(0.0)).count());
        let mut requantizer = Requantizer::new(channels, (levels.1 - levels.0) as u16, zero as u16);
        requantizer.pad(|c| shape.column(c), shape.padded_channels());
        self.rows.push(Row { width: shape.width(), constants: vec![] });
        if let Some(Stage::Layer(layer)) = self.stages.last_mut() {
            layer.requantizer = Some(requantizer);
        }
        Ok(Integers::new(shape.slots(), levels))
    }

    /// The shape of the last layer.
    fn shape(&self) -> Shape {
        match self.stages.last() {
            Some(Stage::Layer(layer)) => layer.shape,
            _ => unreachable!("accumulators are those of a layer"),
        }
    }

    fn moved(&mut self, mut integers: Integers, m: &Move, node: &Node) -> Result<State<'n>, KernelError> {
        // Local invariant: integers lie in a row.
        let row = self.rows.last_mut().unwrap_or_else(|| unreachable!("a row of integers"));
        let mut slots = Vec::with_capacity(m.from.len());
        for from in &m.from {
            slots.push(match from {
                From::Element { index, .. } => integers.slots[*index as usize],
                From::Constant(c) => {
                    let stored = integers.stored(*c).ok_or_else(|| {
                        let cure = "pad with a number that the quantizer has a level for, such as 0";
                        KernelError::new(&node.name, format!("{c} is put beside integers that do not reach it"), cure)
                    })?;
                    let found = row.constants.iter().position(|k| *k == stored);
                    let place = found.unwrap_or_else(|| {
                        row.constants.push(stored);
                        row.constants.len() - 1
                    });
                    (row.width + place) as u32
                }
            });
        }
        integers.slots = slots;
        Ok(State::Integers(integers))
    }

    fn largest(&mut self, mut integers: Integers, m: &Max, node: &Node) -> Result<Integers, KernelError> {
        if integers.is_rounded {
            return Err(rounded(node));
        }
        let members = m.members.iter().map(|&i| integers.slots[i as usize]).collect();
        self.stages.push(Stage::Largest { starts: m.starts.clone(), members });
        self.rows.push(Row { width: node.len(), constants: vec![] });
        integers.slots = (0..node.len() as u32).collect();
        Ok(integers)
    }

    /// Accumulators of a dense or convolutional layer.
    fn layer(&mut self, x: Integers, map: &LinearMap, a: &Affine, node: &Node) -> Result<Sums<'n>, KernelError> {
        if x.is_rounded || a.rounding != Rounding::Exact {
            return Err(rounded(node));
        }
        let (shape, depth) = (Shape::of(map), map.fan_in());
        let many = shape.groups.saturating_mul(shape.positions).saturating_mul(depth) > MOST_COLUMNS;
        if many {
            let cure = "use smaller layers";
            return Err(KernelError::new(&node.name, "the convolution is too large for its index table", cure));
        }
        let mut columns = Vec::with_capacity(shape.groups * shape.positions * depth);
        for group in 0..shape.groups {
            for p in 0..shape.positions {
                map.for_each_term(shape.element(p, group * shape.channels), |i, _| columns.push(x.slots[i]));
            }
        }
        let rows = WeightRows::new(map, node)?;
        let lines = rows.lines(&x, &a.bias, shape, node)?;
        let (name, weights, largest) = (node.name.clone(), rows.integers, (x.high - x.low) as u16);
        let spec = LayerSpec { name, shape, depth, columns, weights, largest, requantizer: None };
        self.stages.push(Stage::Layer(spec));
        Ok(Sums { lines, functions: vec![], largest: None })
    }

    fn end(mut self, state: State<'n>, node: &Node) -> Result<Chain, KernelError> {
        let (outputs, scores) = match state {
            State::Sums(sums) if sums.functions.is_empty() => {
                let outputs = self.shape().slots();
                let Some(Stage::Layer(layer)) = self.stages.last_mut() else {
                    unreachable!("accumulators are those of a layer")
                };
                let (unit, offsets) = common_unit(&sums.lines, layer)?;
                let of = |element: usize| offsets[layer.shape.channel(element)].clone();
                (outputs, Scores::new(unit, (0..node.len()).map(of).collect(), sums.largest, node)?)
            }
            state => {
                let x = self.closed(state, node)?;
                let offset = x.at(x.low);
                let largest =
                    if x.is_rounded { [offset.clone(), x.at(x.high)].map(magnitude).into_iter().max() } else { None };
                let offsets = vec![offset; x.slots.len()];
                (x.slots, Scores::new(x.scale, offsets, largest, node)?)
            }
        };
        let layers = self.stages.iter().filter(|s| matches!(s, Stage::Layer(_))).count();
        let Some(input) = self.input.filter(|_| layers > 0) else {
            return Err(KernelError::new(&node.name, "no layer multiplies integers", "quantize the network first"));
        };
        Ok(Chain { input, rows: self.rows, stages: self.stages, outputs, scores })
    }
}

impl Integers {
    fn new(slots: Vec<u32>, (low, high): (i64, i64)) -> Self {
        let (scale, shift) = (Dyadic::from_int(1), Dyadic::zero());
        Integers { slots, low, high, scale, shift, is_rounded: false }
    }

    /// The real number that an integer stands for.
    pub(super) fn at(&self, q: i64) -> Dyadic {
        &(&self.scale * &Dyadic::from_int(q)) + &self.shift
    }

    /// The stored form of a real number, if an integer stands for it.
    fn stored(&self, real: f64) -> Option<u16> {
        if self.is_rounded {
            return None;
        }
        let line = Line::new(self.scale.clone(), self.shift.clone());
        let q = line.first(Cut::at(real)).to_i64()?;
        let is_it = Dyadic::from_f64(real).is_some_and(|real| self.at(q) == real);
        u16::try_from(q - self.low).ok().filter(|_| is_it && q <= self.high)
    }
}

/// Adds the functions of a node.
fn pointwise<'n>(state: State<'n>, p: &'n Pointwise, node: &Node) -> Result<State<'n>, KernelError> {
    match state {
        State::Raw { from, mut functions } => {
            functions.push(&p.functions);
            Ok(State::Raw { from, functions })
        }
        State::Sums(Sums { lines, mut functions, largest: None }) => {
            functions.push(&p.functions);
            Ok(State::Sums(Sums { lines, functions, largest: None }))
        }
        State::Sums(_) => Err(rounded(node)),
        State::Integers(_) => {
            let problem = "a function of integers that no layer has multiplied";
            let cure = "put activation functions directly behind the layers, before quantization and maxima";
            Err(KernelError::new(&node.name, problem, cure))
        }
    }
}

/// Where the elements of a moved input come from; `None` where constants are put in.
fn moved_input(m: &Move, from: &[u32]) -> Option<Vec<u32>> {
    let of = |f: &From| match f {
        From::Element { index, .. } => Some(from[*index as usize]),
        From::Constant(_) => None,
    };
    m.from.iter().map(of).collect()
}

/// Integers that stand for other real numbers.
fn scaled(mut x: Integers, scale: &Spread<f64>, a: &Affine, node: &Node) -> Result<Integers, KernelError> {
    let (&[s], &[b], false, 1) = (&scale.data[..], &a.bias.data[..], x.is_rounded, a.terms.len()) else {
        let cure = "quantize activations with one scale for the tensor";
        return Err(KernelError::new(&node.name, "integers of one tensor stand for numbers on several scales", cure));
    };
    // Local invariant: constants of a net are finite.
    let exact = |c: f64| Dyadic::from_f64(c).unwrap_or_else(Dyadic::zero);
    if s <= 0.0 {
        return Err(KernelError::new(&node.name, "a scale is not positive", "repair the model"));
    }
    x.scale = &x.scale * &exact(s);
    x.shift = &(&x.shift * &exact(s)) + &exact(b);
    match a.rounding {
        Rounding::Exact => Ok(x),
        Rounding::Nearest32 => {
            let ends = [x.at(x.low), x.at(x.high)].map(magnitude);
            let fits = ends.iter().all(|end| stays_increasing(end, &x.scale)) && is_multiple(&x.shift, &x.scale);
            x.is_rounded = true;
            if fits { Ok(x) } else { Err(rounded(node)) }
        }
        Rounding::Slack { .. } => Err(rounded(node)),
    }
}

/// For each integer above the smallest what reaches it.
fn all_reached(functions: &[&ScalarFn], (low, high): (i64, i64), node: &Node) -> Result<Vec<Reached>, KernelError> {
    let of = |q: i64| reached(functions, q as f64);
    (low + 1..=high).map(of).collect::<Result<_, _>>().map_err(|Unfit(problem)| {
        let cure = "use ReLU, ReLU6 or Clip, and a profile of one runtime";
        KernelError::new(&node.name, problem, cure)
    })
}

/// A refusal of float32 roundings between layers.
pub(super) fn rounded(node: &Node) -> KernelError {
    let cure = "use --profile real, or 8-bit weights and activations with --bias accumulator and quantized outputs under ort-fused";
    KernelError::new(&node.name, "a runtime rounds here to float32, and not in integers", cure)
}
