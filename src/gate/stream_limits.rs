//! Limits the number of open streams of one kind: in total, of one tenant, and of one network.
//! `stream_admission.rs` checks whether an open stream is still admitted.

use std::{net::IpAddr, sync::Arc};

use super::Caller;
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    error::Result,
    ids::TenantId,
    limits,
};

/// Divisor for the share of one network. A network has at most 1/`NETWORK_SHARE_DIVISOR` of all
/// streams, so that the tenants of one network can't open all of them.
const NETWORK_SHARE_DIVISOR: usize = 2;

/// The permits for open streams of one kind.
pub struct StreamPermits {
    by_tenant: Arc<BoundedPermits<TenantId>>,
    by_network: Arc<BoundedPermits<Option<IpAddr>>>,
}

/// The permits of one open stream. A drop of this value releases the permits.
pub struct StreamPermit {
    _tenant_permit: BoundedPermit<TenantId>,
    _network_permit: BoundedPermit<Option<IpAddr>>,
}

impl StreamPermits {
    /// Creates permits for at most `total` streams, and at most `of_tenant` streams of one tenant.
    #[must_use]
    pub fn new(total: usize, of_tenant: usize) -> Self {
        Self {
            by_tenant: BoundedPermits::new(total, of_tenant),
            by_network: BoundedPermits::new(total, total / NETWORK_SHARE_DIVISOR),
        }
    }

    /// Takes the permits for a stream of this caller.
    ///
    /// # Errors
    /// `OVERLOADED` when too many streams are open: in total, of the caller's tenant or from the
    /// caller's network.
    pub fn acquire(&self, caller: &Caller) -> Result<StreamPermit> {
        let network = caller.origin().ip.map(limits::network);
        Ok(StreamPermit {
            _tenant_permit: self.by_tenant.acquire(caller.tenant())?,
            _network_permit: self.by_network.acquire(network)?,
        })
    }
}
