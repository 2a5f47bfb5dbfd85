//! Random nets of all four operations, the boxes that they are asked about, and the functions that they allow.
#![allow(dead_code)] // each test binary uses a part

use quaver::model::ir::DType;
use quaver::model::lower::Lowered;
use quaver::net::{
    Affine, Band, Conv, Cut, Dense, From, Geometry, Grid, LinearMap, Max, Move, Net, Node, NodeId, Op, Piecewise,
    Pointwise, Rounding, ScalarFn, Spread, Step, Weights,
};
use quaver::num::Dyadic;
use quaver::property::Region;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a random net is like.
#[derive(Clone)]
pub struct Kind {
    /// Integer inputs, weights and steps only.
    pub integer: bool,
    /// Whether some step functions are bands.
    pub bands: bool,
    pub inputs: usize,
    pub classes: usize,
    /// Inputs are said to be at most this in magnitude.
    pub reach: f64,
    /// Operations before the last affine one, about.
    pub depth: std::ops::Range<usize>,
    /// Whether the output is scaled to real numbers at the end, as quantized networks do.
    pub dequantized: bool,
}

impl Kind {
    pub fn new(inputs: usize, classes: usize) -> Self {
        Kind { integer: true, bands: false, inputs, classes, reach: 8.0, depth: 2..7, dequantized: false }
    }
}

struct Maker {
    rng: StdRng,
    net: Net,
    kind: Kind,
}

impl Maker {
    fn weight(&mut self) -> f64 {
        if self.kind.integer {
            f64::from(self.rng.random_range(-7i32..=7))
        } else {
            // Weights of very different sizes, exact in f64.
            let scale = 2f64.powi(self.rng.random_range(-8..3));
            f64::from(self.rng.random_range(-1.0f32..1.0)) * scale
        }
    }

    fn weights(&mut self, n: usize) -> Weights {
        Weights::new((0..n).map(|_| self.weight()).collect())
    }

    fn add(&mut self, shape: Vec<usize>, op: Op, grid: Grid) -> NodeId {
        let grid = if grid == Grid::Integer && !self.net.makes_integers(&op) { Grid::Real } else { grid };
        let reach = self.kind.reach;
        let range = if matches!(op, Op::Input(_)) { (-reach, reach) } else { self.net.range_of(&op) };
        self.net.add(Node { name: String::new(), shape, op, grid, range, quantization: None })
    }

    fn len(&self, id: NodeId) -> usize {
        self.net.node(id).len()
    }

    fn rounding(&mut self) -> Rounding {
        if self.kind.integer {
            return Rounding::Exact;
        }
        match self.rng.random_range(0..3) {
            0 => Rounding::Exact,
            1 => Rounding::Nearest32,
            _ => Rounding::Slack { relative: 1e-6, absolute: Spread::all(1e-30) },
        }
    }

    fn grid(&self) -> Grid {
        if self.kind.integer { Grid::Integer } else { Grid::Real }
    }

    /// A dense map of x, sometimes with a scaled copy of `skipped` or of x itself.
    fn affine(&mut self, x: NodeId, skipped: NodeId, out: usize) -> NodeId {
        let n_in = self.len(x);
        let dense = LinearMap::Dense(Dense { outer: 1, n_in, n_out: out, weights: self.weights(n_in * out) });
        let mut terms = vec![(x, dense)];
        let fitting = [x, skipped].into_iter().filter(|&s| self.len(s) == out).collect::<Vec<_>>();
        if !fitting.is_empty() && self.rng.random_bool(0.4) {
            let of = fitting[self.rng.random_range(0..fitting.len())];
            let scale = Spread::each((0..out).map(|_| self.weight()).collect());
            terms.push((of, LinearMap::Diagonal { len: out, scale }));
        }
        let bias = Spread::each((0..out).map(|_| self.weight() * 3.0).collect());
        let (rounding, grid) = (self.rounding(), self.grid());
        self.add(vec![out], Op::Affine(Affine { terms, bias, rounding }), grid)
    }

    fn conv(&mut self, x: NodeId) -> NodeId {
        let n = self.len(x);
        let (groups, out_channels) = if n.is_multiple_of(2) { (2, 4) } else { (1, 2) };
        let in_channels = groups;
        let width = n / in_channels;
        let kernel = width.min(2);
        let stride = self.rng.random_range(1..=2);
        let out = (width - kernel) / stride + 1;
        let geometry = Geometry {
            groups,
            in_channels,
            in_size: [1, width],
            out_channels,
            out_size: [1, out],
            kernel: [1, kernel],
            stride: [1, stride],
            dilation: [1, 1],
        };
        let weights = self.weights(out_channels * kernel * in_channels / groups);
        let terms = vec![(x, LinearMap::Conv(Conv { geometry, weights }))];
        let bias = Spread::axis((0..out_channels).map(|_| self.weight()).collect(), out);
        let (rounding, grid) = (self.rounding(), self.grid());
        self.add(vec![out_channels, out], Op::Affine(Affine { terms, bias, rounding }), grid)
    }

    fn step_or_band(&mut self) -> ScalarFn {
        let lower = self.step();
        if !self.kind.bands || self.rng.random_bool(0.4) {
            return ScalarFn::Step(lower);
        }
        // The same jumps, some of them earlier.
        let mut cuts: Vec<f64> = lower.cuts().iter().map(|c| c.at).collect();
        cuts.iter_mut().for_each(|c| *c -= f64::from(self.rng.random_range(0..4)));
        cuts.sort_by(f64::total_cmp);
        let strict = lower.cuts()[0].strict;
        let cuts = cuts.into_iter().map(|at| Cut { at, strict }).collect();
        let upper = Step::new(cuts, lower.values().to_vec());
        ScalarFn::Band(Band::new(lower, upper))
    }

    fn step(&mut self) -> Step {
        let n = self.rng.random_range(1..20);
        let span = if self.kind.integer { 60 } else { 6 };
        let mut at: Vec<f64> = (0..n)
            .map(|_| {
                let x = self.rng.random_range(-span..=span);
                f64::from(x) + if self.kind.integer { 0.0 } else { 0.25 }
            })
            .collect();
        at.sort_by(f64::total_cmp);
        at.dedup();
        let mut value = f64::from(self.rng.random_range(-4i32..0));
        let mut values = vec![value];
        for _ in &at {
            value += f64::from(self.rng.random_range(0..3));
            values.push(value);
        }
        let strict = self.rng.random_bool(0.5);
        Step::new(at.into_iter().map(|at| Cut { at, strict }).collect(), values)
    }

    fn pointwise(&mut self, x: NodeId) -> NodeId {
        let function = match self.rng.random_range(0..4) {
            0 => ScalarFn::Piecewise(Piecewise::relu()),
            1 => ScalarFn::Piecewise(Piecewise::clip(-2.0, 5.0)),
            2 if !self.kind.integer => ScalarFn::Piecewise(Piecewise::leaky_relu(f64::from(0.1f32))),
            _ => self.step_or_band(),
        };
        let grid = if matches!(function, ScalarFn::Step(_) | ScalarFn::Band(_)) {
            Grid::Integer
        } else {
            self.net.node(x).grid
        };
        let shape = vec![self.len(x)];
        self.add(shape, Op::Pointwise(Pointwise { input: x, functions: Spread::all(function) }), grid)
    }

    /// scale (q - zero point), exactly.
    fn dequantized(&mut self, q: NodeId) -> NodeId {
        let len = self.len(q);
        let scale = [0.25, 2.0, f64::from(0.1f32)][self.rng.random_range(0..3)];
        let bias = Spread::all(scale * f64::from(self.rng.random_range(-3i32..=3)));
        let terms = vec![(q, LinearMap::Diagonal { len, scale: Spread::all(scale) })];
        self.add(vec![len], Op::Affine(Affine { terms, bias, rounding: Rounding::Exact }), Grid::Real)
    }

    fn max(&mut self, x: NodeId) -> NodeId {
        let n = self.len(x);
        let (mut starts, mut members) = (vec![0u32], vec![]);
        for i in 0..n.min(4) {
            members.extend((0..3).map(|k| ((i + k) % n) as u32));
            starts.push(members.len() as u32);
        }
        let grid = self.net.node(x).grid;
        self.add(vec![starts.len() - 1], Op::Max(Max { input: x, starts, members }), grid)
    }

    fn moved(&mut self, x: NodeId, y: NodeId) -> NodeId {
        let sources = vec![x, y];
        let lens = [self.len(x), self.len(y)];
        let from: Vec<From> = (0..self.rng.random_range(2..8))
            .map(|_| {
                let source = self.rng.random_range(0..2);
                let index = self.rng.random_range(0..lens[source]) as u32;
                if self.rng.random_bool(0.15) {
                    From::Constant(2.0)
                } else {
                    From::Element { source: source as u32, index }
                }
            })
            .collect();
        let grid = if self.net.node(x).grid == self.net.node(y).grid { self.net.node(x).grid } else { Grid::Real };
        self.add(vec![from.len()], Op::Move(Move { sources, from }), grid)
    }
}

/// A random net.
pub fn random_net(seed: u64, kind: &Kind) -> Net {
    let mut m = Maker { rng: StdRng::seed_from_u64(seed), net: Net::new(), kind: kind.clone() };
    let grid = m.grid();
    let mut last = m.add(vec![kind.inputs], Op::Input(0), grid);
    let mut before = last;
    for _ in 0..m.rng.random_range(kind.depth.clone()) {
        let width = m.rng.random_range(2..7);
        let next = match m.rng.random_range(0..6) {
            0 | 1 => m.affine(last, before, width),
            2 => m.conv(last),
            3 => m.pointwise(last),
            4 => m.max(last),
            _ => m.moved(last, before),
        };
        before = last;
        last = if m.rng.random_bool(0.5) { m.pointwise(next) } else { next };
    }
    let mut out = m.affine(last, before, kind.classes);
    if kind.integer && m.rng.random_bool(0.5) {
        out = m.pointwise(out);
    }
    if kind.dequantized {
        out = m.dequantized(out);
    }
    m.net.set_outputs(vec![out]);
    m.net
}

/// What verification is asked about: a net without a file.
pub fn lowered(net: Net) -> Lowered {
    Lowered {
        net,
        profile: "test".into(),
        assumptions: vec![],
        input_types: vec![DType::I8],
        output_types: vec![DType::I8],
        integer_layers: vec![],
        softmax: vec![None],
        notes: vec![],
        executed: vec![],
        members: vec![],
        is_conjunction: false,
    }
}

/// One of the functions that a net allows: each band replaced by a step function inside it, each affine map that may be rounded in any
/// way by one whose constants are off by less than that.
pub fn member(net: &Net, rng: &mut StdRng) -> Net {
    let mut out = Net::new();
    for node in net.nodes() {
        let mut node = node.clone();
        let len = node.len();
        match &mut node.op {
            Op::Pointwise(p) => p.functions = Spread::each((0..len).map(|i| inside(p.functions.at(i), rng)).collect()),
            Op::Affine(a) => {
                if let Rounding::Slack { relative, .. } = a.rounding {
                    let mut off = |w: &f64| w * (1.0 + 0.999 * relative * f64::from(rng.random_range(-1i32..=1)));
                    a.bias = a.bias.map(&mut off);
                    a.terms.iter_mut().for_each(|t| t.1 = with_weights(&t.1, &mut off));
                    a.rounding = Rounding::Exact;
                }
            }
            Op::Input(_) | Op::Max(_) | Op::Move(_) => {}
        }
        out.add(node);
    }
    out.set_outputs(net.outputs().to_vec());
    out
}

/// A band's lower end, upper end, or a step function whose jumps are between theirs.
fn inside(f: &ScalarFn, rng: &mut StdRng) -> ScalarFn {
    let ScalarFn::Band(b) = f else { return f.clone() };
    match rng.random_range(0..3) {
        0 => ScalarFn::Step(b.lower().clone()),
        1 => ScalarFn::Step(b.upper().clone()),
        _ => {
            let jumps = b.upper().cuts().iter().zip(b.lower().cuts());
            let between = |(early, late): (&Cut, &Cut)| {
                let at = early.at + f64::from(rng.random_range(0..=(late.at - early.at) as i32));
                Cut { at, strict: late.strict }
            };
            let mut cuts: Vec<Cut> = jumps.map(between).collect();
            cuts.sort_by(|a, b| a.at.total_cmp(&b.at));
            ScalarFn::Step(Step::new(cuts, b.lower().values().to_vec()))
        }
    }
}

/// A map with other weights.
pub fn with_weights(map: &LinearMap, change: &mut impl FnMut(&f64) -> f64) -> LinearMap {
    let mut changed = |w: &Weights| Weights::new(w.exact().iter().map(&mut *change).collect());
    match map {
        LinearMap::Dense(d) => LinearMap::Dense(Dense { weights: changed(&d.weights), ..d.clone() }),
        LinearMap::Conv(c) => LinearMap::Conv(Conv { weights: changed(&c.weights), ..c.clone() }),
        LinearMap::Diagonal { len, scale } => LinearMap::Diagonal { len: *len, scale: scale.map(change) },
    }
}

/// Every point of an integer box, the last element changing first.
pub fn enumerate(region: &Region) -> Vec<Vec<f64>> {
    let mut all = vec![vec![]];
    for (l, h) in region.lo.iter().zip(&region.hi) {
        let values: Vec<f64> = (*l as i64..=*h as i64).map(|v| v as f64).collect();
        all = all.iter().flat_map(|p| values.iter().map(move |v| [&p[..], &[*v]].concat())).collect();
    }
    all
}

pub fn exact(x: f64) -> Dyadic {
    Dyadic::from_f64(x).unwrap()
}

/// A random box with few integers.
pub fn random_region(inputs: usize, integer: bool, rng: &mut StdRng) -> Region {
    let (mut lo, mut hi) = (vec![], vec![]);
    for _ in 0..inputs {
        let (a, w) = (rng.random_range(-4.0f64..4.0), rng.random_range(0.0f64..3.0));
        let (a, b) = if integer { (a.round(), (a.round() + w.round()).min(6.0)) } else { (a, a + w) };
        lo.push(a);
        hi.push(b);
    }
    Region { lo, hi }
}
