//! The audit trail: recorded events, access to them, and their verification.

mod backlog;
mod chain;
mod changes;
mod details;
mod export;
mod list;
mod redis_streams;
mod refusals;
mod retention;
mod verify;
mod watch_events;

use tenantry::proto::v1::{AuditEvent, ListEventsRequest};

use crate::harness::Client;

/// The newest 1000 events that match a filter, oldest first. `ListEvents` returns the newest first.
async fn events_oldest_first(client: &Client, filter: &str) -> Vec<AuditEvent> {
    let request = ListEventsRequest {
        filter: filter.into(),
        page_size: 1000,
        ..ListEventsRequest::default()
    };
    let mut events = client.audit().list_events(request).await.expect("events").into_inner().events;
    events.reverse();
    events
}

fn kinds(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}
