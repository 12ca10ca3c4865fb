//! Metrics of the change feed.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use super::state::State;

#[derive(Default)]
pub(super) struct Metrics {
    reads: Family<ReadLabels, Counter>,
    changes: Counter,
    changes_without_wake_up: Counter,
    lapses: Counter,
    pub(super) trimmed: Counter,
    pub(super) subscribed: Gauge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReadLabels {
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names of the variants are the values of the label")]
enum Outcome {
    ok,
    failed,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, lag: Lag) -> Self {
        let metrics = Self::default();
        let reads = "Reads of the change feed";
        registry.register("tenantry_feed_reads", reads, metrics.reads.clone());
        for outcome in [Outcome::ok, Outcome::failed] {
            drop(metrics.reads.get_or_create(&ReadLabels { outcome }));
        }
        let changes = "Changes read from the change feed";
        registry.register("tenantry_feed_changes", changes, metrics.changes.clone());
        let gap = "Changes found by polling, before a wake-up arrived";
        registry.register(
            "tenantry_invalidation_gap",
            gap,
            metrics.changes_without_wake_up.clone(),
        );
        let lapses = "Times that the in-memory caches could not answer because the feed was late";
        registry.register("tenantry_feed_lapses", lapses, metrics.lapses.clone());
        let trimmed = "Old changes that this replica deleted from the change feed";
        registry.register("tenantry_feed_changes_trimmed", trimmed, metrics.trimmed.clone());
        let subscribed = "Whether this replica receives wake-ups through Redis: 1 or 0";
        registry.register("tenantry_feed_subscribed", subscribed, metrics.subscribed.clone());
        registry.register_collector(Box::new(lag));
        metrics
    }

    /// Records a successful read of `changes` changes. `was_woken` is false when the read followed
    /// a full pause instead of a wake-up.
    pub(super) fn record_read(&self, changes: u64, was_woken: bool) {
        self.reads.get_or_create(&ReadLabels { outcome: Outcome::ok }).inc();
        self.changes.inc_by(changes);
        if !was_woken {
            self.changes_without_wake_up.inc_by(changes);
        }
    }

    /// Records that a read was late: for some time before the read ended, the caches were not fresh
    /// enough for decisions.
    pub(super) fn record_lapse(&self) {
        self.lapses.inc();
    }

    pub(super) fn record_failure(&self) {
        self.reads.get_or_create(&ReadLabels { outcome: Outcome::failed }).inc();
    }
}

/// The lag gauge, computed at each scrape.
pub(super) struct Lag(pub(super) Arc<State>);

impl fmt::Debug for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lag").field(&self.0.lag()).finish()
    }
}

impl Collector for Lag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds since the last successful read of the change feed began";
        let lag = ConstGauge::new(self.0.lag().as_secs_f64());
        lag.encode(encoder.encode_descriptor(
            "tenantry_feed_lag_seconds",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}
