//! The owner of work. A shared resource limits the share of each owner.

use std::net::IpAddr;

use super::network;
use crate::ids::TenantId;

/// A tenant, and the network of its call. The tenant and the network each have a share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// The tenant, or a placeholder id ([`super::Limits::placeholder_tenant`]).
    pub tenant: TenantId,
    /// The network; `None` for work without an address, such as a command's.
    pub network: Option<IpAddr>,
}

impl Owner {
    /// The owner of a tenant's call from this address.
    #[must_use]
    pub fn new(tenant: TenantId, ip: Option<IpAddr>) -> Self {
        Self { tenant, network: ip.map(network) }
    }
}
