//! Finds servers that accept writes although the service uses another server. After a failover, an
//! old primary may still accept writes if nothing stopped it. Writes that one primary accepts are
//! missing on the other primary.

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

/// Asks all servers concurrently, with one connection to each. Returns the servers of this cluster
/// that accept writes.
pub(super) async fn writable(servers: &[Server], system_identifier: i64) -> Vec<WritableServer> {
    let identities = join_all(servers.iter().map(server_check::identity_if_writable)).await;
    let writable_servers = identities.into_iter().enumerate().filter_map(|(index, identity)| {
        let identity = identity?;
        (identity.system_identifier == system_identifier)
            .then_some(WritableServer { index, identity })
    });
    writable_servers.collect()
}

/// Logs when several servers accept writes, and when only one accepts them again.
#[derive(Default, Debug)]
pub(super) struct Report {
    /// The text of the last report; empty while there is only one primary.
    last: Mutex<String>,
}

impl Report {
    /// Logs the servers that accept writes, if there are several and something has changed.
    /// `refusal` is the reason why the server with the highest timeline can't be used.
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
            tracing::info!("no more than one Postgres server accepts writes now");
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
    let describe_server = |server: &WritableServer| {
        format!("{} (timeline {})", servers[server.index].address, server.identity.timeline)
    };
    let mut text = writable.iter().map(describe_server).collect::<Vec<_>>().join(", ");
    if let Some(refusal) = refusal {
        // Writing to a `String` never fails.
        write!(text, "; the highest timeline can't be used: {refusal}").ok();
    }
    text
}
