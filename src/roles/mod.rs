//! Roles: named sets of permissions, and their assignments to subjects.

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

/// The gRPC service `RoleService`.
pub struct Roles {
    pub db: Db,
    /// Starts the pages of lists and seals their page tokens.
    pub pages: Pages,
}

/// Records the audit event and commits. Returns the consistency token.
async fn finish(mut tx: TenantTx, caller: &Caller, event: Event) -> Result<String> {
    audit::record(&mut tx, caller.tenant(), &caller.actor(), event).await?;
    let token = tx.consistency_token().await?;
    tx.commit().await?;
    Ok(token)
}
