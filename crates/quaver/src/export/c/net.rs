//! A net as a C function: one static array for each value, loops over arrays.

use super::text::{Program, Type};
use crate::export::doubles::{Knowledge, Sum, knowledge, plan};
use crate::export::question::{ExportError, Network, comment};
use crate::net::{Affine, From, Grid, LinearMap, Max, Move, Net, Node, NodeId, Op, Pointwise, Spread};

/// What is known of a function that was written.
pub struct Written {
    /// Number type of the outputs.
    pub output: Type,
    /// Whether its outputs are the net's, bit for bit.
    pub exact: bool,
}

/// Integers of the program stay below this in magnitude, so that no sum of two overflows.
const MOST: f64 = 4_611_686_018_427_387_904.0;

pub(super) struct Writer<'a> {
    pub net: &'a Net,
    /// First letter of all names.
    pub letter: &'a str,
    /// Number type of each value.
    pub types: Vec<Type>,
    known: Vec<Knowledge>,
    pub program: &'a mut Program,
}

/// Writes `static void network_LETTER(const TYPE x[], TYPE y[])`.
pub fn write(letter: &str, network: &Network<'_>, input: &str, program: &mut Program) -> Result<Written, ExportError> {
    let (net, output) = (network.net(), network.output_id());
    let needed = net.ancestors(output);
    let known = knowledge(net, &needed)?;
    let mut types = vec![];
    for (id, node) in net.ids().zip(net.nodes()) {
        let next = if needed[id.0] { type_of(net, node, &types)? } else { Type::Double };
        types.push(next);
    }
    let (output_type, exact) = (types[output.0], known[output.0].exact);
    let mut writer = Writer { net, letter, types, known, program };
    let (n_in, n_out) = (network.input().len(), network.output().len());
    writer.program.line(0, format!("/* {} */", comment(network.name)));
    let y = output_type.name();
    writer.program.line(0, format!("static void network_{letter}(const {input} x[{n_in}], {y} y[{n_out}]) {{"));
    let mut ends = vec![(net.inputs()[0], writer.program.code.len())];
    for id in net.ids().filter(|id| needed[id.0] && !matches!(net.node(*id).op, Op::Input(_))) {
        writer.node(id)?;
        ends.push((id, writer.program.code.len()));
    }
    let value = writer.value(output);
    for name in writer.unread(&ends, &value) {
        writer.program.line(1, format!("(void){name};"));
    }
    writer.program.line(1, format!("for (int i = 0; i < {n_out}; i++) y[i] = {value}[i];"));
    writer.program.line(0, "}\n");
    Ok(Written { output: output_type, exact })
}

/// The number type of a value.
///
/// # Claim
/// Every element, and for an affine node every partial sum in any order, is a number of this type.
///
/// # Why
/// The range of a node holds for every input of the input's type, and `affine_magnitude` bounds every partial sum.
fn type_of(net: &Net, node: &Node, types: &[Type]) -> Result<Type, ExportError> {
    if node.grid != Grid::Integer {
        return Ok(Type::Double);
    }
    let sums = if let Op::Affine(a) = &node.op { net.affine_magnitude(a) } else { 0.0 };
    let largest = node.range.0.abs().max(node.range.1.abs()).max(sums);
    let widest = node.arguments().iter().map(|a| types[a.0]).filter(|t| *t != Type::Double).max();
    if largest < 2_147_483_648.0 {
        Ok(if matches!(node.op, Op::Affine(_)) { widest.unwrap_or(Type::Int32) } else { Type::Int32 })
    } else if largest < MOST {
        Ok(Type::Int64)
    } else {
        Err(ExportError::at(
            node,
            format!("its integers reach {largest:e}, and 62 bits are not enough"),
            "use a model with smaller sums",
        ))
    }
}

impl Writer<'_> {
    /// Values that no later line reads, given where the lines of each end: functions are constant where they go, or an index map leaves them out.
    fn unread(&self, ends: &[(NodeId, usize)], output: &str) -> Vec<String> {
        let code = &self.program.code;
        let unread = |(id, end): &(NodeId, usize)| {
            let name = self.value(*id);
            (name != output && !code[*end..].contains(&format!("{name}["))).then_some(name)
        };
        ends.iter().filter_map(unread).collect()
    }

    /// The array that holds a value.
    pub fn value(&self, id: NodeId) -> String {
        match self.net.node(id).op {
            Op::Input(_) => "x".into(),
            Op::Affine(_) | Op::Pointwise(_) | Op::Max(_) | Op::Move(_) => format!("v{}", id.0),
        }
    }

    /// The name of a table of a value.
    pub fn name(&self, id: NodeId, what: &str) -> String {
        format!("{}{}_{what}", self.letter, id.0)
    }

    fn node(&mut self, id: NodeId) -> Result<(), ExportError> {
        let node = self.net.node(id);
        let (n, value) = (node.len(), self.value(id));
        let what = comment(&node.name);
        self.program.line(1, format!("/* {} {what}: {n} elements */", id.0));
        self.program.line(1, format!("static {} {value}[{n}];", self.types[id.0].name()));
        match &node.op {
            Op::Input(_) => Ok(()),
            Op::Affine(a) => self.affine(id, a),
            Op::Pointwise(p) => {
                self.pointwise(id, p);
                Ok(())
            }
            Op::Max(m) => {
                self.max(id, m);
                Ok(())
            }
            Op::Move(m) => {
                self.moved(id, m);
                Ok(())
            }
        }
    }

    /// A value spread over n elements: a constant, or a table and the place of element i in it.
    pub fn spread(&mut self, id: NodeId, what: &str, spread: &Spread<f64>, kind: Type) -> String {
        if let [only] = &spread.data[..] {
            return kind.literal(*only);
        }
        let name = self.name(id, what);
        self.program.table(&name, &spread.data);
        format!("({}){name}[{}]", kind.name(), place(spread.data.len(), spread.inner, self.net.node(id).len()))
    }

    fn affine(&mut self, id: NodeId, a: &Affine) -> Result<(), ExportError> {
        let node = self.net.node(id);
        let (n, v, kind) = (node.len(), self.value(id), self.types[id.0]);
        let bias = self.spread(id, "bias", &a.bias, kind);
        self.program.line(1, format!("for (int i = 0; i < {n}; i++) {v}[i] = {bias};"));
        for (k, (argument, map)) in a.terms.iter().enumerate() {
            self.term((id, k), *argument, map);
        }
        let sum = match kind {
            Type::Double => plan(self.net, node, a, &self.known)?,
            Type::Int32 | Type::Int64 => Sum { exact: true, to_float: false },
        };
        if sum.to_float {
            self.program.line(1, format!("for (int i = 0; i < {n}; i++) {v}[i] = (double)(float){v}[i];"));
        }
        Ok(())
    }

    /// Adds W x to a value.
    fn term(&mut self, (id, k): (NodeId, usize), argument: NodeId, map: &LinearMap) {
        let (v, x, t) = (self.value(id), self.value(argument), self.types[id.0].name());
        let weights = self.name(id, &format!("w{k}"));
        match map {
            LinearMap::Dense(d) => {
                self.program.table(&weights, d.weights.exact());
                let (n_in, n_out) = (d.n_in, d.n_out);
                let (block_in, block_out, depth) = match d.outer {
                    1 => (String::new(), String::new(), 1),
                    _ => (format!("b * {n_in} + "), format!("b * {n_out} + "), 2),
                };
                if depth > 1 {
                    self.program.line(1, format!("for (int b = 0; b < {}; b++)", d.outer));
                }
                self.program.line(depth, format!("for (int o = 0; o < {n_out}; o++)"));
                self.program.line(depth + 1, format!("for (int i = 0; i < {n_in}; i++)"));
                let product = format!("({t}){weights}[o * {n_in} + i] * ({t}){x}[{block_in}i]");
                self.program.line(depth + 2, format!("{v}[{block_out}o] += {product};"));
            }
            LinearMap::Conv(c) => {
                self.program.table(&weights, c.weights.exact());
                let g = &c.geometry;
                let [oh, ow] = g.out_size;
                let (kh, kw, per_group) = (g.kernel[0], g.kernel[1], g.in_channels / g.groups);
                let loops = [("o", g.out_channels), ("oy", oh), ("ox", ow), ("c", per_group), ("ky", kh), ("kx", kw)];
                for (depth, (name, n)) in loops.iter().enumerate() {
                    self.program.line(1 + depth, format!("for (int {name} = 0; {name} < {n}; {name}++)"));
                }
                let channel = format!("(o / {} * {per_group} + c)", g.out_channels / g.groups);
                let (y, column) =
                    (along("oy", g.stride[0], "ky", g.dilation[0]), along("ox", g.stride[1], "kx", g.dilation[1]));
                let from = format!("({channel} * {} + {y}) * {} + {column}", g.in_size[0], g.in_size[1]);
                let tap = format!("((o * {per_group} + c) * {kh} + ky) * {kw} + kx");
                let product = format!("({t}){weights}[{tap}] * ({t}){x}[{from}]");
                self.program.line(7, format!("{v}[(o * {oh} + oy) * {ow} + ox] += {product};"));
            }
            LinearMap::Diagonal { len, scale } => {
                let w = self.spread(id, &format!("w{k}"), scale, self.types[id.0]);
                self.program.line(1, format!("for (int i = 0; i < {len}; i++) {v}[i] += {w} * ({t}){x}[i];"));
            }
        }
    }

    fn max(&mut self, id: NodeId, m: &Max) {
        let (v, x, n) = (self.value(id), self.value(m.input), self.net.node(id).len());
        let (starts, members) = (self.name(id, "starts"), self.name(id, "members"));
        self.program.integers(&starts, &m.starts.iter().map(|&s| i64::from(s)).collect::<Vec<_>>());
        self.program.integers(&members, &m.members.iter().map(|&s| i64::from(s)).collect::<Vec<_>>());
        self.program.line(1, format!("for (int i = 0; i < {n}; i++) {{"));
        self.program.line(2, format!("{v}[i] = {x}[{members}[{starts}[i]]];"));
        self.program.line(2, format!("for (int k = {starts}[i] + 1; k < {starts}[i + 1]; k++)"));
        self.program.line(3, format!("if ({x}[{members}[k]] > {v}[i]) {v}[i] = {x}[{members}[k]];"));
        self.program.line(1, "}");
    }

    /// Elements of each source, then constants: in one loop where both sides are consecutive, else by tables.
    fn moved(&mut self, id: NodeId, m: &Move) {
        let (v, t) = (self.value(id), self.types[id.0]);
        for (k, source) in m.sources.iter().enumerate() {
            let taken = |(i, f): (usize, &From)| match f {
                From::Element { source, index } if *source as usize == k => Some((i as i64, i64::from(*index))),
                From::Element { .. } | From::Constant(_) => None,
            };
            let pairs: Vec<(i64, i64)> = m.from.iter().enumerate().filter_map(taken).collect();
            let Some(&(to, from)) = pairs.first() else { continue };
            let (n, x) = (pairs.len(), self.value(*source));
            if pairs.iter().zip(0..).all(|(p, i)| *p == (to + i, from + i)) {
                let line = format!("for (int i = 0; i < {n}; i++) {v}[{to} + i] = ({}){x}[{from} + i];", t.name());
                self.program.line(1, line);
                continue;
            }
            let (into, out_of) = (self.name(id, &format!("to{k}")), self.name(id, &format!("from{k}")));
            self.program.integers(&into, &pairs.iter().map(|p| p.0).collect::<Vec<_>>());
            self.program.integers(&out_of, &pairs.iter().map(|p| p.1).collect::<Vec<_>>());
            let line = format!("for (int i = 0; i < {n}; i++) {v}[{into}[i]] = ({}){x}[{out_of}[i]];", t.name());
            self.program.line(1, line);
        }
        let fixed = |(i, f): (usize, &From)| if let From::Constant(c) = f { Some((i as i64, *c)) } else { None };
        let fixed: Vec<(i64, f64)> = m.from.iter().enumerate().filter_map(fixed).collect();
        let Some(&(_, first)) = fixed.first() else { return };
        let into = self.name(id, "fixed");
        self.program.integers(&into, &fixed.iter().map(|p| p.0).collect::<Vec<_>>());
        let value = if fixed.iter().all(|p| p.1 == first) {
            t.literal(first)
        } else {
            let name = self.name(id, "constants");
            self.program.table(&name, &fixed.iter().map(|p| p.1).collect::<Vec<_>>());
            format!("({}){name}[i]", t.name())
        };
        self.program.line(1, format!("for (int i = 0; i < {}; i++) {v}[{into}[i]] = {value};", fixed.len()));
    }

    fn pointwise(&mut self, id: NodeId, p: &Pointwise) {
        super::function::write(self, id, p);
    }
}

/// The place of element i in a table whose entries are spread.
pub(super) fn place(count: usize, inner: usize, n: usize) -> String {
    match (inner, count * inner == n) {
        (1, true) => "i".into(),
        (1, false) => format!("i % {count}"),
        (_, true) => format!("i / {inner}"),
        (_, false) => format!("i / {inner} % {count}"),
    }
}

fn along(position: &str, stride: usize, tap: &str, dilation: usize) -> String {
    let times = |name: &str, n: usize| if n == 1 { name.to_string() } else { format!("{name} * {n}") };
    format!("{} + {}", times(position, stride), times(tap, dilation))
}
