//! Keys without restarts: the files are read again and again, and a key signs once its
//! time has come.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::{self, MissedTickBehavior};

use super::Keyring;

/// How soon a change of the files is seen.
const INTERVAL: Duration = Duration::from_secs(2);

/// What has secrets that are derived from the keys.
pub trait Renew: Send + Sync {
    /// Takes the secrets of the keys as they are now.
    ///
    /// # Errors
    /// When one can't be derived, which no keyring makes it.
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()>;
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Follows the keys' files for as long as somebody has the keyring. Files that can't be
/// used are told of, and the keys in force stay.
pub fn keep_current(keyring: &Arc<Keyring>, renewed: Vec<Arc<dyn Renew>>, registry: &mut Registry) {
    let reloads = Family::<Outcome, Counter>::default();
    registry.register(
        "tenantry_key_reloads",
        "Times that the keys' files had changed, and could be used or not",
        reloads.clone(),
    );
    tokio::spawn(follow(Arc::downgrade(keyring), renewed, reloads));
}

async fn follow(
    keyring: Weak<Keyring>,
    renewed: Vec<Arc<dyn Renew>>,
    reloads: Family<Outcome, Counter>,
) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let Some(keyring) = keyring.upgrade() else { return };
        let renewed = renewed.clone();
        let read = tokio::task::spawn_blocking(move || reload(&keyring, &renewed)).await;
        match read.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that read keys died"))) {
            Ok(changed) => {
                told.clear();
                if changed {
                    reloads.get_or_create(&Outcome { outcome: "ok" }).inc();
                    tracing::info!("the keys changed");
                }
            }
            Err(error) => {
                reloads.get_or_create(&Outcome { outcome: "failed" }).inc();
                let text = format!("{error:#}");
                if text != told {
                    tracing::error!(
                        error = text,
                        "the keys' files can't be used; the old keys stay"
                    );
                    told = text;
                }
            }
        }
    }
}

fn reload(keyring: &Keyring, renewed: &[Arc<dyn Renew>]) -> anyhow::Result<bool> {
    let changed = keyring.reload()?;
    if changed {
        for one in renewed {
            one.renew(keyring)?;
        }
    }
    Ok(changed)
}
