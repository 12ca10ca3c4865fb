//! The schema: its migrations, and the connection of its owner.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, anyhow, bail};
use backon::{BackoffBuilder, ConstantBuilder};
use secrecy::SecretString;
use sqlx::{
    ConnectOptions, PgConnection,
    migrate::{MigrateError, Migrator},
};
use time::OffsetDateTime;

use super::{known_migrations::MIGRATIONS, pooling, roles, url::parse};
use crate::error::sqlstate;

/// Timeout of a connection to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of a migration's wait for a lock. Calls that need the same lock wait behind the
/// migration for the same time. The timeout is shorter than the time after which Postgres looks for
/// deadlocks (1 s). So in a deadlock with a call, the migration fails and the call succeeds.
const LOCK_TIMEOUT: &str = "set lock_timeout = '500ms'";

/// Pause before a migration that got no lock is tried again.
const LOCK_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum number of retries of migrations that got no lock.
const LOCK_RETRIES: usize = 60;

/// A migration that this program knows or that was applied.
#[derive(Clone, Debug)]
pub struct Migration {
    pub number: i64,
    pub name: String,
    /// Whether this program knows the migration. A newer program applied an unknown migration.
    pub is_known: bool,
    /// `None` when the migration is not applied.
    pub applied_at: Option<OffsetDateTime>,
}

/// The result of [`migrate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migrations {
    /// All migrations that this program knows are applied, and no others.
    UpToDate,
    /// A newer program has migrated the schema: this is the number of its newest migration.
    Newer(i64),
}

/// Opens one connection to the primary as the role that owns the schema.
///
/// # Errors
/// When the URL is invalid, or no server of the URL is an available primary. The error contains the
/// cause for each server.
pub async fn connect_owner(url: &SecretString) -> anyhow::Result<PgConnection> {
    let mut causes = Vec::new();
    for server in parse(url)? {
        let connect = async {
            if !pooling::keeps_sessions(&server).await? {
                return Err(anyhow!(pooling::LOSES_SESSIONS));
            }
            let mut connection = server.options.connect().await?;
            let standby = is_standby(&mut connection).await?;
            Ok((connection, standby))
        };
        let cause = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok((connection, false))) => return Ok(connection),
            Ok(Ok((_, true))) => "the server is a standby".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        causes.push(format!("{}: {cause}", server.address));
    }
    Err(anyhow!("can't connect to Postgres as the schema's owner: {}", causes.join("; ")))
}

async fn is_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let standby = sqlx::query_scalar!(r#"select pg_is_in_recovery() as "standby!""#);
    standby.fetch_one(connection).await
}

/// The migrations in the order of their numbers, with the time when each was applied.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn migrations(owner_connection: &mut PgConnection) -> anyhow::Result<Vec<Migration>> {
    let mut applied = applied_migrations(owner_connection).await?;
    let mut all: Vec<Migration> = MIGRATIONS
        .iter()
        .map(|known| Migration {
            number: known.version,
            name: known.description.clone().into_owned(),
            is_known: true,
            applied_at: applied.remove(&known.version).map(|(_, applied_at)| applied_at),
        })
        .collect();
    all.extend(applied.into_iter().map(|(number, (name, applied_at))| Migration {
        number,
        name,
        is_known: false,
        applied_at: Some(applied_at),
    }));
    all.sort_by_key(|migration| migration.number);
    Ok(all)
}

/// Name and time of each applied migration, by number.
#[expect(
    clippy::disallowed_methods,
    reason = "sqlx itself creates the table, and the macros know only the tables of the migrations"
)]
async fn applied_migrations(
    owner_connection: &mut PgConnection,
) -> anyhow::Result<HashMap<i64, (String, OffsetDateTime)>> {
    const TABLE_EXISTS: &str = "select to_regclass('public._sqlx_migrations') is not null";
    if !sqlx::query_scalar::<_, bool>(TABLE_EXISTS).fetch_one(&mut *owner_connection).await? {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i64, String, OffsetDateTime)> = sqlx::query_as(
        "select version, description, installed_on from _sqlx_migrations where success",
    )
    .fetch_all(owner_connection)
    .await?;
    Ok(rows.into_iter().map(|(number, name, time)| (number, (name, time))).collect())
}

/// Applies all migrations that are missing. A schema of a newer program stays as it is.
///
/// # Errors
/// When Postgres is unavailable, or when a migration fails (its open transaction is rolled back).
/// When the schema has migrations of a newer program, but lacks a migration that this program
/// knows. When the roles of the service are missing and can't be created.
pub async fn migrate(owner_connection: &mut PgConnection) -> anyhow::Result<Migrations> {
    let all = migrations(owner_connection).await?;
    let newest_unknown = all.iter().rev().find(|migration| !migration.is_known);
    if let Some(newest) = newest_unknown {
        if let Some(missing) = all.iter().find(|migration| migration.applied_at.is_none()) {
            bail!(
                "the schema has the migration {} of another program, and lacks {}: use the \
                 program that applied it",
                newest.number,
                missing.number
            );
        }
        return Ok(Migrations::Newer(newest.number));
    }
    let has_schema = all.iter().any(|migration| migration.applied_at.is_some());
    let migrator =
        if has_schema { &MIGRATIONS } else { roles::migrations_for(owner_connection).await? };
    apply_missing(owner_connection, migrator).await?;
    Ok(Migrations::UpToDate)
}

/// Applies the missing migrations. A migration that gets a lock too late is rolled back and tried
/// again, because calls that need the same lock wait behind it.
async fn apply_missing(
    owner_connection: &mut PgConnection,
    migrator: &Migrator,
) -> anyhow::Result<()> {
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *owner_connection).await?;
    let delays = ConstantBuilder::default().with_delay(LOCK_RETRY_DELAY);
    let mut delays = delays.with_max_times(LOCK_RETRIES).build();
    loop {
        let result = migrator.run(&mut *owner_connection).await;
        if result.as_ref().is_err_and(is_lock_conflict)
            && let Some(delay) = delays.next()
        {
            // A migration that begins transactions itself leaves the failed transaction open.
            sqlx::raw_sql("rollback").execute(&mut *owner_connection).await?;
            tokio::time::sleep(delay).await;
            continue;
        }
        result.context("a migration failed")?;
        sqlx::raw_sql("reset lock_timeout").execute(owner_connection).await?;
        return Ok(());
    }
}

/// Whether a migration failed because of a lock timeout or a deadlock.
fn is_lock_conflict(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    sqlstate(error).is_some_and(|code| matches!(&*code, "55P03" | "40P01"))
}
