//! The gRPC methods of `AuditService`.

use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{
    service::Events,
    store::{self, EventFilter, EventRow},
    to_proto::shown,
    watch::{self, Messages},
};
use crate::{
    api::{
        filter::{Field, Filter, Kind},
        paging::{LARGE_ROWS_PER_READ, Position},
    },
    clock,
    error::{Error, Result},
    gate,
    proto::v1::{
        ListEventsRequest, ListEventsResponse, WatchEventsRequest,
        audit_service_server::AuditService,
    },
};

const FIELDS: &[Field] = &[
    Field { name: "kind", kind: Kind::Word },
    Field { name: "actor_id", kind: Kind::Id },
    Field { name: "target_id", kind: Kind::Id },
    Field { name: "session_id", kind: Kind::Id },
    Field { name: "request_id", kind: Kind::Exact },
];

#[tonic::async_trait]
impl AuditService for Events {
    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let wanted = wanted(&message)?;
        let mut page = self.pages.begin(caller.asker(), &message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let cipher = tx.cipher(caller.tenant())?;
        while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
            let rows = store::list(&mut tx, caller.tenant(), &wanted, &read).await?;
            let position = |row: &EventRow| Position { id: row.event_id, at: Some(row.created_at) };
            page.take(read.found(rows), position, |row| shown(row, &cipher).map(Some)).await?;
        }
        let (events, next_page_token) = page.finish()?;
        Ok(Response::new(ListEventsResponse { events, next_page_token }))
    }

    type WatchEventsStream = Messages;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Messages>, Status> {
        let caller = gate::caller(&request)?;
        let admission = gate::admission(&request)?;
        let after = request.into_inner().after_position;
        Ok(Response::new(watch::open(self, &caller, admission, after).await?))
    }
}

fn wanted(message: &ListEventsRequest) -> Result<EventFilter> {
    let filter = Filter::parse(&message.filter, FIELDS)?;
    let (start, end) =
        (time("start_time", message.start_time)?, time("end_time", message.end_time)?);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        return Err(Error::field("end_time", "must be later than start_time"));
    }
    Ok(EventFilter {
        kind: filter.like("kind"),
        actor: filter.id("actor_id"),
        target: filter.id("target_id"),
        session: filter.id("session_id"),
        request_id: filter.exactly("request_id"),
        start,
        end,
    })
}

fn time(field: &str, at: Option<Timestamp>) -> Result<Option<OffsetDateTime>> {
    let read = |at| clock::from_timestamp(&at).ok_or_else(|| Error::field(field, "out of range"));
    at.map(read).transpose()
}
