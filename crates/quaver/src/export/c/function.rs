//! Scalar functions in C: steps by their thresholds, straight pieces by comparisons.

use super::net::{Writer, place};
use super::text::Type;
use crate::net::{Grid, NodeId, Piecewise, Pointwise, ScalarFn, Step};

/// A step function on a grid: `values[k]` where exactly k of the places are reached.
struct Stairs {
    places: Vec<f64>,
    values: Vec<f64>,
}

impl Stairs {
    /// The part of a step function that arguments between two bounds reach, its jumps at the first argument of the grid on their upper side.
    fn new(step: &Step, grid: Grid, (lo, hi): (f64, f64)) -> Stairs {
        let first = |c: &crate::net::Cut| match (grid, c.strict) {
            (Grid::Integer, true) => c.at.floor() + 1.0,
            (Grid::Integer, false) => c.at.ceil(),
            (Grid::Float32 | Grid::Real, true) => c.at.next_up(),
            (Grid::Float32 | Grid::Real, false) => c.at,
        };
        let mut stairs = Stairs { places: vec![], values: vec![step.values()[0]] };
        for (place, &value) in step.cuts().iter().map(first).zip(&step.values()[1..]) {
            let last = stairs.values.len() - 1;
            if place > hi || value == stairs.values[last] {
                continue;
            }
            if place <= lo || stairs.places.last() == Some(&place) {
                stairs.values[last] = value;
            } else {
                stairs.places.push(place);
                stairs.values.push(value);
            }
        }
        stairs
    }

    /// Whether every jump is by one.
    fn counts(&self) -> bool {
        self.values.windows(2).all(|v| v[1] - v[0] == 1.0) && self.values[0].fract() == 0.0
    }
}

/// Writes a pointwise node.
pub(super) fn write(w: &mut Writer<'_>, id: NodeId, p: &Pointwise) {
    let argument = w.net.node(p.input);
    let stairs: Option<Vec<Stairs>> =
        p.functions.data.iter().map(|f| Some(Stairs::new(as_step(f)?, argument.grid, argument.range))).collect();
    match stairs {
        Some(stairs) => steps(w, id, p, &stairs),
        None => pieces(w, id, p),
    }
}

/// The step function. Bands were refused, their lower end stands for them.
fn as_step(f: &ScalarFn) -> Option<&Step> {
    match f {
        ScalarFn::Step(s) => Some(s),
        ScalarFn::Band(b) => Some(b.lower()),
        ScalarFn::Piecewise(_) => None,
    }
}

/// Steps: thresholds of all functions in one table, which is walked from the first of a function to its last.
fn steps(w: &mut Writer<'_>, id: NodeId, p: &Pointwise, stairs: &[Stairs]) {
    let (v, x, n) = (w.value(id), w.value(p.input), w.net.node(id).len());
    let t = w.types[id.0].name();
    let places: Vec<f64> = stairs.iter().flat_map(|s| s.places.clone()).collect();
    let firsts: Vec<f64> = stairs.iter().map(|s| s.values[0]).collect();
    let one = stairs.len() == 1;
    let first = if one { w.types[id.0].literal(firsts[0]) } else { format!("({t}){}[f]", w.name(id, "first")) };
    w.program.line(1, format!("for (int i = 0; i < {n}; i++) {{"));
    if !one {
        w.program.table(&w.name(id, "first"), &firsts);
        w.program.line(2, format!("const int f = {};", place(stairs.len(), p.functions.inner, n)));
    }
    w.program.line(2, format!("{t} y = {first};"));
    if !places.is_empty() {
        let cuts = w.name(id, "cuts");
        w.program.table(&cuts, &places);
        let (from, to) = if one { ("0".into(), places.len().to_string()) } else { starts(w, id, stairs) };
        let reached = format!("{x}[i] >= {cuts}[k]");
        let rise = if stairs.iter().all(Stairs::counts) {
            format!("y += {reached};")
        } else {
            let values = w.name(id, "values");
            let all: Vec<f64> = stairs.iter().flat_map(|s| s.values[1..].to_vec()).collect();
            w.program.table(&values, &all);
            format!("y = {reached} ? ({t}){values}[k] : y;")
        };
        w.program.line(2, format!("for (int k = {from}; k < {to}; k++) {rise}"));
    }
    w.program.line(2, format!("{v}[i] = y;"));
    w.program.line(1, "}");
}

/// Where the thresholds of function f begin and end.
fn starts(w: &mut Writer<'_>, id: NodeId, stairs: &[Stairs]) -> (String, String) {
    let mut starts = vec![0];
    for s in stairs {
        starts.push(starts[starts.len() - 1] + s.places.len() as i64);
    }
    let name = w.name(id, "starts");
    w.program.integers(&name, &starts);
    (format!("{name}[f]"), format!("{name}[f + 1]"))
}

/// Functions with straight pieces: one loop for each function.
fn pieces(w: &mut Writer<'_>, id: NodeId, p: &Pointwise) {
    let n = w.net.node(id).len();
    let (count, inner) = (p.functions.data.len(), p.functions.inner);
    for (f, function) in p.functions.data.iter().enumerate() {
        let body = match function {
            ScalarFn::Piecewise(piecewise) => expression(w, id, p, piecewise),
            ScalarFn::Step(s) => stairs_expression(w, id, p, s),
            ScalarFn::Band(b) => stairs_expression(w, id, p, b.lower()),
        };
        let v = w.value(id);
        if count == 1 {
            w.program.line(1, format!("for (int i = 0; i < {n}; i++) {v}[i] = {body};"));
            continue;
        }
        w.program.line(1, format!("for (int b = 0; b < {}; b++)", n / (count * inner)));
        w.program.line(2, format!("for (int j = 0; j < {inner}; j++) {{"));
        w.program.line(3, format!("const int i = (b * {count} + {f}) * {inner} + j;"));
        w.program.line(3, format!("{v}[i] = {body};"));
        w.program.line(2, "}");
    }
}

/// A step function among straight ones, as a chain of comparisons.
fn stairs_expression(w: &Writer<'_>, id: NodeId, p: &Pointwise, step: &Step) -> String {
    let argument = w.net.node(p.input);
    let stairs = Stairs::new(step, argument.grid, argument.range);
    let (x, t) = (w.value(p.input), w.types[id.0]);
    let kind = if argument.grid == Grid::Integer { Type::Int64 } else { Type::Double };
    let below = |text: String, (place, value): (&f64, &f64)| {
        format!("({x}[i] >= {} ? {} : {text})", kind.literal(*place), t.literal(*value))
    };
    stairs.places.iter().zip(&stairs.values[1..]).fold(t.literal(stairs.values[0]), below)
}

/// f(x[i]) for a function with straight pieces.
///
/// # Why
/// Between two knots the slope is 0 or 1. In integers everything is exact; in `double` each operation is within the outward-rounded bounds that
/// Quaver's own execution takes.
fn expression(w: &Writer<'_>, id: NodeId, p: &Pointwise, f: &Piecewise) -> String {
    let t = w.types[id.0].max(w.types[p.input.0]);
    let x = format!("({}){}[i]", t.name(), w.value(p.input));
    let on_line = |(kx, ky): (f64, f64), slope: f64| match () {
        () if slope == 0.0 => t.literal(ky),
        () if slope == 1.0 && kx == ky => x.clone(),
        () => {
            let run = if kx == 0.0 { x.clone() } else { format!("({x} - ({}))", t.literal(kx)) };
            let rise = if slope == 1.0 { run } else { format!("{} * {run}", t.literal(slope)) };
            if ky == 0.0 { rise } else { format!("{} + {rise}", t.literal(ky)) }
        }
    };
    let before = |k: usize| match k {
        0 => on_line(f.knots[0], f.left),
        k => on_line(f.knots[k - 1], if f.knots[k - 1].1 == f.knots[k].1 { 0.0 } else { 1.0 }),
    };
    let last = f.knots.len() - 1;
    let chain = (0..=last).rev().fold(on_line(f.knots[last], f.right), |rest, k| {
        format!("({x} < {} ? {} : {rest})", t.literal(f.knots[k].0), before(k))
    });
    format!("({}){chain}", w.types[id.0].name())
}
