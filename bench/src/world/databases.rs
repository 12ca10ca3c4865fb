//! The databases of the benchmark: created by this run, or kept from an earlier run.

use std::collections::BTreeMap;

use tenantry::{
    WorkOwner,
    config::{Passwords, SETTINGS, Values},
    dev::Services,
    ids::TenantId,
    passwords::{Hasher, normalise},
    pg,
};

use super::{
    data::{self, LoadedDatabase},
    shape::Shape,
    stores,
    tokens::Keys,
};

/// The guests' password.
pub const PASSWORD: &str = "correct horse battery";

/// Name of a database until it is complete.
const UNFINISHED_NAME: &str = "unfinished";

/// Name of the database with this many users.
pub fn name(users: u64) -> String {
    format!("users_{users}")
}

/// Drops the databases of these sizes.
///
/// # Errors
/// Returns an error when Postgres is unavailable.
pub async fn drop(stores: &Services, sizes: impl Iterator<Item = &u64>) -> anyhow::Result<()> {
    let drop_statements: Vec<_> = sizes.map(|users| drop_statement(&name(*users))).collect();
    stores::execute_all(stores, &drop_statements).await
}

fn drop_statement(database: &str) -> String {
    format!("drop database if exists {database} with (force)")
}

/// Creates and fills databases of these sizes. With `reuse`, complete databases of an earlier run
/// are used again.
///
/// # Errors
/// Returns an error when Postgres refuses the data or the disk is full.
pub async fn create(
    stores: &Services,
    keys: &Keys,
    sizes: &[u64],
    reuse: bool,
) -> anyhow::Result<BTreeMap<u64, LoadedDatabase>> {
    // Autovacuum and frequent checkpoints would disturb the measurements.
    let settings = ["alter system set autovacuum = off", "alter system set max_wal_size = '4GB'"];
    stores::execute_all(stores, &settings.map(str::to_owned)).await?;
    stores::execute_all(stores, &["select pg_reload_conf()".to_owned()]).await?;
    let guest_hash = hash_guest_password().await?;
    let mut databases = BTreeMap::new();
    for users in sizes {
        let is_reused = reuse && is_usable(stores, *users).await;
        let (rows, took) = if is_reused {
            (0, None)
        } else {
            let creation = create_one(stores, keys, Shape { users: *users }, &guest_hash);
            let (rows, took) = Box::pin(data::measure_time(creation)).await?;
            (rows, Some(took))
        };
        let bytes = data::size(&stores::owner_url(stores, &name(*users))).await?;
        let database = LoadedDatabase { users: *users, rows, took, bytes };
        crate::say(&database.to_string());
        databases.insert(*users, database);
    }
    Ok(databases)
}

/// Whether an earlier run completed this database, and its schema is current. Migrates the schema
/// if necessary.
async fn is_usable(stores: &Services, users: u64) -> bool {
    if !stores::database_exists(stores, &name(users)).await.unwrap_or(false) {
        return false;
    }
    let migration = async {
        let mut owner_connection =
            pg::connect_owner(&stores::owner_url(stores, &name(users))).await?;
        pg::migrate(&mut owner_connection).await
    };
    migration.await.is_ok()
}

async fn create_one(
    stores: &Services,
    keys: &Keys,
    shape: Shape,
    guest_hash: &str,
) -> anyhow::Result<u64> {
    let name = name(shape.users);
    let create_statements = [
        drop_statement(&name),
        drop_statement(UNFINISHED_NAME),
        format!("create database {UNFINISHED_NAME}"),
    ];
    stores::execute_all(stores, &create_statements).await?;
    let owner_url = stores::owner_url(stores, UNFINISHED_NAME);
    let mut connection = pg::connect_owner(&owner_url).await?;
    pg::migrate(&mut connection).await?;
    sqlx::Connection::close(connection).await?;
    let rows = data::fill(&owner_url, shape, keys, guest_hash).await?;
    let rename_statement = format!("alter database {UNFINISHED_NAME} rename to {name}");
    stores::execute_all(stores, &[rename_statement]).await?;
    Ok(rows)
}

/// The default settings of password hashing.
///
/// # Errors
/// Never in practice: the defaults are valid.
pub fn default_password_settings() -> anyhow::Result<Passwords> {
    let mut values = Values::default();
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            values.set(setting.name, default);
        }
    }
    Passwords::check(&values)
}

/// The guests' password, hashed with the default settings.
async fn hash_guest_password() -> anyhow::Result<String> {
    let hasher = Hasher::start(&default_password_settings()?)?;
    let owner_of_slot = WorkOwner::new(TenantId::UNKNOWN, None);
    let hash = hasher.take_slot(owner_of_slot)?.hash(normalise(PASSWORD)).await;
    hash.map_err(|_| anyhow::anyhow!("the guests' password can't be hashed"))
}
