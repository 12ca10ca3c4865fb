//! Whether Postgres has the transactions that a consistency token includes. After a failover or a
//! restore to the past, Postgres may lack some of them.

use super::{Feed, Revision, epochs::Epochs};
use crate::{
    db::Db,
    error::{Result, sqlstate},
    ids::TenantId,
};

/// The SQLSTATE with which `pg_xact_status` refuses an id that was not assigned yet.
const ID_OF_THE_FUTURE: &str = "22023";

/// Whether Postgres has the transactions of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// Postgres has them.
    Yes,
    /// Postgres has not assigned all their ids. Another server may have them.
    NotYet,
    /// A restore or a failover lost them, or may have lost them.
    Lost,
}

impl Feed {
    /// Whether Postgres has the revision: all transaction ids below its position are assigned, and
    /// they were not assigned twice. Asks Postgres only when the last read of the feed is older
    /// than the token, or does not know the epoch of the token. The queries use a connection of the
    /// share of `charged_tenant`.
    ///
    /// The xmax of a new snapshot is no proof: the token of a write that changed nothing has the id
    /// of a transaction whose rollback may still be running.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable; OVERLOADED when no connection of the share becomes
    /// free.
    pub async fn reached(
        &self,
        db: &Db,
        charged_tenant: TenantId,
        revision: Revision,
    ) -> Result<Reached> {
        match self.last_read_has_transactions_of(revision) {
            Some(false) => return Ok(Reached::Lost),
            Some(true) if self.last_read_has_reached(revision, db.postgres().generation()) => {
                return Ok(Reached::Yes);
            }
            _ => {}
        }
        if Epochs::read(db.executor_in_share(charged_tenant).await?)
            .await?
            .have_transactions_of(revision)
            != Some(true)
        {
            return Ok(Reached::Lost);
        }
        let last_id = revision.position.saturating_sub(1).to_string();
        let status = sqlx::query_scalar!("select pg_xact_status($1::text::xid8)", last_id)
            .fetch_one(db.executor_in_share(charged_tenant).await?)
            .await;
        match status {
            Ok(_) => Ok(Reached::Yes),
            Err(error) if sqlstate(&error).as_deref() == Some(ID_OF_THE_FUTURE) => {
                Ok(Reached::NotYet)
            }
            Err(error) => Err(error.into()),
        }
    }
}
