//! The command `tenantry migrate`.

use anyhow::ensure;
use clap::{Arg, ArgAction, ArgMatches};
use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use time::format_description::well_known::Rfc3339;

use super::progress;
use crate::{
    config::{Values, postgres_url},
    pg::{self, Migrations},
};

const STATUS: &str = "status";
const REPLACE_PASSWORD: &str = "replace-password";

pub(super) fn status_argument() -> Arg {
    Arg::new(STATUS).long(STATUS).action(ArgAction::SetTrue).help(
        "Print the migrations and when each was applied, and apply none; fail when one is missing",
    )
}

pub(super) fn only_status(matches: &ArgMatches) -> bool {
    matches.get_flag(STATUS)
}

pub(super) fn replace_password_argument() -> Arg {
    Arg::new(REPLACE_PASSWORD).long(REPLACE_PASSWORD).action(ArgAction::SetTrue).help(
        "Replace the password of tenantry_app with that of DATABASE_URL, even if other databases \
         of the cluster use the role",
    )
}

pub(super) fn replaces_password(matches: &ArgMatches) -> bool {
    matches.get_flag(REPLACE_PASSWORD)
}

/// Applies the migrations. If `DATABASE_URL` has a password for the role of the service, sets this
/// password. With `only_status`, prints the migrations and changes nothing.
pub(super) async fn run(
    values: Values,
    only_status: bool,
    replaces_password: bool,
) -> anyhow::Result<()> {
    let owner_url = postgres_url(&values, "MIGRATE_DATABASE_URL")?;
    let app_url = values.get("DATABASE_URL").map(|_| postgres_url(&values, "DATABASE_URL"));
    let app_url = app_url.transpose()?;
    let mut owner_connection = pg::connect_owner(&owner_url).await?;
    let result = if only_status {
        print_status(&mut owner_connection).await
    } else {
        migrate(&mut owner_connection, app_url.as_ref(), replaces_password).await
    };
    owner_connection.close().await?;
    result
}

async fn migrate(
    owner_connection: &mut PgConnection,
    app_url: Option<&SecretString>,
    replaces_password: bool,
) -> anyhow::Result<()> {
    let spinner = progress::spinner("applying migrations");
    let migrated = pg::migrate(owner_connection).await;
    spinner.finish_and_clear();
    match migrated? {
        Migrations::UpToDate => out!("the schema is up to date"),
        Migrations::Newer(number) => out!(
            "the schema is newer than this program: it has the migration {number}; nothing was \
             changed"
        ),
    }
    match app_url {
        Some(app_url) => pg::set_app_password(owner_connection, app_url, replaces_password).await,
        None => Ok(()),
    }
}

/// Prints one line for each migration: number, name, and when it was applied.
async fn print_status(owner_connection: &mut PgConnection) -> anyhow::Result<()> {
    let migrations = pg::migrations(owner_connection).await?;
    for migration in &migrations {
        let state = match migration.applied_at {
            None => "missing".to_owned(),
            Some(time) => time.format(&Rfc3339)?,
        };
        let note = if migration.is_known { "" } else { "  (of a newer program)" };
        out!("{:04}  {:<40}  {state}{note}", migration.number, migration.name);
    }
    let missing = migrations.iter().filter(|migration| migration.applied_at.is_none()).count();
    ensure!(missing == 0, "{missing} migrations are missing; run `tenantry migrate`");
    Ok(())
}
