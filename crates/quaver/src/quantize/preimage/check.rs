//! Whether everything in a set of one layer is mapped into what the next layer must satisfy: a network with one hidden layer says it.

use super::chain::{Layer, add_affine, add_relu, dense};
use super::goal::Goal;
use super::template::Template;
use crate::bounds::{Analysis, Prepared, analyse, lower_bounds};
use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::{Net, Node, NodeId, Weights};
use crate::num::Ratio;
use crate::num::round::{add_down, mul_down, sub_down};
use crate::property::{Constraint, Polyhedron, Query, Region};
use crate::quantize::QuantizeError;
use crate::verify::{NotAClassifier, Options as Verification, Verdict, Verifier};

/// Where lower lines are chosen, one after the other while a row is not proved (see [`crate::bounds::relax`]).
const PLACES: [f64; 3] = [0.5, 0.0, 1.0];

/// Conditions weights . relu(z) + skip . x + constant >= 0 (or > 0) on the neurons z of a layer and the input x.
#[derive(Debug)]
pub(super) struct Rows {
    /// One for each neuron, row-major.
    pub weights: Vec<f64>,
    /// Coefficients on the input, row-major, if there are any.
    pub skip: Option<Weights>,
    pub constants: Vec<f64>,
    pub may_touch: Vec<bool>,
    /// Rows of which one is enough: those before each end, after the end before it.
    pub ends: Vec<usize>,
}

impl Rows {
    /// The next layer's neurons are in its set.
    ///
    /// # Claim
    /// If all rows hold for (x, z), the next layer's value W relu(z) + b is, with x, in the set of `template` with these sides.
    ///
    /// # Rounding
    /// Only the constants, the difference of a side and a bias, which are rounded down.
    pub fn into_set(layer: &Layer, template: &Template, sides: &[f64]) -> Rows {
        let n = layer.outputs();
        let (w, lines) = (layer.weights.exact(), template.lines.exact());
        let (upper, lower) = lines.split_at(lines.len() / 2);
        let above = sides[..n].iter().zip(&layer.bias).map(|(side, b)| sub_down(*side, *b));
        let below = sides[n..].iter().zip(&layer.bias).map(|(side, b)| sub_down(*b, *side));
        Rows {
            weights: w.iter().map(|w| -w).chain(w.iter().copied()).collect(),
            skip: Some(Weights::new(upper.iter().copied().chain(lower.iter().map(|c| -c)).collect())),
            constants: above.chain(below).collect(),
            may_touch: vec![true; 2 * n],
            ends: (1..=2 * n).collect(),
        }
    }

    /// The output meets the goals.
    ///
    /// # Claim
    /// If for each goal one row holds for z, the output W relu(z) + b meets that row's functional.
    ///
    /// # Rounding
    /// Weights and constants are sums of products, rounded down. For the weights that is valid because relu(z) >= 0.
    pub fn into_goals(layer: &Layer, goals: &[Goal]) -> Rows {
        let mut rows = Rows { weights: vec![], skip: None, constants: vec![], may_touch: vec![], ends: vec![] };
        let sum = |c: &[f64], of: &dyn Fn(usize) -> f64, start: f64| {
            c.iter().enumerate().filter(|(_, c)| **c != 0.0).fold(start, |s, (k, c)| add_down(s, mul_down(*c, of(k))))
        };
        for goal in goals {
            for f in &goal.functionals {
                let c = &f.coefficients;
                rows.weights.extend((0..layer.inputs).map(|j| sum(c, &|k| layer.row(k)[j], 0.0)));
                rows.constants.push(sum(c, &|k| layer.bias[k], -f.bound));
                rows.may_touch.push(f.may_touch);
            }
            rows.ends.push(rows.constants.len());
        }
        rows
    }

    /// Whether a proved lower bound of a row's left side shows that it holds. What is not a number does not.
    pub fn holds(&self, row: usize, least: f64) -> bool {
        least > 0.0 || (self.may_touch[row] && least >= 0.0)
    }
}

/// The rows for everything in the set of a layer, at any scaling of its template.
///
/// # Claim
/// If a row of [`Self::net`] is >= 0 (> 0) for every x of the region, the row holds for every x of the region and every z with (x, z) in the
/// template's set.
///
/// # Why
/// relu does not decrease, so w relu(z_j) >= w relu(L_j(x) - a_j) where w >= 0 and w relu(z_j) >= w relu(U_j(x) + b_j) where w <= 0, for each j.
/// The net computes
/// the sum of these right sides, exactly.
pub(super) struct Check<'c> {
    input: &'c Node,
    template: &'c Template,
    pub rows: &'c Rows,
    /// Each weight on the side that it takes: upper sides first.
    sided: Weights,
}

impl<'c> Check<'c> {
    pub fn new(input: &'c Node, template: &'c Template, rows: &'c Rows) -> Self {
        let n = template.neurons();
        let mut sided = vec![0.0; 2 * rows.weights.len()];
        for (sided, weights) in sided.chunks_mut(2 * n).zip(rows.weights.chunks(n)) {
            for (j, w) in weights.iter().enumerate() {
                sided[if *w < 0.0 { j } else { n + j }] = *w;
            }
        }
        Check { input, template, rows, sided: Weights::new(sided) }
    }

    /// The net whose outputs are some rows.
    fn net(&self, chi: f64, rows: &[usize]) -> (Net, NodeId) {
        let (mut net, sides) = (Net::new(), self.template.sides(chi));
        let (inputs, n, count) = (self.input.len(), sides.len(), rows.len());
        let part =
            |w: &Weights, n: usize| Weights::new(rows.iter().flat_map(|r| &w.exact()[r * n..][..n]).copied().collect());
        let x = net.add(self.input.clone());
        let z = add_affine(&mut net, vec![(x, dense(&self.template.lines, inputs, n))], sides);
        let relu = add_relu(&mut net, z);
        let mut terms = vec![(relu, dense(&part(&self.sided, n), n, count))];
        terms.extend(self.rows.skip.as_ref().map(|skip| (x, dense(&part(skip, inputs), inputs, count))));
        let output = add_affine(&mut net, terms, rows.iter().map(|r| self.rows.constants[*r]).collect());
        net.set_outputs(vec![output]);
        (net, output)
    }

    fn lowered(&self, chi: f64, rows: &[usize]) -> Lowered {
        let (net, _) = self.net(chi, rows);
        Lowered { profile: "real".into(), ..Lowered::merged(net, &[], DType::F32, DType::F32) }
    }

    /// Which of some rows linear bounds prove.
    pub fn by_bounds(&self, chi: f64, region: &Region, rows: &[usize]) -> Vec<bool> {
        if rows.is_empty() {
            return vec![];
        }
        let (net, output) = self.net(chi, rows);
        let units = units(rows.len());
        let units: Vec<&[f64]> = units.chunks(rows.len()).collect();
        proved(&net, output, region, &units, |k, least| self.rows.holds(rows[k], least))
    }

    /// Whether a row is proved by all means; if not, maybe an input that violates it.
    pub fn exactly(
        &self,
        chi: f64,
        region: &Region,
        row: usize,
        verification: &Verification,
    ) -> Result<(bool, Option<Vec<f64>>), QuantizeError> {
        let lowered = self.lowered(chi, &[row]);
        let number = |x: f64| Ratio::from_f64(x).unwrap_or_else(|| unreachable!("0 and 1 are numbers"));
        let violated =
            Constraint { terms: vec![(0, number(1.0))], bound: number(0.0), strict: self.rows.may_touch[row] };
        let forbidden = vec![Polyhedron::new(vec![violated])];
        let query = Query { region: region.clone(), inside: None, candidates: vec![], forbidden };
        let verdict = Verifier::new(&lowered).and_then(|v| v.decide(&query, verification)).map_err(unfit)?;
        Ok(match verdict {
            Verdict::Holds(_) => (true, None),
            Verdict::Violated(witness) => (false, Some(witness.input().to_vec())),
            Verdict::Undecided(_) => (false, None),
        })
    }

    /// The smallest chi at which a row is violated at some inputs that are likely to, at most `chi`; a hint.
    pub fn likely_limit(&self, mut chi: f64, region: &Region, row: usize, start: Option<&[f64]>) -> f64 {
        let centre = || region.lo.iter().zip(&region.hi).map(|(l, h)| 0.5 * (l + h)).collect();
        let mut x: Vec<f64> = start.map_or_else(centre, <[f64]>::to_vec);
        for _ in 0..ROUNDS {
            let values = self.lines_at(&x);
            chi = self.root(row, chi, &values, &x);
            let gradient = self.gradient(row, chi, &values);
            let end = |(g, (l, h)): (&f64, (&f64, &f64))| if *g > 0.0 { *l } else { *h };
            let next: Vec<f64> = gradient.iter().zip(region.lo.iter().zip(&region.hi)).map(end).collect();
            if next == x {
                break;
            }
            x = next;
        }
        self.root(row, chi, &self.lines_at(&x), &x)
    }

    /// All U_j(x) and L_j(x) at chi = 0, in plain f64.
    fn lines_at(&self, x: &[f64]) -> Vec<f64> {
        let lines = self.template.lines.exact().chunks(x.len()).zip(&self.template.constants);
        lines.map(|(c, k)| k + c.iter().zip(x).map(|(c, x)| c * x).sum::<f64>()).collect()
    }

    /// How much chi moves a side.
    fn reach(&self, side: usize) -> f64 {
        let n = self.template.neurons();
        if side < n { self.template.half[side] } else { -self.template.half[side - n] }
    }

    fn sided(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let n = 2 * self.template.neurons();
        self.sided.exact()[row * n..][..n].iter().copied().enumerate().filter(|(_, w)| *w != 0.0)
    }

    /// The largest chi up to a limit at which a row holds at an input, in plain f64.
    fn root(&self, row: usize, limit: f64, values: &[f64], x: &[f64]) -> f64 {
        let skip = self
            .rows
            .skip
            .as_ref()
            .map_or(0.0, |s| s.exact()[row * x.len()..][..x.len()].iter().zip(x).map(|(c, x)| c * x).sum::<f64>());
        let at = |chi: f64| {
            let sum: f64 = self.sided(row).map(|(j, w)| w * (values[j] + self.reach(j) * chi).max(0.0)).sum();
            sum + skip + self.rows.constants[row]
        };
        if at(limit) >= 0.0 {
            return limit;
        }
        let (mut lo, mut hi) = (0.0, limit);
        for _ in 0..BISECTIONS {
            let middle = 0.5 * (lo + hi);
            if at(middle) >= 0.0 { lo = middle } else { hi = middle }
        }
        hi
    }

    fn gradient(&self, row: usize, chi: f64, values: &[f64]) -> Vec<f64> {
        let inputs = self.input.len();
        let mut gradient = match &self.rows.skip {
            Some(skip) => skip.exact()[row * inputs..][..inputs].to_vec(),
            None => vec![0.0; inputs],
        };
        for (j, w) in self.sided(row).filter(|&(j, _)| values[j] + self.reach(j) * chi > 0.0) {
            let line = &self.template.lines.exact()[j * inputs..][..inputs];
            gradient.iter_mut().zip(line).for_each(|(g, c)| *g += w * c);
        }
        gradient
    }
}

/// Steps of [`Check::likely_limit`] and halvings of [`Check::root`].
const ROUNDS: usize = 6;
const BISECTIONS: usize = 40;

/// The rows of an identity matrix.
pub(super) fn units(n: usize) -> Vec<f64> {
    (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect()
}

fn unfit(error: NotAClassifier) -> QuantizeError {
    QuantizeError::new("a set", error.to_string(), "give a region of the model's input")
}

/// Which functionals of a value linear bounds prove, where `is_enough` judges a proved lower bound on each.
///
/// # Claim
/// For every functional that is reported, `is_enough` holds for a number that is not above the functional on any input of the region.
pub(super) fn proved(
    net: &Net,
    from: NodeId,
    region: &Region,
    functionals: &[&[f64]],
    is_enough: impl Fn(usize, f64) -> bool,
) -> Vec<bool> {
    let prepared = Prepared::new(net);
    let mut done = vec![false; functionals.len()];
    let Some(mut analysis) = analyse(&prepared, region) else { return done };
    for place in PLACES {
        let open: Vec<usize> = (0..done.len()).filter(|&k| !done[k]).collect();
        if open.is_empty() {
            break;
        }
        if place != PLACES[0] {
            analysis.choose_lines(&prepared, place);
        }
        let bounds = bounds_of(&prepared, &analysis, from, open.iter().map(|&k| functionals[k]));
        open.iter().zip(bounds).for_each(|(&k, least)| done[k] = is_enough(k, least));
    }
    done
}

fn bounds_of<'f>(
    prepared: &Prepared,
    analysis: &Analysis,
    from: NodeId,
    functionals: impl Iterator<Item = &'f [f64]>,
) -> Vec<f64> {
    let rows: Vec<f64> = functionals.flatten().copied().collect();
    let count = rows.len() / prepared.net.node(from).len().max(1);
    lower_bounds(prepared, analysis, from, rows, count)
}
