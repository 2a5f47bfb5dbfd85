//! Assertions as a disjunction of conjunctions.

use super::Constraint;
use super::error::Fault;
use super::linear::{self, Comparison};
use super::scope::Scope;
use super::tree::{Kind, Node};

/// Most cases of a query.
pub(super) const CASES: usize = 1 << 17;
/// Most constraints of all cases together.
pub(super) const ENTRIES: usize = 1 << 24;

/// Which constraints hold in each case.
type Cases = Vec<Vec<u32>>;

/// The assertions so far.
#[derive(Debug)]
pub(super) struct Assertions {
    pub constraints: Vec<Constraint>,
    pub always: Vec<u32>,
    pub cases: Cases,
}

impl Assertions {
    pub fn new() -> Self {
        Assertions { constraints: vec![], always: vec![], cases: vec![vec![]] }
    }

    /// Adds what stands in an `(assert ...)`.
    pub fn assert(&mut self, scope: &Scope, items: &[Node], at: usize) -> Result<(), Fault> {
        let mut found = match items {
            [one] => self.formula(scope, one)?,
            _ => {
                let cure = "write (assert (<= X[0] 0.5)); put several formulas in (and ...)";
                return Err(Fault::new(at, "an assertion holds one formula", cure));
            }
        };
        if let [_] = found[..] {
            self.always.append(&mut found[0]);
        } else {
            self.cases = both(std::mem::take(&mut self.cases), found, at)?;
        }
        Ok(())
    }

    fn formula(&mut self, scope: &Scope, node: &Node) -> Result<Cases, Fault> {
        let Kind::List { items, .. } = &node.kind else {
            let cure = "write a comparison such as (<= X[0] 0.5)";
            return Err(Fault::new(node.at, format!("{} is no formula", node.shown()), cure));
        };
        match items.first().and_then(Node::word) {
            Some("and") => items[1..].iter().try_fold(vec![vec![]], |cases, part| {
                let part = self.formula(scope, part)?;
                both(cases, part, node.at)
            }),
            Some("or") => items[1..].iter().try_fold(vec![], |cases: Cases, part| {
                let part = self.formula(scope, part)?;
                either(cases, part, node.at)
            }),
            Some(word) if linear::is_comparison(word) => {
                let chain = linear::prefix(scope, word, &items[1..], node.at)?;
                Ok(self.chain(chain))
            }
            _ => {
                let chain = linear::infix(scope, items, node.at)?;
                Ok(self.chain(chain))
            }
        }
    }

    fn chain(&mut self, chain: linear::Chain) -> Cases {
        let any = chain.any;
        let links: Vec<Cases> = chain.links.into_iter().map(|link| self.link(link)).collect();
        if any {
            links.concat()
        } else if links.iter().any(Vec::is_empty) {
            vec![]
        } else {
            vec![links.into_iter().flatten().flatten().collect()]
        }
    }

    fn link(&mut self, link: Comparison) -> Cases {
        match link {
            Comparison::Always(true) => vec![vec![]],
            Comparison::Always(false) => vec![],
            Comparison::Constraint(constraint) => {
                self.constraints.push(constraint);
                vec![vec![self.constraints.len() as u32 - 1]]
            }
        }
    }
}

fn entries(cases: &Cases) -> usize {
    cases.iter().map(Vec::len).sum()
}

fn limited(cases: usize, entries: usize, at: usize) -> Result<(), Fault> {
    if cases > CASES || entries > ENTRIES {
        let problem = format!("more than {CASES} cases, or {ENTRIES} constraints in all cases together");
        return Err(Fault::new(at, problem, "split the query into several files"));
    }
    Ok(())
}

fn either(mut a: Cases, mut b: Cases, at: usize) -> Result<Cases, Fault> {
    limited(a.len() + b.len(), 0, at)?;
    a.append(&mut b);
    Ok(a)
}

/// Every pair of a case of each.
fn both(mut a: Cases, b: Cases, at: usize) -> Result<Cases, Fault> {
    if let ([one], [other]) = (&mut a[..], &b[..]) {
        one.extend(other);
        return Ok(a);
    }
    let grown = entries(&a).saturating_mul(b.len()).saturating_add(entries(&b).saturating_mul(a.len()));
    limited(a.len().saturating_mul(b.len()), grown, at)?;
    let pairs = a.iter().flat_map(|x| b.iter().map(move |y| [&x[..], &y[..]].concat()));
    Ok(pairs.collect())
}
