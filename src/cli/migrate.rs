//! The command `tenantry migrate`.

use sqlx::Connection;

use super::progress;
use crate::{
    config::{Values, postgres_url},
    pg,
};

/// Applies the migrations.
pub(super) async fn run(values: Values) -> anyhow::Result<()> {
    let owner_url = postgres_url(&values, "MIGRATE_DATABASE_URL")?;
    let app_url = values.get("DATABASE_URL").map(|_| postgres_url(&values, "DATABASE_URL"));
    let app_url = app_url.transpose()?;
    let mut owner_connection = pg::connect_owner(&owner_url).await?;
    let spinner = progress::spinner("applying migrations");
    let migrated = pg::migrate(&mut owner_connection, app_url.as_ref()).await;
    spinner.finish_and_clear();
    migrated?;
    owner_connection.close().await?;
    println!("the schema is up to date");
    Ok(())
}
