//! Tenantry: multi-tenant identity and authorization over gRPC.
//!
//! Reading order: first [`server`], whose `services.rs` lists all services. Then [`gate`],
//! which every call passes before its handler. Then a feature folder. A feature folder holds
//! the gRPC layer (`rpc.rs`), one file per operation, and the SQL (`store.rs`).
//!
//! Imports between files have no cycles, and no store imports the gate (`tests/it/structure`
//! checks both). From the top to the bottom:
//!
//! ```text
//! cli, app, server      the program: commands, construction of the parts, connections
//! <feature>/rpc         gRPC: decodes the request, calls an operation, encodes the response
//! <feature>/<operation> a rule and its transaction; needs the gate's proof of its caller
//! gate                  admits callers: permissions, sessions, tenants, limits, tokens
//! <feature>/store       SQL
//! db                    transactions with the keys of personal data and the change feed
//! feed, privacy         the change feed; encryption of personal data
//! pg, redis             access to Postgres and Redis
//! ```

mod account;
mod api;
pub mod app;
mod audit;
mod auth;
pub mod cli;
pub mod clock;
mod concurrency;
pub mod config;
mod credentials;
pub mod db;
pub mod dev;
mod email;
mod envoy;
mod error;
mod feed;
pub mod gate;
pub mod ids;
mod limits;
mod mail;
pub mod passwords;
mod permissions;
pub mod pg;
mod power;
pub mod privacy;
pub mod proto;
mod redis;
mod roles;
mod secrets;
pub mod server;
mod service_accounts;
mod sessions;
mod sign_in;
mod telemetry;
mod tenants;
pub mod tokens;
mod users;

pub use audit::EventKind;
pub use limits::Owner;
