//! Refuses a connection pooler that does not keep sessions, such as `PgBouncer` in the pool modes
//! `transaction` and `statement`.
//!
//! With such a pooler, each transaction may run in another session. Settings of the session, such as
//! `statement_timeout`, would be lost or apply to other clients, and prepared statements fail.

use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use uuid::Uuid;

use super::url::Server;
use crate::error::sqlstate;

/// The text of the error for a pooler that is refused.
pub(super) const LOSES_SESSIONS: &str = "the connection pooler does not keep sessions; with \
    PgBouncer, use pool_mode = session";

/// Reads a setting that has no meaning for Postgres; an empty text when it is not set.
const READ_PROBE: &str = "select coalesce(current_setting('tenantry.probe', true), '') as probe";

/// SQLSTATE of `PgBouncer` for a transaction in the pool mode `statement`.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Whether each connection to the server has a session of its own. Opens two connections: a setting
/// of the first one must stay visible there, and must not become visible in the second one. The
/// statements use the simple protocol, which works with every pooler.
///
/// # Errors
/// When the server is unavailable.
pub(super) async fn keeps_sessions(server: &Server) -> sqlx::Result<bool> {
    let (mut first, mut second) =
        tokio::try_join!(server.options.connect(), server.options.connect())?;
    let value = Uuid::new_v4().simple().to_string();
    let set = format!("select set_config('tenantry.probe', '{value}', false)");
    first.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
    // A pooler that does not keep sessions gives this transaction the session that was used last.
    // It then gives another session to the first connection.
    if let Err(error) = second.execute("begin").await {
        let is_refused = sqlstate(&error).is_some_and(|code| code == PROTOCOL_VIOLATION);
        return if is_refused { Ok(false) } else { Err(error) };
    }
    let seen_by_second = read_probe(&mut second).await?;
    let seen_by_first = read_probe(&mut first).await?;
    second.execute("rollback").await?;
    first.execute("reset tenantry.probe").await?;
    Ok(seen_by_first == value && seen_by_second != value)
}

async fn read_probe(connection: &mut PgConnection) -> sqlx::Result<String> {
    connection.fetch_one(sqlx::raw_sql(READ_PROBE)).await?.try_get("probe")
}
