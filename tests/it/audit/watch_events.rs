//! `WatchEvents`: recipients and order of events, and the end of a stream.

use tenantry::proto::v1::{RoleLevel, WatchEventsRequest, WatchEventsResponse as Message};
use tonic::{Code, Streaming};

use super::events_oldest_first;
use crate::{
    harness::{Client, TestApp, assert_refused, wait_until, within_seconds},
    limits::{new_network_address, trusting_local_proxy},
};

async fn watch(client: &Client, after_position: Option<i64>) -> Streaming<Message> {
    let request = WatchEventsRequest { after_position, ..WatchEventsRequest::default() };
    client.audit().watch_events(request).await.expect("the stream opens").into_inner()
}

/// The next message. An idle stream sends a message every 10 seconds.
async fn next(stream: &mut Streaming<Message>) -> Message {
    within_seconds(12, stream.message()).await.expect("the stream did not fail").expect("a message")
}

/// The next `count` messages with an event. Messages without an event are skipped.
async fn next_events(stream: &mut Streaming<Message>, count: usize) -> Vec<Message> {
    let mut delivered = Vec::new();
    while delivered.len() < count {
        let message = next(stream).await;
        if message.event.is_some() {
            delivered.push(message);
        }
    }
    delivered
}

fn kinds(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(|m| m.event.as_ref()).map(|event| event.kind.as_str()).collect()
}

#[tokio::test]
async fn a_stream_delivers_later_events_in_order_on_every_replica() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    app.wait_until_audit_settled().await;
    let mut streams =
        [watch(&acme, None).await, watch(&acme.on_server(&second_replica.channel), None).await];
    let event_count = events_oldest_first(&acme, "").await.len();
    for stream in &mut streams {
        let first_message = next(stream).await;
        assert_eq!(first_message.event, None);
        assert_eq!(usize::try_from(first_message.position), Ok(event_count));
    }
    for n in 0..5 {
        acme.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        other.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
    }
    for stream in &mut streams {
        let delivered = next_events(stream, 5).await;
        assert_eq!(kinds(&delivered), ["role_created"; 5]);
        for (n, message) in delivered.iter().enumerate() {
            let event = message.event.as_ref().expect("an event");
            assert_eq!(event.tenant_id, acme.tenant_id);
            assert_eq!(message.position, event.position);
            assert_eq!(usize::try_from(event.position), Ok(event_count + n + 1));
            assert_eq!(event.hash.len(), 43, "32 bytes as base64url");
        }
    }
}

#[tokio::test]
async fn a_stream_continues_after_a_given_position() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let mut stream_of_all = watch(&acme, Some(0)).await;
    let first_events = next_events(&mut stream_of_all, 3).await;
    assert_eq!(kinds(&first_events), ["tenant_created", "user_registered", "signed_in"]);
    let mut later_stream = watch(&acme, Some(first_events[0].position)).await;
    assert_eq!(next(&mut later_stream).await.position, 1);
    assert_eq!(next_events(&mut later_stream, 2).await, first_events[1..]);
    let reply = acme
        .audit()
        .watch_events(WatchEventsRequest { after_position: Some(-1), after_hash: String::new() })
        .await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
}

/// N39: a position is refused when the trail has no event at this position, or an event with
/// another hash. Otherwise the stream would send nothing until new events reach this position, and
/// would then skip these events.
#[tokio::test]
async fn a_position_that_the_trail_lacks_is_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let last_message = next(&mut watch(&acme, None).await).await;
    let first_message = next_events(&mut watch(&acme, Some(0)).await, 1).await.remove(0);
    assert!(last_message.position > first_message.position && !last_message.hash.is_empty());
    assert_eq!(first_message.event.as_ref().map(|event| &event.hash), Some(&first_message.hash));
    for (position, hash, is_in_trail) in [
        (last_message.position, last_message.hash.as_str(), true),
        (first_message.position, first_message.hash.as_str(), true),
        (last_message.position, "", true),
        (0, "", true),
        (last_message.position + 1, "", false),
        (last_message.position, first_message.hash.as_str(), false),
        (0, first_message.hash.as_str(), false),
    ] {
        let request =
            WatchEventsRequest { after_position: Some(position), after_hash: hash.into() };
        let reply = acme.audit().watch_events(request).await;
        if is_in_trail {
            reply.expect("the stream opens");
        } else {
            assert_refused(reply, Code::FailedPrecondition, "POSITION_OF_LOST_DATA");
        }
    }
}

#[tokio::test]
async fn an_idle_stream_sends_its_position_again() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let mut stream = watch(&acme, None).await;
    let first_message = next(&mut stream).await;
    assert_eq!(next(&mut stream).await, first_message);
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_loses_the_permission() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let auditor = acme.create_member("auditor", &["audit:read"]).await;
    let mut stream = watch(&auditor, None).await;
    acme.unassign(&auditor.user_id, &acme.role_id("auditor").await).await;
    let final_status = within_seconds(10, async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    });
    assert_refused::<()>(Err(final_status.await), Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_shutdown_ends_streams() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut stream = watch(&acme, None).await;
    within_seconds(5, app.stop()).await;
    let final_status = within_seconds(5, async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    });
    assert_refused::<()>(Err(final_status.await), Code::Unavailable, "WATCH_INTERRUPTED");
}

/// N21: the tenants of one network can't open all streams.
#[tokio::test]
async fn the_number_of_streams_per_network_is_limited() {
    let app = TestApp::with_settings(trusting_local_proxy).await;
    let mut tenants = Vec::new();
    for number in 0..6 {
        tenants.push(app.create_tenant(&format!("tenant-{number}")).await);
    }
    let (address, other_address) = (new_network_address(), new_network_address());
    let mut open_streams = Vec::new();
    let refusal = 'opening: loop {
        for tenant in &tenants {
            let client = tenant.clone().with_metadata("x-forwarded-for", &address);
            match client.audit().watch_events(WatchEventsRequest::default()).await {
                Ok(stream) => open_streams.push(stream),
                Err(refusal) => break 'opening refusal,
            }
        }
    };
    assert_refused::<()>(Err(refusal), Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(open_streams.len(), 100, "half of the streams of the replica");
    watch(&tenants[0].clone().with_metadata("x-forwarded-for", &other_address), None).await;
}

/// Each stream costs queries, so a tenant may have at most 20 streams.
#[tokio::test]
async fn the_number_of_streams_per_tenant_is_limited() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let mut open_streams = Vec::new();
    for _ in 0..20 {
        open_streams.push(watch(&acme, None).await);
    }
    let reply = acme.audit().watch_events(WatchEventsRequest::default()).await;
    assert_refused(reply, Code::ResourceExhausted, "OVERLOADED");
    watch(&other, None).await;
    open_streams.pop();
    wait_until(10, || async {
        acme.audit().watch_events(WatchEventsRequest::default()).await.is_ok()
    })
    .await;
}
