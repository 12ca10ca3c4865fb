//! The tenant that a name belonged to at its last lookup.

use quick_cache::sync::Cache;

use super::TenantRef;
use crate::ids::TenantId;

/// Maximum number of cached names.
const NAMES: usize = 10_000;

/// A bounded cache of names of tenants. An entry may be out of date. The cache serves only to
/// refuse calls because of load before a lookup; no permission depends on it.
pub struct Seen(Cache<String, TenantId>);

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::new(NAMES))
    }
}

impl Seen {
    /// The tenant that this name belonged to.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        self.0.get(name)
    }

    /// Caches the tenant of a name, or removes a name without a tenant.
    pub fn remember(&self, name: &str, tenant: Option<&TenantRef>) {
        match tenant {
            Some(tenant) if self.0.peek(name) == Some(tenant.id) => {}
            Some(tenant) => self.0.insert(name.to_owned(), tenant.id),
            None => {
                self.0.remove(name);
            }
        }
    }
}
