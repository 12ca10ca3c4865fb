//! The owner of work. Each owner may use only a share of a resource.

use std::net::IpAddr;

use super::network;
use crate::ids::TenantId;

/// A tenant, and the network from which a call of the tenant comes. The tenant and the network each
/// have a share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WorkOwner {
    /// The tenant, or a placeholder id ([`super::Limits::placeholder_tenant`]).
    pub tenant: TenantId,
    /// The network; `None` for work without an address, such as the work of a command.
    pub network: Option<IpAddr>,
}

impl WorkOwner {
    /// The owner of a tenant's call from this address.
    #[must_use]
    pub fn new(tenant: TenantId, ip: Option<IpAddr>) -> Self {
        Self { tenant, network: ip.map(network) }
    }
}
