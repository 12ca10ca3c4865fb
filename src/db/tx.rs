//! A transaction that works in one tenant.

use std::sync::Arc;

use sqlx::{Postgres, Transaction};

use super::{
    Db,
    observed::{Observed, observe},
};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    privacy::Cipher,
};

/// A transaction whose tenant is set: row-level security shows it that
/// tenant's rows alone. Dropped without [`TenantTx::commit`], it rolls back.
pub struct TenantTx {
    inner: Transaction<'static, Postgres>,
    db: Db,
}

impl TenantTx {
    pub(super) fn new(inner: Transaction<'static, Postgres>, db: Db) -> Self {
        Self { inner, db }
    }

    /// The connection, for a statement.
    pub fn conn(&mut self) -> Observed<'_> {
        Observed::connection(&mut self.inner, self.db.operations())
    }

    /// Works in another tenant from here on: for what belongs to two, like a
    /// tenant that the platform's staff creates.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn enter(&mut self, tenant: TenantId) -> Result<()> {
        sqlx::query!("select set_config('tenantry.tenant', $1, true)", tenant.to_string())
            .fetch_one(self.conn())
            .await?;
        Ok(())
    }

    /// Seals the personal data of the tenant that this works in.
    ///
    /// # Errors
    /// `NOT_FOUND` when it was deleted; UNAVAILABLE when the master key is away.
    pub async fn cipher(&mut self, tenant: TenantId) -> Result<Arc<Cipher>> {
        self.find_cipher(tenant).await?.ok_or_else(Error::not_found)
    }

    /// The same, where the tenant may have been deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub async fn find_cipher(&mut self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        let data_keys = self.db.data_keys()?.clone();
        data_keys.find(self, tenant).await
    }

    /// Seals and names what belongs to no tenant.
    ///
    /// # Errors
    /// Before [`Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.db.common_cipher()
    }

    /// Gives a new tenant, which this works in, its data key.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub async fn create_data_key(&mut self, tenant: TenantId) -> Result<()> {
        let data_keys = self.db.data_keys()?.clone();
        data_keys.create(self, tenant).await
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
        let feed = self.db.feed().ok_or_else(|| Error::defect("no feed is followed"))?;
        feed.token_of(id.cast_unsigned())
    }

    /// Makes it all durable, and seen by whatever this process decides from here
    /// on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit(self) -> Result<()> {
        observe(self.db.operations(), "COMMIT", self.inner.commit()).await?;
        self.db.committed().await;
        Ok(())
    }

    /// Makes a record durable that no decision depends on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit_record(self) -> Result<()> {
        Ok(observe(self.db.operations(), "COMMIT", self.inner.commit()).await?)
    }
}
