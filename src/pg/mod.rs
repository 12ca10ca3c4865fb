//! Access to Postgres, independent of the features: connections that tenants share fairly,
//! statements that are cancelled with their call, and transactions in which one tenant is selected.
//!
//! [`crate::db`] adds two things to a transaction: the keys for personal data, and a commit that
//! waits until the in-memory caches have applied the change.

mod connecting;
mod constraint_errors;
mod granted_functions;
mod instrumented_executor;
mod interval;
mod known_migrations;
mod lost;
mod openings;
mod other_servers;
mod pooled;
mod pooling;
mod postgres;
mod primary;
mod roles;
mod schema;
mod server_check;
mod share;
mod timelines;
mod tx;
pub mod unreadable;
mod url;
mod validity;
mod waiting;

pub use connecting::connect_on;
pub use instrumented_executor::InstrumentedExecutor;
pub use interval::interval;
pub use lost::is_connection_loss;
pub use postgres::Postgres;
pub use roles::set_app_password;
pub use schema::{Migration, Migrations, connect_owner, migrate, migrations};
pub use tx::Tx;
pub(crate) use url::{SCHEMES, check_url};
