//! The integration tests: real gRPC against the real server wiring, on a
//! private Postgres and Redis. The tree mirrors the API; names are facts.
#![expect(clippy::disallowed_methods, reason = "tests look into the database freely")]

mod auth;
mod harness;
mod postgres;
mod server;
mod sessions;
