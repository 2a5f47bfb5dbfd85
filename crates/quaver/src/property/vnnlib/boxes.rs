//! Boxes of inputs: exact bounds, then corners on the input's grid.

use crate::model::ir::DType;
use crate::net::Grid;
use crate::num::Ratio;
use crate::vnnlib::Decimal;

/// A bound and whether equality is outside.
#[derive(Clone, Debug)]
pub(in crate::property) struct End {
    pub value: Ratio,
    pub strict: bool,
}

/// Exact bounds of one input element.
#[derive(Clone, Debug, Default)]
pub(in crate::property) struct Interval {
    pub lo: Option<End>,
    pub hi: Option<End>,
}

fn below(a: &Ratio, b: &Ratio) -> bool {
    a.minus(b).is_negative()
}

impl Interval {
    /// Takes a lower bound, if it is tighter.
    pub fn raise(&mut self, end: End) {
        let tighter = |old: &End| below(&old.value, &end.value) || (end.strict && !below(&end.value, &old.value));
        if self.lo.as_ref().is_none_or(tighter) {
            self.lo = Some(end);
        }
    }

    /// Takes an upper bound, if it is tighter.
    pub fn lower(&mut self, end: End) {
        let tighter = |old: &End| below(&end.value, &old.value) || (end.strict && !below(&old.value, &end.value));
        if self.hi.as_ref().is_none_or(tighter) {
            self.hi = Some(end);
        }
    }

    /// Takes the bounds of another.
    pub fn meet(&mut self, other: &Interval) {
        other.lo.iter().for_each(|end| self.raise(end.clone()));
        other.hi.iter().for_each(|end| self.lower(end.clone()));
    }

    /// Whether no real number is inside.
    pub fn is_empty(&self) -> bool {
        let (Some(lo), Some(hi)) = (&self.lo, &self.hi) else { return false };
        below(&hi.value, &lo.value) || ((lo.strict || hi.strict) && !below(&lo.value, &hi.value))
    }

    /// Whether both ends are there.
    pub fn is_bounded(&self) -> bool {
        self.lo.is_some() && self.hi.is_some()
    }
}

/// What an input element can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::property) struct Element {
    pub grid: Grid,
    pub dtype: DType,
}

/// Bounds of one element as a region has them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::property) struct Rounded {
    /// A proof covers these.
    pub region: (f64, f64),
    /// A witness is taken from these.
    pub inside: (f64, f64),
    /// Where no float is inside: the value that is meant, if it can be written.
    pub between: Option<Option<Decimal>>,
}

impl Interval {
    /// The interval on an element's grid; `None` if it has no point there.
    ///
    /// # Claim
    /// Every number of the grid inside the interval is in `region`, and every number of `inside` is in the interval unless `between` is set.
    pub fn rounded(&self, element: Element) -> Option<Rounded> {
        let (lo, hi) = (self.lo.as_ref()?, self.hi.as_ref()?);
        if self.is_empty() {
            return None;
        }
        let exactly =
            |ends: (f64, f64)| (ends.0 <= ends.1).then_some(Rounded { region: ends, inside: ends, between: None });
        match element.grid {
            Grid::Integer => exactly(integers(lo, hi, element.dtype)),
            Grid::Float32 => exactly(singles(lo, hi)),
            Grid::Real => Some(reals(lo, hi, element.dtype)),
        }
    }
}

fn integers(lo: &End, hi: &End, dtype: DType) -> (f64, f64) {
    let as_f64 = |n: num_bigint::BigInt| num_traits::ToPrimitive::to_f64(&n).unwrap_or(f64::NAN);
    let whole =
        |end: &End| end.value.minus(&Ratio::from_f64(as_f64(end.value.floor())).unwrap_or(end.value.clone())).is_zero();
    let step = |end: &End| if end.strict && whole(end) { 1.0 } else { 0.0 };
    let (least, most) = dtype.integer_range().map_or((f64::MIN, f64::MAX), |r| (r.0 as f64, r.1 as f64));
    ((as_f64(lo.value.ceil()) + step(lo)).max(least), (as_f64(hi.value.floor()) - step(hi)).min(most))
}

/// The outermost float32 values inside; the first above the second if there are none.
fn singles(lo: &End, hi: &End) -> (f64, f64) {
    let up = |end: &End| {
        let x = end.value.ceil_f32();
        let next = if end.strict && is(end, x.into()) { x.next_up() } else { x };
        // Above the largest float32 there is none.
        if below(&exact(f32::MAX.into()), &end.value) { f64::INFINITY } else { f64::from(next) }
    };
    let mirrored = End { value: hi.value.negated(), strict: hi.strict };
    (up(lo), 0.0 - up(&mirrored))
}

fn reals(lo: &End, hi: &End, dtype: DType) -> Rounded {
    let region = (lo.value.f64_down(), hi.value.f64_up());
    if dtype == DType::F32 {
        let inside = singles(lo, hi);
        if inside.0 <= inside.1 {
            return Rounded { region, inside, between: None };
        }
    }
    let first = |end: &End| {
        let x = end.value.f64_up();
        if end.strict && is(end, x) { x.next_up() } else { x }
    };
    let mirrored = End { value: hi.value.negated(), strict: hi.strict };
    let inside = (first(lo), 0.0 - first(&mirrored));
    if inside.0 <= inside.1 {
        return Rounded { region, inside, between: None };
    }
    let middle = lo.value.plus(&hi.value).times(&exact(0.5));
    let inside = (middle.f64_down(), middle.f64_up());
    Rounded { region, inside, between: Some(Decimal::from_ratio(&middle)) }
}

fn exact(x: f64) -> Ratio {
    Ratio::from_f64(x).unwrap_or_else(|| unreachable!("{x} is finite"))
}

fn is(end: &End, x: f64) -> bool {
    Ratio::from_f64(x).is_some_and(|x| x.minus(&end.value).is_zero())
}

/// A point of the grid near the middle.
pub(in crate::property) fn middle((lo, hi): (f64, f64), element: Element) -> f64 {
    let middle = lo + (hi - lo) / 2.0;
    let near = match element.grid {
        Grid::Integer => middle.floor(),
        Grid::Float32 | Grid::Real => f64::from(middle as f32),
    };
    near.clamp(lo, hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str, strict: bool) -> Option<End> {
        Some(End { value: text.parse().expect("a number"), strict })
    }

    fn rounded(lo: Option<End>, hi: Option<End>, grid: Grid, dtype: DType) -> Option<Rounded> {
        Interval { lo, hi }.rounded(Element { grid, dtype })
    }

    #[test]
    fn corners_are_next_to_exact_bounds() {
        // 17 digits and 17 places: the quotient of the rounded parts is up to two units away.
        for i in 0..2000u64 {
            let text = format!("0.{:017}", i.wrapping_mul(44_488_033_652_305_603) % 100_000_000_000_000_000);
            let r: Ratio = text.parse().expect("a number");
            let (lo, hi) = (r.f64_down(), r.f64_up());
            assert!(!below(&r, &exact(lo)) && !below(&exact(hi), &r), "{text}");
            assert!(lo == hi || lo.next_up() == hi, "{text}");
        }
    }

    #[test]
    fn integers_are_inside() {
        let of = |lo, hi| rounded(lo, hi, Grid::Integer, DType::U8).map(|r| r.region);
        assert_eq!(of(end("-3", false), end("7/2", false)), Some((0.0, 3.0)));
        assert_eq!(of(end("1", true), end("3", true)), Some((2.0, 2.0)));
        assert_eq!(of(end("1", true), end("2", true)), None);
        assert_eq!(of(end("250", false), end("1e30", false)), Some((250.0, 255.0)));
    }

    #[test]
    fn a_decimal_between_floats_is_kept() {
        let tenth = rounded(end("0.1", false), end("0.1", false), Grid::Real, DType::F32).expect("a point");
        assert!(tenth.region.0 < tenth.region.1);
        assert_eq!(tenth.between, Some(Decimal::parse("0.1")));
        let third = rounded(end("1/3", false), end("1/3", false), Grid::Real, DType::F32).expect("a point");
        assert_eq!(third.between, Some(None));
        let single = rounded(end("0.1", false), end("0.1", false), Grid::Float32, DType::F32);
        assert_eq!(single, None, "no float32 is 0.1");
    }
}
