//! Reloads files that may change while the server runs: keys and TLS certificates.

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

/// Interval between two checks of the files.
const INTERVAL: Duration = Duration::from_secs(2);

/// A value that is read from files and can be reloaded.
pub trait Reload: Send + Sync + 'static {
    /// The name of the value in the log.
    const NAME: &str;
    /// The name of the counter of reloads, by outcome.
    const METRIC: &str;

    /// Reads the files, and returns whether the files had changed.
    ///
    /// # Errors
    /// When the files cannot be used. Then the current value stays in use.
    fn reload(&self) -> anyhow::Result<bool>;
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Reloads the value when its files change, until the value is dropped.
pub fn keep_current<R: Reload>(value: &Arc<R>, registry: &mut Registry) {
    let reloads = Family::<Outcome, Counter>::default();
    let help = "Reloads of changed files. A failed reload is repeated every 2 seconds";
    registry.register(R::METRIC, help, reloads.clone());
    // Create both series at the start: Prometheus sees no increase in a series that first
    // appears with the value 1.
    for outcome in ["ok", "failed"] {
        drop(reloads.get_or_create(&Outcome { outcome }));
    }
    tokio::spawn(reload_until_dropped(Arc::downgrade(value), reloads));
}

async fn reload_until_dropped<R: Reload>(value: Weak<R>, reloads: Family<Outcome, Counter>) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_error = String::new();
    loop {
        ticks.tick().await;
        let Some(value) = value.upgrade() else { return };
        let result = tokio::task::spawn_blocking(move || value.reload()).await;
        match result
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that read the files panicked")))
        {
            Ok(has_changed) => {
                if !last_error.is_empty() {
                    tracing::info!("the {} can be read again", R::NAME);
                    last_error.clear();
                }
                if has_changed {
                    reloads.get_or_create(&Outcome { outcome: "ok" }).inc();
                    tracing::info!("the {} changed", R::NAME);
                }
            }
            Err(error) => {
                reloads.get_or_create(&Outcome { outcome: "failed" }).inc();
                let text = format!("{error:#}");
                if text != last_error {
                    let name = R::NAME;
                    tracing::warn!(
                        error = text,
                        "the changed {name} can't be used; the old {name} stay in use"
                    );
                    last_error = text;
                }
            }
        }
    }
}
