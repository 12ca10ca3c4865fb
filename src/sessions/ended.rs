//! Ensures that a change that ended sessions also removes these sessions from the cache.

use crate::ids::TenantId;

/// Sessions of a tenant ended in a transaction that is not committed yet. After the commit the
/// tenant's entries must leave the session cache.
///
/// A store returns this value for each change that ends sessions or API keys.
/// [`super::SessionCache::finish`] takes the value: it commits first and then empties the cache.
/// After a plain `TenantTx::commit` the value stays unused, and the compiler warns about an unused
/// value or variable. The value has no readable content, so that no other use hides the warning.
#[must_use = "end the transaction with `SessionCache::finish`"]
#[derive(Debug)]
pub struct Ended {
    pub(super) tenant: TenantId,
}

impl Ended {
    /// Creates the value, in a store whose statement ended sessions or API keys of the tenant.
    pub fn in_tenant(tenant: TenantId) -> Self {
        Self { tenant }
    }

    /// Lets the cache entries expire. Only for a command-line command, which has no cache. The
    /// entries are used for at most a second.
    pub fn expire_in_cache(self) {
        drop(self);
    }
}
