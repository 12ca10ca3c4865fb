//! What is read from files and may change while the server runs.

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

/// How soon a change of the files is seen.
const INTERVAL: Duration = Duration::from_secs(2);

/// What can be read anew.
pub trait Reload: Send + Sync + 'static {
    /// Its name, in the log.
    const NAME: &str;
    /// The counter of changes, by whether they could be used.
    const METRIC: &str;

    /// Reads the files; whether they had changed.
    ///
    /// # Errors
    /// When they can't be used; then what is in force stays.
    fn reload(&self) -> anyhow::Result<bool>;
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Follows the files for as long as somebody has what is read from them.
pub fn keep_current<R: Reload>(subject: &Arc<R>, registry: &mut Registry) {
    let reloads = Family::<Outcome, Counter>::default();
    let help = "Times that files had changed, and could be used or not";
    registry.register(R::METRIC, help, reloads.clone());
    // There from the start: what appears with 1 was never seen to grow.
    for outcome in ["ok", "failed"] {
        drop(reloads.get_or_create(&Outcome { outcome }));
    }
    tokio::spawn(follow(Arc::downgrade(subject), reloads));
}

async fn follow<R: Reload>(subject: Weak<R>, reloads: Family<Outcome, Counter>) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let Some(subject) = subject.upgrade() else { return };
        let read = tokio::task::spawn_blocking(move || subject.reload()).await;
        match read.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that read files died"))) {
            Ok(changed) => {
                told.clear();
                if changed {
                    reloads.get_or_create(&Outcome { outcome: "ok" }).inc();
                    tracing::info!("the {} changed", R::NAME);
                }
            }
            Err(error) => {
                reloads.get_or_create(&Outcome { outcome: "failed" }).inc();
                let text = format!("{error:#}");
                if text != told {
                    let name = R::NAME;
                    tracing::error!(error = text, "the {name} can't be read; the old stay");
                    told = text;
                }
            }
        }
    }
}
