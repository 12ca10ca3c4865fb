//! Integration tests: gRPC calls against the real server with all its parts, and a private Postgres
//! and Redis. The folders follow the API. A test's name states a fact.
#![expect(clippy::disallowed_methods, reason = "tests look into the database freely")]
#![expect(clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![expect(clippy::print_stdout, reason = "the test runner shows the output of a failed test")]
#![expect(
    clippy::unused_self,
    reason = "helpers are methods of the harness even if they do not use its state"
)]

// The runner starts the tests in the order of their names. The two longest tests come first, so
// that they run in parallel with the other tests.
mod accumulation;
mod atomicity;

mod audit;
mod auth;
mod bad_input;
mod commands;
mod compression;
mod dev;
mod envoy;
mod feed;
mod fuzz;
mod grpc_web;
mod harness;
mod http2_attacks;
mod limits;
mod lists;
mod logs;
mod mail;
mod message_debug;
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
mod standard_services;
mod structure;
mod telemetry;
mod tenancy;
mod tenants;
mod tls;
mod tokens;
mod trim;
mod users;
