//! Signs users and service accounts in and out, and refreshes and introspects their tokens.

mod api_key;
pub mod attempt;
mod candidates;
mod failures;
mod introspect;
mod login;
mod logout;
pub mod named_tenant;
mod refresh;
mod turns;
mod who_am_i;

use std::sync::Arc;

use crate::{
    audit::Refusals,
    config::{Lifetimes, TenantlessSignIn},
    db::Db,
    limits::Limits,
    passwords::Hasher,
    sessions::{Authenticator, SessionCache},
    tenants,
    tokens::Keyring,
};

pub use failures::{Failures, SignIn};

/// The operations of signing in and out, with their dependencies. Cheap to clone.
#[derive(Clone)]
pub struct SignIns {
    pub db: Db,
    pub cache: SessionCache,
    pub authenticator: Authenticator,
    pub keyring: Arc<Keyring>,
    pub hasher: Hasher,
    /// Decides when failed sign-ins are answered.
    pub failures: Arc<Failures>,
    /// Caches the tenant of each slug.
    pub seen: Arc<tenants::Seen>,
    pub lifetimes: Lifetimes,
    pub limits: Limits,
    pub refusals: Arc<Refusals>,
    /// The email addresses by which a sign-in that names no tenant finds accounts.
    pub tenantless: TenantlessSignIn,
}
