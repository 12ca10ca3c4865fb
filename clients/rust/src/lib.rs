//! Client of Tenantry for services that check permissions: may this subject do this, in this
//! tenant, now?
//!
//! A service guards its routes in three lines:
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tenantry_client::{Client, Guard};
//!
//! # async fn run_agent() {}
//! # async fn serve(secret: String) -> Result<(), tenantry_client::ConnectError> {
//! let client = Client::builder("https://tenantry.internal:50051").api_key(secret).connect()?;
//! let guard = Guard::new(client);
//! let app: Router = Router::new()
//!     .route("/agents", post(run_agent).layer(guard.require("agent:manage")));
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`] is a channel for the generated clients in [`v1`]. It adds the access token and a
//!   deadline to each call, and retries calls that are safe to retry.
//! - [`Verifier`] verifies an access token with the published keys and returns its principal.
//! - [`Guard`] decides whether a request is allowed. It caches decisions while the server announces
//!   every change.
//!
//! An outage never allows a request: without a decision, a request is refused.
#![warn(missing_docs)]

mod client;
mod decisions;
#[cfg(feature = "axum")]
mod extract;
mod guard;
mod keys;
mod layer;
mod proto;
mod retry;
mod tokens;
mod watch;

pub use client::{Builder, Client, ConnectError};
#[cfg(feature = "axum")]
pub use extract::{Permission, Require};
pub use guard::{Denied, Guard};
pub use keys::{Principal, SubjectType, TokenInvalid, Verifier};
pub use layer::{Guarded, RequirePermission};
pub use proto::v1;
