//! Reload of keys without a restart. A key starts to sign at its start time, and secrets
//! derived from the keys are renewed.

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
    /// Whether the keys changed and some derived secrets are still those of the old keys.
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
        // A failure is tried again at the next reload.
        if self.is_pending.load(Ordering::Relaxed) {
            for one in &self.derived {
                one.renew(&self.keyring)?;
            }
            self.is_pending.store(false, Ordering::Relaxed);
        }
        Ok(changed)
    }
}
