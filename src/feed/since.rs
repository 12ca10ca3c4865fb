//! What changed in one tenant since a horizon, for a watcher that comes back.
//!
//! Rule: `read_changes_since` (`migrations/0020_read_changes.sql`) decides what a watcher that
//! reconnects has missed.

use uuid::Uuid;

use super::{Feed, Kind};
use crate::{
    db::Db,
    error::{Error, Result},
    ids::TenantId,
};

/// What changed, each thing once.
pub struct Since {
    /// Whether there may be more: the feed was trimmed, or the horizon is not of
    /// this server's past.
    pub missed: bool,
    /// The changes; no kind where a newer version writes it.
    pub changes: Vec<(Option<Kind>, Uuid)>,
}

impl Feed {
    /// What transaction `horizon` and later ones changed in a tenant, `limit`
    /// things at most.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away.
    pub async fn since(
        &self,
        db: &Db,
        tenant: TenantId,
        horizon: u64,
        limit: i64,
    ) -> Result<Since> {
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
        self.saw(first.xmax.cast_unsigned());
        let missed = first.missed;
        let change = |kind: Option<String>, subject: Option<Uuid>| {
            Some((kind.as_deref().and_then(Kind::parse), subject?))
        };
        let changes = rows.into_iter().filter_map(|row| change(row.kind, row.subject_id));
        Ok(Since { missed, changes: changes.collect() })
    }
}
