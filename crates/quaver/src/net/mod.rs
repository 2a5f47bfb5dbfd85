//! The kernel: a network as a graph of four operations with exact constants.
//!
//! A [`Net`] denotes a set-valued function from its input to each of its values. Every operation is exact but for the
//! [`Rounding`] of an [`Affine`] node, which says how far a runtime may be from the exact real result. Integer networks have
//! no slack and denote one function.

mod adjoint;
mod coarse;
mod exact;
mod exec;
mod fuse;
pub mod gemm;
mod linear;
mod scalar;

pub use adjoint::Patch;
pub use exact::{execute_exact, execute_exact_choosing};
pub use exec::{Enclosure, Execution, affine_enclosure, execute, execute_all, execute_between, sketch_between};
pub(crate) use exec::{onto_grid, slack_bound};
pub use fuse::fuse_steps;
pub use linear::{Conv, Dense, Geometry, LinearMap, Sign, Spread, Weights};
pub use scalar::{Band, Cut, Piecewise, ScalarFn, Segment, Step};

/// Index of a value in a [`Net`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The set of numbers a value's elements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Integers.
    Integer,
    /// float32 values.
    Float32,
    /// Real numbers.
    Real,
}

/// How far a runtime's result may be from the exact affine result y.
#[derive(Clone, Debug, PartialEq)]
pub enum Rounding {
    /// Not at all.
    Exact,
    /// The result is y rounded once to float32, ties to even.
    Nearest32,
    /// |result - y| <= relative (sum |w||x| + |b|) + absolute.
    Slack {
        /// Relative to the sum of the magnitudes of all products and the bias.
        relative: f64,
        /// On top of it, for each element.
        absolute: Spread<f64>,
    },
}

/// y = sum over terms of W x, plus b, then rounding.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Arguments and their linear maps; all have the same number of outputs.
    pub terms: Vec<(NodeId, LinearMap)>,
    /// b, exact.
    pub bias: Spread<f64>,
    /// What the runtime may do to y.
    pub rounding: Rounding,
}

/// Where an element of a [`Op::Move`] comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    /// Element `index` of the source number `source`.
    Element {
        /// Position in [`Move::sources`].
        source: u32,
        /// Element there.
        index: u32,
    },
    /// A constant.
    Constant(f64),
}

/// An index map: reshape, transpose, slice, pad, gather, concatenate.
#[derive(Clone, Debug)]
pub struct Move {
    /// Arguments.
    pub sources: Vec<NodeId>,
    /// Origin of each element.
    pub from: Vec<From>,
}

/// Element-wise monotone functions.
#[derive(Clone, Debug)]
pub struct Pointwise {
    /// Argument.
    pub input: NodeId,
    /// The function of each element.
    pub functions: Spread<ScalarFn>,
}

/// Largest element of each window.
#[derive(Clone, Debug)]
pub struct Max {
    /// Argument.
    pub input: NodeId,
    /// Window i holds the elements `members[starts[i]..starts[i + 1]]`; none is empty.
    pub starts: Vec<u32>,
    /// Elements of the argument.
    pub members: Vec<u32>,
}

impl Max {
    /// The members of window i.
    pub fn window(&self, i: usize) -> &[u32] {
        &self.members[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}

/// How a value is made.
#[derive(Clone, Debug)]
pub enum Op {
    /// The network's input number `0..`.
    Input(usize),
    /// Affine.
    Affine(Affine),
    /// Element-wise.
    Pointwise(Pointwise),
    /// Window maximum.
    Max(Max),
    /// Index map.
    Move(Move),
}

/// The real number that an integer stands for: scale (q - zero_point).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// Per element.
    pub scale: Spread<f64>,
    /// Per element.
    pub zero_point: Spread<i64>,
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name, from the model where it has one.
    pub name: String,
    /// Shape; batches are outside.
    pub shape: Vec<usize>,
    /// Origin.
    pub op: Op,
    /// Numbers it can take.
    pub grid: Grid,
    /// Bounds that hold for every element under every input in the input's own range (infinite where unknown).
    pub range: (f64, f64),
    /// What its integers mean, if they do.
    pub quantization: Option<Quantization>,
}

impl Node {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The arguments.
    pub fn arguments(&self) -> Vec<NodeId> {
        match &self.op {
            Op::Input(_) => vec![],
            Op::Affine(a) => a.terms.iter().map(|t| t.0).collect(),
            Op::Pointwise(p) => vec![p.input],
            Op::Max(m) => vec![m.input],
            Op::Move(m) => m.sources.clone(),
        }
    }
}

/// In which machine arithmetic an affine node of exact integers is exact in any order of summation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExactIn {
    /// float32: every partial sum is an integer below 2^24.
    Single,
    /// f64: every partial sum is an integer below 2^51, which leaves room for halves of integers.
    Double,
    /// Neither is proved.
    Neither,
}

/// A network. Nodes are in topological order.
#[derive(Clone, Debug, Default)]
pub struct Net {
    nodes: Vec<Node>,
    exact_in: Vec<ExactIn>,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    twins: Vec<[NodeId; 2]>,
}

impl Net {
    /// An empty network.
    pub fn new() -> Self {
        Net::default()
    }

    /// Adds a value.
    ///
    /// # Panics
    /// If the node is not well-formed (see [`Net::malformed`]): that is a fault of the code that lowers, not of a model.
    pub fn add(&mut self, node: Node) -> NodeId {
        if let Some(problem) = self.malformed(&node) {
            panic!("node `{}`: {problem}", node.name);
        }
        let id = NodeId(self.nodes.len());
        if matches!(node.op, Op::Input(_)) {
            self.inputs.push(id);
        }
        self.exact_in.push(self.exactness(&node.op));
        self.nodes.push(node);
        id
    }

    fn exactness(&self, op: &Op) -> ExactIn {
        let Op::Affine(a) = op else { return ExactIn::Neither };
        let magnitude = if self.makes_integers(op) { self.affine_magnitude(a) } else { f64::INFINITY };
        if magnitude < 16_777_216.0 {
            ExactIn::Single
        } else if magnitude < 2_251_799_813_685_248.0 {
            ExactIn::Double
        } else {
            ExactIn::Neither
        }
    }

    /// In which arithmetic a node is exact.
    pub(crate) fn exact_in(&self, id: NodeId) -> ExactIn {
        self.exact_in[id.0]
    }

    /// Declares an output.
    pub fn set_outputs(&mut self, outputs: Vec<NodeId>) {
        self.outputs = outputs;
    }

    /// Says that two pointwise nodes are expected to have nearly the same argument, as those of a network and of its quantization: a hint for
    /// analyses, which holds of nothing.
    ///
    /// # Panics
    /// If they are not pointwise nodes of one size with different arguments, the second after the first and before everything that reads the first.
    pub fn declare_twins(&mut self, first: NodeId, second: NodeId) {
        let is_pointwise = |id: NodeId| matches!(self.node(id).op, Op::Pointwise(_));
        let reads = |node: &Node| node.arguments().contains(&first);
        let arguments = [first, second].map(|id| self.node(id).arguments());
        let fits = is_pointwise(first) && is_pointwise(second) && arguments[0] != arguments[1];
        let fits = fits && self.node(first).len() == self.node(second).len();
        assert!(fits && first < second && !self.nodes[..=second.0].iter().any(reads), "twins {first:?} and {second:?}");
        self.twins.push([first, second]);
    }

    /// The pairs of [`Self::declare_twins`].
    pub fn twins(&self) -> &[[NodeId; 2]] {
        &self.twins
    }

    /// All values.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A value.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The inputs.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// The outputs.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// For each value, whether a value depends on it or is it.
    pub fn ancestors(&self, of: NodeId) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        needed[of.0] = true;
        for id in (0..=of.0).rev() {
            if needed[id] {
                self.nodes[id].arguments().iter().for_each(|a| needed[a.0] = true);
            }
        }
        needed
    }

    /// For each value, whether an output depends on it or is it.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for output in &self.outputs {
            needed.iter_mut().zip(self.ancestors(*output)).for_each(|(n, is)| *n |= is);
        }
        needed
    }

    /// Every id, in topological order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// Multiplications of one execution.
    pub fn multiplications(&self) -> usize {
        let of = |n: &Node| match &n.op {
            Op::Affine(a) => a.terms.iter().map(|t| t.1.multiplications()).sum(),
            _ => 0,
        };
        self.nodes.iter().map(of).sum()
    }

    /// Why a node cannot be added, if it cannot: arguments exist, sizes agree, windows fit, nothing is infinite.
    pub fn malformed(&self, node: &Node) -> Option<String> {
        if let Some(a) = node.arguments().iter().find(|a| a.0 >= self.nodes.len()) {
            return Some(format!("argument {} does not exist", a.0));
        }
        if node.grid == Grid::Integer && !self.makes_integers(&node.op) {
            return Some("it is said to be an integer and need not be one".into());
        }
        let spread_fits = |len: usize, inner: usize| len == 1 || node.len().is_multiple_of(len * inner);
        let len_of = |id: NodeId| self.node(id).len();
        match &node.op {
            Op::Input(i) => (*i != self.inputs.len()).then(|| "inputs are numbered in order".into()),
            Op::Affine(a) => {
                let bad = a.terms.iter().any(|(id, m)| m.inputs() != len_of(*id) || m.outputs() != node.len());
                let unfit = a.terms.iter().any(|(_, m)| matches!(m, LinearMap::Conv(c) if !c.geometry.fits()));
                let finite =
                    a.bias.data.iter().chain(a.terms.iter().flat_map(|t| t.1.weights())).all(|w| w.is_finite());
                let ok = !bad && !unfit && finite && spread_fits(a.bias.data.len(), a.bias.inner);
                (!ok).then(|| "sizes of an affine node do not agree, or a constant is not finite".into())
            }
            Op::Pointwise(p) => {
                let ok = len_of(p.input) == node.len() && spread_fits(p.functions.data.len(), p.functions.inner);
                (!ok).then(|| "sizes of a pointwise node do not agree".into())
            }
            Op::Max(m) => {
                let n = len_of(m.input);
                let ok = m.starts.len() == node.len() + 1
                    && m.starts.windows(2).all(|s| s[0] < s[1])
                    && m.starts.last().is_some_and(|&e| e as usize == m.members.len())
                    && m.members.iter().all(|&i| (i as usize) < n);
                (!ok).then(|| "windows of a maximum are not inside its argument".into())
            }
            Op::Move(m) => {
                let ok = m.from.len() == node.len()
                    && m.from.iter().all(|f| match f {
                        From::Element { source, index } => {
                            m.sources.get(*source as usize).is_some_and(|&s| (*index as usize) < len_of(s))
                        }
                        From::Constant(c) => c.is_finite(),
                    });
                (!ok).then(|| "an index map reaches outside its arguments".into())
            }
        }
    }

    /// Whether every value that an operation can make is an integer.
    pub fn makes_integers(&self, op: &Op) -> bool {
        let integral = |w: &[f64]| w.iter().all(|x| x.fract() == 0.0);
        let integers = |id: &NodeId| self.node(*id).grid == Grid::Integer;
        match op {
            Op::Input(_) => true,
            Op::Affine(a) => {
                a.rounding == Rounding::Exact
                    && integral(&a.bias.data)
                    && a.terms.iter().all(|(id, map)| integers(id) && integral(map.weights()))
            }
            Op::Pointwise(p) => p.functions.data.iter().all(|f| f.keeps_integers(integers(&p.input))),
            Op::Max(m) => integers(&m.input),
            Op::Move(m) => {
                let constant = |f: &From| !matches!(f, From::Constant(c) if c.fract() != 0.0);
                m.sources.iter().all(integers) && m.from.iter().all(constant)
            }
        }
    }

    /// Bounds on every element of a value made by an operation, from the ranges of its arguments.
    pub fn range_of(&self, op: &Op) -> (f64, f64) {
        let everything = (f64::NEG_INFINITY, f64::INFINITY);
        let hull = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.max(b.1));
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        match op {
            Op::Input(_) => everything,
            Op::Affine(a) if a.rounding == Rounding::Exact => {
                let magnitude = self.affine_magnitude(a);
                if magnitude.is_nan() { everything } else { (-magnitude, magnitude) }
            }
            Op::Affine(_) => everything,
            Op::Pointwise(p) => {
                let (lo, hi) = self.node(p.input).range;
                let of = |f: &ScalarFn| {
                    let all = f.range();
                    let lo = if lo.is_finite() { f.value_down(lo) } else { all.0 };
                    (lo, if hi.is_finite() { f.value_up(hi) } else { all.1 })
                };
                p.functions.data.iter().map(of).fold(nothing, hull)
            }
            Op::Max(m) => self.node(m.input).range,
            Op::Move(m) => {
                let constant = |f: &From| if let From::Constant(c) = f { Some((*c, *c)) } else { None };
                let sources = m.sources.iter().map(|&s| self.node(s).range);
                m.from.iter().filter_map(constant).chain(sources).fold(nothing, hull)
            }
        }
    }

    /// A value not below |y| for every element y of an affine node, and not below any partial sum of its products in any
    /// order, from the ranges of its arguments.
    pub fn affine_magnitude(&self, affine: &Affine) -> f64 {
        let bias = affine.bias.data.iter().fold(0.0f64, |m, b| m.max(b.abs()));
        affine.terms.iter().fold(bias, |sum, (id, map)| {
            let (lo, hi) = self.node(*id).range;
            let product = if lo == 0.0 && hi == 0.0 {
                0.0
            } else {
                crate::num::round::mul_up(map.largest_row_sum(), lo.abs().max(hi.abs()))
            };
            crate::num::round::add_up(sum, product)
        })
    }

    /// Whether an affine node is a sum of products of integers that stay below `limit` in every partial sum.
    pub fn is_integer_below(&self, affine: &Affine, limit: f64) -> bool {
        self.affine_magnitude(affine) < limit && self.makes_integers(&Op::Affine(affine.clone()))
    }
}
