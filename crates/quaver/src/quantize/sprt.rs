//! The sequential probability ratio test of backdoor freeness.

/// A parameter that gives the test no meaning.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what}\n  what to do: {cure}")]
pub struct SprtError {
    what: String,
    cure: &'static str,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// H0: the share of batches that succeed is at least p0, so no trigger has the success rate theta.
    Accept,
    /// H1: it is at most p1.
    Reject,
}

/// Wald's test of H0: p >= p0 = 1 - theta^K + delta against H1: p <= p1 = 1 - theta^K - delta, where p is the probability that in a batch of K
/// random inputs at least one is proved safe from every trigger.
///
/// # Source
/// Quadapter, section 4.2, algorithm 2, lines 2, 9 and 23; Agha and Palmskog, A survey of statistical model checking (2018). Line 23 as printed
/// has `<=` where it must be `>=`.
#[derive(Clone, Debug)]
pub struct Sprt {
    p0: f64,
    p1: f64,
    /// ln(rho / (1 - sigma)): accept at or below.
    accept: f64,
    /// ln((1 - rho) / sigma): reject at or above.
    reject: f64,
    batches: u64,
    successes: u64,
}

impl Sprt {
    /// A test for triggers with success rate `theta` and batches of `k` inputs, with errors `sigma` (type I) and `rho` (type II) and `delta`,
    /// half of the width of the region of indifference.
    ///
    /// # Errors
    /// If a probability is not between 0 and 1, or the errors together are not below 1.
    pub fn new(theta: f64, k: u32, sigma: f64, rho: f64, delta: f64) -> Result<Sprt, SprtError> {
        let inside = |p: f64| p > 0.0 && p < 1.0;
        let refused = |what: String, cure| Err(SprtError { what, cure });
        if k == 0 || !inside(theta) {
            return refused(
                format!("{k} inputs a batch, success rate {theta}"),
                "give at least one input, and a rate between 0 and 1",
            );
        }
        if !inside(sigma) || !inside(rho) || sigma + rho >= 1.0 {
            return refused(format!("errors {sigma} and {rho}"), "give two errors above 0 that are below 1 together");
        }
        let middle = 1.0 - theta.powf(f64::from(k));
        let (p0, p1) = (middle + delta, middle - delta);
        if !inside(p0) || !inside(p1) || p0 <= p1 {
            let cure = "give a half-width above 0 that leaves both probabilities between 0 and 1";
            return refused(format!("half-width {delta} gives the probabilities {p0} and {p1}"), cure);
        }
        let (accept, reject) = ((rho / (1.0 - sigma)).ln(), ((1.0 - rho) / sigma).ln());
        Ok(Sprt { p0, p1, accept, reject, batches: 0, successes: 0 })
    }

    /// Counts a batch; the end of the test, if it has come: (p1/p0)^z ((1-p1)/(1-p0))^(n-z) against both limits, in logarithms.
    pub fn tell(&mut self, success: bool) -> Option<Decision> {
        self.batches += 1;
        self.successes += u64::from(success);
        let (z, rest) = (self.successes as f64, (self.batches - self.successes) as f64);
        let ratio = z * (self.p1 / self.p0).ln() + rest * ((1.0 - self.p1) / (1.0 - self.p0)).ln();
        match () {
            () if ratio <= self.accept => Some(Decision::Accept),
            () if ratio >= self.reject => Some(Decision::Reject),
            () => None,
        }
    }

    /// Batches that were counted.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Those that succeeded.
    pub fn successes(&self) -> u64 {
        self.successes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p0 = 0.45951, p1 = 0.35951: ln(p1/p0) = -0.24541 and ln(0.05/0.95) = -2.94444, so 12 successes reach it and 11 do not;
    /// ln((1-p1)/(1-p0)) = 0.16983, so 18 failures reach 2.94444 and 17 do not.
    #[test]
    fn ends_as_by_hand() {
        for (success, count, end) in [(true, 12, Decision::Accept), (false, 18, Decision::Reject)] {
            let mut test = Sprt::new(0.9, 5, 0.05, 0.05, 0.05).unwrap();
            let ends: Vec<_> = (0..count).map(|_| test.tell(success)).collect();
            assert!(ends[..count - 1].iter().all(Option::is_none));
            assert_eq!(ends[count - 1], Some(end));
            assert_eq!(test.batches(), count as u64);
        }
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for (theta, k, sigma, rho, delta) in [
            (0.0, 5, 0.05, 0.05, 0.05),
            (1.0, 5, 0.05, 0.05, 0.05),
            (0.9, 0, 0.05, 0.05, 0.05),
            (0.9, 5, 0.0, 0.05, 0.05),
            (0.9, 5, 0.5, 0.5, 0.05),
            (0.9, 5, 0.05, 0.05, 0.0),
            (0.9, 5, 0.05, 0.05, -0.1),
            (0.9, 5, 0.05, 0.05, 0.5),
            (f64::NAN, 5, 0.05, 0.05, 0.05),
            (0.9, 5, 0.05, 0.05, f64::NAN),
        ] {
            assert!(Sprt::new(theta, k, sigma, rho, delta).is_err(), "{theta} {k} {sigma} {rho} {delta}");
        }
    }
}
