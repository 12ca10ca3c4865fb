//! Access to Postgres, independent of the features: connections that tenants share fairly,
//! statements that are cancelled with their call, and transactions with a tenant set.
//!
//! [`crate::db`] adds two things to a transaction: the keys for personal data, and in-memory
//! caches that are up to date after each commit.

mod connecting;
mod constraint;
mod interval;
mod observed;
mod pooled;
mod postgres;
mod schema;
mod share;
mod tx;
pub mod unreadable;
mod url;

pub use connecting::connect_on;
pub use interval::interval;
pub use observed::Observed;
pub use postgres::Postgres;
pub use schema::{connect_owner, migrate};
pub use tx::Tx;
pub(crate) use url::check_url;
