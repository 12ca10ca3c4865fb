//! Ensures that a change that ended sessions also removes these sessions from the cache.

use crate::ids::TenantId;

/// Shows that a transaction, which is not committed yet, ended sessions of a tenant. After the
/// commit, the tenant's entries must be removed from the session cache.
///
/// A store returns this value for each change that ends sessions or API keys.
/// [`super::SessionCache::finish`] takes the value: it commits, and then removes the tenant's
/// entries. When code calls `TenantTx::commit` instead, the value is not used, and the compiler
/// warns about an unused value or variable. No other code can read the field, because such a use
/// would hide the warning.
#[must_use = "finish the transaction with `SessionCache::finish`"]
#[derive(Debug)]
pub struct EndedSessions {
    pub(super) tenant: TenantId,
}

impl EndedSessions {
    /// Creates the value, in a store whose statement ended sessions or API keys of the tenant.
    pub fn in_tenant(tenant: TenantId) -> Self {
        Self { tenant }
    }

    /// Leaves the entries in the cache, where they expire within a second. Only for
    /// administrative commands of this program, which have no session cache.
    pub fn expire_in_cache(self) {
        drop(self);
    }
}
