//! Cases of a query to parts: each case is a box and a polyhedron, and cases of one box are one part.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::boxes::{End, Interval, Rounded, middle};
use super::merge::{self, Layout};
use super::rows::Row;
use super::{Part, SpecError};
use crate::model::lower::Lowered;
use crate::num::Ratio;
use crate::num::round::{add_down, sub_up};
use crate::property::{Constraint, Polyhedron, Query, Region};
use crate::vnnlib::{Relation, Spec};

/// Most input elements of all parts together.
const CORNERS: usize = 1 << 26;
/// Rounds of deriving bounds from constraints on several inputs.
const ROUNDS: usize = 4;
/// Variables of one constraint that bounds are derived for in one round.
const TARGETS: usize = 8;

/// The parts of a query.
pub(super) fn parts(spec: &Spec, nets: &[Arc<Lowered>], rows: &[Row]) -> Result<Vec<Part>, SpecError> {
    let mut grouping = Grouping {
        spec,
        nets,
        rows,
        settings: vec![],
        known: HashMap::new(),
        groups: vec![],
        found: HashMap::new(),
        possible: 0,
    };
    for case in &spec.cases {
        grouping.add(case)?;
    }
    grouping.finish()
}

/// What holds in every case with the same equated inputs.
struct Setting {
    layout: Arc<Layout>,
    /// For each variable.
    base: Vec<Interval>,
    rounded: Vec<Option<Rounded>>,
    /// Variables without both bounds.
    open: Vec<usize>,
    constraints: Vec<Linear>,
    /// Whether nothing satisfies it.
    empty: bool,
}

/// A row on variables: outputs first, then free inputs.
#[derive(Clone)]
struct Linear {
    terms: Vec<(usize, Ratio)>,
    relation: Relation,
    bound: Ratio,
}

/// What a row is in a layout.
enum Meaning {
    Truth(bool),
    Bound(usize, Interval),
    Row(Linear),
}

/// Cases with one box.
struct Group {
    setting: usize,
    /// Variables whose bounds are not the setting's.
    changed: BTreeMap<usize, Rounded>,
    polyhedra: Vec<Vec<Linear>>,
    cases: Vec<usize>,
}

/// Changed bounds, and a polyhedron.
type Case = (BTreeMap<usize, Rounded>, Vec<Linear>);

/// A setting and the bits of the changed bounds.
type Key = (usize, Vec<(usize, [u64; 4])>, String);

struct Grouping<'a> {
    spec: &'a Spec,
    nets: &'a [Arc<Lowered>],
    rows: &'a [Row],
    settings: Vec<Setting>,
    /// Settings by the equations of their cases.
    known: HashMap<Vec<u32>, usize>,
    groups: Vec<Group>,
    found: HashMap<Key, usize>,
    /// Cases whose bounds some input satisfies.
    possible: usize,
}

impl Grouping<'_> {
    fn add(&mut self, case: &[u32]) -> Result<(), SpecError> {
        let equations: Vec<u32> = case.iter().copied().filter(|&i| equated(&self.rows[i as usize]).is_some()).collect();
        let setting = self.setting(equations)?;
        let Some((changed, polyhedron)) = self.settings[setting].case(self, case)? else { return Ok(()) };
        let bits = |(lo, hi): (f64, f64)| [lo.to_bits(), hi.to_bits()];
        let ends = |r: &Rounded| {
            let ([a, b], [c, d]) = (bits(r.region), bits(r.inside));
            [a, b, c, d]
        };
        let between = changed.iter().filter(|c| c.1.between.is_some()).map(|c| format!("{c:?}")).collect();
        let key = (setting, changed.iter().map(|(v, r)| (*v, ends(r))).collect(), between);
        let next = self.groups.len();
        let index = *self.found.entry(key).or_insert(next);
        if index == next {
            self.groups.push(Group { setting, changed, polyhedra: vec![], cases: vec![] });
        }
        self.groups[index].polyhedra.push(polyhedron);
        self.groups[index].cases.push(self.possible);
        self.possible += 1;
        Ok(())
    }

    fn setting(&mut self, equations: Vec<u32>) -> Result<usize, SpecError> {
        if let Some(&index) = self.known.get(&equations) {
            return Ok(index);
        }
        let setting = Setting::new(self, &equations)?;
        self.settings.push(setting);
        self.known.insert(equations, self.settings.len() - 1);
        Ok(self.settings.len() - 1)
    }

    /// `X_f[2]`: how the query writes an element of a free variable.
    fn name(&self, layout: &Layout, variable: usize) -> String {
        let mut global = layout.free_of.iter().position(|&v| v == variable).unwrap_or(0);
        for (network, declared) in self.spec.networks.iter().enumerate() {
            for (tensor, t) in declared.inputs.iter().enumerate() {
                if global < t.len() {
                    let side = crate::vnnlib::Side::Input;
                    return self.spec.shown(crate::vnnlib::Variable { network, side, tensor, element: global });
                }
                global -= t.len();
            }
        }
        "an input".into()
    }

    fn finish(self) -> Result<Vec<Part>, SpecError> {
        let size = |b: &Group| self.settings[b.setting].base.len();
        if self.groups.iter().map(size).fold(0usize, usize::saturating_add) > CORNERS {
            let problem = format!("the query has {} boxes of many inputs", self.groups.len());
            return Err(SpecError::new(problem, "split the query into several files"));
        }
        let with_inputs = |s: usize| {
            let outputs = self.settings[s].layout.outputs;
            let all = self.groups.iter().filter(|b| b.setting == s).flat_map(|b| b.polyhedra.iter().flatten());
            all.flat_map(|l| &l.terms).any(|t| t.0 >= outputs)
        };
        let used = |s: usize| self.groups.iter().any(|b| b.setting == s);
        let net = |(s, setting): (usize, &Setting)| -> Result<Option<Arc<Lowered>>, SpecError> {
            if !used(s) {
                return Ok(None);
            }
            let with_inputs = with_inputs(s);
            if merge::is_single(self.nets, &setting.layout, with_inputs) {
                return Ok(Some(self.nets[0].clone()));
            }
            Ok(Some(Arc::new(merge::merged(self.nets, &setting.layout, with_inputs)?)))
        };
        let nets = self.settings.iter().enumerate().map(net).collect::<Result<Vec<_>, _>>()?;
        let part = |b: &Group| {
            let lowered = nets[b.setting].clone().unwrap_or_else(|| self.nets[0].clone());
            self.settings[b.setting].part(b, lowered)
        };
        Ok(self.groups.iter().map(part).collect())
    }
}

/// Two inputs that a row equates.
fn equated(row: &Row) -> Option<(usize, usize)> {
    let opposite = |a: &crate::vnnlib::Decimal, b| a.is_unit() && *a == crate::vnnlib::Decimal::negated(b);
    match (&row.inputs[..], &row.outputs[..], row.relation) {
        ([(x, a), (y, b)], [], Relation::Equal) if opposite(a, b) && row.bound.is_zero() => Some((*x, *y)),
        _ => None,
    }
}

impl Setting {
    fn new(grouping: &Grouping, equations: &[u32]) -> Result<Setting, SpecError> {
        let always = &grouping.spec.always;
        let pairs = always.iter().chain(equations).filter_map(|&i| equated(&grouping.rows[i as usize]));
        let layout = Arc::new(Layout::new(grouping.nets, pairs)?);
        let integers = |r: (i64, i64)| {
            let end = |n: i64| Some(End { value: crate::vnnlib::Decimal::from_int(n).ratio(), strict: false });
            Interval { lo: end(r.0), hi: end(r.1) }
        };
        let base =
            layout.elements.iter().map(|e| e.dtype.integer_range().map_or(Interval::default(), integers)).collect();
        let mut setting = Setting { layout, base, rounded: vec![], open: vec![], constraints: vec![], empty: false };
        for &i in always {
            match setting.meaning(&grouping.rows[i as usize]) {
                Meaning::Truth(holds) => setting.empty |= !holds,
                Meaning::Bound(variable, interval) => setting.base[variable].meet(&interval),
                Meaning::Row(row) => setting.constraints.push(row),
            }
        }
        let rounded = |(i, e): (&Interval, _)| i.rounded(e);
        setting.rounded = setting.base.iter().zip(setting.layout.elements.iter().copied()).map(rounded).collect();
        setting.open = (0..setting.base.len()).filter(|&v| !setting.base[v].is_bounded()).collect();
        let closed = |v: &usize| setting.base[*v].is_bounded() && setting.rounded[*v].is_none();
        setting.empty |= (0..setting.base.len()).any(|v| closed(&v));
        Ok(setting)
    }

    fn meaning(&self, row: &Row) -> Meaning {
        let mut inputs: BTreeMap<usize, Ratio> = BTreeMap::new();
        for (element, a) in &row.inputs {
            let (variable, a) = (self.layout.free_of[*element], a.ratio());
            inputs.entry(variable).and_modify(|sum| *sum = sum.plus(&a)).or_insert(a);
        }
        inputs.retain(|_, a| !a.is_zero());
        let bound = row.bound.ratio();
        if row.outputs.is_empty() {
            let mut only = inputs.iter();
            match (only.next(), only.next()) {
                (None, _) => return Meaning::Truth(holds(row.relation, &bound)),
                (Some((&variable, a)), None) => return Meaning::Bound(variable, half_line(a, row.relation, &bound)),
                _ => {}
            }
        }
        let outputs = row.outputs.iter().map(|(i, a)| (*i, a.ratio()));
        let inputs = inputs.into_iter().map(|(v, a)| (self.layout.outputs + v, a));
        Meaning::Row(Linear { terms: outputs.chain(inputs).collect(), relation: row.relation, bound })
    }

    /// The box and the polyhedron of a case; `None` if no input satisfies its bounds.
    fn case(&self, grouping: &Grouping, case: &[u32]) -> Result<Option<Case>, SpecError> {
        let mut changed: BTreeMap<usize, Interval> = BTreeMap::new();
        let mut polyhedron = self.constraints.clone();
        let mut possible = !self.empty;
        for &i in case {
            match self.meaning(&grouping.rows[i as usize]) {
                Meaning::Truth(holds) => possible &= holds,
                Meaning::Bound(v, interval) => changed.entry(v).or_insert_with(|| self.base[v].clone()).meet(&interval),
                Meaning::Row(row) => polyhedron.push(row),
            }
        }
        if !possible || changed.values().any(Interval::is_empty) {
            return Ok(None);
        }
        self.close(&mut changed, &polyhedron);
        let bounded = |v: &usize| changed.get(v).unwrap_or(&self.base[*v]).is_bounded();
        if let Some(&v) = self.open.iter().find(|v| !bounded(v)) {
            let interval = changed.get(&v).unwrap_or(&self.base[v]);
            let side = if interval.lo.is_none() { "lower" } else { "upper" };
            let problem = format!("input `{}` has no {side} bound", grouping.name(&self.layout, v));
            return Err(SpecError::new(
                problem,
                "bound every input from both sides: (assert (>= X 0.0)) and (assert (<= X 1.0))",
            ));
        }
        let mut rounded = BTreeMap::new();
        for (v, interval) in changed {
            match interval.rounded(self.layout.elements[v]) {
                Some(r) if self.rounded[v].as_ref() == Some(&r) => {}
                Some(r) => drop(rounded.insert(v, r)),
                None => return Ok(None),
            }
        }
        let infinite = |r: &&Rounded| !(r.region.0.is_finite() && r.region.1.is_finite());
        if rounded.values().chain(self.rounded.iter().flatten()).any(|r| infinite(&r)) {
            return Err(SpecError::new("a bound of an input is beyond every f64", "write smaller bounds"));
        }
        Ok(Some((rounded, polyhedron)))
    }

    /// Derives missing bounds from rows on inputs alone.
    fn close(&self, changed: &mut BTreeMap<usize, Interval>, rows: &[Linear]) {
        if self.open.iter().all(|v| changed.get(v).is_some_and(Interval::is_bounded)) {
            return;
        }
        let outputs = self.layout.outputs;
        let on_inputs: Vec<&Linear> = rows.iter().filter(|r| r.terms.iter().all(|t| t.0 >= outputs)).collect();
        for _ in 0..ROUNDS {
            for row in &on_inputs {
                let bounds = |v: usize| changed.get(&v).unwrap_or(&self.base[v]);
                let other = (row.relation == Relation::Equal).then(|| row.negated());
                let both = std::iter::once(*row).chain(&other);
                let derived: Vec<(usize, Interval)> = both.flat_map(|r| r.missing(outputs, bounds)).collect();
                for (v, interval) in derived {
                    changed.entry(v).or_insert_with(|| self.base[v].clone()).meet(&interval);
                }
            }
        }
    }

    fn part(&self, b: &Group, lowered: Arc<Lowered>) -> Part {
        let n = self.base.len();
        let at = |v: usize| b.changed.get(&v).or(self.rounded[v].as_ref());
        // Local invariant: a case without bounds was refused.
        let rounded: Vec<&Rounded> = (0..n).filter_map(at).collect();
        let region = |of: fn(&Rounded) -> (f64, f64)| {
            let (lo, hi) = rounded.iter().map(|r| of(r)).unzip();
            Region { lo, hi }
        };
        let center = rounded.iter().zip(&self.layout.elements).map(|(r, &e)| middle(r.inside, e)).collect();
        let between = (0..n).filter_map(|v| rounded[v].between.clone().map(|exact| (v, exact))).collect();
        let query = Query {
            region: region(|r| r.region),
            inside: Some(region(|r| r.inside)),
            candidates: vec![center],
            forbidden: b
                .polyhedra
                .iter()
                .map(|rows| Polyhedron::new(rows.iter().flat_map(Linear::constraints).collect()))
                .collect(),
        };
        Part { lowered, query, cases: b.cases.clone(), layout: self.layout.clone(), between }
    }
}

fn holds(relation: Relation, bound: &Ratio) -> bool {
    match relation {
        Relation::LessEqual => !bound.is_negative(),
        Relation::Less => !bound.is_negative() && !bound.is_zero(),
        Relation::Equal => bound.is_zero(),
    }
}

/// Where a x (relation) bound.
fn half_line(a: &Ratio, relation: Relation, bound: &Ratio) -> Interval {
    let end = Some(End { value: bound.over(a), strict: relation == Relation::Less });
    match (relation, a.is_negative()) {
        (Relation::Equal, _) => Interval { lo: end.clone(), hi: end },
        (_, false) => Interval { lo: None, hi: end },
        (_, true) => Interval { lo: end, hi: None },
    }
}

impl Linear {
    fn negated(&self) -> Linear {
        let terms = self.terms.iter().map(|(i, a)| (*i, a.negated())).collect();
        Linear { terms, relation: self.relation, bound: self.bound.negated() }
    }

    fn constraints(&self) -> Vec<Constraint> {
        let of = |l: &Linear| Constraint {
            terms: l.terms.clone(),
            bound: l.bound.clone(),
            strict: l.relation == Relation::Less,
        };
        match self.relation {
            Relation::Equal => vec![of(self), of(&self.negated())],
            Relation::LessEqual | Relation::Less => vec![of(self)],
        }
    }

    /// Bounds that sum <= bound implies for variables that have none on the side that matters.
    ///
    /// # Rounding
    /// The sum of the other terms is rounded down, the rest up: a derived bound is not below the exact one.
    fn missing<'b>(&self, outputs: usize, bounds: impl Fn(usize) -> &'b Interval) -> Vec<(usize, Interval)> {
        let least = |(i, a): &(usize, Ratio)| {
            let interval = bounds(*i - outputs);
            let end = if a.is_negative() { &interval.hi } else { &interval.lo };
            end.as_ref().map(|end| end.value.times(a).f64_down())
        };
        let unbounded = self.terms.iter().filter(|t| {
            let interval = bounds(t.0 - outputs);
            if t.1.is_negative() { interval.lo.is_none() } else { interval.hi.is_none() }
        });
        let derive = |target: &(usize, Ratio)| {
            let others = self.terms.iter().filter(|t| t.0 != target.0);
            let sum = others.map(least).try_fold(0.0, |sum, term| Some(add_down(sum, term?)))?;
            let room = sub_up(self.bound.f64_up(), sum);
            Some((target.0 - outputs, half_line(&target.1, Relation::LessEqual, &Ratio::from_f64(room)?)))
        };
        unbounded.take(TARGETS).filter_map(derive).collect()
    }
}
