//! The database roles of the service, which all databases of a cluster share.

use sqlx::{Connection, PgConnection};

use crate::{
    commands::{CommandOutput, run},
    harness::PrivatePostgres,
};

async fn migrate(postgres: &PrivatePostgres, owner: &str, database: &str) -> CommandOutput {
    run(&["migrate"], &[("MIGRATE_DATABASE_URL", &postgres.url(owner, database))]).await
}

/// `migrate` of a database, with this password for the role of the service.
async fn migrate_with_password(
    postgres: &PrivatePostgres,
    database: &str,
    password: &str,
    flags: &[&str],
) -> CommandOutput {
    let app_url = with_password(postgres, database, password);
    let settings =
        [("MIGRATE_DATABASE_URL", postgres.url("postgres", database)), ("DATABASE_URL", app_url)];
    let settings = settings.each_ref().map(|(name, url)| (*name, url.as_str()));
    run(&[&["migrate"], flags].concat(), &settings).await
}

fn with_password(postgres: &PrivatePostgres, database: &str, password: &str) -> String {
    postgres.url("tenantry_app", database).replacen(
        "tenantry_app@",
        &format!("tenantry_app:{password}@"),
        1,
    )
}

async fn can_sign_in(postgres: &PrivatePostgres, database: &str, password: &str) -> bool {
    PgConnection::connect(&with_password(postgres, database, password)).await.is_ok()
}

/// N40: an owner without rights to create roles uses roles that exist. If roles are missing, the
/// error has the statements that create them, and they are sufficient.
#[tokio::test]
async fn roles_may_be_created_before_the_migration() {
    let postgres = PrivatePostgres::start("roles").await;
    postgres.execute("postgres", "create role \"the owner\" login").await;
    postgres.execute("postgres", "create database second owner \"the owner\"").await;

    let output = migrate(&postgres, "the owner", "second").await;
    let expected = "grant tenantry_lookup to \"the owner\";";
    assert!(!output.ok && output.err.contains(expected), "{output:?}");
    assert!(!output.err.contains("create role"), "{output:?}");

    postgres.execute("postgres", "drop database tenantry").await;
    postgres.execute("postgres", "drop role tenantry_app, tenantry_lookup").await;
    let output = migrate(&postgres, "the owner", "second").await;
    assert!(!output.ok, "{output:?}");
    let is_statement = |line: &&str| line.ends_with(';');
    let statements: Vec<&str> = output.err.lines().map(str::trim).filter(is_statement).collect();
    assert_eq!(
        statements,
        [
            "create role tenantry_app login password '...';",
            "create role tenantry_lookup nologin;",
            expected,
        ]
    );
    postgres.execute("postgres", &statements.join("\n")).await;
    let output = migrate(&postgres, "the owner", "second").await;
    assert!(output.ok, "{output:?}");
    let output = run(
        &["migrate", "--status"],
        &[("MIGRATE_DATABASE_URL", &postgres.url("the owner", "second"))],
    )
    .await;
    assert!(output.ok, "{output:?}");
}

/// N40: the deployment of another database does not silently change the password of the role that
/// they share.
#[tokio::test]
async fn a_second_deployment_does_not_change_the_password_of_the_first() {
    let postgres = PrivatePostgres::start("passwords").await;
    let output = migrate_with_password(&postgres, "tenantry", "first", &[]).await;
    assert!(output.ok, "{output:?}");
    postgres.require_app_password().await;
    assert!(can_sign_in(&postgres, "tenantry", "first").await);

    postgres.execute("postgres", "create database second").await;
    let output = migrate_with_password(&postgres, "second", "another", &[]).await;
    assert!(!output.ok, "{output:?}");
    for part in ["tenantry_app", "databases tenantry use", "--replace-password"] {
        assert!(output.err.contains(part), "{output:?}");
    }
    // The error must not contain the new password.
    assert!(!output.err.contains("another'"), "{output:?}");
    assert!(can_sign_in(&postgres, "tenantry", "first").await);

    // The same password changes nothing, and a new password can be set explicitly.
    let output = migrate_with_password(&postgres, "second", "first", &[]).await;
    assert!(output.ok, "{output:?}");
    let output =
        migrate_with_password(&postgres, "second", "another", &["--replace-password"]).await;
    assert!(output.ok, "{output:?}");
    assert!(can_sign_in(&postgres, "tenantry", "another").await);
    assert!(!can_sign_in(&postgres, "tenantry", "first").await);
}
