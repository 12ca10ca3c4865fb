//! The integration tests: real gRPC against the real server wiring, on a
//! private Postgres and Redis. The tree mirrors the API; names are facts.
#![expect(clippy::disallowed_methods, reason = "tests look into the database freely")]
#![expect(clippy::expect_used, clippy::panic, reason = "that is how a test fails")]

mod audit;
mod auth;
mod bad_input;
mod commands;
mod dev;
mod harness;
mod permissions;
mod policy_coverage;
mod roles;
mod standard;
mod structure;
mod tenancy;
mod tenants;
mod tokens;
mod users;
