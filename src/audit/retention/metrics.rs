//! Metrics of the retention of the audit trail. `crate::trim` counts the deleted events.

use std::sync::atomic::AtomicU64;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

#[derive(Default)]
pub(super) struct Metrics {
    oldest_age: Gauge<f64, AtomicU64>,
    refused_trails: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Age of the oldest sealed audit event of all tenants before the last pass of the \
                    trim, in seconds; 0 while events are kept for ever";
        registry.register("tenantry_audit_oldest_seconds", help, metrics.oldest_age.clone());
        let help = "Audit trails from which the last pass of the trim deleted nothing, because the \
                    trail or its checkpoint is not valid";
        registry.register("tenantry_audit_trails_refused", help, metrics.refused_trails.clone());
        metrics
    }

    /// Records a complete pass: the age of the oldest event in seconds, and the number of refused
    /// trails. Returns whether no trail is refused any more.
    pub(super) fn record(&self, oldest_age: f64, refused_trails: u64) -> bool {
        self.oldest_age.set(oldest_age);
        let refused = i64::try_from(refused_trails).unwrap_or(i64::MAX);
        self.refused_trails.set(refused) > 0 && refused == 0
    }
}
