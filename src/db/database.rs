//! Postgres with the keys for personal data and the change feed.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::PgPool;

use super::tx::{CipherState, TenantTx, no_data_keys};
use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    pg::{Observed, Postgres},
    privacy::{Cipher, DataKeys, MasterKeys, NewDataKey},
    proto::v1::ErrorReason,
    telemetry::Operations,
};

/// The database handle that features use. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    postgres: Postgres,
    /// Set once this process follows the change feed.
    feed: Arc<OnceLock<Feed>>,
    /// `None` in a process that reads and writes no personal data.
    data_keys: Option<Arc<DataKeys>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

impl Db {
    /// Creates a pool of at most `max_connections`. Each connection is opened at its first use.
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn connect(url: &SecretString, max_connections: u32) -> anyhow::Result<Self> {
        let postgres = Postgres::connect(url, max_connections)?;
        Ok(Self { postgres, feed: Arc::default(), data_keys: None })
    }

    /// The underlying handle, without data keys and feed.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Registers the metrics of the connections.
    pub fn register(&self, registry: &mut Registry) {
        self.postgres.register(registry);
    }

    /// Adds the data keys, which encrypt personal data. They are usable after [`Db::prepare`].
    #[must_use]
    pub fn with_data_keys(self, data_keys: Arc<DataKeys>) -> Self {
        Self { data_keys: Some(data_keys), ..self }
    }

    /// Records the statements in `operations`, which other stores share.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { postgres: self.postgres.with_operations(operations), ..self }
    }

    /// Loads the common data key, and creates it in a new database.
    ///
    /// # Errors
    /// When Postgres or the key service is unavailable, or when another master key wrapped the
    /// database's common data key.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.data_keys()?.prepare(&self.postgres).await
    }

    fn data_keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The master keys.
    ///
    /// # Errors
    /// INTERNAL when this handle has no data keys.
    pub fn master_keys(&self) -> Result<&Arc<MasterKeys>> {
        Ok(self.data_keys()?.masters())
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// Before [`Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.data_keys()?.common()
    }

    /// The cipher for a tenant's personal data; `None` when the tenant does not exist.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or the data key cannot be unwrapped.
    pub async fn cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        self.data_keys()?.find(&self.postgres, tenant).await
    }

    /// Creates a data key for a tenant that is about to be created. This may call a key service,
    /// so the caller must have no open transaction.
    ///
    /// # Errors
    /// UNAVAILABLE when the key cannot be wrapped by the master key.
    pub async fn generate_data_key(&self, tenant: TenantId) -> Result<NewDataKey> {
        self.data_keys()?.generate(tenant).await
    }

    /// An executor for a single statement that concerns no tenant or all tenants.
    #[must_use]
    pub fn pool(&self) -> Observed<'static> {
        self.postgres.pool()
    }

    /// An executor for a single statement on a connection of the tenant's share: for SQL
    /// functions that set the tenant themselves.
    ///
    /// # Errors
    /// OVERLOADED when no connection of the tenant's share becomes free.
    pub async fn statement_in_share(&self, tenant: TenantId) -> Result<Observed<'static>> {
        self.postgres.statement_in_share(tenant).await
    }

    /// The pool itself, without metrics and shares.
    #[must_use]
    pub fn connections(&self) -> &PgPool {
        self.postgres.connections()
    }

    /// Begins a transaction in `tenant`, on a connection of the tenant's share. The tenant's
    /// data key is loaded before the transaction begins, so a key service that hangs keeps no
    /// transaction open. If the key cannot be loaded, only operations that need the key fail.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or no connection becomes free; OVERLOADED when
    /// no connection of the tenant's share becomes free.
    pub async fn begin(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_in_share(tenant, tenant).await
    }

    /// Like [`Db::begin`], but takes the connection from the share of tenant `share`, not from the
    /// share of `tenant`: for callers that did not name the tenant, or named a tenant that does not
    /// exist.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_in_share(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        if self.data_keys.is_none() {
            return self.begin_unsealed_within(share, tenant).await;
        }
        let cipher_state = match self.cipher(tenant).await {
            Ok(Some(cipher)) => CipherState::Ready(cipher),
            Ok(None) => CipherState::Absent,
            Err(Error::Refused(ErrorReason::StoreUnavailable, _)) => CipherState::Away,
            Err(error) => return Err(error),
        };
        Ok(self.begin_unsealed_within(share, tenant).await?.with(cipher_state))
    }

    /// Like [`Db::begin`], for work that neither encrypts nor decrypts personal data.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_unsealed(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_unsealed_within(tenant, tenant).await
    }

    async fn begin_unsealed_within(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        let tx = self.postgres.begin_in_share(share, tenant).await?;
        Ok(TenantTx::new(tx, tenant, self.data_keys.clone(), self.feed.get().cloned()))
    }

    /// Sets the feed. From now on, each commit returns only after this process's caches have
    /// applied the changes.
    pub fn follow(&self, feed: Feed) {
        self.feed.set(feed).ok();
    }

    /// Waits until this process's caches have applied a commit that can alter a decision.
    pub async fn wait_for_caches(&self) {
        if let Some(feed) = self.feed.get() {
            feed.wait_for_commit().await;
        }
    }

    /// Whether the pool is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.postgres.is_closed()
    }

    /// Closes the pool, and waits until all connections in use are returned and closed.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
