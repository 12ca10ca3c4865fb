//! A transaction that works in one tenant, with what seals its personal data.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    pg::{Observed, Tx},
    privacy::{Cipher, DataKeys, NewDataKey},
    proto::v1::ErrorReason,
};

/// A transaction whose tenant is set: row-level security shows it that
/// tenant's rows alone. Dropped without [`TenantTx::commit`], it rolls back; a statement
/// that is under way then is ended.
pub struct TenantTx {
    tx: Tx,
    tenant: TenantId,
    sealing: Sealing,
    data_keys: Option<Arc<DataKeys>>,
    feed: Option<Feed>,
    /// What seals the data of a tenant that this made. Memory may forget it meanwhile.
    made: Option<(TenantId, Arc<Cipher>)>,
}

/// What seals the personal data of a transaction's tenant.
pub(super) enum Sealing {
    /// It was had before the transaction began.
    Ready(Arc<Cipher>),
    /// There is no such tenant.
    Absent,
    /// It could not be had.
    Away,
}

impl TenantTx {
    /// A transaction in `tenant` that neither seals nor opens its personal data.
    pub(super) fn new(
        tx: Tx,
        tenant: TenantId,
        data_keys: Option<Arc<DataKeys>>,
        feed: Option<Feed>,
    ) -> Self {
        Self { tx, tenant, sealing: Sealing::Absent, data_keys, feed, made: None }
    }

    /// The same, with what seals its tenant's data.
    pub(super) fn with(self, sealing: Sealing) -> Self {
        Self { sealing, ..self }
    }

    /// The connection, for a statement.
    pub fn conn(&mut self) -> Observed<'_> {
        self.tx.conn()
    }

    /// Works in another tenant from here on: for what belongs to two, like a
    /// tenant that the platform's staff creates.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn enter(&mut self, tenant: TenantId) -> Result<()> {
        self.tx.enter(tenant).await
    }

    /// Seals the personal data of the tenant that this began in, or gave a data key.
    ///
    /// # Errors
    /// `NOT_FOUND` when it was deleted; UNAVAILABLE when the master key is away.
    pub fn cipher(&self, tenant: TenantId) -> Result<Arc<Cipher>> {
        self.find_cipher(tenant)?.ok_or_else(Error::not_found)
    }

    /// The same, where the tenant may have been deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub fn find_cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        if let Some((made, cipher)) = &self.made
            && *made == tenant
        {
            return Ok(Some(cipher.clone()));
        }
        match &self.sealing {
            Sealing::Ready(cipher) if tenant == self.tenant => Ok(Some(cipher.clone())),
            Sealing::Away if tenant == self.tenant => {
                let text = "a key that the answer needs can't be had; try again";
                Err(Error::refused(ErrorReason::StoreUnavailable, text))
            }
            _ => self.keys()?.known(tenant),
        }
    }

    /// Seals and names what belongs to no tenant.
    ///
    /// # Errors
    /// Before [`super::Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.keys()?.common()
    }

    /// Gives a new tenant, which this works in, its data key.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away.
    pub async fn insert_data_key(&mut self, key: &NewDataKey) -> Result<()> {
        let made = self.keys()?.clone().insert(&mut self.tx, key).await?;
        self.made = Some(made);
        Ok(())
    }

    fn keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(no_data_keys)
    }

    /// The consistency token of what this transaction changes: whoever decides
    /// with it once it is committed sees that.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn consistency_token(&mut self) -> Result<String> {
        let id = sqlx::query_scalar!(r#"select pg_current_xact_id()::text::bigint as "id!""#)
            .fetch_one(self.conn())
            .await?;
        let feed = self.feed.as_ref().ok_or_else(|| Error::defect("no feed is followed"))?;
        feed.token_of(id.cast_unsigned())
    }

    /// Makes it all durable, and seen by whatever this process decides from here
    /// on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if let Some(feed) = self.feed {
            feed.catch_up().await;
        }
        Ok(())
    }

    /// Makes a record durable that no decision depends on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit_record(self) -> Result<()> {
        self.tx.commit().await
    }
}

/// Personal data is read or written by something that was given no keys for it.
pub(super) fn no_data_keys() -> Error {
    Error::defect("no data keys were given")
}
