//! The keys of the server, and the secrets that are derived from them.

use std::{sync::Arc, thread};

use anyhow::bail;
use prometheus_client::registry::Registry;

use crate::{
    api::paging::Pages,
    config::Config,
    feed::Sealer,
    limits::CounterNames,
    privacy::DataKeys,
    secrets::{reload, tls::Tls},
    sessions::EntryKeys,
    tokens::{Keyring, KeyringReload, OpaqueTokens},
};

/// All keys of the server.
pub(super) struct ServerKeys {
    pub keyring: Arc<Keyring>,
    pub data_keys: Arc<DataKeys>,
    /// `None` when connections are not encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Seals consistency tokens.
    pub sealer: Arc<Sealer>,
    pub counter_names: Arc<CounterNames>,
    pub page_tokens: Arc<OpaqueTokens>,
    /// Authenticates the entries of the session cache.
    pub entry_keys: Arc<EntryKeys>,
}

impl ServerKeys {
    /// Reads the keys, and derives the secrets.
    ///
    /// # Errors
    /// Fails when a key can't be read or used.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let (keyring, data_keys) = load_on_thread(config)?;
        let server = &config.server;
        let load_tls = |paths| Tls::load(paths, server.web_origins.is_some());
        Ok(Self {
            tls: server.tls.clone().map(load_tls).transpose()?,
            sealer: Arc::new(Sealer::new(&keyring)?),
            counter_names: Arc::new(CounterNames::new(&keyring)?),
            page_tokens: Arc::new(OpaqueTokens::new(&keyring, Pages::LABEL)?),
            entry_keys: Arc::new(EntryKeys::new(&keyring)?),
            keyring: Arc::new(keyring),
            data_keys,
        })
    }

    /// Starts background workers that reload the keys when their files change. The reloading of the
    /// signing keys stops when the returned value is dropped.
    pub fn start_reloading(&self, registry: &mut Registry) -> Arc<KeyringReload> {
        let key_reload = KeyringReload::new(
            self.keyring.clone(),
            vec![
                self.sealer.clone(),
                self.counter_names.clone(),
                self.page_tokens.clone(),
                self.entry_keys.clone(),
            ],
        );
        reload::keep_current(&key_reload, registry);
        reload::keep_current(&self.data_keys, registry);
        if let Some(tls) = &self.tls {
            tls.register(registry);
            reload::keep_current(tls, registry);
        }
        key_reload
    }
}

/// Reads the keys on a separate thread, because the client of a key service blocks its thread and
/// must not block the runtime.
fn load_on_thread(config: &Config) -> anyhow::Result<(Keyring, Arc<DataKeys>)> {
    let tokens = &config.tokens;
    let load = || {
        let keyring = Keyring::load(&tokens.keys, &tokens.issuer, &tokens.audience)?;
        Ok((keyring, DataKeys::load(&config.master)?))
    };
    let result = thread::scope(|scope| scope.spawn(load).join());
    result.unwrap_or_else(|_| bail!("the thread that read the keys panicked"))
}
