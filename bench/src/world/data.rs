//! Fills a database with the benchmark's data, mostly by COPY.

use std::{
    fmt::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use secrecy::SecretString;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tenantry::{
    db::Db,
    pg,
    privacy::{Cipher, DataKeys, MasterSource, SealContext, bound_row_bytes},
    tokens::{Keyring, TokenKind},
};

use super::{
    shape::{self, CHECKER_SESSIONS, ROLES, SESSIONS, Shape},
    tokens::Keys,
};

/// Size of one chunk of COPY data, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The client details that every session stores, as JSON.
const CLIENT_DETAILS: &str = r#"{"device_name":"","ip":"127.0.0.1","user_agent":"bench"}"#;

/// A loaded database.
#[derive(Clone, Serialize)]
pub struct LoadedDatabase {
    /// Number of users in the database.
    pub users: u64,
    /// Number of all rows; 0 when an earlier run loaded the database.
    pub rows: u64,
    /// Loading time, including indexes and statistics. `None` when an earlier run loaded the
    /// database.
    pub took: Option<Duration>,
    /// Size on disk, in bytes.
    pub bytes: i64,
}

/// Fills an empty, migrated database. Returns the number of rows.
///
/// # Errors
/// Returns an error when Postgres refuses the data.
pub async fn fill(
    owner_url: &SecretString,
    shape: Shape,
    keys: &Keys,
    guest_hash: &str,
) -> anyhow::Result<u64> {
    let (tenant_cipher, common_cipher) = create_tenant(owner_url, &keys.master_key_path).await?;
    let ciphers = Ciphers { tenant: &tenant_cipher, common: &common_cipher };
    let mut connection_1 = connect_without_triggers(owner_url).await?;
    let mut connection_2 = connect_without_triggers(owner_url).await?;
    execute(&mut connection_1, &insert_roles_and_credentials(guest_hash, shape)).await?;
    // The two copies run at the same time, because each connection uses one core of Postgres.
    let (users, assignments) = tokio::try_join!(
        copy_users(&mut connection_1, shape, ciphers),
        copy_assignments(&mut connection_2, shape)
    )?;
    let sessions = copy_sessions(&mut connection_1, shape, &keys.keyring, ciphers).await?;
    let subjects = "insert into subjects select tenant_id, user_id, 'user' from users";
    execute(&mut connection_1, subjects).await?;
    execute(&mut connection_1, "analyze").await?;
    execute(&mut connection_1, "checkpoint").await?;
    connection_1.close().await?;
    connection_2.close().await?;
    // Each user also has a row in `subjects`. The role of the checker, the tenant and its data key
    // are three more rows.
    Ok(2 * users + assignments + sessions + ROLES + 3)
}

/// Size of a database on disk, in bytes.
///
/// # Errors
/// Returns an error when Postgres is unavailable.
pub async fn size(owner_url: &SecretString) -> anyhow::Result<i64> {
    let mut connection = pg::connect_owner(owner_url).await?;
    let row = sqlx::raw_sql("select pg_database_size(current_database())")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(row.try_get(0)?)
}

/// Opens a connection whose inserts fire no triggers. The triggers announce changes to servers, and
/// no server has cached these rows yet.
async fn connect_without_triggers(owner_url: &SecretString) -> anyhow::Result<PgConnection> {
    let mut connection = pg::connect_owner(owner_url).await?;
    execute(&mut connection, "set session_replication_role = replica").await?;
    Ok(connection)
}

async fn execute(connection: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(connection).await.context("can't fill the database")?;
    Ok(())
}

/// Ciphers that encrypt personal data and calculate the keyed hashes of emails.
#[derive(Clone, Copy)]
struct Ciphers<'a> {
    /// Cipher with the tenant's data key.
    tenant: &'a Cipher,
    /// Cipher with the common data key, for lookups without a tenant.
    common: &'a Cipher,
}

/// Creates the tenant as the service does, with a data key. Returns the tenant's cipher and the
/// common cipher.
async fn create_tenant(
    owner_url: &SecretString,
    master_key_path: &Path,
) -> anyhow::Result<(Arc<Cipher>, Arc<Cipher>)> {
    let source = MasterSource { file: Some(master_key_path.to_owned()), service: None };
    let db = Db::connect(owner_url, 1)?.with_data_keys(DataKeys::load(&source)?);
    db.load_common_data_key().await?;
    let tenant = shape::tenant();
    let data_key = db.generate_data_key(tenant).await?;
    let mut tx = db.begin(tenant).await?;
    let insert = format!(
        "insert into tenants (tenant_id, name, slug) values ('{tenant}', 'Bench', 'bench')"
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(tx.conn()).await?;
    tx.insert_data_key(&data_key).await?;
    tx.commit().await?;
    let cipher = db.cipher(tenant).await?.context("the tenant has no data key")?;
    let common = db.common_cipher()?;
    db.close().await;
    Ok((cipher, common))
}

/// The statement that inserts the roles and the guests' passwords: too few rows for COPY.
fn insert_roles_and_credentials(guest_hash: &str, shape: Shape) -> String {
    let tenant = shape::tenant();
    let roles: Vec<_> = (0..=ROLES)
        .map(|role| {
            let (id, permissions) = (shape::role_id(role), shape::permissions_of_role(role));
            format!("('{tenant}', '{id}', 'role-{role:02}', 2, '{{{}}}')", permissions.join(","))
        })
        .collect();
    let guests: Vec<_> = shape
        .guests()
        .map(|guest| format!("('{tenant}', '{}', '{guest_hash}')", shape::user_id(guest)))
        .collect();
    format!(
        "insert into roles (tenant_id, role_id, name, level, permissions) values {};
         insert into credentials (tenant_id, user_id, password_hash) values {};",
        roles.join(", "),
        guests.join(", "),
    )
}

/// Version of a user that was never changed.
const FIRST_VERSION: i64 = 1;

/// Email of a user.
pub fn email(user: u64) -> String {
    format!("user-{user:08}@bench.test")
}

async fn copy_users(
    connection: &mut PgConnection,
    shape: Shape,
    ciphers: Ciphers<'_>,
) -> anyhow::Result<u64> {
    let tenant = shape::tenant();
    let lines = (0..shape.guests().end).map(|user| {
        let (id, email) = (shape::user_id(user), email(user));
        let profile = format!(r#"{{"email":"{email}","display_name":"Person {user}"}}"#);
        let email_index = ciphers.tenant.blind_index("email", email.as_bytes());
        let email_lookup = ciphers.common.blind_index("email", email.as_bytes());
        let row =
            bound_row_bytes(&id.0, &[&FIRST_VERSION.to_be_bytes(), &email_index, &email_lookup]);
        let context = SealContext { table: "users", row: &row };
        let profile = bytea_text(&ciphers.tenant.seal(context, profile.as_bytes())?);
        let (email_index, email_lookup) = (bytea_text(&email_index), bytea_text(&email_lookup));
        Ok(format!("{tenant}\t{id}\t{profile}\t{email_index}\t{email_lookup}"))
    });
    let columns = "users (tenant_id, user_id, profile, email_index, email_lookup)";
    copy_rows(connection, columns, lines).await
}

/// A `bytea` value in COPY's text format.
fn bytea_text(bytes: &[u8]) -> String {
    let mut text = String::from(r"\\x");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

async fn copy_assignments(connection: &mut PgConnection, shape: Shape) -> anyhow::Result<u64> {
    let tenant = shape::tenant();
    let pairs =
        (0..=shape.checker()).flat_map(|user| shape.roles_of(user).map(move |role| (user, role)));
    let lines = pairs.zip(0..).map(|((user, role), number)| {
        let (user, role) = (shape::user_id(user), shape::role_id(role));
        Ok(format!("{tenant}\t{}\t{user}\t{role}", shape::assignment_id(number)))
    });
    let columns = "role_assignments (tenant_id, assignment_id, user_id, role_id)";
    copy_rows(connection, columns, lines).await
}

async fn copy_sessions(
    connection: &mut PgConnection,
    shape: Shape,
    keyring: &Keyring,
    ciphers: Ciphers<'_>,
) -> anyhow::Result<u64> {
    let tenant = shape::tenant();
    let (refresh_kid, access_kid) =
        (keyring.kid(TokenKind::Refresh), keyring.kid(TokenKind::Access));
    let expiry = tenantry::clock::now() + time::Duration::days(30);
    let lines = (0..SESSIONS + CHECKER_SESSIONS).map(|session| {
        let (id, user) = (shape::session_id(session), shape::user_id(shape.session_user(session)));
        let row = bound_row_bytes(&id.0, &[user.0.as_bytes()]);
        let context = SealContext { table: "sessions", row: &row };
        let client = bytea_text(&ciphers.tenant.seal(context, CLIENT_DETAILS.as_bytes())?);
        Ok(format!(
            "{tenant}\t{id}\t{user}\t{client}\t{{pwd}}\t{session}\t{expiry}\t{expiry}\t{refresh_kid}\t{session}\t{expiry}\t{access_kid}\t{expiry}"
        ))
    });
    let columns = "sessions (tenant_id, session_id, user_id, client, amr, refresh_jti, \
                   refresh_issued_at, refresh_expires_at, refresh_kid, access_jti, \
                   access_expires_at, access_kid, expires_at)";
    copy_rows(connection, columns, lines).await
}

/// Sends lines in COPY's text format. Returns the number of rows.
async fn copy_rows(
    connection: &mut PgConnection,
    columns: &str,
    lines: impl Iterator<Item = anyhow::Result<String>>,
) -> anyhow::Result<u64> {
    let mut copy_in = connection.copy_in_raw(&format!("copy {columns} from stdin")).await?;
    let mut chunk = String::with_capacity(CHUNK_BYTES + 1024);
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(chunk, "{}", line?);
        if chunk.len() >= CHUNK_BYTES {
            copy_in.send(chunk.as_bytes()).await?;
            chunk.clear();
        }
    }
    copy_in.send(chunk.as_bytes()).await?;
    Ok(copy_in.finish().await?)
}

/// Awaits `future` and returns its output and the elapsed time.
pub async fn measure_time<T>(
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start_time = Instant::now();
    Ok((future.await?, start_time.elapsed()))
}
