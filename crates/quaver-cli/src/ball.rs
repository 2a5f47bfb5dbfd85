//! What the commands about balls around inputs share: radii, rows, times, and work that is shown in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::num::Ratio;

use crate::session::fail;

/// A radius and how it was written.
#[derive(Clone)]
pub struct Radius {
    pub text: String,
    value: Ratio,
    /// Whether it counts steps of an integer input.
    steps: bool,
}

impl Radius {
    /// The radius in the real units of a model's input.
    pub fn value(&self, lowered: &Lowered) -> Result<Ratio> {
        if !self.steps {
            return Ok(self.value.clone());
        }
        let node = lowered.net.node(lowered.net.inputs()[0]);
        if lowered.input_types[0].integer_range().is_none() {
            let problem = format!("--radius {}: input `{}` is not an integer", self.text, node.name);
            return Err(fail(problem, "give the radius in the input's real units, such as 4/255"));
        }
        let scale = node.quantization.as_ref().and_then(|q| Ratio::from_f64(*q.scale.at(0)));
        Ok(scale.map_or(self.value.clone(), |s| self.value.times(&s)))
    }
}

impl FromStr for Radius {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let number = text.strip_suffix("steps").or(text.strip_suffix("step")).map(str::trim);
        let value: Ratio = number.unwrap_or(text).parse().map_err(|e: quaver::num::ParseRatioError| e.to_string())?;
        if value.is_negative() {
            return Err(format!("`{text}` is negative: write a radius from 0 up"));
        }
        Ok(Radius { text: text.into(), value, steps: number.is_some() })
    }
}

/// Some rows in a row.
#[derive(Clone)]
pub struct Rows(Range<usize>);

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |_| format!("`{text}` is not a row or a range of rows: write 7 or 0..100");
        let (first, end) = match text.split_once("..") {
            Some((first, end)) => (first.parse().map_err(bad)?, end.parse().map_err(bad)?),
            None => text.parse().map(|i: usize| (i, i.saturating_add(1))).map_err(bad)?,
        };
        if first < end {
            Ok(Rows(first..end))
        } else {
            Err(format!("`{text}` is empty: the end must be above the start"))
        }
    }
}

/// A time in seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let value: Ratio = text.parse().map_err(|e: quaver::num::ParseRatioError| e.to_string())?;
    Duration::try_from_secs_f64(value.approx()).map_err(|_| format!("`{text}` is not a time: write seconds from 0 up"))
}

/// A step of a grid.
pub fn step(text: &str) -> Result<Ratio, String> {
    let step: Ratio = text.parse().map_err(|e: quaver::num::ParseRatioError| e.to_string())?;
    let is_positive = !step.is_zero() && !step.is_negative();
    is_positive.then_some(step).ok_or_else(|| format!("`{text}` is no step: write a number above 0"))
}

/// A range, such as 0,1.
pub fn clip(text: &str) -> Result<(Ratio, Ratio), String> {
    let parts = text.split_once(',').ok_or_else(|| format!("`{text}` is not two numbers: write for example 0,1"))?;
    let number = |t: &str| t.parse::<Ratio>().map_err(|e| e.to_string());
    let (lo, hi) = (number(parts.0)?, number(parts.1)?);
    if hi.minus(&lo).is_negative() {
        return Err(format!("`{text}` is empty: the first number must not be above the second"));
    }
    Ok((lo, hi))
}

/// The rows that were asked for; all of them where none were named.
pub fn rows(indices: &[Rows], count: usize, path: &Path) -> Result<Vec<usize>> {
    if indices.is_empty() {
        return Ok((0..count).collect());
    }
    let last = indices.iter().map(|r| r.0.end).max().unwrap_or(0);
    if last > count {
        let problem = format!("--indices names row {}, and {} has {} rows", last - 1, path.display(), count);
        return Err(fail(problem, format!("rows are counted from 0: use rows up to {}", count - 1)));
    }
    Ok(indices.iter().flat_map(|r| r.0.clone()).collect())
}

/// Does the work on all threads, the first first, and shows the results in order. Stops at the first error.
pub fn in_order<T: Send>(
    count: usize,
    work: impl Fn(usize) -> T + Sync,
    mut show: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let (work, next, stop) = (&work, &next, &stop);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            rayon::broadcast(|_| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count || stop.load(Ordering::Relaxed) || send.send((i, work(i))).is_err() {
                        break;
                    }
                }
            })
        });
        let (mut early, mut due) = (BTreeMap::new(), 0);
        for (i, result) in receive {
            early.insert(i, result);
            while let Some(result) = early.remove(&due) {
                show(due, result).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                due += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_shown_in_order() {
        let mut seen = vec![];
        let done = in_order(100, |i| i * i, |i, square| (seen.push((i, square)), Ok(())).1);
        assert!(done.is_ok());
        assert_eq!(seen, (0..100).map(|i| (i, i * i)).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let done = in_order(100, |i| i, |i, _| if i == 7 { Err(fail("seven", "")) } else { Ok(()) });
        assert!(done.is_err());
    }

    #[test]
    fn arguments_are_parsed_or_refused() {
        assert!(
            "4/255".parse::<Radius>().is_ok()
                && "1 step".parse::<Radius>().is_ok_and(|r| r.steps)
                && "-1".parse::<Radius>().is_err()
                && "x".parse::<Radius>().is_err()
        );
        assert_eq!("3..7".parse::<Rows>().map(|r| r.0), Ok(3..7));
        assert_eq!("3".parse::<Rows>().map(|r| r.0), Ok(3..4));
        assert!("7..3".parse::<Rows>().is_err() && "a..b".parse::<Rows>().is_err());
        assert!(seconds("1/2").is_ok_and(|d| d == Duration::from_millis(500)) && seconds("-1").is_err());
        assert!(clip("-1,1").is_ok() && clip("1,0").is_err() && clip("0").is_err());
    }
}
