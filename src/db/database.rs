//! Postgres, with the keys of personal data and the feed of changes.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::PgPool;

use super::tx::{Sealing, TenantTx, no_data_keys};
use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    pg::{Observed, Postgres},
    privacy::{Cipher, DataKeys, MasterKeys, NewDataKey},
    proto::v1::ErrorReason,
    telemetry::Operations,
};

/// Postgres, as features use it. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    postgres: Postgres,
    /// Set once this process follows the feed.
    feed: Arc<OnceLock<Feed>>,
    /// Absent where no personal data is read or written.
    data_keys: Option<Arc<DataKeys>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

impl Db {
    /// At most `max_connections`, each made when first used.
    ///
    /// # Errors
    /// When the URL can't be read.
    pub fn connect(url: &SecretString, max_connections: u32) -> anyhow::Result<Self> {
        let postgres = Postgres::connect(url, max_connections)?;
        Ok(Self { postgres, feed: Arc::default(), data_keys: None })
    }

    /// Postgres alone.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Shows what is counted of its connections.
    pub fn register(&self, registry: &mut Registry) {
        self.postgres.register(registry);
    }

    /// The same, with what seals personal data; see [`Db::prepare`].
    #[must_use]
    pub fn with_data_keys(self, data_keys: Arc<DataKeys>) -> Self {
        Self { data_keys: Some(data_keys), ..self }
    }

    /// The same, with its statements counted together with those of others.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { postgres: self.postgres.with_operations(operations), ..self }
    }

    /// Makes the data keys ready for use.
    ///
    /// # Errors
    /// When Postgres or a key service is away, or the master key is not the one that
    /// the database was made with.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.data_keys()?.prepare(&self.postgres).await
    }

    fn data_keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The master keys, where personal data is read and written.
    ///
    /// # Errors
    /// When it is not.
    pub fn master_keys(&self) -> Result<&Arc<MasterKeys>> {
        Ok(self.data_keys()?.masters())
    }

    /// Seals and names what belongs to no tenant.
    ///
    /// # Errors
    /// Before [`Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.data_keys()?.common()
    }

    /// Seals a tenant's personal data; `None` when there is no such tenant any more.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres or the master key is away.
    pub async fn cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        self.data_keys()?.find(&self.postgres, tenant).await
    }

    /// A data key for a tenant that is about to be made. No transaction is to be open: a
    /// key service may be asked.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub async fn make_data_key(&self, tenant: TenantId) -> Result<NewDataKey> {
        self.data_keys()?.make_for(tenant).await
    }

    /// A connection for a statement that is complete in itself and concerns no tenant
    /// or all of them.
    #[must_use]
    pub fn pool(&self) -> Observed<'static> {
        self.postgres.pool()
    }

    /// A connection of a tenant's share, for a statement that is complete in itself: the
    /// SQL functions that set their tenant.
    ///
    /// # Errors
    /// OVERLOADED when none of the tenant's share comes free.
    pub async fn single(&self, tenant: TenantId) -> Result<Observed<'static>> {
        self.postgres.single(tenant).await
    }

    /// The connections themselves.
    #[must_use]
    pub fn connections(&self) -> &PgPool {
        self.postgres.connections()
    }

    /// Begins a transaction that works in `tenant`, on a connection of the tenant's
    /// share. The tenant's data key is had before: a key service that hangs leaves no
    /// transaction open. Where it can't be had, only what needs it fails.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away or no connection comes free, OVERLOADED when
    /// none of the tenant's share does.
    pub async fn begin(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_within(tenant, tenant).await
    }

    /// The same, on a connection of another share than the tenant's own: for callers who
    /// did not name the tenant, or one that does not exist.
    ///
    /// # Errors
    /// Those of [`Db::begin`].
    pub async fn begin_within(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        if self.data_keys.is_none() {
            return self.begin_unsealed_within(share, tenant).await;
        }
        let sealing = match self.cipher(tenant).await {
            Ok(Some(cipher)) => Sealing::Ready(cipher),
            Ok(None) => Sealing::Absent,
            Err(Error::Refused(ErrorReason::StoreUnavailable, _)) => Sealing::Away,
            Err(error) => return Err(error),
        };
        Ok(self.begin_unsealed_within(share, tenant).await?.with(sealing))
    }

    /// The same, for what neither seals nor opens personal data.
    ///
    /// # Errors
    /// Those of [`Db::begin`].
    pub async fn begin_unsealed(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_unsealed_within(tenant, tenant).await
    }

    async fn begin_unsealed_within(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        let tx = self.postgres.begin_within(share, tenant).await?;
        Ok(TenantTx::new(tx, tenant, self.data_keys.clone(), self.feed.get().cloned()))
    }

    /// From here on, each commit returns once this process's memory has it.
    pub fn follow(&self, feed: Feed) {
        self.feed.set(feed).ok();
    }

    /// After a commit that can alter a decision.
    pub async fn committed(&self) {
        if let Some(feed) = self.feed.get() {
            feed.catch_up().await;
        }
    }

    /// Whether the connections were closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.postgres.is_closed()
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
