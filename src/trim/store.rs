//! SQL for the deletion of ended rows.
//!
//! - Rule: `trim_rows` (`migrations/0030_trim_rows.sql`) decides when a row of each table has ended,
//!   and lets one replica at a time delete.
//! - Rule: `trim_requests` (`migrations/0025_trim_requests.sql`) decides which idempotency records
//!   have expired, and lets one replica at a time delete.
//! - Rule: `estimated_rows` (`migrations/0030_trim_rows.sql`) lists all tables with their estimated
//!   number of rows.

use super::list::TrimmedTable;
use crate::{db::Db, error::Result, pg::interval};

/// Deletes the ended rows in `blocks` blocks of a table, from the block `from` on. Returns the
/// number of deleted rows and the number of blocks of the table; `None` when another replica is
/// deleting.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn trim_rows(
    db: &Db,
    trim: &TrimmedTable,
    from: i64,
    blocks: i64,
) -> Result<Option<(i64, i64)>> {
    let step = sqlx::query!(
        r#"
        select deleted as "deleted!", blocks as "blocks!"
        from trim_rows(p_table => $1, p_keep => $2, p_from => $3, p_blocks => $4)
        "#,
        trim.table,
        interval(trim.retention)?,
        from,
        blocks,
    )
    .fetch_optional(db.executor())
    .await?;
    Ok(step.map(|step| (step.deleted, step.blocks)))
}

/// Deletes at most `limit` expired idempotency records. Returns their number; `None` when another
/// replica is deleting.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn trim_requests(db: &Db, trim: &TrimmedTable, limit: i64) -> Result<Option<i64>> {
    let keep = interval(trim.retention)?;
    let deleted = sqlx::query_scalar!("select trim_requests($1, $2)", keep, limit)
        .fetch_one(db.executor())
        .await?;
    Ok(deleted)
}

/// All tables, with their number of rows as Postgres estimates it.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn estimated_rows(db: &Db) -> Result<Vec<(String, i64)>> {
    let tables = sqlx::query!(r#"select name as "name!", rows as "rows!" from estimated_rows()"#)
        .fetch_all(db.executor())
        .await?;
    Ok(tables.into_iter().map(|table| (table.name, table.rows)).collect())
}
