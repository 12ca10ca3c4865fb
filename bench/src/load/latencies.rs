//! How long calls took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Verdict;

/// The longest time that is told apart, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;

/// The digits of a time that are kept.
const DIGITS: u8 = 3;

/// What one core's calls took.
pub(super) struct Recorder {
    good: Histogram<u64>,
    refused: u64,
}

impl Recorder {
    /// With nothing in it.
    ///
    /// # Errors
    /// Never in practice: the bounds are good.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { good: Histogram::new_with_bounds(1, LONGEST, DIGITS)?, refused: 0 })
    }

    pub(super) fn record(&mut self, verdict: Verdict, took: Duration) {
        if verdict == Verdict::Good {
            self.good.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
        } else {
            self.refused += 1;
        }
    }

    /// Takes the recorded values, and leaves it empty.
    pub(super) fn take(&mut self) -> Self {
        let empty = Histogram::new_from(&self.good);
        Self { good: std::mem::replace(&mut self.good, empty), refused: self.refused }
    }
}

/// What all calls took.
pub struct Latencies {
    /// The good ones' times, in nanoseconds.
    good: Option<Histogram<u64>>,
    /// How many were refused.
    pub refused: u64,
    /// Over what time.
    pub span: Duration,
}

impl Latencies {
    pub(super) fn new(span: Duration) -> Self {
        Self { good: None, refused: 0, span }
    }

    pub(super) fn add(&mut self, recorder: &Recorder) {
        self.refused += recorder.refused;
        match &mut self.good {
            // The same bounds hold the same values.
            Some(all) => drop(all.add(&recorder.good)),
            None => self.good = Some(recorder.good.clone()),
        }
    }

    /// How many calls got a good answer.
    pub fn calls(&self) -> u64 {
        self.good.as_ref().map_or(0, Histogram::len)
    }

    /// Good answers a second.
    pub fn per_second(&self) -> f64 {
        crate::number(self.calls()) / self.span.as_secs_f64()
    }

    /// The time within which this share of the calls was answered, in microseconds.
    pub fn micros_at(&self, share: f64) -> f64 {
        let nanos = self.good.as_ref().map_or(0, |good| good.value_at_quantile(share));
        crate::number(nanos) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_good_answers() {
        let mut taken = Latencies::new(Duration::from_secs(2));
        for core in 0..2 {
            let mut recorder = Recorder::new().expect("bounds");
            for micros in 1..=500 {
                recorder.record(Verdict::Good, Duration::from_micros(core * 500 + micros));
            }
            recorder.record(Verdict::Refused(Duration::ZERO), Duration::from_secs(1));
            taken.add(&recorder);
        }
        assert_eq!((taken.calls(), taken.refused), (1000, 2));
        assert!((taken.per_second() - 500.0).abs() < 1e-9);
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = taken.micros_at(share);
            assert!((found / micros - 1.0).abs() < 0.002, "{share}: {found}");
        }
    }
}
