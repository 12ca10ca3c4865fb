//! Reload of keys without a restart. At each reload a key may start to sign, and the secrets
//! derived from changed keys are renewed.

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
    /// When a secret can't be derived. No keyring causes this.
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()>;
}

/// The keyring and the holders of secrets derived from it.
pub struct KeyringReload {
    keyring: Arc<Keyring>,
    derived: Vec<Arc<dyn Renew>>,
    /// Whether the keys changed and some derived secrets are still derived from the old keys.
    is_pending: AtomicBool,
}

impl KeyringReload {
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, derived: Vec<Arc<dyn Renew>>) -> Arc<Self> {
        Arc::new(Self { keyring, derived, is_pending: AtomicBool::new(false) })
    }
}

impl Reload for KeyringReload {
    const NAME: &str = "keys";
    const METRIC: &str = "tenantry_key_reloads";

    fn reload(&self) -> anyhow::Result<bool> {
        let changed = self.keyring.reload()?;
        if changed {
            self.is_pending.store(true, Ordering::Relaxed);
        }
        // After a failure, the next reload tries again.
        if self.is_pending.load(Ordering::Relaxed) {
            for holder in &self.derived {
                holder.renew(&self.keyring)?;
            }
            self.is_pending.store(false, Ordering::Relaxed);
        }
        Ok(changed)
    }
}
