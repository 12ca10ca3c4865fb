//! Streams, which are closed after some time.

use std::time::Duration;

use tenantry::proto::v1::{WatchEventsRequest, WatchPermissionsRequest};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::{Mix, Result};
use crate::soak::setup::Tenant;

/// Time until a stream is closed.
const OPEN_FOR: Duration = Duration::from_secs(15);

impl Mix {
    /// Reads a stream of events, then one of changed permissions.
    pub(super) async fn read_streams(&self, tenant: &Tenant) -> Result {
        let admin = &tenant.admin;
        let request = WatchEventsRequest::default();
        read_and_close(
            admin
                .call("WatchEvents", async || admin.audit().watch_events(request.clone()).await)
                .await?,
        )
        .await;
        let request = WatchPermissionsRequest::default();
        let sent = async || admin.permissions().watch_permissions(request.clone()).await;
        read_and_close(admin.call("WatchPermissions", sent).await?).await;
        Ok(())
    }
}

/// Reads messages until the server closes the stream or [`OPEN_FOR`] has passed. Then drops the
/// stream, which closes it.
async fn read_and_close<T>(mut stream: Streaming<T>) {
    let end = Instant::now() + OPEN_FOR;
    while let Ok(Ok(Some(_))) = timeout_at(end, stream.message()).await {}
}
