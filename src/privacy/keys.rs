//! The in-memory cache of data keys.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use aws_lc_rs::rand;
use prometheus_client::registry::Registry;
use quick_cache::sync::Cache;
use secrecy::zeroize::Zeroizing;

use super::{
    cipher::{self, Cipher, KEY, Unreadable},
    master::{DataKey, MasterKeys, MasterSource, Wrapped},
    store,
};
use crate::{
    error::{Error, Result},
    feed::{Change, ChangeListener, Kind},
    ids::TenantId,
    pg::{Postgres, Tx},
    proto::v1::ErrorReason,
    secrets::reload::Reload,
};

/// Maximum number of tenants whose ciphers are cached.
const MAX_CACHED_TENANTS: usize = 50_000;

/// The data keys of all tenants. Each key is read from Postgres, unwrapped by a master key and
/// cached.
pub struct DataKeys {
    masters: Arc<MasterKeys>,
    tenants: Cache<TenantId, Arc<Cipher>>,
    /// The cipher for data that belongs to no tenant.
    common: OnceLock<Arc<Cipher>>,
    unreadable: Unreadable,
}

/// A data key for a new tenant, not yet stored.
pub struct NewDataKey {
    tenant: TenantId,
    key: DataKey,
    wrapped: Wrapped,
}

impl DataKeys {
    /// Loads the master keys. Each data key is read when it is needed.
    ///
    /// # Errors
    /// When the master keys can't be read.
    pub fn load(source: &MasterSource) -> anyhow::Result<Arc<Self>> {
        let masters = Arc::new(MasterKeys::load(source)?);
        Ok(Arc::new(Self {
            masters,
            tenants: Cache::new(MAX_CACHED_TENANTS),
            common: OnceLock::new(),
            unreadable: Unreadable::default(),
        }))
    }

    /// Registers the counter of values that could not be opened.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Sealed values that could not be opened: they were altered in the database";
        registry.register("tenantry_unreadable_values", help, self.unreadable.clone());
        cipher::show_tables(&self.unreadable);
    }

    #[must_use]
    pub fn masters(&self) -> &Arc<MasterKeys> {
        &self.masters
    }

    /// Reads the data key for data that belongs to no tenant; in a new database, creates the key.
    /// The server needs this key at its start, so a start with a wrong master key fails.
    ///
    /// # Errors
    /// When Postgres or the key service is unavailable, or when the key is wrapped by a master
    /// key that is not configured.
    pub async fn prepare(&self, postgres: &Postgres) -> anyhow::Result<()> {
        if !self.masters.is_configured() {
            tracing::warn!(
                "there is no master key: a reader of the database can decrypt personal data"
            );
        }
        let no_tenant = TenantId::UNKNOWN;
        let mut stored = read(postgres, no_tenant).await?;
        if stored.is_none() {
            let new = self.make(no_tenant).await?;
            let mut tx = postgres.begin(no_tenant).await?;
            // Another replica may insert its key first. Then the key of that replica is used.
            store::insert(&mut tx, no_tenant, &new.wrapped).await?;
            stored = store::get(&mut tx, no_tenant).await?;
            tx.commit().await?;
        }
        let stored = stored.context("there is no common data key")?;
        let key =
            self.unwrap(no_tenant, stored).await.context("the common data key can't be used")?;
        self.common.set(Arc::new(self.cipher(no_tenant, &key)?)).ok();
        Ok(())
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// Before [`DataKeys::prepare`].
    pub fn common(&self) -> Result<Arc<Cipher>> {
        self.common.get().cloned().ok_or_else(|| Error::defect("no data keys were prepared"))
    }

    /// The cipher of a tenant; `None` when the tenant does not exist. No transaction is open
    /// while a key service is called.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or the data key cannot be unwrapped.
    pub async fn find(&self, postgres: &Postgres, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        if let Some(cipher) = self.known(tenant)? {
            return Ok(Some(cipher));
        }
        let Some(stored) = read(postgres, tenant).await? else { return Ok(None) };
        let key =
            self.unwrap(tenant, stored).await.map_err(|error| key_unavailable(tenant, &error))?;
        self.cache(tenant, &key).map(Some)
    }

    /// Like [`DataKeys::find`], but from the cache only.
    ///
    /// # Errors
    /// For [`TenantId::UNKNOWN`], before [`DataKeys::prepare`].
    pub fn known(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        match tenant {
            TenantId::UNKNOWN => self.common().map(Some),
            tenant => Ok(self.tenants.get(&tenant)),
        }
    }

    /// Creates a data key for a new tenant. This may call a key service, so the caller must have
    /// no open transaction.
    ///
    /// # Errors
    /// UNAVAILABLE when the key cannot be wrapped by the master key.
    pub async fn generate(&self, tenant: TenantId) -> Result<NewDataKey> {
        self.make(tenant).await.map_err(|error| key_unavailable(tenant, &error))
    }

    /// Stores the data key of a new tenant, and returns the tenant and its cipher. The
    /// transaction must work in that tenant.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn insert(&self, tx: &mut Tx, new: &NewDataKey) -> Result<(TenantId, Arc<Cipher>)> {
        store::insert(tx, new.tenant, &new.wrapped).await?;
        Ok((new.tenant, self.cache(new.tenant, &new.key)?))
    }

    fn cache(&self, tenant: TenantId, key: &DataKey) -> Result<Arc<Cipher>> {
        let cipher = Arc::new(self.cipher(tenant, key)?);
        self.tenants.insert(tenant, cipher.clone());
        Ok(cipher)
    }

    fn cipher(&self, tenant: TenantId, key: &DataKey) -> Result<Cipher> {
        Cipher::new(tenant, key, self.unreadable.clone())
    }

    async fn make(&self, tenant: TenantId) -> anyhow::Result<NewDataKey> {
        let mut key = Zeroizing::new([0; KEY]);
        rand::fill(key.as_mut_slice()).map_err(|_| anyhow::anyhow!("no random bytes"))?;
        let masters = self.masters.clone();
        let wrap = move || {
            let wrapped = masters.wrap(tenant, &key)?;
            Ok(NewDataKey { tenant, key, wrapped })
        };
        tokio::task::spawn_blocking(wrap).await?
    }

    async fn unwrap(&self, tenant: TenantId, stored: Wrapped) -> anyhow::Result<DataKey> {
        let masters = self.masters.clone();
        tokio::task::spawn_blocking(move || masters.unwrap(tenant, &stored)).await?
    }
}

impl ChangeListener for DataKeys {
    fn apply(&self, change: &Change) {
        if change.kind == Kind::Tenant {
            self.tenants.remove(&change.tenant);
        }
    }

    /// Drops all keys. A missed change may be the deletion of a tenant, whose key must not stay in
    /// memory.
    fn clear(&self) {
        self.tenants.clear();
    }
}

impl Reload for DataKeys {
    const NAME: &str = "master keys";
    const METRIC: &str = "tenantry_master_key_reloads";

    fn reload(&self) -> anyhow::Result<bool> {
        self.masters.reload()
    }
}

/// Reads a tenant's wrapped data key. The transaction has ended when this returns.
async fn read(postgres: &Postgres, tenant: TenantId) -> Result<Option<Wrapped>> {
    let mut tx = postgres.begin(tenant).await?;
    let stored = store::get(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(stored)
}

fn key_unavailable(tenant: TenantId, error: &anyhow::Error) -> Error {
    tracing::error!(%tenant, error = format!("{error:#}"), "a tenant's data key can't be loaded");
    let text = "an encryption key is not available; try again";
    Error::refused(ErrorReason::StoreUnavailable, text)
}
