//! Latencies of calls.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Verdict;

/// Longest latency that the histogram can hold, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;

/// Significant decimal digits of a latency in the histogram.
const DIGITS: u8 = 3;

/// Latencies and refusals of the calls that one load core sends.
pub(super) struct Recorder {
    good_responses: Histogram<u64>,
    refused: u64,
}

impl Recorder {
    /// An empty recorder.
    ///
    /// # Errors
    /// Never in practice: the bounds of the histogram are valid.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { good_responses: Histogram::new_with_bounds(1, LONGEST, DIGITS)?, refused: 0 })
    }

    pub(super) fn record(&mut self, verdict: Verdict, latency: Duration) {
        if verdict == Verdict::Good {
            self.good_responses
                .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST));
        } else {
            self.refused += 1;
        }
    }

    /// Moves the recorded values out at the end of the load. Takes `&mut self` because the recorder
    /// is behind a mutex. The recorder must not be used afterwards: `refused` is not reset.
    pub(super) fn take(&mut self) -> Self {
        let empty = Histogram::new_from(&self.good_responses);
        Self {
            good_responses: std::mem::replace(&mut self.good_responses, empty),
            refused: self.refused,
        }
    }
}

/// Latencies and refusals of the calls that all load cores send.
pub struct Latencies {
    /// Latencies of the good responses ([`Verdict::Good`]), in nanoseconds.
    good_responses: Option<Histogram<u64>>,
    /// Number of calls that the server refused or the client cancelled.
    pub refused: u64,
    /// Length of the measurement.
    pub duration: Duration,
}

impl Latencies {
    pub(super) fn new(duration: Duration) -> Self {
        Self { good_responses: None, refused: 0, duration }
    }

    pub(super) fn add(&mut self, recorder: &Recorder) {
        self.refused += recorder.refused;
        match &mut self.good_responses {
            // Adding cannot fail, because both histograms have the same bounds.
            Some(all_latencies) => drop(all_latencies.add(&recorder.good_responses)),
            None => self.good_responses = Some(recorder.good_responses.clone()),
        }
    }

    /// Number of calls with a good response.
    pub fn good_calls(&self) -> u64 {
        self.good_responses.as_ref().map_or(0, Histogram::len)
    }

    /// Good responses per second.
    pub fn per_second(&self) -> f64 {
        crate::to_f64(self.good_calls()) / self.duration.as_secs_f64()
    }

    /// Latency at this quantile of the good responses, in microseconds.
    pub fn micros_at(&self, quantile: f64) -> f64 {
        let nanos = self
            .good_responses
            .as_ref()
            .map_or(0, |latencies| latencies.value_at_quantile(quantile));
        crate::to_f64(nanos) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_include_only_good_responses() {
        let mut latencies = Latencies::new(Duration::from_secs(2));
        for core in 0..2 {
            let mut recorder = Recorder::new().expect("the bounds are valid");
            for micros in 1..=500 {
                recorder.record(Verdict::Good, Duration::from_micros(core * 500 + micros));
            }
            recorder.record(Verdict::Refused(Duration::ZERO), Duration::from_secs(1));
            latencies.add(&recorder);
        }
        // Two cores: 500 good responses and one refusal each, in two seconds.
        assert_eq!((latencies.good_calls(), latencies.refused), (1000, 2));
        assert!((latencies.per_second() - 500.0).abs() < 1e-9);
        for (quantile, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let actual = latencies.micros_at(quantile);
            assert!((actual / micros - 1.0).abs() < 0.002, "{quantile}: {actual}");
        }
    }
}
