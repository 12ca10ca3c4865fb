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

mod api_keys;
pub mod app;
mod audit;
mod auth;
mod bounded;
mod bounds;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
mod deadline;
pub mod dev;
mod envoy;
mod error;
mod events;
mod feed;
mod files;
mod filter;
pub mod gate;
mod idempotency;
pub mod ids;
pub mod json;
mod key_lines;
mod limits;
mod mail;
mod names;
mod pace;
mod paging;
pub mod passwords;
mod permissions;
pub mod pg;
mod power;
mod priority;
pub mod privacy;
pub mod proto;
pub mod provision;
mod redis;
mod reload;
mod roles;
mod secret;
pub mod server;
mod service_accounts;
mod sessions;
mod shares;
mod telemetry;
mod tenants;
pub mod tokens;
mod transit;
mod unreadable;
mod updates;
mod users;
mod validate;

pub use audit::EventKind;
pub use limits::Owner;
