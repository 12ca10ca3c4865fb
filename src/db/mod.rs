//! Postgres: the pool, and transactions that work in one tenant.

pub mod constraint;
mod observed;
mod pool;
mod tx;

pub(crate) use pool::check_url;
pub use pool::{Db, connect_owner, migrate};
pub use tx::TenantTx;
