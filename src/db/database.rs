//! The handle to Postgres, with the data keys and the change feed.

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
    pg::{InstrumentedExecutor, Postgres},
    privacy::{Cipher, DataKeys, MasterKeys, NewDataKey},
    proto::v1::ErrorReason,
    telemetry::Operations,
};

/// The database handle that features use. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    postgres: Postgres,
    /// Set when this process starts to follow the change feed.
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
    /// Creates a pool of at most `max_connections` connections. Each connection is opened at its
    /// first use.
    ///
    /// # Errors
    /// Fails when the URL is invalid.
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

    /// Adds the data keys, which encrypt personal data. They are usable after
    /// [`Db::load_common_data_key`].
    #[must_use]
    pub fn with_data_keys(self, data_keys: Arc<DataKeys>) -> Self {
        Self { data_keys: Some(data_keys), ..self }
    }

    /// Records the metrics of the statements in `operations`, where Redis commands are recorded
    /// too.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { postgres: self.postgres.with_operations(operations), ..self }
    }

    /// Loads the data key for data that belongs to no tenant. In a new database, creates the key.
    ///
    /// # Errors
    /// Fails when Postgres or the key service is unavailable, or when no configured master key can
    /// unwrap the data key.
    pub async fn load_common_data_key(&self) -> anyhow::Result<()> {
        self.data_keys()?.load_common(&self.postgres).await
    }

    fn data_keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The master keys, which wrap the data keys.
    ///
    /// # Errors
    /// INTERNAL when this handle has no data keys.
    pub fn master_keys(&self) -> Result<&Arc<MasterKeys>> {
        Ok(self.data_keys()?.masters())
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// INTERNAL when [`Db::load_common_data_key`] has not run.
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.data_keys()?.common_cipher()
    }

    /// The cipher for a tenant's personal data; `None` when the tenant does not exist.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or the data key cannot be unwrapped.
    pub async fn cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        self.cipher_in_share(tenant, tenant).await
    }

    /// Like [`Db::cipher`], but a query of the key uses a connection of the share of
    /// `charged_tenant`. Use this for a tenant that a client without a token named.
    ///
    /// # Errors
    /// As [`Db::cipher`]; OVERLOADED when no connection of the share becomes free.
    pub async fn cipher_in_share(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
    ) -> Result<Option<Arc<Cipher>>> {
        self.data_keys()?.find(&self.postgres, charged_tenant, tenant).await
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
    pub fn executor(&self) -> InstrumentedExecutor<'static> {
        self.postgres.executor()
    }

    /// An executor for a single statement, on a connection of the tenant's share. No tenant is
    /// selected on the connection, so the statement must call an SQL function that selects the
    /// tenant.
    ///
    /// # Errors
    /// OVERLOADED when no connection of the tenant's share becomes free.
    pub async fn executor_in_share(
        &self,
        tenant: TenantId,
    ) -> Result<InstrumentedExecutor<'static>> {
        self.postgres.executor_in_share(tenant).await
    }

    /// The pool itself. Statements on its connections have no metrics, and do not count against the
    /// share of a tenant.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.postgres.pool()
    }

    /// Begins a transaction in `tenant`, on a connection of the tenant's share. The tenant's data
    /// key is loaded before the transaction begins, so no transaction stays open while a key
    /// service hangs. If the key cannot be loaded, only operations that need the key fail.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or no connection becomes free; OVERLOADED when
    /// no connection of the tenant's share becomes free.
    pub async fn begin(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_in_share(tenant, tenant).await
    }

    /// Like [`Db::begin`], but the connection counts against the share of `charged_tenant` and not
    /// against the share of `tenant`. Use this for calls that named no tenant, or a tenant that
    /// does not exist.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_in_share(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
    ) -> Result<TenantTx> {
        if self.data_keys.is_none() {
            return self.begin_without_cipher_in_share(charged_tenant, tenant).await;
        }
        let cipher_state = match self.cipher_in_share(charged_tenant, tenant).await {
            Ok(Some(cipher)) => CipherState::Ready(cipher),
            Ok(None) => CipherState::Missing,
            Err(Error::Refused(ErrorReason::StoreUnavailable, _)) => CipherState::Unavailable,
            Err(error) => return Err(error),
        };
        Ok(self
            .begin_without_cipher_in_share(charged_tenant, tenant)
            .await?
            .with_cipher_state(cipher_state))
    }

    /// Like [`Db::begin`], for work that neither encrypts nor decrypts personal data.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_without_cipher(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_without_cipher_in_share(tenant, tenant).await
    }

    /// Like [`Db::begin_in_share`], for work that neither encrypts nor decrypts personal data.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_without_cipher_in_share(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
    ) -> Result<TenantTx> {
        let tx = self.postgres.begin_in_share(charged_tenant, tenant).await?;
        Ok(TenantTx::new(tx, tenant, self.data_keys.clone(), self.feed.get().cloned()))
    }

    /// Sets the change feed that this process follows. From now on, each commit returns only after
    /// this process's caches have applied the changes of the transaction.
    pub fn set_feed(&self, feed: Feed) {
        self.feed.set(feed).ok();
    }

    /// Waits until this process's caches have applied all earlier commits, and wakes the other
    /// replicas. Call this after a commit that can alter a decision and that no [`TenantTx`] made.
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
