//! Tenantry: multi-tenant identity and authorization over gRPC.
//!
//! Reading order: [`server`] lists every layer and service on one page;
//! [`gate`] is what each call passes before its handler; then a feature folder,
//! each of which holds its gRPC face (`rpc.rs`), one file per operation, and
//! its SQL (`store.rs`).
//!
//! Dependencies point downward only:
//!
//! ```text
//! cli -> app, server -> <feature>/rpc -> <feature>/<operation> -> <feature>/store -> db
//!                 \---> gate -> permissions/engine, sessions, tenants, limits, tokens -> db, privacy, redis
//! ```
//!
//! Operations take the gate's types, as proof that a call was admitted; stores,
//! the engine, tokens, passwords and everything else below never do.

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
