//! Each tenant's share of the pool's connections. [`FairPermits`] decides the size of the share.
//! While the statements of one tenant wait for locks, the calls of other tenants still get
//! connections.

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

/// The permits for connections, which tenants share fairly.
#[derive(Debug)]
pub(super) struct ConnectionShares {
    shares: Arc<FairPermits>,
    refused: Counter,
}

impl ConnectionShares {
    pub(super) fn new(max_connections: u32) -> Self {
        let permits = usize::try_from(max_connections).unwrap_or(usize::MAX);
        Self { shares: FairPermits::new(permits), refused: Counter::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Calls refused because other calls of the same tenant used all connections \
                    to Postgres that the tenant may use";
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
            let text = "other calls of the tenant use all database connections that the tenant \
                        may use; try again";
            Error::refused(ErrorReason::Overloaded, text)
        })
    }
}
