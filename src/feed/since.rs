//! The changes in one tenant since a horizon, for a stream that resumes.
//!
//! Rule: `read_changes_since` (`migrations/0020_read_changes.sql`) decides which changes a
//! watcher missed before it reconnected.

use uuid::Uuid;

use super::{Feed, Kind};
use crate::{
    db::Db,
    error::{Error, Result},
    ids::TenantId,
};

/// Changes since a horizon, without duplicates.
pub struct ChangesSince {
    /// Whether changes may be missing: some changes were trimmed, or the horizon is not in the
    /// past of this server.
    pub missed: bool,
    /// Kind and id of each change. The kind is `None` when only a newer version knows that kind.
    pub changes: Vec<(Option<Kind>, Uuid)>,
}

impl Feed {
    /// The changes in `tenant` by transactions with ids from `horizon` on, at most `limit`.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn since(
        &self,
        db: &Db,
        tenant: TenantId,
        horizon: u64,
        limit: i64,
    ) -> Result<ChangesSince> {
        let rows = sqlx::query!(
            r#"
            select pg_snapshot_xmax(snapshot)::text::bigint as "xmax!", missed as "missed!",
                   kind, subject_id
            from read_changes_since($1, $2::text::xid8, $3)
            "#,
            tenant.0,
            horizon.to_string(),
            limit,
        )
        .fetch_all(db.pool())
        .await?;
        let first = rows.first().ok_or_else(|| Error::defect("no row of changes"))?;
        self.record_snapshot(first.xmax.cast_unsigned());
        let missed = first.missed;
        let change = |kind: Option<String>, subject: Option<Uuid>| {
            Some((kind.as_deref().and_then(Kind::parse), subject?))
        };
        let changes = rows.into_iter().filter_map(|row| change(row.kind, row.subject_id));
        Ok(ChangesSince { missed, changes: changes.collect() })
    }
}
