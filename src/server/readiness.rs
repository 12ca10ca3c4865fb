//! Reports the readiness of this replica to probes. The replica is ready only while it
//! uses a Postgres that is the primary, accepts writes, and has a schema that suits this program.

use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::services;
use crate::db::Db;

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

    /// Checks Postgres again and again, and reports the result, while the future is polled.
    pub(super) async fn keep_reporting(&self, db: &Db) {
        let report = async {
            loop {
                self.report(db.postgres().check().await.is_ok()).await;
                db.postgres().wait_for_next_check().await;
            }
        };
        tokio::join!(report, db.postgres().keep_looking_at_all_servers());
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
