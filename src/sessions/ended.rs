//! The duty of a change that ended sessions.

use crate::ids::TenantId;

/// Sessions of a tenant ended in a transaction that is not committed yet. After the commit the
/// tenant's entries must leave the session cache.
///
/// A store returns this value for each change that ends sessions or API keys.
/// [`super::SessionCache::finish`] takes it: it commits first and empties the cache then. After a
/// plain `TenantTx::commit` the value is left over, and the compiler warns about an unused value
/// or variable. Nothing can be read from the value, so that no other use hides the warning.
#[must_use = "end the transaction with `SessionCache::finish`"]
#[derive(Debug)]
pub struct Ended {
    pub(super) tenant: TenantId,
}

impl Ended {
    /// For a store whose statement ended sessions or API keys of the tenant.
    pub fn in_tenant(tenant: TenantId) -> Self {
        Self { tenant }
    }

    /// Lets the cache entries expire, for a command, which has no cache. They are believed for
    /// at most a second.
    pub fn expire_in_cache(self) {
        drop(self);
    }
}
