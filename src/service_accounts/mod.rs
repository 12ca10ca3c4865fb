//! Service accounts, with which programs sign in, and their keys.

mod accounts;
mod keys;
mod rpc;
pub mod store;

use crate::{
    api::paging::Pages,
    audit::{self, Event},
    db::{Db, TenantTx},
    error::Result,
    gate::Caller,
    sessions::SessionCache,
};

/// The implementation of `ServiceAccountService`.
pub struct ServiceAccounts {
    pub db: Db,
    pub pages: Pages,
    /// The session cache, which is invalidated when keys end.
    pub cache: SessionCache,
}

impl ServiceAccounts {
    /// Records an event that ended keys, commits, and invalidates the tenant's entries in the
    /// session cache. Returns the consistency token.
    async fn finish_ending(
        &self,
        mut tx: TenantTx,
        caller: &Caller,
        event: Event,
    ) -> Result<String> {
        audit::record(&mut tx, caller.tenant(), &caller.actor(), event).await?;
        let token = tx.consistency_token().await?;
        tx.commit().await?;
        self.cache.forget(caller.tenant()).await;
        Ok(token)
    }
}
