//! How benchmarks measure.

use std::time::{Duration, Instant};

/// Of the seconds of calls, at least five and for as long as given, the one that a `part`-th of them does not exceed: 2 for the median; 10 where others of the
/// machine disturb.
pub fn seconds(part: usize, time: Duration, mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut times) = (Instant::now(), vec![]);
    while start.elapsed() < time || times.len() < 5 {
        let before = Instant::now();
        call();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / part]
}
