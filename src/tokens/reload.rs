//! Keys without restarts: a key signs once its time has come, and all that is derived
//! from the keys follows.

use std::sync::Arc;

use super::Keyring;
use crate::secrets::reload::Reload;

/// What has secrets that are derived from the keys.
pub trait Renew: Send + Sync {
    /// Takes the secrets of the keys as they are now.
    ///
    /// # Errors
    /// When one can't be derived, which no keyring makes it.
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()>;
}

/// The keyring, with what is derived from it.
pub struct Renewed {
    keyring: Arc<Keyring>,
    derived: Vec<Arc<dyn Renew>>,
}

impl Renewed {
    /// A keyring, and what is derived from it.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, derived: Vec<Arc<dyn Renew>>) -> Arc<Self> {
        Arc::new(Self { keyring, derived })
    }
}

impl Reload for Renewed {
    const NAME: &str = "keys";
    const METRIC: &str = "tenantry_key_reloads";

    fn reload(&self) -> anyhow::Result<bool> {
        let changed = self.keyring.reload()?;
        if changed {
            for one in &self.derived {
                one.renew(&self.keyring)?;
            }
        }
        Ok(changed)
    }
}
