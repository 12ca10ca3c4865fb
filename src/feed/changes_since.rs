//! The changes in one tenant since a horizon, for a client that opens a stream again.
//!
//! Rule: `read_changes_since` (`migrations/0020_read_changes.sql`) decides which changes a
//! watcher missed before it reconnected.

use uuid::Uuid;

use super::{Feed, Kind, Snapshot};
use crate::{
    db::Db,
    error::{Error, Result},
    ids::TenantId,
};

/// The changes since a horizon, without duplicates.
pub struct ChangesSince {
    /// Whether changes may be missing: some changes were trimmed, or the horizon is a transaction
    /// id that this Postgres server has not reached yet (another server, or a restored backup).
    pub may_be_incomplete: bool,
    /// Kind and id of each change. The kind is `None` when this version of the program does not
    /// know the kind.
    pub changes: Vec<(Option<Kind>, Uuid)>,
}

impl Feed {
    /// Reads the changes in `tenant` by the transaction `horizon` and by transactions with larger
    /// ids. Reads at most `limit` changes, on a connection of the tenant's share.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable; OVERLOADED when no connection of the share becomes
    /// free.
    pub async fn changes_since(
        &self,
        db: &Db,
        tenant: TenantId,
        horizon: u64,
        limit: i64,
    ) -> Result<ChangesSince> {
        let rows = sqlx::query!(
            r#"
            select pg_snapshot_xmax(snapshot)::text::bigint as "xmax!",
                   (select current_epoch()) as "epoch!", missed as "missed!", kind, subject_id
            from read_changes_since($1, $2::text::xid8, $3)
            "#,
            tenant.0,
            horizon.to_string(),
            limit,
        )
        .fetch_all(db.executor_in_share(tenant).await?)
        .await?;
        // There is always a row: without changes, the row has only the snapshot and `missed`.
        let first_row =
            rows.first().ok_or_else(|| Error::defect("read_changes_since returned no row"))?;
        let (xmax, epoch) = (first_row.xmax.cast_unsigned(), first_row.epoch.cast_unsigned());
        self.record_snapshot(Snapshot { xmax, epoch }).await?;
        let may_be_incomplete = first_row.missed;
        // A row without a change has no subject id.
        let to_change = |kind: Option<String>, subject: Option<Uuid>| {
            Some((kind.as_deref().and_then(Kind::parse), subject?))
        };
        let changes = rows.into_iter().filter_map(|row| to_change(row.kind, row.subject_id));
        Ok(ChangesSince { may_be_incomplete, changes: changes.collect() })
    }
}
