//! Postgres: the pool, and transactions that work in one tenant.

mod connecting;
pub mod constraint;
mod held;
mod observed;
mod pool;
mod share;
mod tx;

pub use connecting::connect_on;
pub use observed::Observed;
pub(crate) use pool::check_url;
pub use pool::{Db, connect_owner, migrate};
pub use tx::TenantTx;
