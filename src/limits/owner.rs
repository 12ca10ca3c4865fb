//! Whose work something is, where each has a share.

use std::net::IpAddr;

use super::network;
use crate::ids::TenantId;

/// A tenant, and the network that its call comes from: both have a share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// The tenant, or what stands for one ([`super::Limits::stand_in`]).
    pub tenant: TenantId,
    /// The network; what has no address, like a command, is one of its own.
    pub network: Option<IpAddr>,
}

impl Owner {
    /// Of a tenant's call from this address.
    #[must_use]
    pub fn new(tenant: TenantId, ip: Option<IpAddr>) -> Self {
        Self { tenant, network: ip.map(network) }
    }
}
