//! Access to Postgres for all features. [`Db`] begins transactions that work in one tenant, and
//! that have the cipher for the tenant's personal data. A commit returns only after this process's
//! caches have applied the changes of the transaction.

mod clock_offset;
mod database;
mod tx;

pub use clock_offset::watch_clock;
pub use database::Db;
pub use tx::TenantTx;
