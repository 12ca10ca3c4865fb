//! Latencies and results of the calls.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use prost::Message;
use prost_types::FileDescriptorSet;
use serde::Serialize;

/// Longest latency that is recorded, in microseconds.
const LONGEST: u64 = 120_000_000;

/// Results of the calls of one method.
#[derive(Clone, Default, Serialize)]
pub struct Counts {
    pub succeeded: u64,
    /// Attempts that were repeated.
    pub repeated: u64,
    pub failed: u64,
}

pub struct Meter(Mutex<State>);

struct State {
    /// Latencies of the current interval, in microseconds.
    latencies: Histogram<u64>,
    methods: BTreeMap<String, Counts>,
    /// How often each text of a failure or of a repetition occurred.
    failures: BTreeMap<String, u64>,
}

/// Latencies of one interval.
pub struct Latencies(Histogram<u64>);

impl Meter {
    /// An empty meter. Its methods are all methods of the service.
    ///
    /// # Errors
    /// Never in practice: the descriptors and the bounds of the histogram are valid.
    pub fn new() -> anyhow::Result<Self> {
        let mut methods = BTreeMap::new();
        for file in FileDescriptorSet::decode(tenantry::proto::DESCRIPTORS)?.file {
            if file.package() == "tenantry.v1" {
                let names = file.service.into_iter().flat_map(|service| service.method);
                methods.extend(names.map(|method| (method.name().to_owned(), Counts::default())));
            }
        }
        // Values have three significant digits.
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self(Mutex::new(State { latencies, methods, failures: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn succeeded(&self, method: &str, latency: Duration) {
        let mut state = self.lock();
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        state.latencies.saturating_record(micros);
        state.methods.entry(method.to_owned()).or_default().succeeded += 1;
    }

    /// Records a call that failed, after all repetitions.
    pub fn failed(&self, method: &str, why: &str) {
        let mut state = self.lock();
        state.methods.entry(method.to_owned()).or_default().failed += 1;
        *state.failures.entry(format!("failed {method}: {why}")).or_default() += 1;
    }

    /// Records an attempt that is repeated.
    pub fn repeated(&self, method: &str, why: &str) {
        let mut state = self.lock();
        state.methods.entry(method.to_owned()).or_default().repeated += 1;
        *state.failures.entry(format!("repeated {method}: {why}")).or_default() += 1;
    }

    /// The latencies since the last call of this function.
    pub fn take_latencies(&self) -> Latencies {
        let mut state = self.lock();
        let empty = Histogram::new_from(&state.latencies);
        Latencies(std::mem::replace(&mut state.latencies, empty))
    }

    pub fn methods(&self) -> BTreeMap<String, Counts> {
        self.lock().methods.clone()
    }

    /// How often each text of a failure or of a repetition occurred.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.lock().failures.clone()
    }
}

impl Latencies {
    /// Number of calls.
    pub fn calls(&self) -> u64 {
        self.0.len()
    }

    /// Latency at this quantile, in milliseconds.
    pub fn millis_at(&self, quantile: f64) -> f64 {
        super::to_f64(self.0.value_at_quantile(quantile)) / 1000.0
    }
}
