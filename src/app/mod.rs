//! Builds the parts of the server, each once, and connects them.

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
    gate::{Gatekeeper, Policies},
    mail::Mails,
    passwords::Hasher,
    pg::unreadable,
    secrets::tls::Tls,
    telemetry::{Calls, DroppedLines, Operations, Traces},
    tokens::KeyringReload,
};
use keys::ServerKeys;
use shared::Shared;

pub use services::Serving;
pub use stores::Stores;

/// The parts before the server starts. No store was contacted yet.
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

/// The parts that the server works with.
pub struct Parts {
    pub server: Server,
    pub gatekeeper: Gatekeeper,
    pub registry: Registry,
    /// Counts and times calls.
    pub calls: Calls,
    /// `None` when no traces are collected.
    pub traces: Option<Arc<Traces>>,
    /// Keeps the keys current for as long as it is held.
    pub keys: Arc<KeyringReload>,
    /// `None` when connections are not encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Refusals that are not recorded yet. The server flushes them when it stops.
    pub refusals: Arc<Refusals>,
    /// The worker that sends mails. The server ends it when it stops.
    pub mails: Option<Arc<Mails>>,
    pub serving: Serving,
    pub stores: Stores,
}

impl App {
    /// Checks the policies, reads the keys and starts the hashing threads.
    ///
    /// # Errors
    /// When a method has no policy, a key can't be used, or a URL is invalid.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let operations = Operations::default();
        let keys = ServerKeys::load(&config)?;
        Ok(Self {
            policies: Policies::load().context("the proto's policies")?,
            stores: Stores::new(&config, keys.data_keys.clone(), &operations)?,
            hasher: Hasher::start(&config.passwords)?,
            traces: config.traces.as_ref().map(Traces::start).transpose()?.map(Arc::new),
            operations,
            keys,
            config,
        })
    }

    /// Starts the background workers, and makes the gate and the services.
    ///
    /// # Errors
    /// When the folder for mails can't be created.
    pub fn start(self) -> anyhow::Result<Parts> {
        let mut registry = self.registry();
        let calls = Calls::register(&self.policies.names(), &mut registry);
        let Self { config, keys, stores, hasher, .. } = self;
        let reloaded = keys.reload(&mut registry);
        let shared = Shared::start(&config, &keys, &stores, hasher, &mut registry)?;
        Ok(Parts {
            serving: Serving::new(&shared, &config),
            gatekeeper: Gatekeeper {
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
            keys: reloaded,
            tls: keys.tls,
            refusals: shared.refusals,
            mails: shared.mails,
            stores,
        })
    }

    /// The metrics of the parts that exist before the workers start.
    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.operations.register(&mut registry);
        unreadable::register(&mut registry);
        self.hasher.register(&mut registry);
        registry.register_collector(Box::new(DroppedLines));
        self.stores.db.register(&mut registry);
        self.keys.data_keys.register(&mut registry);
        registry
    }
}
