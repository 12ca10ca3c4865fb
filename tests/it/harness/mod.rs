//! The test harness: a server for each test, built from the same parts as the binary.
//!
//! [`TestApp::spawn`] gives a test its own database, copied from a migrated template, and a
//! server on its own port. All tests share one Postgres and one Redis, which stop with the test
//! process.
//!
//! [`TestApp::shared`] gives a test access to a shared server. A shared server costs much less,
//! and suits a test that uses only its own tenants.
//!
//! A complete test, in the file of the RPC under test:
//!
//! ```ignore
//! /// A member's session ends with the sign-out.
//! #[tokio::test]
//! async fn a_member_that_signed_out_is_refused() {
//!     // A server with default settings; `TestApp::with_settings(|values| …)` changes some.
//!     let app = TestApp::spawn().await;
//!     // Signs up a tenant. The client is its signed-in administrator.
//!     let acme = app.create_tenant("acme").await;
//!     // A signed-in user with a role of exactly these permissions.
//!     let ada = acme.create_member("ada", &["invoice:read"]).await;
//!     // A client has a tonic stub for each service, and short forms of common calls.
//!     assert!(acme.user_may(&ada.user_id, "invoice:read").await);
//!     ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
//!     // Checks the status code and the reason of a refusal.
//!     let reply = ada.auth().who_am_i(WhoAmIRequest {}).await;
//!     assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
//!     // Wait for a later effect with a condition, never with a fixed delay.
//!     wait_until(10, || async { app.audit_event_count(&acme.tenant_id, "signed_out").await == 1 }).await;
//! }
//! ```
//!
//! More tools:
//!
//! | to test | use |
//! | --- | --- |
//! | only the test's own tenants | [`TestApp::shared`] |
//! | password hashes, and the duration of hashing | [`TestApp::with_production_hash_cost`] |
//! | another replica, or a restart | [`TestApp::on_database`] |
//! | rows as the schema's owner sees them | [`TestApp::owner_connection`] |
//! | metrics and probes | [`TestApp::metric`], [`TestApp::get`] |
//! | tokens that the server did not issue | [`TestApp::forge`] |
//! | a store that hangs or is cut off, or the statements that the server sends | [`Proxy`] |
//! | the program as its own process: memory, signals, files | [`ServerProcess`] |
//! | mails that were sent | [`MailServer`], [`mail_settings`] |
//! | a key service | [`KeyService`] |
//! | a Redis that may be emptied | [`PrivateRedis`] |
//! | Redis Sentinel or Redis Cluster | [`RedisGroup`] |
//! | a Postgres that is stopped or read-only, or a standby | [`PrivatePostgres`] |
//! | a connection pooler in front of Postgres | [`PgBouncer`] |
//! | every RPC from the descriptors | [`methods`] |
//! | a rare race, in many rounds | [`rounds`] |

mod app;
mod client;
mod cluster;
mod dynamic;
mod forge;
mod leaks;
mod mail;
mod pgbouncer;
mod private_postgres;
mod proxy;
mod redis;
mod redis_group;
mod rounds;
mod sample;
mod serving;
mod shorthand;
mod snapshot;
mod statements;
mod transit;
mod wait;

pub use app::TestApp;
pub use client::{Client, PASSWORD, assert_refused, reason};
pub use cluster::Cluster;
pub use dynamic::{Method, RawReply, methods};
pub use forge::Forge;
pub use mail::{MailServer, mail_settings};
pub use pgbouncer::PgBouncer;
pub use private_postgres::PrivatePostgres;
pub use proxy::{Fault, Proxy};
pub use redis::{PrivateRedis, redis};
pub use redis_group::{RedisGroup, RedisTls};
pub use rounds::rounds;
pub use sample::{Ids, assert_success_or_documented_error};
pub use serving::ServerProcess;
pub use shorthand::{create_users, mask, struct_of, unique_text, unknown_id};
pub use transit::{KeyService, MASTER_KEY_NAME};
pub use wait::{wait_until, within_seconds};
