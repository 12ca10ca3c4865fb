//! Tells probes whether this replica can answer: without Postgres nothing can be.

use std::time::Duration;

use tokio::time;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::services;
use crate::db::Db;

/// How often Postgres is asked whether it is there.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to say so: one that hangs is as good as none.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reports for as long as it is polled.
pub(super) async fn watch(db: Db, health: HealthReporter) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = match time::timeout(TIMEOUT, db.is_up()).await {
            Ok(true) => ServingStatus::Serving,
            Ok(false) | Err(_) => ServingStatus::NotServing,
        };
        report(&health, status).await;
    }
}

/// Reports the same of every service.
pub(super) async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in services::NAMES {
        health.set_service_status(*service, status).await;
    }
}
