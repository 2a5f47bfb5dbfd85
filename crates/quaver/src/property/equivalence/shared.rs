//! What both networks read is one node.

use crate::net::{Affine, From, Max, Move, Net, Node, NodeId, Op, Pointwise};

/// The same net without moves that rearrange nothing.
///
/// # Why
/// When two networks are put on one input, each has a copy of it, and a walk that ends in two copies knows nothing of what they have in common.
pub(super) fn without_copies(net: &Net) -> Net {
    let (mut out, mut ids) = (Net::new(), vec![]);
    for node in net.nodes() {
        let id = match copied(net, node) {
            Some(source) => new(&ids, source),
            None => out.add(Node { op: with_arguments(&node.op, &ids), ..node.clone() }),
        };
        ids.push(id);
    }
    net.twins().iter().for_each(|[a, b]| out.declare_twins(new(&ids, *a), new(&ids, *b)));
    out.set_outputs(net.outputs().iter().map(|&id| new(&ids, id)).collect());
    out
}

/// The value that a node is a copy of.
fn copied(net: &Net, node: &Node) -> Option<NodeId> {
    let Op::Move(Move { sources, from }) = &node.op else { return None };
    let &[source] = &sources[..] else { return None };
    let in_place = |(i, f): (usize, &From)| *f == From::Element { source: 0, index: i as u32 };
    (net.node(source).len() == from.len() && from.iter().enumerate().all(in_place)).then_some(source)
}

fn new(ids: &[NodeId], old: NodeId) -> NodeId {
    ids[old.0]
}

fn with_arguments(op: &Op, ids: &[NodeId]) -> Op {
    match op {
        Op::Input(i) => Op::Input(*i),
        Op::Affine(a) => {
            let terms = a.terms.iter().map(|(id, map)| (new(ids, *id), map.clone())).collect();
            Op::Affine(Affine { terms, ..a.clone() })
        }
        Op::Pointwise(p) => Op::Pointwise(Pointwise { input: new(ids, p.input), ..p.clone() }),
        Op::Max(m) => Op::Max(Max { input: new(ids, m.input), ..m.clone() }),
        Op::Move(m) => {
            Op::Move(Move { sources: m.sources.iter().map(|&s| new(ids, s)).collect(), from: m.from.clone() })
        }
    }
}
