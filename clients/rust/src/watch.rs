//! Follows the permission changes of a tenant.

use std::{sync::Arc, time::Duration};

use tokio::time;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::{
    client::Client,
    decisions::{Decisions, MAX_SILENCE},
    retry,
    v1::{
        WatchPermissionsRequest, WatchPermissionsResponse,
        permission_service_client::PermissionServiceClient,
    },
};

/// Time without a lookup after which the changes of a tenant are no longer followed.
const MAX_IDLE_TIME: Duration = Duration::from_mins(10);
/// Wait before the stream is opened again after `PERMISSION_DENIED` or `UNAUTHENTICATED`.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// Follows the changes of a tenant, and removes the cached decisions that they affect. Ends when
/// the cache is no longer in use.
pub(crate) async fn follow(client: Client, tenant: Uuid, decisions: Arc<Decisions>) {
    let mut backoff = retry::backoff();
    while is_in_use(&decisions) {
        let status = watch(&client, tenant, &decisions, &mut backoff).await;
        decisions.clear_after_stream_end();
        let code = status.code();
        let wait = match code {
            Code::PermissionDenied | Code::Unauthenticated => {
                tracing::warn!(
                    %tenant,
                    ?code,
                    "decisions are not cached: the server refuses WatchPermissions"
                );
                REFUSED_WAIT
            }
            _ => backoff.next().unwrap_or(REFUSED_WAIT),
        };
        time::sleep(wait).await;
    }
}

/// Whether the cache is in use: it had a lookup recently, and a guard still has a reference to it.
fn is_in_use(decisions: &Arc<Decisions>) -> bool {
    decisions.time_since_lookup() < MAX_IDLE_TIME && Arc::strong_count(decisions) > 1
}

/// Reads one stream until it ends, and returns the reason for its end.
async fn watch(
    client: &Client,
    tenant: Uuid,
    decisions: &Arc<Decisions>,
    backoff: &mut backon::ExponentialBackoff,
) -> Status {
    let mut permissions = PermissionServiceClient::new(client.clone());
    let mut request = Request::new(WatchPermissionsRequest::default());
    set_tenant(&mut request, tenant);
    let silent_stream = || Status::unavailable("the stream is silent");
    let open_result = time::timeout(MAX_SILENCE, permissions.watch_permissions(request)).await;
    let mut stream = match open_result {
        Ok(Ok(stream)) => stream.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return silent_stream(),
    };
    while is_in_use(decisions) {
        match time::timeout(MAX_SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => {
                apply(decisions, message);
                *backoff = retry::backoff();
            }
            Ok(Ok(None)) => return Status::unavailable("the stream ended"),
            Ok(Err(status)) => return status,
            Err(_) => return silent_stream(),
        }
    }
    Status::cancelled("the cache is not in use")
}

/// Applies a message of the stream to the cache.
fn apply(decisions: &Decisions, message: WatchPermissionsResponse) {
    let subjects: Result<Vec<_>, _> =
        message.user_ids.iter().map(|id| Uuid::parse_str(id)).collect();
    // An id that cannot be parsed may belong to any subject. Then all decisions are removed.
    let all_subjects = message.all_subjects || subjects.is_err();
    decisions.apply_message(&subjects.unwrap_or_default(), all_subjects, message.consistency_token);
}

/// Sets the tenant of a call.
pub(crate) fn set_tenant<T>(request: &mut Request<T>, tenant: Uuid) {
    // Parsing cannot fail: an id is always valid metadata.
    if let Ok(id) = tenant.to_string().parse() {
        request.metadata_mut().insert("x-tenant-id", id);
    }
}
