//! Signs users and service accounts in and out, and refreshes and introspects their tokens.

mod api_key;
pub mod attempt;
mod candidates;
mod failure_schedule;
mod failure_timing;
mod introspect;
mod login;
mod logout;
pub mod named_tenant;
mod refresh;
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

pub use failure_timing::{FailureTiming, SignInAttempt};

/// The operations of signing in and out, with their dependencies. Cheap to clone.
#[derive(Clone)]
pub struct SignIns {
    pub db: Db,
    pub session_cache: SessionCache,
    pub authenticator: Authenticator,
    pub keyring: Arc<Keyring>,
    pub hasher: Hasher,
    /// Delays the responses to failed sign-ins.
    pub failure_timing: Arc<FailureTiming>,
    /// Caches the tenant of each slug.
    pub slug_cache: Arc<tenants::SlugCache>,
    pub lifetimes: Lifetimes,
    pub limits: Limits,
    pub refusals: Arc<Refusals>,
    /// Setting: whether a sign-in that names no tenant looks up verified addresses, all addresses,
    /// or is refused.
    pub tenantless_sign_in: TenantlessSignIn,
}
