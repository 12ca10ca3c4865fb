//! Walks through all tenants, page by page.

use std::vec;

use super::store;
use crate::{db::Db, error::Result, ids::TenantId};

/// Number of tenants that one statement reads.
const PAGE: i64 = 1_000;

/// All tenants that are not deleted, in the order of their ids.
pub(super) struct Tenants<'a> {
    db: &'a Db,
    page: vec::IntoIter<TenantId>,
    /// The last tenant that [`Tenants::next`] returned.
    last: Option<TenantId>,
}

impl<'a> Tenants<'a> {
    pub(super) fn of(db: &'a Db) -> Self {
        Self { db, page: Vec::new().into_iter(), last: None }
    }

    /// The next tenant; `None` after the last one.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn next(&mut self) -> Result<Option<TenantId>> {
        if self.page.len() == 0 {
            self.page = store::tenants(self.db, self.last, PAGE).await?.into_iter();
        }
        let next = self.page.next();
        self.last = next.or(self.last);
        Ok(next)
    }
}
