//! Metrics of the limits.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::RateClass;

#[derive(Default)]
pub(super) struct Metrics {
    refused: Family<RefusalLabel, Counter>,
    counted_alone: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabel {
    class: &'static str,
    by: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Calls refused by a rate limit";
        registry.register("tenantry_rate_limited", help, metrics.refused.clone());
        for class in RateClass::ALL.map(RateClass::name) {
            for by in ["network", "tenant"] {
                drop(metrics.refused.get_or_create(&RefusalLabel { class, by }));
            }
        }
        let help = "Calls counted by this replica alone because Redis did not answer";
        registry.register("tenantry_rate_counted_alone", help, metrics.counted_alone.clone());
        metrics
    }

    pub(super) fn record_refusal(&self, class: &'static str, by: &'static str) {
        self.refused.get_or_create(&RefusalLabel { class, by }).inc();
    }

    pub(super) fn record_counted_alone(&self) {
        self.counted_alone.inc();
    }
}
