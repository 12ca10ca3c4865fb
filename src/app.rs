//! The service's parts, built once.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context, bail};
use fred::{clients::SubscriberClient, interfaces::ClientLike};
use prometheus_client::registry::Registry;
use tokio::time;

use crate::{
    account::Accounts,
    api::{idempotency, paging::Pages},
    audit::{self, Events, Refusals},
    auth::Auth,
    concurrency::bounded::BoundedPermits,
    config::{self, Config, Mail, Passwords, Server, TenantlessSignIn},
    db::Db,
    feed::{self, ChangeListener, Feed, Sealer, Sources},
    gate::{Gatekeeper, Policies},
    limits::{CounterNames, Limits, Rates, TrustedProxies},
    mail::Mails,
    passwords::Hasher,
    permissions::{Engine, Memory, Permissions, Watch, Watchers},
    pg::{Postgres, unreadable},
    privacy::DataKeys,
    redis::{self, Redis},
    roles::Roles,
    secrets::{reload, tls::Tls},
    service_accounts::ServiceAccounts,
    sessions::{Authenticator, EntryKeys, SessionCache, Sessions, VerifiedTokens},
    sign_in::{Failures, SignIns},
    telemetry::{Calls, DroppedLines, Operations, ResourceGauges, Traces},
    tenants::Tenants,
    tokens::{Keyring, KeyringReload, OpaqueTokens, Renew},
    users::Users,
};

/// Streams of `WatchPermissions`, at once, altogether and for a tenant.
const PERMISSION_STREAMS: usize = 10_000;
const PERMISSION_STREAMS_OF_TENANT: usize = 5_000;

/// Streams of `WatchEvents`, likewise.
const AUDIT_STREAMS: usize = 200;
const AUDIT_STREAMS_OF_TENANT: usize = 20;

/// How long a start waits for Redis.
const REDIS_AT_START: Duration = Duration::from_millis(500);

/// Everything that serves, wired.
pub struct App {
    /// Where and within which limits it is served.
    pub server: Server,
    /// Postgres.
    pub db: Db,
    feed_db: Postgres,
    redis: Redis,
    subscriber: SubscriberClient,
    operations: Operations,
    traces: Option<Arc<Traces>>,
    keyring: Arc<Keyring>,
    hasher: Hasher,
    passwords: Passwords,
    tokens: crate::config::Lifetimes,
    tenant_registration: bool,
    sign_in_failure_time: Duration,
    tenantless: TenantlessSignIn,
    memory: config::Memory,
    rates: Rates,
    proxies: TrustedProxies,
    policies: Policies,
    tls: Option<Arc<Tls>>,
    audit_stream_length: u32,
    sealer: Arc<Sealer>,
    names: Arc<CounterNames>,
    page_tokens: Arc<OpaqueTokens>,
    entry_keys: Arc<EntryKeys>,
    data_keys: Arc<DataKeys>,
    mail: Option<Mail>,
}

impl App {
    /// Builds the parts. It reads the keys and connects to nothing yet.
    ///
    /// # Errors
    /// When a method has no policy, a key can't be used, or a URL can't be
    /// read.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let policies = Policies::load().context("the proto's policies")?;
        let tokens = &config.tokens;
        let (keyring, data_keys) = load_keys(&config)?;
        let operations = Operations::default();
        Ok(Self {
            tls: load_tls(&config.server)?,
            db: Db::connect(&config.database.url, config.database.max_connections)?
                .with_data_keys(data_keys.clone())
                .with_operations(operations.clone()),
            data_keys,
            feed_db: Postgres::connect(&config.database.url, feed::CONNECTIONS)?
                .with_operations(operations.clone()),
            traces: config.traces.as_ref().map(Traces::start).transpose()?.map(Arc::new),
            sealer: Arc::new(Sealer::new(&keyring)?),
            names: Arc::new(CounterNames::new(&keyring)?),
            page_tokens: Arc::new(OpaqueTokens::new(&keyring, Pages::LABEL)?),
            entry_keys: Arc::new(EntryKeys::new(&keyring)?),
            redis: Redis::new(redis::connect(&config.redis_url)?, operations.clone()),
            operations,
            subscriber: redis::subscriber(&config.redis_url)?,
            keyring: Arc::new(keyring),
            hasher: Hasher::start(&config.passwords)?,
            passwords: config.passwords,
            tokens: tokens.lifetimes,
            tenant_registration: config.tenant_registration,
            sign_in_failure_time: config.sign_in_failure_time,
            tenantless: config.tenantless,
            memory: config.memory,
            mail: config.mail,
            rates: config.rates,
            proxies: config.proxies,
            policies,
            audit_stream_length: config.audit_stream_length,
            server: config.server,
        })
    }

    /// Takes the parts into the gate and the services, and begins to follow the
    /// change feed.
    ///
    /// # Errors
    /// When the folder for mails can't be made.
    #[expect(clippy::too_many_lines, reason = "a list of the parts, each made once")]
    pub fn into_parts(self) -> anyhow::Result<Parts> {
        let Self { server, db, feed_db, redis, keyring, hasher, .. } = self;
        let cache = SessionCache::new(redis.clone(), self.entry_keys.clone());
        let memory = Arc::new(Memory::new(self.memory.subject_bytes));
        let verified = Arc::new(VerifiedTokens::new(self.memory.tokens));
        let watchers = Arc::new(Watchers::default());
        let followers: Vec<Arc<dyn ChangeListener>> =
            vec![memory.clone(), verified.clone(), watchers.clone(), self.data_keys.clone()];
        let sources = Sources {
            postgres: feed_db.clone(),
            redis: redis.clone(),
            subscriber: &self.subscriber,
        };
        let mut registry = Registry::default();
        self.operations.register(&mut registry);
        unreadable::register(&mut registry);
        let calls = Calls::register(&self.policies.names(), &mut registry);
        let pools = ResourceGauges {
            connections: db.connections().clone(),
            hasher: hasher.clone(),
            memory: memory.clone(),
        };
        registry.register_collector(Box::new(pools));
        hasher.register(&mut registry);
        registry.register_collector(Box::new(DroppedLines));
        db.register(&mut registry);
        self.data_keys.register(&mut registry);
        let derived: Vec<Arc<dyn Renew>> = vec![
            self.sealer.clone(),
            self.names.clone(),
            self.page_tokens.clone(),
            self.entry_keys.clone(),
        ];
        let keys = KeyringReload::new(keyring.clone(), derived);
        reload::keep_current(&keys, &mut registry);
        reload::keep_current(&self.data_keys, &mut registry);
        if let Some(tls) = &self.tls {
            reload::keep_current(tls, &mut registry);
        }
        let feed = Feed::follow(sources, followers, self.sealer, &mut registry);
        db.follow(feed.clone());
        idempotency::spawn_trimming(&db, &mut registry);
        let refusals = Refusals::new(db.clone());
        let length = self.audit_stream_length;
        let seals = audit::start_workers(&db, &redis, length, refusals.clone(), &mut registry);
        let limits =
            Limits::new(&self.rates, self.names, redis.clone(), refusals.clone(), &mut registry);
        let start = |mail| Mails::start(db.clone(), limits.clone(), mail, &mut registry);
        let mails = self.mail.as_ref().map(start).transpose()?;
        let engine = Engine::new(db.clone(), memory, feed.clone());
        let authenticator = Authenticator {
            keyring: keyring.clone(),
            tokens: verified,
            feed: feed.clone(),
            engine: engine.clone(),
            cache: cache.clone(),
            db: db.clone(),
        };
        let password_policy = self.passwords.policy;
        let pages = Pages::new(self.page_tokens);
        let failures = Failures::new(
            self.sign_in_failure_time,
            hasher.worst_case(),
            server.max_requests,
            &mut registry,
        );
        Ok(Parts {
            server,
            calls,
            traces: self.traces,
            gatekeeper: Gatekeeper {
                policies: self.policies,
                authenticator: authenticator.clone(),
                db: db.clone(),
                proxies: self.proxies,
                limits: limits.clone(),
                refusals: refusals.clone(),
            },
            registry,
            serving: Serving {
                tenants: Tenants {
                    db: db.clone(),
                    pages: pages.clone(),
                    cache: cache.clone(),
                    password_policy,
                },
                auth: Auth {
                    sign_ins: SignIns {
                        db: db.clone(),
                        cache: cache.clone(),
                        authenticator: authenticator.clone(),
                        keyring: keyring.clone(),
                        hasher: hasher.clone(),
                        failures: failures.clone(),
                        seen: Arc::default(),
                        lifetimes: self.tokens,
                        limits: limits.clone(),
                        refusals: refusals.clone(),
                        tenantless: self.tenantless,
                    },
                    accounts: Accounts {
                        db: db.clone(),
                        cache: cache.clone(),
                        hasher: hasher.clone(),
                        failures: failures.clone(),
                        limits: limits.clone(),
                        mails: mails.clone(),
                        password_policy,
                        tenant_registration: self.tenant_registration,
                        tenantless: self.tenantless,
                    },
                },
                sessions: Sessions { db: db.clone(), pages: pages.clone(), cache: cache.clone() },
                users: Users {
                    db: db.clone(),
                    pages: pages.clone(),
                    cache: cache.clone(),
                    hasher,
                    failures,
                    limits,
                    mails: mails.clone(),
                    password_policy,
                },
                roles: Roles { db: db.clone(), pages: pages.clone() },
                service_accounts: ServiceAccounts { db: db.clone(), pages: pages.clone(), cache },
                permissions: Permissions {
                    db: db.clone(),
                    pages: pages.clone(),
                    engine,
                    authenticator,
                    watch: Watch {
                        db: db.clone(),
                        feed,
                        watchers,
                        streams: BoundedPermits::new(
                            PERMISSION_STREAMS,
                            PERMISSION_STREAMS_OF_TENANT,
                        ),
                    },
                    refusals: refusals.clone(),
                },
                events: Events {
                    db: db.clone(),
                    pages,
                    seals,
                    streams: BoundedPermits::new(AUDIT_STREAMS, AUDIT_STREAMS_OF_TENANT),
                },
            },
            refusals,
            mails,
            keys,
            tls: self.tls,
            stores: Stores { db, feed_db, redis, subscriber: self.subscriber },
        })
    }
}

fn load_tls(server: &Server) -> anyhow::Result<Option<Arc<Tls>>> {
    let load = |paths| Tls::load(paths, server.web_origins.is_some());
    server.tls.clone().map(load).transpose()
}

/// Reads the keys in a thread of its own: a key service's client must not block the
/// runtime's.
fn load_keys(config: &Config) -> anyhow::Result<(Keyring, Arc<DataKeys>)> {
    let tokens = &config.tokens;
    let load = || {
        let keyring = Keyring::load(&tokens.keys, &tokens.issuer, &tokens.audience)?;
        Ok((keyring, DataKeys::load(&config.master)?))
    };
    let loaded = thread::scope(|scope| scope.spawn(load).join());
    loaded.unwrap_or_else(|_| bail!("a thread that read keys died"))
}

/// The gate and the services.
pub struct Parts {
    /// Where and within which limits.
    pub server: Server,
    /// Admits calls.
    pub gatekeeper: Gatekeeper,
    /// What is measured.
    pub registry: Registry,
    /// Counts calls.
    pub calls: Calls,
    /// Traces calls, where a collector takes it.
    pub traces: Option<Arc<Traces>>,
    /// The keys, current for as long as this is held.
    pub keys: Arc<KeyringReload>,
    /// What connections are encrypted with, where they are.
    pub tls: Option<Arc<Tls>>,
    /// What was refused and is yet to be recorded.
    pub refusals: Arc<Refusals>,
    /// Mails that are on their way.
    pub mails: Option<Arc<Mails>>,
    /// What is behind it.
    pub serving: Serving,
    /// What to watch, and to close at the end.
    pub stores: Stores,
}

/// The services.
pub struct Serving {
    /// TenantService.
    pub tenants: Tenants,
    /// AuthService.
    pub auth: Auth,
    /// SessionService.
    pub sessions: Sessions,
    /// UserService.
    pub users: Users,
    /// RoleService.
    pub roles: Roles,
    /// `ServiceAccountService`.
    pub service_accounts: ServiceAccounts,
    /// PermissionService.
    pub permissions: Permissions,
    /// AuditService.
    pub events: Events,
}

/// The connections to the stores.
#[derive(Clone)]
pub struct Stores {
    /// Postgres.
    pub db: Db,
    feed_db: Postgres,
    redis: Redis,
    subscriber: SubscriberClient,
}

impl Stores {
    /// Waits until Redis is connected, for [`REDIS_AT_START`] at most: the calls that come
    /// first would be counted by this replica alone.
    pub async fn wait_for_redis(&self) {
        let connected = self.redis.client().wait_for_connect();
        if !matches!(time::timeout(REDIS_AT_START, connected).await, Ok(Ok(()))) {
            tracing::warn!("starting without Redis; it is connected to when it is there");
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.db.close().await;
        self.feed_db.close().await;
        // Redis may be away; there is nothing in it to lose.
        self.redis.client().quit().await.ok();
        self.subscriber.quit().await.ok();
    }
}
