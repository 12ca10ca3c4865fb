//! Which tenant a name stood for when it was looked up last.

use quick_cache::sync::Cache;

use super::TenantRef;
use crate::ids::TenantId;

/// Names that are remembered, at most.
const NAMES: usize = 10_000;

/// A bounded cache of names of tenants. It may be out of date: it is there to refuse calls
/// for load before anything is looked up, and never says who may do what.
pub struct Seen(Cache<String, TenantId>);

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::new(NAMES))
    }
}

impl Seen {
    /// The tenant that this name stood for.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        self.0.get(name)
    }

    /// Remembers what a name stands for.
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
