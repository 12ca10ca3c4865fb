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
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod dev;
pub mod error;
pub mod gate;
pub mod idempotency;
pub mod ids;
pub mod listing;
pub mod passwords;
pub mod permissions;
pub mod proto;
pub mod provision;
pub mod redis;
pub mod roles;
pub mod server;
pub mod sessions;
pub mod telemetry;
pub mod tenants;
pub mod tokens;
pub mod updates;
pub mod users;
pub mod validate;
