//! The command `tenantry migrate`.

use sqlx::Connection;

use super::{connect::url, progress};
use crate::{config::Values, pg};

/// Applies the migrations.
pub(super) async fn run(values: Values) -> anyhow::Result<()> {
    let mut owner_connection = pg::connect_owner(&url(&values, "MIGRATE_DATABASE_URL")?).await?;
    let app_url = values.get("DATABASE_URL").map(Into::into);
    let spinner = progress::spinner("applying migrations");
    let migrated = pg::migrate(&mut owner_connection, app_url.as_ref()).await;
    spinner.finish_and_clear();
    migrated?;
    owner_connection.close().await?;
    println!("the schema is up to date");
    Ok(())
}
