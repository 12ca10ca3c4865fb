//! Reload of keys without a restart. At a reload, another key may become the signing key. When the
//! keys have changed, the secrets derived from them are derived again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::Keyring;
use crate::secrets::reload::Reload;

/// A holder of secrets that are derived from the keyring.
pub trait Renew: Send + Sync {
    /// Derives the secrets again from the current keys.
    ///
    /// # Errors
    /// When a secret can't be derived. This does not happen with a valid keyring.
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()>;
}

/// The keyring and the holders of secrets derived from it.
pub struct KeyringReload {
    keyring: Arc<Keyring>,
    holders: Vec<Arc<dyn Renew>>,
    /// Whether the keys changed and some secrets are still derived from the old keys.
    is_pending: AtomicBool,
}

impl KeyringReload {
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, holders: Vec<Arc<dyn Renew>>) -> Arc<Self> {
        Arc::new(Self { keyring, holders, is_pending: AtomicBool::new(false) })
    }
}

impl Reload for KeyringReload {
    const NAME: &str = "keys";
    const METRIC: &str = "tenantry_key_reloads";

    fn reload(&self) -> anyhow::Result<bool> {
        let has_changed = self.keyring.reload()?;
        if has_changed {
            self.is_pending.store(true, Ordering::Relaxed);
        }
        // After a failure, the next reload tries again.
        if self.is_pending.load(Ordering::Relaxed) {
            for holder in &self.holders {
                holder.renew(&self.keyring)?;
            }
            self.is_pending.store(false, Ordering::Relaxed);
        }
        Ok(has_changed)
    }
}
