//! Integration tests: gRPC calls against the server in its real wiring, with a private Postgres
//! and Redis. The folders follow the API. A test's name states a fact.
#![expect(clippy::disallowed_methods, reason = "tests look into the database freely")]
#![expect(clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![expect(clippy::print_stdout, reason = "the runner shows it where a test fails")]
#![expect(clippy::unused_self, reason = "the harness reads as what it is asked of")]

mod audit;
mod auth;
mod bad_input;
mod commands;
mod debug;
mod dev;
mod envoy;
mod feed;
mod fuzz;
mod harness;
mod hostile;
mod limits;
mod lists;
mod logs;
mod mail;
mod permissions;
mod policy_coverage;
mod postgres;
mod power;
mod privacy;
mod request_ids;
mod roles;
mod rust_client;
mod server;
mod service_accounts;
mod sessions;
mod standard;
mod structure;
mod telemetry;
mod tenancy;
mod tenants;
mod tls;
mod tokens;
mod users;
mod web;
