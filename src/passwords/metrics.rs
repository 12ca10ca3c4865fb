//! Metrics of the hashing queue.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{queue::Full, stored_hash::UnreadableHash};
use crate::telemetry::BUCKETS;

pub(super) struct Metrics {
    waited: Family<WaitLabel, Histogram, fn() -> Histogram>,
    refused: Family<RefusedLabel, Counter>,
    unreadable: Family<UnreadableLabel, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct WaitLabel {
    class: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusedLabel {
    by: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct UnreadableLabel {
    cause: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            waited: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            refused: Family::default(),
            unreadable: Family::default(),
        };
        for class in ["cheap", "expensive"] {
            drop(metrics.waited.get_or_create(&WaitLabel { class }));
        }
        for by in [Full::All, Full::OfTenant, Full::OfNetwork].map(limit_name) {
            drop(metrics.refused.get_or_create(&RefusedLabel { by }));
        }
        for cause in [UnreadableHash::Form, UnreadableHash::Pepper].map(cause) {
            drop(metrics.unreadable.get_or_create(&UnreadableLabel { cause }));
        }
        metrics
    }
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Time that passwords waited for a hashing thread";
        let name = "tenantry_hashing_wait";
        registry.register_with_unit(name, help, Unit::Seconds, self.waited.clone());
        let help = "Passwords refused a slot in the hashing queue";
        registry.register("tenantry_hashing_refused", help, self.refused.clone());
        let help = "Comparisons with a stored password hash that could not be read";
        registry.register("tenantry_password_hashes_unreadable", help, self.unreadable.clone());
    }

    pub(super) fn waited(&self, expensive: bool, seconds: f64) {
        let class = if expensive { "expensive" } else { "cheap" };
        self.waited.get_or_create(&WaitLabel { class }).observe(seconds);
    }

    pub(super) fn refused(&self, full: Full) {
        self.refused.get_or_create(&RefusedLabel { by: limit_name(full) }).inc();
    }

    pub(super) fn unreadable(&self, reason: UnreadableHash) {
        self.unreadable.get_or_create(&UnreadableLabel { cause: cause(reason) }).inc();
    }
}

fn limit_name(full: Full) -> &'static str {
    match full {
        Full::All => "all",
        Full::OfTenant => "tenant",
        Full::OfNetwork => "network",
    }
}

fn cause(reason: UnreadableHash) -> &'static str {
    match reason {
        UnreadableHash::Form => "form",
        UnreadableHash::Pepper => "pepper",
    }
}
