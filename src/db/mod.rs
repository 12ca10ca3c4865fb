//! The access of the features to Postgres. [`Db`] begins transactions that work in one tenant and
//! encrypt the tenant's personal data. A commit returns only after this process's caches have
//! applied the transaction.

mod database;
mod tx;

pub use database::Db;
pub use tx::TenantTx;
