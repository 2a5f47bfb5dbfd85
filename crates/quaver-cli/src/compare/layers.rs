//! Which values of two nets correspond.

use quaver::net::{Grid, LinearMap, Net, Node, NodeId, Op};

/// Two values that should be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// In the first net.
    pub a: NodeId,
    /// In the second.
    pub b: NodeId,
}

/// How layers were matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// By their names.
    Names,
    /// The k-th affine layers, because names differ.
    Order,
}

/// Pieces that lowering adds to the name of the value it makes a node for.
const SYNTHETIC: [&str; 13] = [
    "accumulator",
    "padded",
    "transposed",
    "broadcast",
    "sum",
    "taps",
    "tap",
    "float",
    "rounded",
    "swapped",
    "b",
    "sorted",
    "product",
];

/// Names of tensors at an inserted node; what follows is the quantizer's too.
const TENSOR_ENDINGS: [&str; 4] =
    ["_QuantizeLinear_Input", "_QuantizeLinear_Output", "_DequantizeLinear_Input", "_DequantizeLinear_Output"];

/// Endings that quantizers and profiles add to the name of a tensor.
const ENDINGS: [&str; 7] =
    ["_QuantizeLinear", "_DequantizeLinear", "_QuantizeInput", "_quantized", "_quant", "_integer", "_fixed"];

/// The name of the tensor that a quantizer took.
pub fn plain_name(name: &str) -> &str {
    let cut = TENSOR_ENDINGS.iter().filter_map(|s| name.find(s)).min();
    let mut name = &name[..cut.unwrap_or(name.len())];
    while let Some(shorter) = ENDINGS.iter().find_map(|e| name.strip_suffix(e)).filter(|s| !s.is_empty()) {
        name = shorter;
    }
    name
}

/// A net with what matching needs to know of it.
struct Side<'a> {
    net: &'a Net,
    readers: Vec<Vec<NodeId>>,
    synthetic: Vec<bool>,
}

impl<'a> Side<'a> {
    fn new(net: &'a Net) -> Self {
        let mut readers = vec![vec![]; net.nodes().len()];
        for id in net.ids() {
            for argument in net.node(id).arguments() {
                readers[argument.0].push(id);
            }
        }
        let names: std::collections::HashSet<&str> = net.nodes().iter().map(|n| n.name.as_str()).collect();
        let marked = |base: &str, rest: &str| {
            names.contains(base) && SYNTHETIC.contains(&rest.split('_').next().unwrap_or(rest))
        };
        let is_synthetic = |n: &Node| n.name.match_indices('_').any(|(at, _)| marked(&n.name[..at], &n.name[at + 1..]));
        Side { net, readers, synthetic: net.nodes().iter().map(is_synthetic).collect() }
    }

    fn node(&self, id: NodeId) -> &Node {
        self.net.node(id)
    }

    fn only_reader(&self, id: NodeId) -> Option<NodeId> {
        match self.readers[id.0][..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Values that a model's author would know, with their plain names, in order.
    fn named(&self) -> Vec<(&str, NodeId)> {
        let constant = |id: NodeId| matches!(&self.node(id).op, Op::Move(m) if m.sources.is_empty());
        let known = |id: &NodeId| !self.synthetic[id.0] && !constant(*id);
        self.net.ids().filter(known).map(|id| (plain_name(&self.node(id).name), id)).collect()
    }

    /// The results of the layers with weights, in order.
    fn layers(&self) -> Vec<NodeId> {
        let weighty = |id: &NodeId| match &self.node(*id).op {
            Op::Affine(a) => a.terms.iter().any(|t| matches!(t.1, LinearMap::Dense(_) | LinearMap::Conv(_))),
            _ => false,
        };
        self.net.ids().filter(weighty).map(|id| self.result(id)).collect()
    }

    /// What a layer gives the next: its accumulator after the pieces that lowering made of it, the addition of a bias, a scale for each
    /// element (as of a batch normalization), and quantization.
    fn result(&self, mut id: NodeId) -> NodeId {
        while let Some(next) = self.only_reader(id).filter(|_| self.node(id).quantization.is_none()) {
            let same_layer = match &self.node(next).op {
                Op::Affine(a) => matches!(a.terms[..], [(_, LinearMap::Diagonal { .. })]),
                Op::Pointwise(_) => self.node(next).quantization.is_some(),
                _ => false,
            };
            if !same_layer && !self.synthetic[id.0] {
                break;
            }
            id = next;
        }
        id
    }

    fn never_negative(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let zero =
            node.quantization.as_ref().map_or(0.0, |q| q.zero_point.data.iter().copied().max().unwrap_or(0) as f64);
        node.range.0 >= zero
    }

    /// The activation that follows, if it is the only reader and cannot be negative.
    fn activation(&self, id: NodeId) -> Option<NodeId> {
        let next = self.only_reader(id)?;
        (matches!(self.node(next).op, Op::Pointwise(_)) && self.never_negative(next)).then_some(next)
    }

    /// Whether values are in real units: not bare integers of unknown scale.
    fn real(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.grid != Grid::Integer || node.quantization.is_some()
    }
}

/// The pairs of corresponding values, in the order of the first net, and how they were found.
pub fn matched(a: &Net, b: &Net) -> (Vec<Pair>, Matching) {
    let (a, b) = (Side::new(a), Side::new(b));
    let named = by_name(&a, &b);
    let (layers_a, layers_b) = (a.layers(), b.layers());
    let found_a = layers_a.iter().filter(|l| named.iter().any(|p| p.a == **l)).count();
    let found_b = layers_b.iter().filter(|l| named.iter().any(|p| p.b == **l)).count();
    if 2 * found_a.max(found_b) >= layers_a.len().min(layers_b.len()) {
        return (named, Matching::Names);
    }
    let ordered = layers_a.iter().zip(&layers_b).filter_map(|(&i, &j)| aligned(&a, &b, i, j)).collect();
    (ordered, Matching::Order)
}

fn by_name(a: &Side<'_>, b: &Side<'_>) -> Vec<Pair> {
    let (names_a, names_b) = (a.named(), b.named());
    let mut groups_b: std::collections::HashMap<&str, Vec<NodeId>> = std::collections::HashMap::new();
    names_b.iter().for_each(|(name, id)| groups_b.entry(name).or_default().push(*id));
    let mut seen = std::collections::HashSet::new();
    let mut pairs = vec![];
    for &(name, _) in names_a.iter().filter(|(name, _)| seen.insert(*name)) {
        let Some(group_b) = groups_b.get(name) else { continue };
        let group_a: Vec<NodeId> = names_a.iter().filter(|n| n.0 == name).map(|n| n.1).collect();
        if group_a.len() == group_b.len() {
            pairs.extend(group_a.iter().zip(group_b).filter_map(|(&i, &j)| aligned(a, b, i, j)));
        } else {
            pairs.extend(aligned(a, b, representative(a, &group_a), representative(b, group_b)));
        }
    }
    pairs.sort_by_key(|p| p.a);
    pairs.dedup();
    pairs
}

/// The quantized one among values of the same tensor, or the first.
fn representative(side: &Side<'_>, group: &[NodeId]) -> NodeId {
    group.iter().copied().find(|&id| side.node(id).quantization.is_some()).unwrap_or(group[0])
}

/// The pair, if it can be compared. Where only one of them has its Relu in it, the other's Relu is taken.
fn aligned(a: &Side<'_>, b: &Side<'_>, i: NodeId, j: NodeId) -> Option<Pair> {
    let pair = match (a.never_negative(i), b.never_negative(j)) {
        (true, false) => Pair { a: i, b: b.activation(j).unwrap_or(j) },
        (false, true) => Pair { a: a.activation(i).unwrap_or(i), b: j },
        _ => Pair { a: i, b: j },
    };
    let same_size = a.node(pair.a).len() == b.node(pair.b).len();
    (same_size && a.real(pair.a) == b.real(pair.b)).then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn endings_of_quantizers_are_taken_off() {
        for (name, plain) in [
            ("h0_QuantizeLinear_Output", "h0"),
            ("h0_DequantizeLinear_Output_integer", "h0"),
            ("/fc1/Gemm_output_0_quantized", "/fc1/Gemm_output_0"),
            ("x_fixed", "x"),
            ("_quantized", "_quantized"),
            ("conv", "conv"),
        ] {
            assert_eq!(plain_name(name), plain);
        }
    }
}
