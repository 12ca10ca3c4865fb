//! The migrations that this program knows: the files in `migrations/`.

use sqlx::migrate::Migrator;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!();
