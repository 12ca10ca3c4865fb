//! The two database roles of the service. All databases of a cluster share the roles, so the roles
//! may already exist when a schema is created. This file chooses the migrations for that case, and
//! sets the password of the service's role.

use std::{sync::LazyLock, time::Duration};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqlSafeStr, migrate::Migrator,
};
use tokio::time::timeout;

use super::{
    known_migrations::MIGRATIONS,
    postgres::APP_ROLE,
    server_check::INSUFFICIENT_PRIVILEGE,
    url::{first_url, parse},
};
use crate::error::sqlstate;

/// Timeout of a connection as the service's role.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of the migration that creates the roles.
const ROLES_MIGRATION: i64 = 1;

/// The statements of [`ROLES_MIGRATION`] that create the roles, and that make the owner of the
/// schema a member of `tenantry_lookup`. Postgres refuses these statements to a role without
/// CREATEROLE, even if the roles and the membership exist.
const ROLE_STATEMENTS: [&str; 3] = [
    "do $$
begin
    create role tenantry_app login;
exception when duplicate_object or unique_violation then null;
end $$;",
    "do $$
begin
    create role tenantry_lookup nologin;
exception when duplicate_object or unique_violation then null;
end $$;",
    "do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant tenantry_lookup to %I', current_user);
    end if;
end $$;",
];

/// The migrations for a cluster in which the roles exist: without [`ROLE_STATEMENTS`]. The
/// checksums are those of the unchanged migrations, because later runs compare the stored checksums
/// with them.
static MIGRATIONS_WITHOUT_ROLES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations: Vec<_> = MIGRATIONS.iter().cloned().collect();
    for migration in migrations.iter_mut().filter(|each| each.version == ROLES_MIGRATION) {
        let mut sql = migration.sql.as_str().to_owned();
        for statement in ROLE_STATEMENTS {
            sql = sql.replace(statement, "");
        }
        migration.sql = AssertSqlSafe(sql).into_sql_str();
    }
    Migrator::with_migrations(migrations)
});

/// The state of the roles, and the rights of the schema's owner.
struct Roles {
    owner: String,
    is_superuser: bool,
    may_create: bool,
    /// The roles that do not exist.
    missing: Vec<String>,
    /// Whether the owner is a member of `tenantry_lookup`.
    is_member: bool,
}

/// The migrations to apply to a database without schema, as the connected role.
///
/// # Errors
/// When roles or the membership are missing and the connected role may not create them. The error
/// has the statements that create them.
pub(super) async fn migrations_for(
    owner_connection: &mut PgConnection,
) -> anyhow::Result<&'static Migrator> {
    let roles = read_roles(owner_connection).await?;
    let roles_exist = roles.missing.is_empty();
    if roles.is_superuser || (!roles_exist && roles.may_create) {
        return Ok(&MIGRATIONS);
    }
    if roles_exist && (roles.is_member || grant_membership(owner_connection).await?) {
        return Ok(&MIGRATIONS_WITHOUT_ROLES);
    }
    bail!(
        "the database roles of the service must be created first, and {} may not do it; run these \
         statements as a superuser, then migrate again:\n{}",
        roles.owner,
        creating_statements(&roles).join("\n")
    );
}

async fn read_roles(owner_connection: &mut PgConnection) -> anyhow::Result<Roles> {
    let row = sqlx::query!(
        r#"
        select quote_ident(current_user) as "owner!",
               owner.rolsuper as "is_superuser!",
               owner.rolcreaterole as "may_create!",
               array(
                   select expected.name
                   from unnest(array['tenantry_app', 'tenantry_lookup']) as expected (name)
                   where not exists (select from pg_roles r where r.rolname = expected.name)
               ) as "missing!",
               exists (
                   select from pg_roles r
                   where r.rolname = 'tenantry_lookup' and pg_has_role(r.oid, 'member')
               ) as "is_member!"
        from pg_roles owner
        where owner.rolname = current_user
        "#
    )
    .fetch_one(owner_connection)
    .await
    .context("can't ask Postgres about the roles")?;
    Ok(Roles {
        owner: row.owner,
        is_superuser: row.is_superuser,
        may_create: row.may_create,
        missing: row.missing,
        is_member: row.is_member,
    })
}

/// Makes the owner a member of `tenantry_lookup`. Returns whether the owner may do it.
async fn grant_membership(owner_connection: &mut PgConnection) -> anyhow::Result<bool> {
    let grant = sqlx::raw_sql("grant tenantry_lookup to current_user");
    match grant.execute(owner_connection).await {
        Ok(_) => Ok(true),
        Err(error) if is_forbidden(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The statements that create the missing roles and the membership.
fn creating_statements(roles: &Roles) -> Vec<String> {
    let create = roles.missing.iter().map(|role| match role.as_str() {
        APP_ROLE => format!("create role {role} login password '...';"),
        _ => format!("create role {role} nologin;"),
    });
    create.chain([format!("grant tenantry_lookup to {};", roles.owner)]).collect()
}

/// Gives the service's role the password of `app_url`, if the URL has this role and a password.
///
/// All databases of a cluster share the role. If other databases use the role, the password stays
/// the same, because a new password would lock out their deployments. With `replaces_shared`, the
/// password is replaced even then.
///
/// # Errors
/// When the role has another password than `app_url`, and the role's password was not changed. The
/// error says why.
pub async fn set_app_password(
    owner_connection: &mut PgConnection,
    app_url: &SecretString,
    replaces_shared: bool,
) -> anyhow::Result<()> {
    let Some(password) = app_password(app_url) else { return Ok(()) };
    let others = other_databases(owner_connection).await?;
    if !others.is_empty() && !replaces_shared {
        if can_connect(app_url).await {
            return Ok(());
        }
        bail!(
            "the password in DATABASE_URL is not that of the role {APP_ROLE}, which the databases \
             {} use too. The password was not changed, because their deployments would be locked \
             out. Use the role's password in DATABASE_URL, or replace the password with \
             `tenantry migrate --replace-password` and give the new one to all deployments",
            others.join(", ")
        );
    }
    match alter_password(owner_connection, &password).await {
        Err(error) if is_forbidden(&error) => {
            if can_connect(app_url).await {
                return Ok(());
            }
            bail!(
                "the password in DATABASE_URL is not that of the role {APP_ROLE}, and the role of \
                 MIGRATE_DATABASE_URL may not change it; run this statement as a superuser: \
                 alter role {APP_ROLE} password '...'"
            )
        }
        result => Ok(result?),
    }
}

/// The other databases of the cluster in which the service's role has privileges.
async fn other_databases(owner_connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select distinct d.datname::text as "name!"
        from pg_shdepend s
            join pg_database d on d.oid = s.dbid
            join pg_roles r on r.oid = s.refobjid
        where s.refclassid = 'pg_authid'::regclass
          and r.rolname = 'tenantry_app'
          and d.datname <> current_database()
        order by 1
        limit 10
        "#
    )
    .fetch_all(owner_connection)
    .await
}

async fn alter_password(
    owner_connection: &mut PgConnection,
    password: &SecretString,
) -> sqlx::Result<()> {
    let mut tx = owner_connection.begin().await?;
    let statement = sqlx::query_scalar!(
        r#"select format('alter role tenantry_app password %L', $1::text) as "sql!""#,
        password.expose_secret()
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await?;
    tx.commit().await
}

/// Whether one of the servers of a URL accepts the role and the password of the URL.
async fn can_connect(app_url: &SecretString) -> bool {
    for server in parse(app_url).unwrap_or_default() {
        if let Ok(Ok(connection)) = timeout(CONNECT_TIMEOUT, server.options.connect()).await {
            connection.close().await.ok();
            return true;
        }
    }
    false
}

fn app_password(url: &SecretString) -> Option<SecretString> {
    let url = first_url(url.expose_secret()).ok()?;
    let password = url.password().filter(|_| url.username() == APP_ROLE)?;
    let decoded = percent_encoding::percent_decode_str(password).decode_utf8().ok()?;
    Some(SecretString::from(decoded.into_owned()))
}

fn is_forbidden(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code == INSUFFICIENT_PRIVILEGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_with_several_servers_is_found() {
        for url in [
            "postgres://tenantry_app:p%40w@db/tenantry",
            "postgres://tenantry_app:p%40w@db1:5432,db2:5433/tenantry",
        ] {
            let password = app_password(&SecretString::from(url)).expect(url);
            assert_eq!(password.expose_secret(), "p@w");
        }
        assert!(app_password(&SecretString::from("postgres://other:pw@db/tenantry")).is_none());
    }

    /// N40: only the statements that create roles are left out, and the checksum stays.
    #[test]
    fn the_migrations_without_roles_lack_only_the_role_statements() {
        for (full, shortened) in MIGRATIONS.iter().zip(MIGRATIONS_WITHOUT_ROLES.iter()) {
            assert_eq!(full.checksum, shortened.checksum);
            let removed = full.sql.as_str().len() - shortened.sql.as_str().len();
            let expected: usize = ROLE_STATEMENTS.iter().map(|statement| statement.len()).sum();
            assert_eq!(removed, if full.version == ROLES_MIGRATION { expected } else { 0 });
        }
    }
}
