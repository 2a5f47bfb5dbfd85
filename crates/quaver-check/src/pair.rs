//! Two networks with the same input as one, whose output is both outputs in a row.

use crate::net::{Net, Op, Value};

#[cfg(test)]
mod tests;

/// The network of two.
///
/// # Claim
/// Its output, for an input, is the first network's output for it, and then the second's. Twins are functions of as many elements each; nothing else is
/// true of them.
///
/// # Errors
/// If the inputs have other sizes.
pub fn merged(first: Net, second: Net) -> Result<Net, String> {
    let input = first.values[first.input].clone();
    if input.len() != second.values[second.input].len() {
        let (n, m) = (input.len(), second.values[second.input].len());
        return Err(format!("the inputs of the two networks have {n} and {m} elements"));
    }
    let (pairs, outputs) = (twins(&first, &second), [first.output, second.output]);
    let mut net = Net { values: vec![input], ..Net::default() };
    let mut copies = [first, second].map(|n| Copy { input: n.input, values: n.values.into_iter(), numbers: vec![] });
    for pair in pairs {
        let [a, b] = [0, 1].map(|k| copies[k].up_to(&mut net, pair[k]));
        net.twins.push([a, b]);
    }
    copies.iter_mut().for_each(|copy| while copy.next(&mut net) {});
    let outputs: Vec<usize> = [0, 1].map(|k| copies[k].numbers[outputs[k]]).into();
    let integer = outputs.iter().all(|&id| net.values[id].integer);
    let shape = vec![outputs.iter().map(|&id| net.values[id].len()).sum()];
    net.values.push(Value { name: "outputs".into(), shape, op: Op::Row(outputs), integer });
    net.output = net.values.len() - 1;
    Ok(net)
}

/// A network on its way into another one.
struct Copy {
    input: usize,
    values: std::vec::IntoIter<Value>,
    /// The new numbers of the values so far.
    numbers: Vec<usize>,
}

impl Copy {
    /// Adds values up to one; its new number.
    fn up_to(&mut self, net: &mut Net, last: usize) -> usize {
        while self.numbers.len() <= last && self.next(net) {}
        self.numbers[last]
    }

    /// Adds the next value; false if there is none.
    fn next(&mut self, net: &mut Net) -> bool {
        let Some(mut value) = self.values.next() else { return false };
        if self.numbers.len() == self.input {
            self.numbers.push(net.input);
            return true;
        }
        value.op.renumber(|id| self.numbers[id]);
        net.values.push(value);
        self.numbers.push(net.values.len() - 1);
        true
    }
}

/// A longest common subsequence of the functions of two networks, which are alike if they have as many elements.
fn twins(a: &Net, b: &Net) -> Vec<[usize; 2]> {
    let (f, g) = (a.functions(), b.functions());
    let alike = |i: usize, j: usize| a.values[f[i]].len() == b.values[g[j]].len();
    // Its length for the functions from i and j on.
    let mut longest = vec![vec![0; g.len() + 1]; f.len() + 1];
    for i in (0..f.len()).rev() {
        for j in (0..g.len()).rev() {
            let both = if alike(i, j) { 1 + longest[i + 1][j + 1] } else { 0 };
            longest[i][j] = both.max(longest[i + 1][j]).max(longest[i][j + 1]);
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, vec![]);
    while i < f.len() && j < g.len() {
        if alike(i, j) && longest[i][j] == 1 + longest[i + 1][j + 1] {
            pairs.push([f[i], g[j]]);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
