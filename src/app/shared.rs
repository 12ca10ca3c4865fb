//! The parts that the gate and several services share. Creating these parts also starts the
//! background workers.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::{keys::ServerKeys, stores::Stores};
use crate::{
    api::paging::Pages,
    audit::{self, ChainSignal, Refusals, Trails},
    config::Config,
    db::{Db, watch_clock},
    feed::Feed,
    limits::Limits,
    mail::MailQueue,
    passwords::Hasher,
    permissions::{Engine, StandingCache, Watchers},
    sessions::{Authenticator, SessionCache, VerifiedTokens},
    sign_in::FailureTiming,
    telemetry::ResourceGauges,
    tenants::purge,
    tokens::Keyring,
    trim,
};

/// The shared parts.
pub(super) struct Shared {
    pub db: Db,
    pub pages: Pages,
    pub keyring: Arc<Keyring>,
    pub hasher: Hasher,
    pub session_cache: SessionCache,
    pub engine: Engine,
    pub authenticator: Authenticator,
    pub feed: Feed,
    pub watchers: Arc<Watchers>,
    pub limits: Limits,
    pub failure_timing: Arc<FailureTiming>,
    pub refusals: Arc<Refusals>,
    pub chain_signal: Arc<ChainSignal>,
    /// `None` when the server sends no mail.
    pub mail_queue: Option<Arc<MailQueue>>,
}

impl Shared {
    /// Creates the parts, and starts the background workers: for the change feed, the audit trail,
    /// the deletion of expired rows and of deleted tenants, the check of the clocks, and mails.
    ///
    /// # Errors
    /// Fails when the folder for mails can't be created.
    pub fn start(
        config: &Config,
        keys: &ServerKeys,
        stores: &Stores,
        hasher: Hasher,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let (db, redis) = (&stores.db, &stores.redis);
        let standing_cache = Arc::new(StandingCache::new(config.caches.subject_bytes));
        let verified_tokens = Arc::new(VerifiedTokens::new(config.caches.tokens));
        let watchers = Arc::new(Watchers::default());
        registry.register_collector(Box::new(ResourceGauges {
            connections: db.pool().clone(),
            hasher: hasher.clone(),
            standing_cache: standing_cache.clone(),
        }));
        let feed = Feed::start(
            stores.sources(),
            vec![
                standing_cache.clone(),
                verified_tokens.clone(),
                watchers.clone(),
                keys.data_keys.clone(),
            ],
            keys.sealer.clone(),
            registry,
        );
        db.set_feed(feed.clone());
        let retention = &config.retention;
        let trails = Trails::new(db, &keys.keyring, retention.audit, registry);
        trim::start(db, retention, trails, registry);
        purge::spawn(db, redis, registry);
        let refusals = Refusals::new(db.clone());
        let stream_length = config.audit_stream_length;
        let chain_signal =
            audit::start_workers(db, redis, stream_length, refusals.clone(), registry);
        watch_clock(db, registry);
        let counter_names = keys.counter_names.clone();
        let limits =
            Limits::new(&config.rates, counter_names, redis.clone(), refusals.clone(), registry);
        let start_mail_queue = |mail| MailQueue::start(db.clone(), limits.clone(), mail, registry);
        let mail_queue = config.mail.as_ref().map(start_mail_queue).transpose()?;
        let worst_comparison = hasher.worst_case();
        let max_requests = config.server.max_requests;
        let failure_time = config.sign_in_failure_time;
        let failure_timing =
            FailureTiming::new(failure_time, worst_comparison, max_requests, registry);
        let session_cache = SessionCache::new(redis.clone(), keys.entry_keys.clone());
        let engine = Engine::new(db.clone(), standing_cache, feed.clone());
        let authenticator = Authenticator {
            keyring: keys.keyring.clone(),
            tokens: verified_tokens,
            feed: feed.clone(),
            engine: engine.clone(),
            session_cache: session_cache.clone(),
            db: db.clone(),
        };
        Ok(Self {
            db: db.clone(),
            pages: Pages::new(keys.page_tokens.clone()),
            keyring: keys.keyring.clone(),
            hasher,
            session_cache,
            engine,
            authenticator,
            feed,
            watchers,
            limits,
            failure_timing,
            refusals,
            chain_signal,
            mail_queue,
        })
    }
}
