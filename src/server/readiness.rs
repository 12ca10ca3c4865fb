//! Reports the readiness of this replica to probes. Without Postgres the replica is not ready.

use std::time::Duration;

use tokio::{sync::watch, time};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::services;
use crate::db::Db;

/// Interval between two checks of Postgres.
const INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of a check. If Postgres does not respond in time, it is unavailable.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The readiness that probes see, over gRPC and HTTP.
pub(super) struct Readiness {
    health: HealthReporter,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// Reports every service as not ready, until the first check of Postgres.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let readiness = Self { health, ready: watch::Sender::new(false) };
        readiness.report(false).await;
        readiness
    }

    /// The readiness and its changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Checks Postgres once per [`INTERVAL`] and reports the result, while the future is polled.
    pub(super) async fn keep_reporting(&self, db: &Db) {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_up = time::timeout(TIMEOUT, db.postgres().is_up()).await;
            self.report(is_up.unwrap_or(false)).await;
        }
    }

    /// Reports the same readiness for every service.
    pub(super) async fn report(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in services::NAMES {
            self.health.set_service_status(*service, status).await;
        }
        self.ready.send_replace(ready);
    }
}
