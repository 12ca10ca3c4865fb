//! Follows the permission changes of a tenant.

use std::{sync::Arc, time::Duration};

use tokio::time;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::{
    client::Client,
    decisions::{Decisions, SILENCE},
    retry,
    v1::{
        WatchPermissionsRequest, WatchPermissionsResponse,
        permission_service_client::PermissionServiceClient,
    },
};

/// Time without a lookup after which a tenant is no longer followed.
const IDLE: Duration = Duration::from_mins(10);
/// Wait before the stream is opened again after `PERMISSION_DENIED` or `UNAUTHENTICATED`.
const REFUSED: Duration = Duration::from_secs(30);

/// Invalidates a tenant's cached decisions until nobody uses them any more.
pub(crate) async fn follow(client: Client, tenant: Uuid, decisions: Arc<Decisions>) {
    let mut backoff = retry::waits();
    while is_in_use(&decisions) {
        let ended = watch(&client, tenant, &decisions, &mut backoff).await;
        decisions.lost();
        let code = ended.code();
        let wait = match code {
            Code::PermissionDenied | Code::Unauthenticated => {
                tracing::warn!(%tenant, ?code, "decisions are not cached");
                REFUSED
            }
            _ => backoff.next().unwrap_or(REFUSED),
        };
        time::sleep(wait).await;
    }
}

/// Whether the cache is in use: it had a lookup recently, and a guard still holds it.
fn is_in_use(decisions: &Arc<Decisions>) -> bool {
    decisions.idle() < IDLE && Arc::strong_count(decisions) > 1
}

/// Reads one stream until it ends, and returns the reason.
async fn watch(
    client: &Client,
    tenant: Uuid,
    decisions: &Arc<Decisions>,
    backoff: &mut backon::ExponentialBackoff,
) -> Status {
    let mut permissions = PermissionServiceClient::new(client.clone());
    let mut request = Request::new(WatchPermissionsRequest::default());
    in_tenant(&mut request, tenant);
    let silent = || Status::unavailable("the stream is silent");
    let opened = time::timeout(SILENCE, permissions.watch_permissions(request)).await;
    let mut stream = match opened {
        Ok(Ok(stream)) => stream.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return silent(),
    };
    while is_in_use(decisions) {
        match time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => {
                apply(decisions, message);
                *backoff = retry::waits();
            }
            Ok(Ok(None)) => return Status::unavailable("the stream ended"),
            Ok(Err(status)) => return status,
            Err(_) => return silent(),
        }
    }
    Status::cancelled("the cache is not in use")
}

/// Applies a message of the stream to the cache.
fn apply(decisions: &Decisions, message: WatchPermissionsResponse) {
    let subjects: Result<Vec<_>, _> =
        message.user_ids.iter().map(|id| Uuid::parse_str(id)).collect();
    // An id that cannot be parsed may belong to any subject, so all decisions are removed.
    let all = message.all_subjects || subjects.is_err();
    decisions.heard(&subjects.unwrap_or_default(), all, message.consistency_token);
}

/// Sets the tenant of a call.
pub(crate) fn in_tenant<T>(request: &mut Request<T>, tenant: Uuid) {
    // Parsing cannot fail: an id is always valid metadata.
    if let Ok(id) = tenant.to_string().parse() {
        request.metadata_mut().insert("x-tenant-id", id);
    }
}
