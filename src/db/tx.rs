//! Transactions that work in one tenant, with the tenant's cipher.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    pg::{InstrumentedExecutor, Tx},
    privacy::{Cipher, DataKeys, NewDataKey},
    proto::v1::ErrorReason,
};

/// A transaction in which one tenant is selected: row-level security shows only the rows of this
/// tenant. A drop without [`TenantTx::commit`] rolls the transaction back, and cancels a running
/// statement.
pub struct TenantTx {
    tx: Tx,
    /// The tenant in which the transaction began. `cipher_state` belongs to this tenant.
    initial_tenant: TenantId,
    /// The tenant that is selected now.
    current_tenant: TenantId,
    cipher_state: CipherState,
    data_keys: Option<Arc<DataKeys>>,
    feed: Option<Feed>,
    /// The cipher of a tenant that this transaction creates. The cipher is stored here, because the
    /// cache may evict the cipher before the commit.
    new_cipher: Option<(TenantId, Arc<Cipher>)>,
}

/// The state of the cipher of the transaction's initial tenant.
pub(super) enum CipherState {
    /// The cipher was loaded before the transaction began.
    Ready(Arc<Cipher>),
    /// No cipher was loaded: the tenant does not exist, or the transaction began without a cipher.
    Missing,
    /// The load of the cipher failed, because a store or the key service is unavailable.
    Unavailable,
}

impl TenantTx {
    /// Wraps a transaction that began in `tenant`, without a cipher for this tenant.
    pub(super) fn new(
        tx: Tx,
        tenant: TenantId,
        data_keys: Option<Arc<DataKeys>>,
        feed: Option<Feed>,
    ) -> Self {
        Self {
            tx,
            initial_tenant: tenant,
            current_tenant: tenant,
            cipher_state: CipherState::Missing,
            data_keys,
            feed,
            new_cipher: None,
        }
    }

    /// Sets the cipher of the transaction's initial tenant.
    pub(super) fn with_cipher_state(self, cipher_state: CipherState) -> Self {
        Self { cipher_state, ..self }
    }

    /// An executor for one statement on the transaction's connection, with metrics and traces.
    pub fn conn(&mut self) -> InstrumentedExecutor<'_> {
        self.tx.conn()
    }

    /// Selects another tenant for the rest of the transaction: for a change in two tenants, such as
    /// the creation of a tenant by platform staff.
    ///
    /// # Errors
    /// Fails when Postgres is unavailable.
    pub async fn switch_tenant(&mut self, tenant: TenantId) -> Result<()> {
        self.tx.switch_tenant(tenant).await?;
        self.current_tenant = tenant;
        Ok(())
    }

    /// The tenant that is selected now.
    #[must_use]
    pub fn current_tenant(&self) -> TenantId {
        self.current_tenant
    }

    /// The cipher for the personal data of `tenant`: the initial tenant of this transaction, or a
    /// tenant that the transaction creates. For any other tenant, only the cache is searched.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no cipher; UNAVAILABLE when the tenant's data key could not be
    /// loaded.
    pub fn cipher(&self, tenant: TenantId) -> Result<Arc<Cipher>> {
        self.find_cipher(tenant)?.ok_or_else(Error::not_found)
    }

    /// Like [`TenantTx::cipher`], but `None` when there is no cipher, for example because the
    /// tenant was deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when the tenant's data key could not be loaded.
    pub fn find_cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        if let Some((new_tenant, cipher)) = &self.new_cipher
            && *new_tenant == tenant
        {
            return Ok(Some(cipher.clone()));
        }
        match &self.cipher_state {
            CipherState::Ready(cipher) if tenant == self.initial_tenant => Ok(Some(cipher.clone())),
            CipherState::Unavailable if tenant == self.initial_tenant => {
                let text = "an encryption key is not available; try again";
                Err(Error::refused(ErrorReason::StoreUnavailable, text))
            }
            _ => self.data_keys()?.cached_cipher(tenant),
        }
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// INTERNAL when [`super::Db::load_common_data_key`] has not run.
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.data_keys()?.common_cipher()
    }

    /// Stores the data key of a new tenant. This tenant must be selected.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn insert_data_key(&mut self, key: &NewDataKey) -> Result<()> {
        let new_cipher = self.data_keys()?.clone().insert(&mut self.tx, key).await?;
        self.new_cipher = Some(new_cipher);
        Ok(())
    }

    fn data_keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The consistency token of this transaction's changes. After the commit, a decision for a
    /// request with this token includes these changes.
    ///
    /// # Errors
    /// Fails when Postgres is unavailable.
    pub async fn consistency_token(&mut self) -> Result<String> {
        let row = sqlx::query!(
            r#"
            select pg_current_xact_id()::text::bigint as "id!", current_epoch() as "epoch!"
            "#
        )
        .fetch_one(self.conn())
        .await?;
        let feed = self
            .feed
            .as_ref()
            .ok_or_else(|| Error::defect("this process does not follow the change feed"))?;
        feed.token_for_transaction(row.id.cast_unsigned(), row.epoch.cast_unsigned())
    }

    /// Commits, and waits until this process's caches have applied the changes. Every later
    /// decision of this process then includes the changes.
    ///
    /// # Errors
    /// Fails when Postgres is unavailable. Then it is unknown whether the transaction was
    /// committed.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if let Some(feed) = self.feed {
            feed.wait_for_commit().await;
        }
        Ok(())
    }

    /// Commits without waiting for the caches, for changes that no decision depends on.
    ///
    /// # Errors
    /// Fails when Postgres is unavailable. Then it is unknown whether the transaction was
    /// committed.
    pub async fn commit_without_waiting(self) -> Result<()> {
        self.tx.commit().await
    }
}

/// The error of a program defect: personal data is read or written through a handle without data
/// keys.
pub(super) fn no_data_keys() -> Error {
    Error::defect("the database handle has no data keys")
}
