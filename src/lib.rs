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
//! cli -> server -> <feature>/rpc -> <feature>/<operation> -> <feature>/store -> db
//!           \----> gate -> permissions/engine, sessions, tenants, tokens     -> db, redis
//! ```
//!
//! Nothing below an `rpc.rs` imports [`gate`]: operations take plain ids.

pub mod app;
mod audit;
mod auth;
pub mod cli;
mod clock;
pub mod config;
pub mod db;
pub mod dev;
mod error;
pub mod gate;
mod idempotency;
mod ids;
mod listing;
pub mod passwords;
mod permissions;
pub mod proto;
pub mod provision;
mod redis;
mod roles;
pub mod server;
mod sessions;
mod telemetry;
mod tenants;
pub mod tokens;
mod updates;
mod users;
mod validate;
