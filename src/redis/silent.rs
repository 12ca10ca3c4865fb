//! Connections to servers that do not answer, for example because their host is gone.

use std::time::Duration;

use fred::{interfaces::ClientLike, types::ClientState};
use tokio::time;

/// Time without an answer after which a connection is replaced.
pub(super) const UNRESPONSIVE: Duration = Duration::from_secs(2);

/// Replaces the connection to a server that does not answer. The client itself notices only a server
/// that does not answer while nothing is sent to it.
pub async fn replace_connection(client: &impl ClientLike) {
    // Otherwise the client connects already.
    if client.state() == ClientState::Connected {
        time::timeout(UNRESPONSIVE, client.force_reconnection()).await.ok();
    }
}
