//! Bounds on every value of a part that is a box: rules *Interval*, *Meet*, *Walk* and *Claim*.

use crate::bounds::{Bounds, interval};
use crate::lines::{Ends, default_lines};
use crate::net::{Function, Map, Net, Op};
use crate::walk::{Cut, Enclosed, Frame, Pair, Row};

/// The last value up to which every value is an element-wise image of the input, and which all later ones depend on alone: boxes are boxes of it.
pub fn start(net: &Net) -> usize {
    let is_elementwise = |id: usize| match &net.values[id].op {
        Op::Input => true,
        Op::Affine(a) => matches!(&a.terms[..], [(_, Map::Scale(_))]),
        Op::Function(_) => true,
        Op::Max { .. } | Op::Move { .. } | Op::Row(_) => false,
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

/// Bounds on the values up to the start, for inputs in a box.
pub fn before(net: &Net, start: usize, input: Bounds) -> Vec<Bounds> {
    let mut bounds = vec![];
    for id in 0..=start {
        let next = if id == net.input { input.clone() } else { interval(net, id, &bounds).0 };
        bounds.push(next);
    }
    bounds
}

/// Bounds on every value of a part, one value after the other.
#[derive(Clone, Debug)]
pub struct Analysis<'n> {
    /// What there is so far; whole once [`Self::finish`] has been called.
    pub frame: Frame<'n>,
    /// Whether no execution is left; the bounds then end early.
    pub is_empty: bool,
    start: usize,
}

/// Bounds on one element of a function's argument, with proofs where the rules for every part do not give them.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The element.
    pub element: usize,
    /// l and u.
    pub ends: [f64; 2],
    /// For each.
    pub proofs: [Option<Tree>; 2],
}

/// Splits of functions, with a walk for each part that is left.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// One walk.
    Leaf(Choice),
    /// Two halves: up to a place, and from another one on.
    Cut {
        /// Number of the function among all.
        function: usize,
        /// Its element.
        element: usize,
        /// The last argument of the first half and the first of the second.
        place: (f64, f64),
        /// The halves.
        halves: Box<[Tree; 2]>,
    },
}

/// What a walk is free to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// See [`Row::places`].
    pub places: Vec<u8>,
    /// Multipliers of the first cuts of the part; the others are not made use of.
    pub betas: Vec<f64>,
}

impl Choice {
    /// A functional of a part with some cuts.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn row(&self, terms: Vec<(usize, f64)>, cuts: &[Cut]) -> Result<Row, String> {
        let cuts = cuts.get(..self.betas.len()).ok_or("there are more multipliers than cuts")?;
        let (places, betas) = (self.places.clone(), self.betas.clone());
        Ok(Row { terms, before: vec![], places, cuts: cuts.to_vec(), betas })
    }
}

/// What a part is: executions whose start value is in a box, and within what is known already.
#[derive(Clone, Copy)]
pub struct Extent<'e> {
    /// Bounds on the values before the start.
    pub before: &'e [Bounds],
    /// The box.
    pub region: &'e Bounds,
    /// Bounds that hold.
    pub known: Option<&'e [Bounds]>,
}

impl<'n> Analysis<'n> {
    /// With no bounds yet.
    pub fn new(net: &'n Net, start: usize) -> Self {
        Analysis { frame: Frame::from_start(net, start), is_empty: false, start }
    }

    /// Goes on to the output.
    ///
    /// # Errors
    /// If a function has no lines.
    pub fn finish(&mut self, extent: Extent<'_>) -> Result<(), String> {
        self.advance(self.frame.net.output + 1, extent)
    }

    /// Goes on until there are bounds for so many values.
    fn advance(&mut self, count: usize, extent: Extent<'_>) -> Result<(), String> {
        while self.frame.bounds.len() < count && !self.is_empty {
            self.next(&[], extent)?;
        }
        Ok(())
    }

    /// Goes on up to a function whose argument has the bounds of some claims.
    ///
    /// # Errors
    /// If one is not proved, or the function was passed.
    pub fn claim(&mut self, function: usize, claims: &[Claim], extent: Extent<'_>) -> Result<(), String> {
        if function <= self.start || function < self.frame.bounds.len() || function > self.frame.net.output {
            return Err(format!("claims for function {function} are out of order"));
        }
        self.advance(function, extent)?;
        if self.is_empty { Ok(()) } else { self.next(claims, extent) }
    }

    fn next(&mut self, claims: &[Claim], extent: Extent<'_>) -> Result<(), String> {
        let (frame, start) = (&mut self.frame, self.start);
        let id = frame.bounds.len();
        let mut enclosed = Enclosed::default();
        if let (Op::Function(f), true) = (&frame.net.values[id].op, id > start) {
            if !tighten(frame, f) {
                self.is_empty = true;
                return Ok(());
            }
            let Some(open) = admit(frame, f, claims)? else {
                self.is_empty = true;
                return Ok(());
            };
            enclosed = Enclosed { lines: lines_of(&frame.net.values[id].name, f, &frame.bounds[f.of])?, open };
        }
        let (mut bounds, sums) = match id {
            _ if id < start => (extent.before[id].clone(), vec![]),
            _ if id == start => (extent.region.clone(), vec![]),
            _ => interval(frame.net, id, &frame.bounds),
        };
        self.is_empty = id >= start && !meet(&mut bounds, extent.known.map(|k| &k[id]));
        frame.push(bounds, sums, enclosed);
        if let (Some(first), false) = (frame.net.twin(id).filter(|first| *first > start), self.is_empty) {
            self.is_empty = !frame.compare(first, id);
        }
        Ok(())
    }
}

fn meet(bounds: &mut Bounds, known: Option<&Bounds>) -> bool {
    (0..bounds.lo.len()).all(|i| known.is_none_or(|k| bounds.meet(i, k.lo[i], k.hi[i])) && bounds.lo[i] <= bounds.hi[i])
}

/// Walks for both ends of every element of a function's argument on which the function is not affine; false if nothing is left.
fn tighten(frame: &mut Frame<'_>, f: &Function) -> bool {
    if frame.is_exact(f.of) {
        return true;
    }
    let x = &frame.bounds[f.of];
    let open: Vec<usize> = (0..x.lo.len()).filter(|&i| !f.at(i).is_affine_on(x.lo[i], x.hi[i])).collect();
    let row = |&i: &usize| [1.0, -1.0].map(|c| Row { terms: vec![(i, c)], ..Row::default() });
    let rows: Vec<Row> = open.iter().flat_map(row).collect();
    let found = frame.walk(f.of, &rows);
    let bounds = |ends: &[f64]| inward(frame, f.of, [ends[0], -ends[1]]);
    let found: Vec<[f64; 2]> = found.chunks(2).map(bounds).collect();
    let bounds = &mut frame.bounds[f.of];
    open.iter().zip(found).all(|(&i, [lo, hi])| bounds.meet(i, lo, hi))
}

/// Bounds on an element of a value, on integers where it consists of these.
fn inward(frame: &Frame<'_>, id: usize, [lo, hi]: [f64; 2]) -> [f64; 2] {
    if frame.net.values[id].integer { [lo.ceil(), hi.floor()] } else { [lo, hi] }
}

/// Rule *Claim*: replaces bounds on a function's argument by those that are claimed; the elements on which the function is then not affine, or
/// nothing if no execution is left.
///
/// # Errors
/// If a claim is neither implied by the bounds that there are nor proved by its walks.
fn admit(frame: &mut Frame<'_>, f: &Function, claims: &[Claim]) -> Result<Option<Vec<(usize, Ends)>>, String> {
    let x = &frame.bounds[f.of];
    if claims.iter().any(|c| c.element >= x.lo.len()) || claims.windows(2).any(|c| c[0].element >= c[1].element) {
        return Err("claims for elements that are not there, or not in order".into());
    }
    let mut rows = vec![];
    for claim in claims {
        for (tree, sign) in claim.proofs.iter().zip([1.0, -1.0]) {
            let mut own = vec![];
            tree.iter().try_for_each(|t| leaves(frame, t, (claim.element, sign), &mut vec![], &mut own))?;
            rows.push(own);
        }
    }
    let counts: Vec<usize> = rows.iter().map(Vec::len).collect();
    let mut found = frame.walk(f.of, &rows.concat()).into_iter();
    let mut least = |count: usize| found.by_ref().take(count).fold(f64::INFINITY, f64::min);
    for (claim, counts) in claims.iter().zip(counts.chunks(2)) {
        let proved = inward(frame, f.of, [least(counts[0]), -least(counts[1])]);
        let (i, [lo, hi]) = (claim.element, claim.ends);
        let (x, by) = (&frame.bounds[f.of], |k: usize| claim.proofs[k].is_some());
        let holds = (lo <= x.lo[i] || by(0) && lo <= proved[0]) && (hi >= x.hi[i] || by(1) && hi >= proved[1]);
        if !holds {
            let ([l, u], x) = (proved, (x.lo[i], x.hi[i]));
            return Err(format!("[{lo}, {hi}] is not proved for element {i} (bounds {x:?}, walks {l} and {u})"));
        }
    }
    let bounds = &mut frame.bounds[f.of];
    claims.iter().for_each(|c| [bounds.lo[c.element], bounds.hi[c.element]] = c.ends);
    if claims.iter().any(|c| c.ends[0] > c.ends[1]) {
        return Ok(None);
    }
    let is_open = |c: &&Claim| !f.at(c.element).is_affine_on(c.ends[0], c.ends[1]);
    let ends = |c: &Claim| Some((c.element, Ends::new(f.at(c.element), c.ends.into())?));
    let open = claims.iter().filter(is_open).map(ends).collect::<Option<_>>();
    open.map(Some).ok_or_else(|| "a claim leaves a function without lines".into())
}

/// A row for each leaf of a tree of cuts.
fn leaves(
    frame: &Frame<'_>,
    tree: &Tree,
    (element, sign): (usize, f64),
    cuts: &mut Vec<Cut>,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    match tree {
        Tree::Leaf(choice) => rows.push(choice.row(vec![(element, sign)], cuts)?),
        Tree::Cut { function, element: at, place, halves } => {
            let function = frame.net.function(*function)?;
            if function >= frame.bounds.len() {
                return Err(format!("a cut of function {function}, which comes later"));
            }
            for (half, cut) in halves.iter().zip(frame.cut(function, *at, *place, cuts)?) {
                cuts.push(cut);
                leaves(frame, half, (element, sign), cuts, rows)?;
                cuts.pop();
            }
        }
    }
    Ok(())
}

fn lines_of(name: &str, f: &Function, x: &Bounds) -> Result<Vec<Pair>, String> {
    let of = |i: usize| {
        let (lower, upper) = default_lines(f.at(i), (x.lo[i], x.hi[i]))
            .ok_or_else(|| format!("element {i} of `{name}` has no lines"))?;
        Ok(Pair { lower, upper })
    };
    (0..x.lo.len()).map(of).collect()
}
