//! Transactions that work in one tenant, with the tenant's cipher.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    pg::{Observed, Tx},
    privacy::{Cipher, DataKeys, NewDataKey},
    proto::v1::ErrorReason,
};

/// A transaction with a tenant set: row-level security shows it only that tenant's rows. On
/// drop without [`TenantTx::commit`] it rolls back, and a running statement is ended.
pub struct TenantTx {
    tx: Tx,
    tenant: TenantId,
    /// The tenant whose rows the transaction sees now.
    current: TenantId,
    cipher_state: CipherState,
    data_keys: Option<Arc<DataKeys>>,
    feed: Option<Feed>,
    /// The cipher of a tenant that this transaction creates. It is stored here because the cache
    /// may evict it before the commit.
    new_cipher: Option<(TenantId, Arc<Cipher>)>,
}

/// The state of the cipher of the transaction's tenant.
pub(super) enum CipherState {
    /// The cipher was loaded before the transaction began.
    Ready(Arc<Cipher>),
    /// The tenant does not exist.
    Absent,
    /// The cipher could not be loaded.
    Away,
}

impl TenantTx {
    /// A transaction without a cipher for `tenant`.
    pub(super) fn new(
        tx: Tx,
        tenant: TenantId,
        data_keys: Option<Arc<DataKeys>>,
        feed: Option<Feed>,
    ) -> Self {
        Self {
            tx,
            tenant,
            current: tenant,
            cipher_state: CipherState::Absent,
            data_keys,
            feed,
            new_cipher: None,
        }
    }

    /// Sets the cipher of the transaction's tenant.
    pub(super) fn with(self, cipher_state: CipherState) -> Self {
        Self { cipher_state, ..self }
    }

    /// The connection, for one statement.
    pub fn conn(&mut self) -> Observed<'_> {
        self.tx.conn()
    }

    /// Switches to another tenant for the rest of the transaction: for a change in two tenants,
    /// such as the creation of a tenant by platform staff.
    ///
    /// # Errors
    /// When Postgres is unavailable.
    pub async fn switch_tenant(&mut self, tenant: TenantId) -> Result<()> {
        self.tx.switch_tenant(tenant).await?;
        self.current = tenant;
        Ok(())
    }

    /// The tenant that the transaction works in now.
    #[must_use]
    pub fn current_tenant(&self) -> TenantId {
        self.current
    }

    /// The cipher for the personal data of `tenant`: the tenant of this transaction, or a tenant
    /// that the transaction creates. The cipher of any other tenant is found only in the cache.
    ///
    /// # Errors
    /// `NOT_FOUND` when the tenant was deleted; UNAVAILABLE when its data key could not be
    /// loaded.
    pub fn cipher(&self, tenant: TenantId) -> Result<Arc<Cipher>> {
        self.find_cipher(tenant)?.ok_or_else(Error::not_found)
    }

    /// Like [`TenantTx::cipher`], but `None` when the tenant was deleted.
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
            CipherState::Ready(cipher) if tenant == self.tenant => Ok(Some(cipher.clone())),
            CipherState::Away if tenant == self.tenant => {
                let text = "an encryption key is not available; try again";
                Err(Error::refused(ErrorReason::StoreUnavailable, text))
            }
            _ => self.keys()?.known(tenant),
        }
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// Before [`super::Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.keys()?.common()
    }

    /// Stores the data key of a new tenant. The transaction must work in that tenant.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn insert_data_key(&mut self, key: &NewDataKey) -> Result<()> {
        let new_cipher = self.keys()?.clone().insert(&mut self.tx, key).await?;
        self.new_cipher = Some(new_cipher);
        Ok(())
    }

    fn keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The consistency token of this transaction's changes. A decision made with the token
    /// after the commit sees these changes.
    ///
    /// # Errors
    /// When Postgres is unavailable.
    pub async fn consistency_token(&mut self) -> Result<String> {
        let id = sqlx::query_scalar!(r#"select pg_current_xact_id()::text::bigint as "id!""#)
            .fetch_one(self.conn())
            .await?;
        let feed = self.feed.as_ref().ok_or_else(|| Error::defect("no feed is followed"))?;
        feed.token_for_transaction(id.cast_unsigned())
    }

    /// Commits, and waits until this process's caches have applied the changes, so every later
    /// decision of this process sees them.
    ///
    /// # Errors
    /// When Postgres is unavailable. The transaction may or may not be committed then.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if let Some(feed) = self.feed {
            feed.wait_for_commit().await;
        }
        Ok(())
    }

    /// Commits a record that no decision depends on, without waiting for the caches.
    ///
    /// # Errors
    /// When Postgres is unavailable. The transaction may or may not be committed then.
    pub async fn commit_record(self) -> Result<()> {
        self.tx.commit().await
    }
}

/// The defect: personal data is read or written through a handle without data keys.
pub(super) fn no_data_keys() -> Error {
    Error::defect("no data keys were given")
}
