//! Finds out why no sentinel can be reached. The client itself reports only that it reached no
//! sentinel.

use fred::{
    clients::Client,
    error::Error,
    interfaces::ClientLike,
    types::{Builder, config::ServerConfig},
};
use tokio::time;

use super::silent::UNRESPONSIVE_TIMEOUT;

/// Connects once to the first sentinel of the setting `REDIS_URL`. Returns the error if the
/// connection fails; `None` if it succeeds, or if the setting has no sentinels.
pub(super) async fn connect_error(client: &Client) -> Option<Error> {
    let mut config = client.client_config();
    let ServerConfig::Sentinel { hosts, username, password, .. } = config.server else {
        return None;
    };
    config.server = ServerConfig::Centralized { server: hosts.into_iter().next()? };
    (config.username, config.password, config.database) = (username, password, None);
    config.fail_fast = true;
    let mut builder = Builder::from_config(config);
    builder
        .with_connection_config(|connection| connection.connection_timeout = UNRESPONSIVE_TIMEOUT);
    let sentinel = builder.build().ok()?;
    let connected = time::timeout(UNRESPONSIVE_TIMEOUT, sentinel.init()).await;
    sentinel.quit().await.ok();
    connected.ok()?.err()
}
