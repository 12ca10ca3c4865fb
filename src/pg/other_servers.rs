//! Finds servers that accept writes although they are not the one that the service uses. After a
//! failover, an old primary may still accept writes if nothing stopped it. What one of two primaries
//! accepts, the other one lacks.

use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use futures_util::future::join_all;

use super::{
    server_check::{self, Unfit},
    timelines::Identity,
    url::Server,
};

/// A server that accepts writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WritableServer {
    /// Index of the server in the URL.
    pub index: usize,
    pub identity: Identity,
}

/// Asks all servers at once, with one connection to each. Returns those that accept writes and are
/// of this cluster.
pub(super) async fn writable(servers: &[Server], system_identifier: i64) -> Vec<WritableServer> {
    let identities = join_all(servers.iter().map(server_check::identity_if_writable)).await;
    let writable = identities.into_iter().enumerate().filter_map(|(index, identity)| {
        let identity = identity?;
        (identity.system_identifier == system_identifier)
            .then_some(WritableServer { index, identity })
    });
    writable.collect()
}

/// Logs when several servers accept writes, and when this ends.
#[derive(Default, Debug)]
pub(super) struct Report {
    /// The text of the last report; empty while there is only one primary.
    last: Mutex<String>,
}

impl Report {
    /// Logs the servers that accept writes, if there are several and something has changed.
    /// `refusal` is the reason why the one with the highest timeline can't be used.
    pub(super) fn log(
        &self,
        servers: &[Server],
        writable: &[WritableServer],
        refusal: Option<&Unfit>,
    ) {
        let text =
            if writable.len() > 1 { describe(servers, writable, refusal) } else { String::new() };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == text {
            return;
        }
        if text.is_empty() {
            tracing::info!("no longer several Postgres servers accept writes");
        } else {
            tracing::warn!(
                servers = text,
                "several Postgres servers accept writes: stop those with a lower timeline"
            );
        }
        *last = text;
    }
}

fn describe(servers: &[Server], writable: &[WritableServer], refusal: Option<&Unfit>) -> String {
    let describe = |server: &WritableServer| {
        format!("{} (timeline {})", servers[server.index].address, server.identity.timeline)
    };
    let mut text = writable.iter().map(describe).collect::<Vec<_>>().join(", ");
    if let Some(refusal) = refusal {
        // A String accepts every text.
        write!(text, "; the highest timeline can't be used: {refusal}").ok();
    }
    text
}
