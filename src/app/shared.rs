//! The parts that the gate and several services share. Making them starts the background
//! workers.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::{keys::ServerKeys, stores::Stores};
use crate::{
    api::{idempotency, paging::Pages},
    audit::{self, Refusals, SealSignal},
    config::Config,
    db::Db,
    feed::Feed,
    limits::Limits,
    mail::Mails,
    passwords::Hasher,
    permissions::{Engine, Memory, Watchers},
    sessions::{Authenticator, SessionCache, VerifiedTokens},
    sign_in::Failures,
    telemetry::ResourceGauges,
    tokens::Keyring,
};

/// The shared parts.
pub(super) struct Shared {
    pub db: Db,
    pub pages: Pages,
    pub keyring: Arc<Keyring>,
    pub hasher: Hasher,
    pub cache: SessionCache,
    pub engine: Engine,
    pub authenticator: Authenticator,
    pub feed: Feed,
    pub watchers: Arc<Watchers>,
    pub limits: Limits,
    pub failures: Arc<Failures>,
    pub refusals: Arc<Refusals>,
    pub seals: Arc<SealSignal>,
    /// `None` where the server sends no mail.
    pub mails: Option<Arc<Mails>>,
}

impl Shared {
    /// Makes the parts, and starts the workers: the follower of the change feed, the audit
    /// trail, the trimming of idempotency records, and the mails.
    ///
    /// # Errors
    /// When the folder for mails can't be created.
    pub fn start(
        config: &Config,
        keys: &ServerKeys,
        stores: &Stores,
        hasher: Hasher,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let (db, redis) = (&stores.db, &stores.redis);
        let memory = Arc::new(Memory::new(config.memory.subject_bytes));
        let verified = Arc::new(VerifiedTokens::new(config.memory.tokens));
        let watchers = Arc::new(Watchers::default());
        registry.register_collector(Box::new(ResourceGauges {
            connections: db.connections().clone(),
            hasher: hasher.clone(),
            memory: memory.clone(),
        }));
        let feed = Feed::follow(
            stores.sources(),
            vec![memory.clone(), verified.clone(), watchers.clone(), keys.data_keys.clone()],
            keys.sealer.clone(),
            registry,
        );
        db.follow(feed.clone());
        idempotency::spawn_trimming(db, registry);
        let refusals = Refusals::new(db.clone());
        let length = config.audit_stream_length;
        let seals = audit::start_workers(db, redis, length, refusals.clone(), registry);
        let names = keys.counter_names.clone();
        let limits = Limits::new(&config.rates, names, redis.clone(), refusals.clone(), registry);
        let start = |mail| Mails::start(db.clone(), limits.clone(), mail, registry);
        let mails = config.mail.as_ref().map(start).transpose()?;
        let worst = hasher.worst_case();
        let requests = config.server.max_requests;
        let failures = Failures::new(config.sign_in_failure_time, worst, requests, registry);
        let cache = SessionCache::new(redis.clone(), keys.entry_keys.clone());
        let engine = Engine::new(db.clone(), memory, feed.clone());
        let authenticator = Authenticator {
            keyring: keys.keyring.clone(),
            tokens: verified,
            feed: feed.clone(),
            engine: engine.clone(),
            cache: cache.clone(),
            db: db.clone(),
        };
        Ok(Self {
            db: db.clone(),
            pages: Pages::new(keys.page_tokens.clone()),
            keyring: keys.keyring.clone(),
            hasher,
            cache,
            engine,
            authenticator,
            feed,
            watchers,
            limits,
            failures,
            refusals,
            seals,
            mails,
        })
    }
}
