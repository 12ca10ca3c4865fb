//! Creates each part of the server once, and connects the parts.

mod keys;
mod services;
mod shared;
mod stores;

use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;

use crate::{
    audit::Refusals,
    config::{Config, Server},
    gate::{Authorizer, Policies},
    mail::MailQueue,
    passwords::Hasher,
    pg::unreadable,
    secrets::tls::Tls,
    telemetry::{self, Calls, DroppedLines, Operations, Traces},
    tokens::KeyringReload,
};
use keys::ServerKeys;
use shared::Shared;

pub use services::ServiceHandlers;
pub use stores::Stores;

/// The parts of a server that is not started yet.
pub struct App {
    config: Config,
    policies: Policies,
    keys: ServerKeys,
    /// The connections to the stores.
    pub stores: Stores,
    hasher: Hasher,
    operations: Operations,
    traces: Option<Arc<Traces>>,
}

/// The parts of a running server.
pub struct Parts {
    pub server: Server,
    pub authorizer: Authorizer,
    pub registry: Registry,
    /// Counts calls and measures their duration.
    pub calls: Calls,
    /// `None` when no traces are collected.
    pub traces: Option<Arc<Traces>>,
    /// Reloads the signing keys when their files change, until this value is dropped.
    pub keys: Arc<KeyringReload>,
    /// `None` when connections are not encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Refusals that are not recorded yet. The server records them when it stops.
    pub refusals: Arc<Refusals>,
    /// Queues mails and sends them in the background; `None` when the server sends no mail. The
    /// server calls [`MailQueue::send_due_and_stop`] when it stops.
    pub mail_queue: Option<Arc<MailQueue>>,
    pub handlers: ServiceHandlers,
    pub stores: Stores,
}

impl App {
    /// Checks the policies, reads the keys and starts the hashing threads.
    ///
    /// # Errors
    /// Fails when a method has no policy, a key can't be used, or a URL is invalid.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let operations = Operations::default();
        let keys = ServerKeys::load(&config)?;
        Ok(Self {
            policies: Policies::load().context("the policies of the methods are invalid")?,
            stores: Stores::new(&config, keys.data_keys.clone(), &operations)?,
            hasher: start_hasher(&config)?,
            traces: config.traces.as_ref().map(Traces::start).transpose()?.map(Arc::new),
            operations,
            keys,
            config,
        })
    }

    /// Starts the background workers, and creates the gate and the services.
    ///
    /// # Errors
    /// Fails when the folder for mails can't be created.
    pub fn start(self) -> anyhow::Result<Parts> {
        let mut registry = self.create_registry();
        let calls = Calls::register(&self.policies.names(), &mut registry);
        let Self { config, keys, stores, hasher, .. } = self;
        let key_reload = keys.start_reloading(&mut registry);
        let shared = Shared::start(&config, &keys, &stores, hasher, &mut registry)?;
        Ok(Parts {
            handlers: ServiceHandlers::new(&shared, &config),
            authorizer: Authorizer {
                policies: self.policies,
                authenticator: shared.authenticator,
                db: shared.db,
                proxies: config.proxies,
                limits: shared.limits,
                refusals: shared.refusals.clone(),
            },
            server: config.server,
            registry,
            calls,
            traces: self.traces,
            keys: key_reload,
            tls: keys.tls,
            refusals: shared.refusals,
            mail_queue: shared.mail_queue,
            stores,
        })
    }

    /// Registers the metrics of the parts that exist before the workers start.
    fn create_registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.operations.register(&mut registry);
        unreadable::register(&mut registry);
        self.hasher.register(&mut registry);
        registry.register_collector(Box::new(DroppedLines));
        telemetry::register_build_info(&mut registry);
        #[cfg(target_os = "linux")]
        registry.register_collector(Box::new(telemetry::ProcessMetrics));
        self.stores.db.register(&mut registry);
        self.stores.redis.register(&mut registry);
        self.keys.data_keys.register(&mut registry);
        registry
    }
}

fn start_hasher(config: &Config) -> anyhow::Result<Hasher> {
    config.passwords.log_hashing();
    Hasher::start(&config.passwords)
}
