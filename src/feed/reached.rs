//! Whether Postgres has the transactions that a consistency token includes. After a failover or a
//! restore to the past, Postgres may lack some of them.

use super::{Feed, Revision};
use crate::{
    db::Db,
    error::{Result, sqlstate},
};

/// The SQLSTATE with which `pg_xact_status` refuses an id that was not assigned yet.
const ID_OF_THE_FUTURE: &str = "22023";

impl Feed {
    /// Whether Postgres has assigned all transaction ids below the position of the revision. Asks
    /// Postgres only when the last read of the feed is older than the token.
    ///
    /// The xmax of a new snapshot is no proof: the token of a write that changed nothing has the id
    /// of a transaction whose rollback may still be running.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn has_reached(&self, db: &Db, revision: Revision) -> Result<bool> {
        if self.last_read_has_reached(revision, db.postgres().generation()) {
            return Ok(true);
        }
        let last_id = revision.position.saturating_sub(1).to_string();
        let status = sqlx::query_scalar!("select pg_xact_status($1::text::xid8)", last_id)
            .fetch_one(db.executor())
            .await;
        match status {
            Ok(_) => Ok(true),
            Err(error) if sqlstate(&error).as_deref() == Some(ID_OF_THE_FUTURE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
