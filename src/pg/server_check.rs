//! The check whether a Postgres server is fit for use: it is the primary, it accepts writes, and
//! its schema suits this program.
//!
//! - Rule: `schema_version` (`migrations/0034_schema_version.sql`) decides which programs suit the
//!   schema.
//! - Rule: `note_epoch` (`migrations/0038_epochs.sql`) decides whether the server begins an epoch. It
//!   is called before the service uses the server, so the service has not yet used transaction ids
//!   of commits that a failover lost.
//! - Rule: `require_primary` (`migrations/0035_refuse_standby.sql`) decides that no row is read on a
//!   standby, also when a connection pooler changed the server after this check.

use std::{collections::HashSet, io, time::Duration};

use sqlx::{ConnectOptions, PgConnection};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{known_migrations::MIGRATIONS, pooling, url::Server};
use crate::error::sqlstate;

/// Timeout of one check, including the connection to the server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The SQLSTATE of a schema that is older than the function `schema_version`.
const UNDEFINED_FUNCTION: &str = "42883";

/// The SQLSTATE of a statement that the role may not execute.
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The reason why a server must not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("{}", crate::error::postgres_text(.0))]
    Unavailable(#[from] sqlx::Error),
    #[error("{}", pooling::LOSES_SESSIONS)]
    Pooled,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// A standby may lack changes that were committed long ago.
    #[error("the server is a standby")]
    Standby,
    #[error("the server is read-only (default_transaction_read_only)")]
    ReadOnly,
    /// Contains the numbers of the missing migrations.
    #[error("the schema lacks the migrations {0:?}; run `tenantry migrate`")]
    SchemaBehind(Vec<i64>),
    /// Contains the number of the oldest migration that a program must know.
    #[error(
        "the schema is too new: it needs a program that knows the migration {0}; \
         upgrade this program"
    )]
    SchemaAhead(i64),
}

/// A server that is fit for use.
pub(super) struct CheckedServer {
    pub connection: PgConnection,
    /// Start time of the server. Another server, or a restart of the same one, has another time.
    pub server_start: OffsetDateTime,
}

/// Opens a connection to a server and checks the server.
///
/// # Errors
/// When the server is unavailable or unfit.
pub(super) async fn connect(server: &Server) -> Result<CheckedServer, Unfit> {
    let check = async {
        let mut connection = server.options.connect().await?;
        let result = check(&mut connection).await;
        // Without sessions, the prepared statements of the check may fail. If the pooler can't be
        // examined, the result of the check is the better answer.
        if matches!(result, Ok(()) | Err(Unfit::Unavailable(_)))
            && matches!(pooling::keeps_sessions(server).await, Ok(false))
        {
            return Err(Unfit::Pooled);
        }
        result?;
        note_epoch(&mut connection).await?;
        let started = sqlx::query_scalar!(r#"select pg_postmaster_start_time() as "started!""#);
        let server_start = started.fetch_one(&mut connection).await?;
        Ok(CheckedServer { connection, server_start })
    };
    timeout(TIMEOUT, check).await.unwrap_or(Err(Unfit::TimedOut))
}

/// Checks the server of an open connection again.
///
/// # Errors
/// When the server is unavailable or unfit.
pub(super) async fn check_again(connection: &mut PgConnection) -> Result<(), Unfit> {
    timeout(TIMEOUT, check(connection)).await.unwrap_or(Err(Unfit::TimedOut))
}

async fn note_epoch(connection: &mut PgConnection) -> Result<(), Unfit> {
    match sqlx::query!("select note_epoch()").execute(connection).await {
        Ok(_) => Ok(()),
        // The start of the server refuses such a role with a better message.
        Err(error) if sqlstate(&error).as_deref() == Some(INSUFFICIENT_PRIVILEGE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn check(connection: &mut PgConnection) -> Result<(), Unfit> {
    let server = sqlx::query!(
        r#"
        select pg_is_in_recovery() as "standby!",
               current_setting('transaction_read_only')::boolean as "read_only!"
        "#
    )
    .fetch_one(&mut *connection)
    .await?;
    if server.standby {
        return Err(Unfit::Standby);
    }
    if server.read_only {
        return Err(Unfit::ReadOnly);
    }
    check_schema(connection).await
}

async fn check_schema(connection: &mut PgConnection) -> Result<(), Unfit> {
    let schema = sqlx::query!(
        r#"
        select applied as "applied!", oldest_known as "oldest_known!" from schema_version()
        "#
    )
    .fetch_one(connection)
    .await;
    let schema = match schema {
        Ok(schema) => schema,
        Err(error) if sqlstate(&error).as_deref() == Some(UNDEFINED_FUNCTION) => {
            return Err(Unfit::SchemaBehind(numbers().collect()));
        }
        // The start of the server refuses such a role with a better message.
        Err(error) if sqlstate(&error).as_deref() == Some(INSUFFICIENT_PRIVILEGE) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let applied: HashSet<i64> = schema.applied.into_iter().collect();
    let missing: Vec<i64> = numbers().filter(|number| !applied.contains(number)).collect();
    if !missing.is_empty() {
        return Err(Unfit::SchemaBehind(missing));
    }
    if numbers().max() < Some(schema.oldest_known) {
        return Err(Unfit::SchemaAhead(schema.oldest_known));
    }
    Ok(())
}

/// The numbers of the migrations that this program knows.
fn numbers() -> impl Iterator<Item = i64> {
    MIGRATIONS.iter().map(|migration| migration.version)
}

/// The error of a connection that leads to a read-only server, such as a standby.
pub(super) fn read_only_server() -> sqlx::Error {
    let cause = "the server of the connection is read-only";
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, cause).into()
}
