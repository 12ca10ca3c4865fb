//! What tests are written with: a server per test, in the binary's own wiring.
//!
//! [`TestApp::spawn`] gives a test its own database, made from a migrated
//! template, and a server on a port of its own. All share one Postgres and one
//! Redis, which end with the test process.
//!
//! [`TestApp::shared`] gives a test access to a server that tests share. It costs much
//! less, and suits a test that uses nothing but its own tenants.
//!
//! A test from nothing, in the file of the RPC that it is about:
//!
//! ```ignore
//! /// What a member may do ends with its session.
//! #[tokio::test]
//! async fn a_member_that_signed_out_is_refused() {
//!     // A server with default settings; `TestApp::with(|values| …)` changes some.
//!     let app = TestApp::spawn().await;
//!     // A tenant; the client of its administrator, signed in.
//!     let acme = app.tenant("acme").await;
//!     // A user with a role of just these permissions, signed in.
//!     let ada = acme.member("ada", &["invoice:read"]).await;
//!     // A client has each service as tonic generates it, and short forms of what is common.
//!     assert!(acme.may(&ada.user_id, "invoice:read").await);
//!     ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
//!     // A refusal is its status and its reason.
//!     let reply = ada.auth().who_am_i(WhoAmIRequest {}).await;
//!     refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
//!     // What comes later is waited for: by a condition, never by a time.
//!     until(10, || async { app.audited(&acme.tenant_id, "signed_out").await == 1 }).await;
//! }
//! ```
//!
//! Where else to look:
//!
//! | for | take |
//! | --- | --- |
//! | a test of its own tenants alone | [`TestApp::shared`] |
//! | hashes, and the time that hashing takes | [`TestApp::with_full_hashes`] |
//! | another replica, or the same server again | [`TestApp::on`] |
//! | rows as the schema's owner sees them | [`TestApp::owner`] |
//! | metrics and probes | [`TestApp::metric`], [`TestApp::get`] |
//! | tokens that the server never made | [`TestApp::forge`] |
//! | a store that is slow, cut off or silent; which statements were sent | [`Proxy`] |
//! | the program as a process of its own: memory, signals, files | [`Serving`] |
//! | mails that were sent | [`MailServer`] |
//! | a key service | [`KeyService`] |
//! | a Redis that may be emptied | [`OwnRedis`] |
//! | every RPC from the descriptors | [`methods`] |
//! | a race that is lost rarely: many rounds | [`rounds`] |

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
mod rounds;
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
pub use rounds::rounds;
pub use sample::{Ids, precise};
pub use serving::Serving;
pub use shorthand::{fill, mask, struct_of, unknown_id};
pub use transit::{KeyService, MASTER};
pub use wait::{until, within};
