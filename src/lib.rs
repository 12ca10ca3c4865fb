//! Tenantry: multi-tenant identity and authorization over gRPC.
//!
//! Reading order: [`app`] builds all parts and connects them, and `serve` in [`server`] runs them.
//! [`gate`] is the layer that each call passes before its handler. Then read a feature folder:
//! `rpc.rs` is its gRPC service, each operation has a file, and `store.rs` has the SQL.
//! docs/architecture.md has the map, the rules and a glossary.
//!
//! No two files import each other, directly or through other files, and no store imports from the
//! gate. `tests/it/structure` checks this. The layers, from top to bottom:
//!
//! ```text
//! cli, app, server       commands; the construction of all parts; connections
//! <feature>/rpc          gRPC: decodes, calls an operation, encodes
//! <feature>/<operation>  a rule and its transaction; needs a caller that the gate admitted
//! gate                   checks each call: limits, token, session, tenant, permission
//! <feature>/store        SQL
//! db                     transactions with the tenant's encryption key and the change feed
//! feed, privacy          the change feed; encryption of personal data
//! pg, redis              access to Postgres and Redis
//! api, concurrency       used by all layers: pages, filters, idempotency; permits, deadlines
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
mod trim;
mod users;

pub use audit::EventKind;
pub use limits::WorkOwner;
pub use mail::Purpose;
