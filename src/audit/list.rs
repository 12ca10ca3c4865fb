//! The operation `ListEvents`.

use prost_types::Timestamp;
use time::OffsetDateTime;

use super::{
    service::Events,
    store::{self, EventFilter, EventRow},
    to_proto::event_to_proto,
};
use crate::{
    api::{
        filter::{Field, Filter, Kind},
        paging::{LARGE_ROWS_PER_READ, Position},
    },
    clock,
    error::{Error, Result},
    gate::Caller,
    proto::v1::{AuditEvent, ListEventsRequest},
};

/// The fields that the filter of a request may contain.
const FIELDS: &[Field] = &[
    Field { name: "kind", kind: Kind::Word },
    Field { name: "actor_id", kind: Kind::Id },
    Field { name: "target_id", kind: Kind::Id },
    Field { name: "session_id", kind: Kind::Id },
    Field { name: "request_id", kind: Kind::Exact },
];

impl Events {
    /// A page of events, newest first, and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListEventsRequest,
    ) -> Result<(Vec<AuditEvent>, String)> {
        let filter = event_filter(message)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let cipher = tx.cipher(caller.tenant())?;
        while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
            let rows = store::list(&mut tx, caller.tenant(), &filter, &read).await?;
            let position = |row: &EventRow| Position { id: row.event_id, at: Some(row.created_at) };
            page.add_rows(read.batch(rows), position, |row| event_to_proto(row, &cipher).map(Some))
                .await?;
        }
        page.finish()
    }
}

fn event_filter(message: &ListEventsRequest) -> Result<EventFilter> {
    let filter = Filter::parse(&message.filter, FIELDS)?;
    let (start, end) =
        (parse_time("start_time", message.start_time)?, parse_time("end_time", message.end_time)?);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        return Err(Error::field("end_time", "must be later than start_time"));
    }
    Ok(EventFilter {
        kind: filter.like("kind"),
        actor: filter.id("actor_id"),
        target: filter.id("target_id"),
        session: filter.id("session_id"),
        request_id: filter.exact_value("request_id"),
        start,
        end,
    })
}

fn parse_time(field: &str, timestamp: Option<Timestamp>) -> Result<Option<OffsetDateTime>> {
    let convert = |timestamp| {
        clock::from_timestamp(&timestamp).ok_or_else(|| Error::field(field, "out of range"))
    };
    timestamp.map(convert).transpose()
}
