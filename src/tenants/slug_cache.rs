//! A cache from a slug to the tenant that had this slug at the last lookup.

use quick_cache::sync::Cache;

use super::TenantRef;
use crate::ids::TenantId;

/// Maximum number of cached slugs.
const MAX_SLUGS: usize = 10_000;

/// A bounded cache from the slug of a tenant to its id. An entry may be stale. The cache is used
/// only to refuse calls before a lookup when the server is overloaded. No permission depends on the
/// cache.
pub struct SlugCache(Cache<String, TenantId>);

impl Default for SlugCache {
    fn default() -> Self {
        Self(Cache::new(MAX_SLUGS))
    }
}

impl SlugCache {
    /// The tenant that had this slug; `None` when the slug is not cached.
    #[must_use]
    pub fn get(&self, slug: &str) -> Option<TenantId> {
        self.0.get(slug)
    }

    /// Caches the tenant of a slug. Without a tenant, removes the slug from the cache.
    pub fn update(&self, slug: &str, tenant: Option<&TenantRef>) {
        match tenant {
            Some(tenant) if self.0.peek(slug) == Some(tenant.id) => {}
            Some(tenant) => self.0.insert(slug.to_owned(), tenant.id),
            None => {
                self.0.remove(slug);
            }
        }
    }
}
