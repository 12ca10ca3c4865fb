//! Roles: named sets of permissions, and who has them.

mod assign;
mod assignments;
pub mod audited;
mod edit;
pub mod guard;
mod rpc;
pub mod store;
pub mod system;

use crate::{
    api::paging::Pages,
    audit::{self, Event},
    db::{Db, TenantTx},
    error::Result,
    gate::Caller,
};

pub use assign::assign_new;
pub use assignments::held;

/// Manages roles over gRPC.
pub struct Roles {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
}

/// Records what was done, and makes it durable; its consistency token.
async fn finish(mut tx: TenantTx, caller: &Caller, event: Event) -> Result<String> {
    audit::record(&mut tx, caller.tenant(), &caller.actor(), event).await?;
    let token = tx.consistency_token().await?;
    tx.commit().await?;
    Ok(token)
}
