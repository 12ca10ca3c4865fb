//! Postgres without what the service knows: connections that tenants share fairly,
//! statements that end with their call, and transactions in which a tenant is set.
//!
//! [`crate::db`] adds what every feature needs of a transaction: the keys of personal data,
//! and memory that has each commit.

mod connecting;
mod constraint;
mod held;
mod interval;
mod observed;
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
