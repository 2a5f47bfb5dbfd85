//! What a tracer is told of splits of functions.

use super::Search;
use crate::bounds::{Branch, Claim, Journal, ProvedPart, Split};
use crate::certificate::{self, Choice, Cut, Tracer, Tree};
use crate::net::{Net, NodeId, Op};

/// The number of a function among those that the output depends on.
fn number(net: &Net, function: NodeId) -> usize {
    let needed = net.ancestors(net.outputs()[0]);
    let is_function = |id: &usize| needed[*id] && matches!(net.node(NodeId(*id)).op, Op::Pointwise(_));
    (0..function.0).filter(is_function).count()
}

/// The split that has two halves.
pub(super) fn cut(net: &Net, [low, high]: [&Split; 2]) -> Cut {
    Cut { function: number(net, low.reader), element: low.element, below: low.at, above: high.at }
}

/// Where lines and multipliers stand.
pub(super) fn choice(branch: &Branch) -> Choice {
    Choice { places: branch.slopes.clone(), betas: branch.splits.iter().map(|s| s.beta).collect() }
}

/// The tree of parts that have the first `depth` splits in common and are all that is left there.
fn tree(net: &Net, parts: &[&ProvedPart], depth: usize) -> Option<Tree> {
    if let [part] = parts
        && part.branch.splits.len() == depth
    {
        return Some(Tree::Leaf(choice(&part.proof)));
    }
    let first = |side: f64| parts.iter().filter_map(|p| p.branch.splits.get(depth)).find(|s| s.side == side);
    let split = cut(net, [first(1.0)?, first(-1.0)?]);
    let half = |side: f64| {
        let of_side = |p: &&ProvedPart| p.branch.splits.get(depth).is_some_and(|s| s.side == side);
        let parts: Vec<&ProvedPart> = parts.iter().copied().filter(of_side).collect();
        tree(net, &parts, depth + 1)
    };
    Some(Tree::Cut(split, Box::new([half(1.0)?, half(-1.0)?])))
}

/// Hands the bounds of one box on to a tracer.
#[derive(Clone, Copy)]
pub(super) struct Claims<'c> {
    pub tracer: &'c dyn Tracer,
    pub net: &'c Net,
    /// The tracer's number of the box.
    pub part: u64,
}

impl Journal for Claims<'_> {
    fn claims(&self, function: NodeId, claims: Vec<Claim>) {
        let proof =
            |parts: &Option<Vec<ProvedPart>>| parts.as_ref().map(|p| tree(self.net, &p.iter().collect::<Vec<_>>(), 0));
        let mut told = vec![];
        for claim in claims {
            let [lo, hi] = [proof(&claim.proofs[0]), proof(&claim.proofs[1])];
            if [&lo, &hi].iter().any(|p| matches!(p, Some(None))) {
                return self.tracer.has_no_step("a tree of splits with a part missing");
            }
            let proofs = [lo.flatten(), hi.flatten()];
            told.push(certificate::Claim { element: claim.element, ends: claim.ends, proofs });
        }
        self.tracer.claims(self.part, number(self.net, function), &told);
    }
}

impl Search<'_> {
    /// The journal of a box, if there is a tracer.
    pub(super) fn journal(&self, part: u64) -> Option<Claims<'_>> {
        self.tracer().map(|tracer| Claims { tracer, net: self.view.prepared.net, part })
    }
}
