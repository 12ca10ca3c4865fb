//! Each tenant's share of the pool's connections; see [`FairPermits`]. When one tenant's statements
//! wait for locks, calls of other tenants still get connections.

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::time;

use crate::{
    concurrency::fair_permits::{FairPermits, Permit},
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// Timeout of the wait for a connection of the tenant's share.
const WAIT: Duration = Duration::from_secs(2);

/// The connections, shared fairly by tenants.
#[derive(Debug)]
pub(super) struct ConnectionShares {
    shares: Arc<FairPermits>,
    refused: Counter,
}

impl ConnectionShares {
    pub(super) fn of(max_connections: u32) -> Self {
        let permits = usize::try_from(max_connections).unwrap_or(usize::MAX);
        Self { shares: FairPermits::new(permits), refused: Counter::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Calls refused because their tenant's work held its share of the \
                    connections to Postgres";
        registry.register("tenantry_db_share_refused", help, self.refused.clone());
    }

    /// Waits until the tenant may take another connection.
    ///
    /// # Errors
    /// OVERLOADED when the wait exceeds [`WAIT`].
    pub(super) async fn acquire(&self, tenant: TenantId) -> Result<Permit> {
        let permit = time::timeout(WAIT, self.shares.acquire(tenant)).await;
        permit.map_err(|_| {
            self.refused.inc();
            let text = "the tenant's other calls hold its share of the connections";
            Error::refused(ErrorReason::Overloaded, text)
        })
    }
}
