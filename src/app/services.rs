//! Creates the gRPC services from the shared parts.

use std::sync::Arc;

use super::shared::Shared;
use crate::{
    account::Accounts,
    audit::Events,
    auth::Auth,
    config::Config,
    gate::StreamPermits,
    permissions::{Permissions, Watch},
    roles::Roles,
    service_accounts::ServiceAccounts,
    sessions::Sessions,
    sign_in::SignIns,
    tenants::Tenants,
    users::Users,
};

/// Maximum number of open streams of `WatchPermissions` on this replica.
const PERMISSION_STREAMS: usize = 10_000;

/// Maximum number of open streams of `WatchPermissions` of one tenant on this replica.
const PERMISSION_STREAMS_OF_TENANT: usize = 5_000;

/// Maximum number of open streams of `WatchEvents` on this replica.
const AUDIT_STREAMS: usize = 200;

/// Maximum number of open streams of `WatchEvents` of one tenant on this replica.
const AUDIT_STREAMS_OF_TENANT: usize = 20;

/// The gRPC services.
pub struct ServiceHandlers {
    pub tenants: Tenants,
    pub auth: Auth,
    pub sessions: Sessions,
    pub users: Users,
    pub roles: Roles,
    pub service_accounts: ServiceAccounts,
    pub permissions: Permissions,
    pub events: Events,
}

impl ServiceHandlers {
    pub(super) fn new(shared: &Shared, config: &Config) -> Self {
        let Shared { db, pages, session_cache, .. } = shared;
        Self {
            tenants: Tenants {
                db: db.clone(),
                pages: pages.clone(),
                session_cache: session_cache.clone(),
                password_policy: config.passwords.policy,
            },
            auth: Auth { sign_ins: sign_ins(shared, config), accounts: accounts(shared, config) },
            sessions: Sessions {
                db: db.clone(),
                pages: pages.clone(),
                session_cache: session_cache.clone(),
            },
            users: Users {
                db: db.clone(),
                pages: pages.clone(),
                session_cache: session_cache.clone(),
                hasher: shared.hasher.clone(),
                failure_timing: shared.failure_timing.clone(),
                limits: shared.limits.clone(),
                mail_queue: shared.mail_queue.clone(),
                password_policy: config.passwords.policy,
            },
            roles: Roles { db: db.clone(), pages: pages.clone() },
            service_accounts: ServiceAccounts {
                db: db.clone(),
                pages: pages.clone(),
                session_cache: session_cache.clone(),
            },
            permissions: Permissions {
                db: db.clone(),
                pages: pages.clone(),
                engine: shared.engine.clone(),
                authenticator: shared.authenticator.clone(),
                watch: Watch {
                    db: db.clone(),
                    feed: shared.feed.clone(),
                    watchers: shared.watchers.clone(),
                    streams: StreamPermits::new(PERMISSION_STREAMS, PERMISSION_STREAMS_OF_TENANT),
                },
                refusals: shared.refusals.clone(),
            },
            events: Events {
                db: db.clone(),
                pages: pages.clone(),
                chain_signal: shared.chain_signal.clone(),
                streams: StreamPermits::new(AUDIT_STREAMS, AUDIT_STREAMS_OF_TENANT),
            },
        }
    }
}

fn sign_ins(shared: &Shared, config: &Config) -> SignIns {
    SignIns {
        db: shared.db.clone(),
        session_cache: shared.session_cache.clone(),
        authenticator: shared.authenticator.clone(),
        keyring: shared.keyring.clone(),
        hasher: shared.hasher.clone(),
        failure_timing: shared.failure_timing.clone(),
        slug_cache: Arc::default(),
        lifetimes: config.tokens.lifetimes,
        limits: shared.limits.clone(),
        refusals: shared.refusals.clone(),
        tenantless_sign_in: config.tenantless_sign_in,
    }
}

fn accounts(shared: &Shared, config: &Config) -> Accounts {
    Accounts {
        db: shared.db.clone(),
        session_cache: shared.session_cache.clone(),
        hasher: shared.hasher.clone(),
        failure_timing: shared.failure_timing.clone(),
        limits: shared.limits.clone(),
        mail_queue: shared.mail_queue.clone(),
        password_policy: config.passwords.policy,
        tenant_registration: config.tenant_registration,
        tenantless_sign_in: config.tenantless_sign_in,
    }
}
