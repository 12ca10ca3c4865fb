//! Service accounts: what signs in by itself, and its keys.

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

/// Manages service accounts and their keys over gRPC.
pub struct ServiceAccounts {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// What ended keys must leave.
    pub cache: SessionCache,
}

impl ServiceAccounts {
    /// Records what ended keys, and makes it durable; its consistency token.
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
