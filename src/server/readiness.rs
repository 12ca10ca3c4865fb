//! Tells probes whether this replica can answer: without Postgres nothing can be.

use std::time::Duration;

use tokio::{sync::watch, time};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::services;
use crate::db::Db;

/// How often Postgres is asked whether it is there.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to say so: one that hangs is as good as none.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What probes are told, over gRPC and HTTP.
pub(super) struct Readiness {
    health: HealthReporter,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// Known from the first call on, and not ready until Postgres has been asked.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let readiness = Self { health, ready: watch::Sender::new(false) };
        readiness.report(false).await;
        readiness
    }

    /// Whether this replica is ready, as it changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Asks Postgres and reports, for as long as it is polled.
    pub(super) async fn watch(&self, db: &Db) {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answer = time::timeout(TIMEOUT, db.postgres().is_up()).await;
            self.report(answer.unwrap_or(false)).await;
        }
    }

    /// Reports the same of every service.
    pub(super) async fn report(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in services::NAMES {
            self.health.set_service_status(*service, status).await;
        }
        self.ready.send_replace(ready);
    }
}
