//! Signs users and service accounts in and out, and answers for their tokens.

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

/// What sign-ins work with. Cheap to clone.
#[derive(Clone)]
pub struct SignIns {
    pub db: Db,
    pub cache: SessionCache,
    pub authenticator: Authenticator,
    pub keyring: Arc<Keyring>,
    pub hasher: Hasher,
    /// Decides when failed sign-ins are answered.
    pub failures: Arc<Failures>,
    /// Caches the tenants of slugs.
    pub seen: Arc<tenants::Seen>,
    pub lifetimes: Lifetimes,
    pub limits: Limits,
    pub refusals: Arc<Refusals>,
    /// Which email addresses count where a sign-in names no tenant.
    pub tenantless: TenantlessSignIn,
}
