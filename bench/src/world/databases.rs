//! The databases of the benchmark, created or kept from an earlier run.

use std::collections::BTreeMap;

use tenantry::{
    Owner,
    config::{Passwords, SETTINGS, Values},
    dev::Services,
    ids::TenantId,
    passwords::{Hasher, normalise},
    pg,
};

use super::{
    data::{self, Loaded},
    services,
    shape::Shape,
    tokens::Keys,
};

/// The guests' password.
pub const PASSWORD: &str = "correct horse battery";

/// Name of a database until it is complete.
const UNFINISHED: &str = "unfinished";

/// Name of the database with this many users.
pub fn name(users: u64) -> String {
    format!("users_{users}")
}

/// Drops databases.
///
/// # Errors
/// Returns an error when Postgres is unavailable.
pub async fn drop(services: &Services, sizes: impl Iterator<Item = &u64>) -> anyhow::Result<()> {
    let drops: Vec<_> = sizes.map(|users| drop_statement(&name(*users))).collect();
    services::administer(services, &drops).await
}

fn drop_statement(database: &str) -> String {
    format!("drop database if exists {database} with (force)")
}

/// Creates databases of these sizes. With `keep`, complete databases of an earlier run are used
/// again.
///
/// # Errors
/// Returns an error when Postgres refuses the data or the disk is full.
pub async fn load(
    services: &Services,
    keys: &Keys,
    sizes: &[u64],
    keep: bool,
) -> anyhow::Result<BTreeMap<u64, Loaded>> {
    // Autovacuum and frequent checkpoints would disturb the measurements.
    let settings = ["alter system set autovacuum = off", "alter system set max_wal_size = '4GB'"];
    services::administer(services, &settings.map(str::to_owned)).await?;
    services::administer(services, &["select pg_reload_conf()".to_owned()]).await?;
    let hash = guest_hash().await?;
    let mut loaded = BTreeMap::new();
    for users in sizes {
        let is_kept = keep && is_current(services, *users).await;
        let (rows, took) = if is_kept {
            (0, None)
        } else {
            let work = load_one(services, keys, Shape { users: *users }, &hash);
            let (rows, took) = Box::pin(data::timed(work)).await?;
            (rows, Some(took))
        };
        let bytes = data::size(&services::owner_url(services, &name(*users))).await?;
        let found = Loaded { users: *users, rows, took, bytes };
        crate::say(&found.to_string());
        loaded.insert(*users, found);
    }
    Ok(loaded)
}

/// Whether an earlier run completed this database and its schema can be migrated to the current
/// schema.
async fn is_current(services: &Services, users: u64) -> bool {
    if !services::exists(services, &name(users)).await.unwrap_or(false) {
        return false;
    }
    let migrated = async {
        let mut owner = pg::connect_owner(&services::owner_url(services, &name(users))).await?;
        pg::migrate(&mut owner, None).await
    };
    migrated.await.is_ok()
}

async fn load_one(
    services: &Services,
    keys: &Keys,
    shape: Shape,
    guest_hash: &str,
) -> anyhow::Result<u64> {
    let name = name(shape.users);
    let create_statements = [
        drop_statement(&name),
        drop_statement(UNFINISHED),
        format!("create database {UNFINISHED}"),
    ];
    services::administer(services, &create_statements).await?;
    let owner = services::owner_url(services, UNFINISHED);
    let mut connection = pg::connect_owner(&owner).await?;
    pg::migrate(&mut connection, None).await?;
    sqlx::Connection::close(connection).await?;
    let rows = data::load(&owner, shape, keys, guest_hash).await?;
    let rename_statement = format!("alter database {UNFINISHED} rename to {name}");
    services::administer(services, &[rename_statement]).await?;
    Ok(rows)
}

/// Password hashing with the default settings.
///
/// # Errors
/// Never in practice: the defaults are valid.
pub fn passwords() -> anyhow::Result<Passwords> {
    let mut values = Values::default();
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            values.set(setting.name, default);
        }
    }
    Passwords::check(&values)
}

/// The guests' password, hashed with the default settings.
async fn guest_hash() -> anyhow::Result<String> {
    let hasher = Hasher::start(&passwords()?)?;
    let nobody = Owner::new(TenantId::UNKNOWN, None);
    let hash = hasher.slot(nobody)?.hash(normalise(PASSWORD)).await;
    hash.map_err(|_| anyhow::anyhow!("the guest's password can't be hashed"))
}
