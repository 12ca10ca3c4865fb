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

pub(super) fn status_argument() -> Arg {
    Arg::new(STATUS).long(STATUS).action(ArgAction::SetTrue).help(
        "Print the migrations and when each was applied, and apply none; fail when one is missing",
    )
}

pub(super) fn only_status(matches: &ArgMatches) -> bool {
    matches.get_flag(STATUS)
}

/// Applies the migrations; with `only_status`, prints them and applies none.
pub(super) async fn run(values: Values, only_status: bool) -> anyhow::Result<()> {
    let owner_url = postgres_url(&values, "MIGRATE_DATABASE_URL")?;
    let app_url = values.get("DATABASE_URL").map(|_| postgres_url(&values, "DATABASE_URL"));
    let app_url = app_url.transpose()?;
    let mut owner_connection = pg::connect_owner(&owner_url).await?;
    let result = if only_status {
        print_status(&mut owner_connection).await
    } else {
        migrate(&mut owner_connection, app_url.as_ref()).await
    };
    owner_connection.close().await?;
    result
}

async fn migrate(
    owner_connection: &mut PgConnection,
    app_url: Option<&SecretString>,
) -> anyhow::Result<()> {
    let spinner = progress::spinner("applying migrations");
    let migrated = pg::migrate(owner_connection, app_url).await;
    spinner.finish_and_clear();
    match migrated? {
        Migrations::UpToDate => println!("the schema is up to date"),
        Migrations::Newer(number) => println!(
            "the schema is newer than this program: it has the migration {number}; nothing was \
             changed"
        ),
    }
    Ok(())
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
        println!("{:04}  {:<40}  {state}{note}", migration.number, migration.name);
    }
    let missing = migrations.iter().filter(|migration| migration.applied_at.is_none()).count();
    ensure!(missing == 0, "{missing} migrations are missing; run `tenantry migrate`");
    Ok(())
}
