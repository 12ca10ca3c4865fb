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
    /// trails. Returns true when this pass refused no trail, but the previous pass refused some.
    pub(super) fn record(&self, oldest_age: f64, refused_trails: u64) -> bool {
        self.oldest_age.set(oldest_age);
        let refused = i64::try_from(refused_trails).unwrap_or(i64::MAX);
        let previously_refused = self.refused_trails.set(refused);
        previously_refused > 0 && refused == 0
    }
}
