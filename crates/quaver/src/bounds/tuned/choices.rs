//! What is open: functions that are not affine between the bounds of their arguments, and constraints on these.

use super::lines::place;
use crate::bounds::relax::Ends;
use crate::bounds::{Analysis, Prepared, interval_is_exact};
use crate::net::{NodeId, Op};

/// A constraint on one element of the argument of a pointwise node, and the ends of that function's lines under it.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// The pointwise node.
    pub reader: NodeId,
    /// Its argument.
    pub value: NodeId,
    /// Element of both.
    pub element: usize,
    /// What the element is compared with.
    pub at: f64,
    /// 1 for element <= at, -1 for element >= at.
    pub side: f64,
    /// What all constraints on the element leave of its bounds.
    pub interval: (f64, f64),
    /// Lines of the function where all constraints on the element hold.
    pub ends: Ends,
    /// The multiplier to start with.
    pub beta: f64,
}

/// The elements of pointwise nodes whose lines can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(super) by_node: Vec<Option<Free>>,
}

/// Those of one node.
#[derive(Clone, Debug)]
pub(super) struct Free {
    pub elements: Vec<u32>,
    /// One more than the place of an element in `elements`, 0 where it has none.
    pub places: Vec<u32>,
    pub ends: Vec<Ends>,
    /// Where between its ends the line of least area is: lower, upper.
    best: Vec<[f32; 2]>,
    /// Bounds on |argument|.
    pub magnitudes: Vec<f64>,
}

impl Choices {
    /// The choices that an analysis leaves open before the value `from`.
    pub fn new(prepared: &Prepared, analysis: &Analysis, from: NodeId) -> Self {
        let net = prepared.net;
        let of = |id: NodeId| {
            let (Op::Pointwise(p), Some(lines)) = (&net.node(id).op, &analysis.lines[id.0]) else { return None };
            let (x, grid) = (&analysis.bounds[p.input.0], net.node(p.input).grid);
            let open = |&i: &usize| !p.functions.at(i).is_affine_on(x.lo[i], x.hi[i]);
            let elements: Vec<usize> = (0..x.lo.len()).filter(open).collect();
            let mut places = vec![0; x.lo.len()];
            (1..).zip(&elements).for_each(|(k, &e)| places[e] = k);
            let ends: Vec<Ends> =
                elements.iter().map(|&i| Ends::new(p.functions.at(i), grid, x.lo[i], x.hi[i])).collect();
            let best = elements.iter().zip(&ends).map(|(&i, e)| e.places_of(lines.lower[i], lines.upper[i])).collect();
            let magnitudes = elements.iter().map(|&i| x.magnitude(i)).collect();
            Some(Free { elements: elements.iter().map(|&e| e as u32).collect(), places, ends, best, magnitudes })
        };
        let reached = net.ids().take_while(|&id| id <= from && id.0 < analysis.lines.len());
        Choices { by_node: reached.map(of).collect() }
    }

    /// How many elements are open.
    pub fn len(&self) -> usize {
        self.by_node.iter().flatten().map(|f| f.elements.len()).sum()
    }

    /// Whether some are open because of bounds that more effort might narrow.
    pub fn rest_on_bounds(&self, prepared: &Prepared) -> bool {
        let is_open = |f: &Option<Free>| f.as_ref().is_some_and(|f| !f.elements.is_empty());
        prepared.net.nodes().iter().zip(&self.by_node).any(|(node, free)| match &node.op {
            Op::Pointwise(p) => is_open(free) && !interval_is_exact(prepared, p.input),
            Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => false,
        })
    }

    /// Where the lines of least area are, for every open element its lower and its upper line: in 255ths of the way from the first to the last of
    /// its ends.
    pub fn best(&self) -> Vec<u8> {
        self.by_node.iter().flatten().flat_map(|f| &f.best).flatten().map(|t| place(f64::from(*t))).collect()
    }
}
