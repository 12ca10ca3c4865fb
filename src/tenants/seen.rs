//! A cache of the tenant that each name belonged to at its last lookup.

use quick_cache::sync::Cache;

use super::TenantRef;
use crate::ids::TenantId;

/// Maximum number of cached names.
const MAX_NAMES: usize = 10_000;

/// A bounded cache from the name of a tenant to its id. An entry may be stale. The cache is used
/// only to refuse calls under load before a lookup. No permission depends on the cache.
pub struct Seen(Cache<String, TenantId>);

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::new(MAX_NAMES))
    }
}

impl Seen {
    /// The tenant that this name belonged to; `None` when the name is not cached.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        self.0.get(name)
    }

    /// Caches the tenant of a name. Without a tenant, removes the name from the cache.
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
