//! Postgres as the features use it. [`Db`] begins transactions that work in one tenant and
//! encrypt its personal data. This process's caches have applied a transaction when its commit
//! returns.

mod database;
mod tx;

pub use database::Db;
pub use tx::TenantTx;
