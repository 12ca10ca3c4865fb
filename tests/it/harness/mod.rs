//! A server per test, in the binary's own wiring.
//!
//! [`TestApp::spawn`] gives a test its own database, made from a migrated
//! template, and a server on a port of its own. All share one Postgres and one
//! Redis, which end with the test process.

mod app;
mod client;
mod cluster;
mod dynamic;
mod forge;
mod leaks;
mod look;
mod mail;
mod proxy;
mod redis;
mod sample;
mod serving;
mod shorthand;
mod statements;
mod transit;
mod wait;

pub use app::TestApp;
pub use client::{Client, PASSWORD, reason, refused};
pub use cluster::Cluster;
pub use dynamic::{Method, RawReply, methods};
pub use forge::Forge;
pub use mail::MailServer;
pub use proxy::{Proxy, Then};
pub use redis::{OwnRedis, redis};
pub use sample::{Ids, precise};
pub use serving::Serving;
pub use shorthand::{fill, mask, struct_of, unknown_id};
pub use transit::{KeyService, MASTER};
pub use wait::{until, within};
