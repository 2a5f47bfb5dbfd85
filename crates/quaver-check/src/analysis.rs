//! Bounds on every value of a part that is a box: rules *Interval*, *Meet* and *Walk* with default lines.

use std::sync::Arc;

use crate::bounds::{Bounds, interval};
use crate::lines::default_lines;
use crate::net::{Function, Map, Net, Op};
use crate::walk::{Frame, Pair, Row};

/// Functionals that are walked together.
const BATCH: usize = 64;

/// The last value up to which every value is an element-wise image of the input, and which all later ones depend on alone: boxes are boxes of it.
pub fn start(net: &Net) -> usize {
    let is_elementwise = |id: usize| match &net.values[id].op {
        Op::Input => true,
        Op::Affine(a) => matches!(&a.terms[..], [(_, Map::Scale(_))]),
        Op::Function(_) => true,
        Op::Max { .. } | Op::Move { .. } => false,
    };
    let mut start = net.input;
    while let [only] = net.readers(start)[..] {
        if !is_elementwise(only) || only == net.output {
            break;
        }
        start = only;
    }
    start
}

/// What is known about a part.
#[derive(Debug)]
pub enum Known<'n> {
    /// No execution is in it.
    Empty,
    /// Bounds, which its halves inherit, and by value the lines of functions after the start.
    Bounds(Arc<Frame<'n>>, Vec<Vec<Pair>>),
}

/// Bounds on the values up to the start, for inputs in a box.
pub fn before(net: &Net, start: usize, input: Bounds) -> Vec<Bounds> {
    let mut bounds = vec![];
    for id in 0..=start {
        let next = if id == net.input { input.clone() } else { interval(net, id, &bounds).0 };
        bounds.push(next);
    }
    bounds
}

/// Bounds on every value up to `last`, for executions whose start value is in a box, and within what is known already. `before` are those on the
/// values before the start.
///
/// # Errors
/// If a function has no default lines.
pub fn analyse<'n>(
    net: &'n Net,
    (start, last): (usize, usize),
    (before, region): (&[Bounds], &Bounds),
    known: Option<&[Bounds]>,
) -> Result<Known<'n>, String> {
    let mut frame = Frame::from_start(net, start);
    let mut lines: Vec<Vec<Pair>> = vec![];
    for id in 0..=last {
        let mut own = vec![];
        if let (Op::Function(f), true) = (&net.values[id].op, id > start) {
            if !tighten(&mut frame, f, &lines) {
                return Ok(Known::Empty);
            }
            own = lines_of(&net.values[id].name, f, &frame.bounds[f.of])?;
        }
        lines.push(own);
        let (mut bounds, sums) = match id {
            _ if id < start => (before[id].clone(), vec![]),
            _ if id == start => (region.clone(), vec![]),
            _ => interval(net, id, &frame.bounds),
        };
        if id >= start && !meet(&mut bounds, known.map(|k| &k[id])) {
            return Ok(Known::Empty);
        }
        frame.push(bounds, sums);
    }
    Ok(Known::Bounds(Arc::new(frame), lines))
}

fn meet(bounds: &mut Bounds, known: Option<&Bounds>) -> bool {
    (0..bounds.lo.len()).all(|i| known.is_none_or(|k| bounds.meet(i, k.lo[i], k.hi[i])) && bounds.lo[i] <= bounds.hi[i])
}

/// Walks for both ends of every element of a function's argument on which the function is not affine; false if nothing is left.
fn tighten(frame: &mut Frame<'_>, f: &Function, lines: &[Vec<Pair>]) -> bool {
    if frame.is_exact(f.of) {
        return true;
    }
    let x = &frame.bounds[f.of];
    let open: Vec<usize> = (0..x.lo.len()).filter(|&i| !f.at(i).is_affine_on(x.lo[i], x.hi[i])).collect();
    let mut found = vec![];
    for part in open.chunks(BATCH / 2) {
        let row = |&i: &usize| [1.0, -1.0].map(|c| Row { terms: vec![(i, c)], ..Row::default() });
        let rows: Vec<Row> = part.iter().flat_map(row).collect();
        found.extend(frame.walk(f.of, &rows, lines));
    }
    let integer = frame.net.values[f.of].integer;
    let bounds = &mut frame.bounds[f.of];
    open.iter().zip(found.chunks(2)).all(|(&i, ends)| {
        let (lo, hi) = (ends[0], -ends[1]);
        bounds.meet(i, if integer { lo.ceil() } else { lo }, if integer { hi.floor() } else { hi })
    })
}

fn lines_of(name: &str, f: &Function, x: &Bounds) -> Result<Vec<Pair>, String> {
    let of = |i: usize| {
        let (lower, upper) = default_lines(f.at(i), (x.lo[i], x.hi[i]))
            .ok_or_else(|| format!("element {i} of `{name}` has no default lines"))?;
        Ok(Pair { lower, upper })
    };
    (0..x.lo.len()).map(of).collect()
}
