//! Creates the gRPC services from the shared parts.

use std::sync::Arc;

use super::shared::Shared;
use crate::{
    account::Accounts,
    audit::Events,
    auth::Auth,
    concurrency::bounded::BoundedPermits,
    config::Config,
    permissions::{Permissions, Watch},
    roles::Roles,
    service_accounts::ServiceAccounts,
    sessions::Sessions,
    sign_in::SignIns,
    tenants::Tenants,
    users::Users,
};

/// Maximum number of open streams of `WatchPermissions`, in total and per tenant.
const PERMISSION_STREAMS: usize = 10_000;
const PERMISSION_STREAMS_OF_TENANT: usize = 5_000;

/// Maximum number of open streams of `WatchEvents`, in total and per tenant.
const AUDIT_STREAMS: usize = 200;
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
        let Shared { db, pages, cache, .. } = shared;
        let (db, pages, cache) = (|| db.clone(), || pages.clone(), || cache.clone());
        Self {
            tenants: Tenants {
                db: db(),
                pages: pages(),
                cache: cache(),
                password_policy: config.passwords.policy,
            },
            auth: Auth { sign_ins: sign_ins(shared, config), accounts: accounts(shared, config) },
            sessions: Sessions { db: db(), pages: pages(), cache: cache() },
            users: Users {
                db: db(),
                pages: pages(),
                cache: cache(),
                hasher: shared.hasher.clone(),
                failure_timing: shared.failure_timing.clone(),
                limits: shared.limits.clone(),
                mail_queue: shared.mail_queue.clone(),
                password_policy: config.passwords.policy,
            },
            roles: Roles { db: db(), pages: pages() },
            service_accounts: ServiceAccounts { db: db(), pages: pages(), cache: cache() },
            permissions: Permissions {
                db: db(),
                pages: pages(),
                engine: shared.engine.clone(),
                authenticator: shared.authenticator.clone(),
                watch: Watch {
                    db: db(),
                    feed: shared.feed.clone(),
                    watchers: shared.watchers.clone(),
                    streams: BoundedPermits::new(PERMISSION_STREAMS, PERMISSION_STREAMS_OF_TENANT),
                },
                refusals: shared.refusals.clone(),
            },
            events: Events {
                db: db(),
                pages: pages(),
                chain_signal: shared.chain_signal.clone(),
                streams: BoundedPermits::new(AUDIT_STREAMS, AUDIT_STREAMS_OF_TENANT),
            },
        }
    }
}

fn sign_ins(shared: &Shared, config: &Config) -> SignIns {
    SignIns {
        db: shared.db.clone(),
        cache: shared.cache.clone(),
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
        cache: shared.cache.clone(),
        hasher: shared.hasher.clone(),
        failure_timing: shared.failure_timing.clone(),
        limits: shared.limits.clone(),
        mail_queue: shared.mail_queue.clone(),
        password_policy: config.passwords.policy,
        tenant_registration: config.tenant_registration,
        tenantless_sign_in: config.tenantless_sign_in,
    }
}
