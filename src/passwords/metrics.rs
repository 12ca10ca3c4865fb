//! Metrics of the hashing queue.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{queue::QueueFull, stored_hash::UnreadableHash};
use crate::telemetry::BUCKETS;

pub(super) struct Metrics {
    waits: Family<WaitLabel, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabel, Counter>,
    unreadable_hashes: Family<UnreadableLabel, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct WaitLabel {
    class: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabel {
    by: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct UnreadableLabel {
    cause: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            waits: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            refusals: Family::default(),
            unreadable_hashes: Family::default(),
        };
        for class in ["cheap", "expensive"] {
            drop(metrics.waits.get_or_create(&WaitLabel { class }));
        }
        for by in
            [QueueFull::Total, QueueFull::TenantShare, QueueFull::NetworkShare].map(limit_label)
        {
            drop(metrics.refusals.get_or_create(&RefusalLabel { by }));
        }
        for cause in [UnreadableHash::Format, UnreadableHash::Pepper].map(cause_label) {
            drop(metrics.unreadable_hashes.get_or_create(&UnreadableLabel { cause }));
        }
        metrics
    }
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Time that passwords waited for a hashing thread";
        let name = "tenantry_hashing_wait";
        registry.register_with_unit(name, help, Unit::Seconds, self.waits.clone());
        let help = "Passwords refused a slot in the hashing queue";
        registry.register("tenantry_hashing_refused", help, self.refusals.clone());
        let help = "Comparisons with a stored password hash that could not be read";
        registry.register(
            "tenantry_password_hashes_unreadable",
            help,
            self.unreadable_hashes.clone(),
        );
    }

    pub(super) fn record_wait(&self, expensive: bool, seconds: f64) {
        let class = if expensive { "expensive" } else { "cheap" };
        self.waits.get_or_create(&WaitLabel { class }).observe(seconds);
    }

    pub(super) fn record_refusal(&self, reason: QueueFull) {
        self.refusals.get_or_create(&RefusalLabel { by: limit_label(reason) }).inc();
    }

    pub(super) fn record_unreadable(&self, reason: UnreadableHash) {
        let cause = cause_label(reason);
        self.unreadable_hashes.get_or_create(&UnreadableLabel { cause }).inc();
    }
}

fn limit_label(reason: QueueFull) -> &'static str {
    match reason {
        QueueFull::Total => "all",
        QueueFull::TenantShare => "tenant",
        QueueFull::NetworkShare => "network",
    }
}

fn cause_label(reason: UnreadableHash) -> &'static str {
    match reason {
        UnreadableHash::Format => "form",
        UnreadableHash::Pepper => "pepper",
    }
}
