//! Connections to servers that do not answer, for example because their host is gone.

use std::time::Duration;

use fred::{interfaces::ClientLike, types::ClientState};
use tokio::time;

/// Time without an answer after which a connection is replaced.
pub(super) const UNRESPONSIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Replaces the connection to a server that does not answer. The client itself notices such a
/// server only while it sends nothing to the server.
pub async fn replace_connection(client: &impl ClientLike) {
    // In any other state, the client is already connecting.
    if client.state() == ClientState::Connected {
        time::timeout(UNRESPONSIVE_TIMEOUT, client.force_reconnection()).await.ok();
    }
}
