//! Follows what changes in a tenant.

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

/// After which a tenant that nobody asks about is not followed any more.
const IDLE: Duration = Duration::from_mins(10);
/// Before a refusal is asked about again.
const REFUSED: Duration = Duration::from_secs(30);

/// Keeps a tenant's decisions true until nobody asks for them.
pub(crate) async fn follow(client: Client, tenant: Uuid, decisions: Arc<Decisions>) {
    let mut waits = retry::waits();
    while is_wanted(&decisions) {
        let ended = watch(&client, tenant, &decisions, &mut waits).await;
        decisions.lost();
        let code = ended.code();
        let wait = match code {
            Code::PermissionDenied | Code::Unauthenticated => {
                tracing::warn!(%tenant, ?code, "decisions are not remembered");
                REFUSED
            }
            _ => waits.next().unwrap_or(REFUSED),
        };
        time::sleep(wait).await;
    }
}

/// Whether anybody asks, or could.
fn is_wanted(decisions: &Arc<Decisions>) -> bool {
    decisions.idle() < IDLE && Arc::strong_count(decisions) > 1
}

/// One stream, to its end.
async fn watch(
    client: &Client,
    tenant: Uuid,
    decisions: &Arc<Decisions>,
    waits: &mut backon::ExponentialBackoff,
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
    while is_wanted(decisions) {
        match time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(told))) => {
                hear(decisions, told);
                *waits = retry::waits();
            }
            Ok(Ok(None)) => return Status::unavailable("the stream ended"),
            Ok(Err(status)) => return status,
            Err(_) => return silent(),
        }
    }
    Status::cancelled("nobody asks")
}

fn hear(decisions: &Decisions, told: WatchPermissionsResponse) {
    let subjects: Result<Vec<_>, _> = told.user_ids.iter().map(|id| Uuid::parse_str(id)).collect();
    // An id that can't be read may be anybody's.
    let all = told.all_subjects || subjects.is_err();
    decisions.heard(&subjects.unwrap_or_default(), all, told.consistency_token);
}

/// Names the tenant that a call works in.
pub(crate) fn in_tenant<T>(request: &mut Request<T>, tenant: Uuid) {
    // An id is always metadata.
    if let Ok(id) = tenant.to_string().parse() {
        request.metadata_mut().insert("x-tenant-id", id);
    }
}
