//! The gRPC methods of `AuditService`.

use tonic::{Request, Response, Status};

use super::{
    service::Events,
    watch::{self, Messages},
};
use crate::{
    gate,
    proto::v1::{
        ListEventsRequest, ListEventsResponse, WatchEventsRequest,
        audit_service_server::AuditService,
    },
};

#[tonic::async_trait]
impl AuditService for Events {
    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (events, next_page_token) = self.list(&caller, request.get_ref()).await?;
        Ok(Response::new(ListEventsResponse { events, next_page_token }))
    }

    type WatchEventsStream = Messages;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Messages>, Status> {
        let caller = gate::caller(&request)?;
        let admission = gate::admission(&request)?;
        Ok(Response::new(watch::open(self, &caller, admission, request.get_ref()).await?))
    }
}
