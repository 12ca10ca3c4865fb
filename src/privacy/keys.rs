//! Data keys: reads, unwraps, caches and creates them.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use aws_lc_rs::rand;
use prometheus_client::registry::Registry;
use quick_cache::sync::Cache;
use secrecy::zeroize::Zeroizing;
use tokio::{runtime::Handle, time};

use super::{
    cipher::{self, Cipher, KEY_LENGTH, UnreadableCounter},
    master::{DataKey, MasterKeys, MasterSource, WrappedKey},
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

/// Timeout of reading the common data key, when the file of master keys changed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of tenants whose ciphers are cached.
const MAX_CACHED_TENANTS: usize = 50_000;

/// The data keys of all tenants. Each key is read from Postgres, unwrapped by a master key and
/// cached.
pub struct DataKeys {
    masters: Arc<MasterKeys>,
    tenant_ciphers: Cache<TenantId, Arc<Cipher>>,
    /// The cipher for data that belongs to no tenant.
    common_cipher: OnceLock<Arc<Cipher>>,
    /// The database of the common data key, which changed master keys must be able to unwrap; not
    /// set before [`DataKeys::load_common`].
    postgres: OnceLock<Postgres>,
    unreadable_counter: UnreadableCounter,
}

/// A data key for a new tenant, not yet stored.
pub struct NewDataKey {
    tenant: TenantId,
    key: DataKey,
    wrapped: WrappedKey,
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
            tenant_ciphers: Cache::new(MAX_CACHED_TENANTS),
            common_cipher: OnceLock::new(),
            postgres: OnceLock::new(),
            unreadable_counter: UnreadableCounter::default(),
        }))
    }

    /// Registers the counter of values that could not be opened.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Sealed values that could not be opened: they were altered in the database";
        registry.register("tenantry_unreadable_values", help, self.unreadable_counter.clone());
        cipher::create_counters(&self.unreadable_counter);
    }

    #[must_use]
    pub fn masters(&self) -> &Arc<MasterKeys> {
        &self.masters
    }

    /// Reads the data key for data that belongs to no tenant; in a new database, creates the key.
    /// The server calls this function at its start, so that a start with a wrong master key fails.
    ///
    /// # Errors
    /// When Postgres or the key service is unavailable, or when the data key is wrapped by a master
    /// key that is not configured.
    pub async fn load_common(&self, postgres: &Postgres) -> anyhow::Result<()> {
        if !self.masters.is_configured() {
            tracing::warn!(
                "there is no master key: a reader of the database can decrypt personal data"
            );
        }
        let no_tenant = TenantId::UNKNOWN;
        let mut wrapped = read_wrapped_key(postgres, no_tenant, no_tenant).await?;
        if wrapped.is_none() {
            let new_key = self.try_generate(no_tenant).await?;
            let mut tx = postgres.begin(no_tenant).await?;
            // Another replica may insert its key first. Then the key of that replica is used.
            store::insert(&mut tx, no_tenant, &new_key.wrapped).await?;
            wrapped = store::get(&mut tx, no_tenant).await?;
            tx.commit().await?;
        }
        let wrapped = wrapped.context("there is no data key for data that belongs to no tenant")?;
        let key = self.unwrap(no_tenant, wrapped).await;
        let key = key.context("can't unwrap the data key for data that belongs to no tenant")?;
        self.common_cipher.set(Arc::new(self.new_cipher(no_tenant, &key)?)).ok();
        self.postgres.set(postgres.clone()).ok();
        Ok(())
    }

    /// The cipher for data that belongs to no tenant.
    ///
    /// # Errors
    /// INTERNAL when [`DataKeys::load_common`] has not run.
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        let cipher = self.common_cipher.get().cloned();
        cipher.ok_or_else(|| Error::defect("DataKeys::load_common has not run"))
    }

    /// The cipher of a tenant; `None` when the tenant does not exist. The data key is read in a
    /// transaction of its own, on a connection of the share of `charged_tenant`. This transaction
    /// ends before a key service is called.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or the data key cannot be unwrapped; OVERLOADED when
    /// no connection of the share becomes free.
    pub async fn find(
        &self,
        postgres: &Postgres,
        charged_tenant: TenantId,
        tenant: TenantId,
    ) -> Result<Option<Arc<Cipher>>> {
        if let Some(cipher) = self.cached_cipher(tenant)? {
            return Ok(Some(cipher));
        }
        let wrapped = read_wrapped_key(postgres, charged_tenant, tenant).await?;
        let Some(wrapped) = wrapped else { return Ok(None) };
        let key =
            self.unwrap(tenant, wrapped).await.map_err(|error| key_unavailable(tenant, &error))?;
        self.cache_cipher(tenant, &key).map(Some)
    }

    /// Like [`DataKeys::find`], but reads only the cache.
    ///
    /// # Errors
    /// INTERNAL for [`TenantId::UNKNOWN`] when [`DataKeys::load_common`] has not run.
    pub fn cached_cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        match tenant {
            TenantId::UNKNOWN => self.common_cipher().map(Some),
            tenant => Ok(self.tenant_ciphers.get(&tenant)),
        }
    }

    /// Creates a data key for a new tenant. No transaction may be open, because this function may
    /// call a key service.
    ///
    /// # Errors
    /// UNAVAILABLE when the key cannot be wrapped by the master key.
    pub async fn generate(&self, tenant: TenantId) -> Result<NewDataKey> {
        self.try_generate(tenant).await.map_err(|error| key_unavailable(tenant, &error))
    }

    /// Stores the data key of a new tenant, and returns the tenant and its cipher. The
    /// transaction must work in that tenant.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn insert(
        &self,
        tx: &mut Tx,
        new_key: &NewDataKey,
    ) -> Result<(TenantId, Arc<Cipher>)> {
        store::insert(tx, new_key.tenant, &new_key.wrapped).await?;
        Ok((new_key.tenant, self.cache_cipher(new_key.tenant, &new_key.key)?))
    }

    fn cache_cipher(&self, tenant: TenantId, key: &DataKey) -> Result<Arc<Cipher>> {
        let cipher = Arc::new(self.new_cipher(tenant, key)?);
        self.tenant_ciphers.insert(tenant, cipher.clone());
        Ok(cipher)
    }

    fn new_cipher(&self, tenant: TenantId, key: &DataKey) -> Result<Cipher> {
        Cipher::new(tenant, key, self.unreadable_counter.clone())
    }

    async fn try_generate(&self, tenant: TenantId) -> anyhow::Result<NewDataKey> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(key.as_mut_slice()).map_err(|_| anyhow::anyhow!("no random bytes"))?;
        let masters = self.masters.clone();
        let wrap = move || {
            let wrapped = masters.wrap(tenant, &key)?;
            Ok(NewDataKey { tenant, key, wrapped })
        };
        tokio::task::spawn_blocking(wrap).await?
    }

    async fn unwrap(&self, tenant: TenantId, wrapped: WrappedKey) -> anyhow::Result<DataKey> {
        let masters = self.masters.clone();
        tokio::task::spawn_blocking(move || masters.unwrap(tenant, &wrapped)).await?
    }
}

impl ChangeListener for DataKeys {
    fn apply(&self, change: &Change) {
        if change.kind == Kind::Tenant {
            self.tenant_ciphers.remove(&change.tenant);
        }
    }

    /// Drops all keys of tenants. A missed change may be the deletion of a tenant, whose key must
    /// not stay in memory.
    fn clear(&self) {
        self.tenant_ciphers.clear();
    }
}

impl Reload for DataKeys {
    const NAME: &str = "master keys";
    const METRIC: &str = "tenantry_master_key_reloads";

    /// Changed master keys are used only if they unwrap the common data key. Otherwise the data
    /// keys of new tenants could be wrapped by a wrong key, and never be unwrapped later.
    fn reload(&self) -> anyhow::Result<bool> {
        let Some(keys) = self.masters.read_changed()? else { return Ok(false) };
        let Some(postgres) = self.postgres.get() else { return Ok(false) };
        let no_tenant = TenantId::UNKNOWN;
        let read = time::timeout(READ_TIMEOUT, read_wrapped_key(postgres, no_tenant, no_tenant));
        let common_key = Handle::current().block_on(read);
        let common_key = common_key.context("Postgres did not answer in time")??;
        self.masters.adopt(keys, no_tenant, common_key.as_ref()).context(
            "the changed master keys can't unwrap the data key for data that belongs to no tenant",
        )?;
        Ok(true)
    }
}

/// Reads a tenant's wrapped data key. The transaction has ended when the function returns.
async fn read_wrapped_key(
    postgres: &Postgres,
    charged_tenant: TenantId,
    tenant: TenantId,
) -> Result<Option<WrappedKey>> {
    let mut tx = postgres.begin_in_share(charged_tenant, tenant).await?;
    let wrapped = store::get(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(wrapped)
}

fn key_unavailable(tenant: TenantId, error: &anyhow::Error) -> Error {
    tracing::error!(%tenant, error = format!("{error:#}"), "a tenant's data key can't be loaded");
    let text = "an encryption key is not available; try again";
    Error::refused(ErrorReason::StoreUnavailable, text)
}
