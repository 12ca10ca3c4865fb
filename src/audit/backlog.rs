//! Measures the backlogs of the audit trail: events that are not sealed, and events that are not
//! sent to Redis.
//!
//! Rule: `audit_backlog_ages` (`migrations/0036_audit_backlog_ages.sql`) decides which event of a
//! backlog is the oldest.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time;

use super::store;
use crate::{concurrency::step::bounded, db::Db};

/// Interval between two measurements.
const INTERVAL: Duration = Duration::from_secs(10);

/// The age of the oldest event in each backlog, in seconds; 0 when the backlog is empty. The values
/// are read from Postgres, so all replicas have the same values.
#[derive(Default, Clone)]
pub(super) struct BacklogGauges {
    unsealed: Gauge<f64, AtomicU64>,
    unsent: Gauge<f64, AtomicU64>,
}

impl BacklogGauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let help = "Age of the oldest audit event that is not sealed, in seconds";
        let name = "tenantry_audit_unsealed_oldest_seconds";
        registry.register(name, help, gauges.unsealed.clone());
        let help = "Age of the oldest sealed audit event that is not sent to Redis, in seconds";
        let name = "tenantry_audit_unsent_oldest_seconds";
        registry.register(name, help, gauges.unsent.clone());
        gauges
    }

    /// Updates the gauges until the connections to Postgres are closed.
    pub(super) async fn keep_current(self, db: Db) {
        while !db.is_closed() {
            match bounded(store::backlog_ages(&db)).await {
                Ok((unsealed, unsent)) => {
                    self.unsealed.set(unsealed);
                    self.unsent.set(unsent);
                }
                Err(error) => tracing::debug!(%error, "the audit backlog can't be measured"),
            }
            time::sleep(INTERVAL).await;
        }
    }
}
