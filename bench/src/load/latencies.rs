//! Latencies of calls.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Verdict;

/// Longest latency that the histogram distinguishes, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;

/// Significant decimal digits of a latency in the histogram.
const DIGITS: u8 = 3;

/// Results of the calls of one core.
pub(super) struct Recorder {
    good: Histogram<u64>,
    refused: u64,
}

impl Recorder {
    /// An empty recorder.
    ///
    /// # Errors
    /// Never in practice: the bounds of the histogram are valid.
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

    /// Returns the recorded values and resets the recorder.
    pub(super) fn take(&mut self) -> Self {
        let empty = Histogram::new_from(&self.good);
        Self { good: std::mem::replace(&mut self.good, empty), refused: self.refused }
    }
}

/// Results of the calls of all cores.
pub struct Latencies {
    /// Latencies of the good answers, in nanoseconds.
    good: Option<Histogram<u64>>,
    /// Number of refused calls.
    pub refused: u64,
    /// Length of the measurement.
    pub span: Duration,
}

impl Latencies {
    pub(super) fn new(span: Duration) -> Self {
        Self { good: None, refused: 0, span }
    }

    pub(super) fn add(&mut self, recorder: &Recorder) {
        self.refused += recorder.refused;
        match &mut self.good {
            // Adding cannot fail, because both histograms have the same bounds.
            Some(all) => drop(all.add(&recorder.good)),
            None => self.good = Some(recorder.good.clone()),
        }
    }

    /// Number of good answers.
    pub fn calls(&self) -> u64 {
        self.good.as_ref().map_or(0, Histogram::len)
    }

    /// Good answers per second.
    pub fn per_second(&self) -> f64 {
        crate::number(self.calls()) / self.span.as_secs_f64()
    }

    /// Latency, in microseconds, within which this share of the good calls was answered.
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
        let mut latencies = Latencies::new(Duration::from_secs(2));
        for core in 0..2 {
            let mut recorder = Recorder::new().expect("bounds");
            for micros in 1..=500 {
                recorder.record(Verdict::Good, Duration::from_micros(core * 500 + micros));
            }
            recorder.record(Verdict::Refused(Duration::ZERO), Duration::from_secs(1));
            latencies.add(&recorder);
        }
        assert_eq!((latencies.calls(), latencies.refused), (1000, 2));
        assert!((latencies.per_second() - 500.0).abs() < 1e-9);
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let actual = latencies.micros_at(share);
            assert!((actual / micros - 1.0).abs() < 0.002, "{share}: {actual}");
        }
    }
}
