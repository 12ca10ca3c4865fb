//! The check whether a Postgres server is fit for use: it is the primary, it accepts writes, and
//! its schema suits this program.
//!
//! - Rule: `schema_version` (`migrations/0034_schema_version.sql`) decides which programs suit the
//!   schema.
//! - Rule: `server_identity` (`migrations/0038_epochs.sql`) returns the timeline of a server.
//! - Rule: `read_epochs` (`migrations/0038_epochs.sql`) shows whether `tenantry restored` began the
//!   current epoch.
//! - Rule: `note_epoch` (`migrations/0038_epochs.sql`) decides whether the server begins an epoch.
//!   It is called before the service uses the server. After a failover, the new primary assigns
//!   again transaction ids that lost commits had, and the epoch must begin before a commit of the
//!   service gets such an id.
//! - Rule: `require_primary` (`migrations/0035_refuse_standby.sql`) decides that no row is read on a
//!   standby, also when a connection pooler changed the server after this check.

use std::{collections::HashSet, io, time::Duration};

use sqlx::{ConnectOptions, Connection, PgConnection};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    known_migrations::MIGRATIONS,
    pooling,
    timelines::{History, Identity, TimelineWentBack, UsedTimelines},
    url::Server,
};
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
    #[error("{0}")]
    TimelineWentBack(#[from] TimelineWentBack),
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
    /// Start time of the server. It differs between servers, and changes when a server restarts.
    pub server_start: OffsetDateTime,
    /// `None` when the server does not report its timeline, as with some cloud providers.
    pub history: Option<History>,
}

impl CheckedServer {
    /// Whether the server was promoted later than `other`, a server of the same cluster. False when
    /// the clusters differ, or when one of the servers does not report its timeline.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        let histories = self.history.as_ref().zip(other.history.as_ref());
        histories.is_some_and(|(own, other)| own.identity.is_newer_than(other.identity))
    }
}

/// Opens a connection to a server and checks the server. Refuses a server whose timeline is lower
/// than that of `used`.
///
/// # Errors
/// When the server is unavailable or unfit.
pub(super) async fn connect(server: &Server, used: &UsedTimelines) -> Result<CheckedServer, Unfit> {
    let connect_and_check = async {
        let mut connection = server.options.connect().await?;
        let mut history = None;
        let examine = async {
            check(&mut connection).await?;
            history = read_history(&mut connection).await?;
            if let Some(history) = &history {
                used.accept(history)?;
            }
            Ok(())
        };
        let result: Result<(), Unfit> = examine.await;
        // Behind a pooler that does not keep sessions, the prepared statements of the check may
        // fail. So the pooler is also examined after an error. If the examination itself fails, the
        // result of the check is returned.
        if matches!(result, Ok(()) | Err(Unfit::Unavailable(_)))
            && matches!(pooling::keeps_sessions(server).await, Ok(false))
        {
            return Err(Unfit::Pooled);
        }
        result?;
        note_epoch(&mut connection).await?;
        let start_query = sqlx::query_scalar!(r#"select pg_postmaster_start_time() as "started!""#);
        let server_start = start_query.fetch_one(&mut connection).await?;
        Ok(CheckedServer { connection, server_start, history })
    };
    timeout(TIMEOUT, connect_and_check).await.unwrap_or(Err(Unfit::TimedOut))
}

/// Opens and closes a connection, as a pool would open it.
///
/// # Errors
/// When no connection can be opened.
pub(super) async fn open(server: &Server) -> Result<(), Unfit> {
    let open_and_close = async {
        let mut connection = server.options.connect().await?;
        // A connection pooler answers only when it has a connection to the server.
        connection.ping().await?;
        connection.close().await?;
        Ok(())
    };
    timeout(TIMEOUT, open_and_close).await.unwrap_or(Err(Unfit::TimedOut))
}

/// The identity of a server, if the server accepts writes and reports its identity.
pub(super) async fn identity_if_writable(server: &Server) -> Option<Identity> {
    let identify = async {
        let mut connection = server.options.connect().await.ok()?;
        let is_writable = check_writable(&mut connection).await.is_ok();
        let identity = if is_writable { read_identity(&mut connection).await.ok()? } else { None };
        connection.close().await.ok();
        identity
    };
    timeout(TIMEOUT, identify).await.ok().flatten()
}

/// The timeline and the epochs of the server; `None` when the server does not report its timeline.
async fn read_history(connection: &mut PgConnection) -> Result<Option<History>, Unfit> {
    match try_to_read_history(connection).await {
        Ok(history) => Ok(history),
        // `Postgres::check_privileges` refuses such a role, with a better message.
        Err(error) if sqlstate(&error).as_deref() == Some(INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn try_to_read_history(connection: &mut PgConnection) -> sqlx::Result<Option<History>> {
    let Some(identity) = read_identity(connection).await? else { return Ok(None) };
    let epochs = sqlx::query!(r#"select epoch as "epoch!", kept_below from read_epochs()"#)
        .fetch_all(connection)
        .await?;
    // The first row is the current epoch. The second row says which tokens of the epoch before it
    // stay valid. On the same cluster, only `tenantry restored` begins an epoch that keeps no
    // earlier token (0).
    let is_restored = epochs.get(1).is_some_and(|before| before.kept_below == Some(0));
    let epochs = epochs.into_iter().map(|row| row.epoch).collect();
    Ok(Some(History { identity, epochs, is_restored }))
}

async fn read_identity(connection: &mut PgConnection) -> sqlx::Result<Option<Identity>> {
    let row = sqlx::query!("select s.system_identifier, s.timeline from server_identity() s")
        .fetch_one(connection)
        .await?;
    let identity = row.system_identifier.zip(row.timeline);
    Ok(identity.map(|(system_identifier, timeline)| Identity { system_identifier, timeline }))
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
        // `Postgres::check_privileges` refuses such a role, with a better message.
        Err(error) if sqlstate(&error).as_deref() == Some(INSUFFICIENT_PRIVILEGE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn check(connection: &mut PgConnection) -> Result<(), Unfit> {
    check_writable(connection).await?;
    check_schema(connection).await
}

async fn check_writable(connection: &mut PgConnection) -> Result<(), Unfit> {
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
    Ok(())
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
            return Err(Unfit::SchemaBehind(known_numbers().collect()));
        }
        // `Postgres::check_privileges` refuses such a role, with a better message.
        Err(error) if sqlstate(&error).as_deref() == Some(INSUFFICIENT_PRIVILEGE) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let applied: HashSet<i64> = schema.applied.into_iter().collect();
    let missing: Vec<i64> = known_numbers().filter(|number| !applied.contains(number)).collect();
    if !missing.is_empty() {
        return Err(Unfit::SchemaBehind(missing));
    }
    if known_numbers().max() < Some(schema.oldest_known) {
        return Err(Unfit::SchemaAhead(schema.oldest_known));
    }
    Ok(())
}

/// The numbers of the migrations that this program knows.
fn known_numbers() -> impl Iterator<Item = i64> {
    MIGRATIONS.iter().map(|migration| migration.version)
}

/// The error of a connection that leads to a read-only server, such as a standby.
pub(super) fn read_only_server() -> sqlx::Error {
    let cause = "the server of the connection is read-only";
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, cause).into()
}
