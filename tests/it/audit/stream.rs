//! The outbox: audit events in Redis streams.

use tenantry::proto::v1::RoleLevel;

use super::events;
use crate::harness::{Client, Proxy, TestApp, Then, redis, unknown_id, until};

/// Ids of the entries in a tenant's stream.
async fn ids(of: &Client) -> Vec<String> {
    let reply = redis(&format!("XRANGE audit:{{{}}} - +", of.tenant_id)).await;
    // A base64 hash may also end with "-0".
    let is_id = |line: &&str| line.strip_suffix("-0").is_some_and(|n| n.parse::<u64>().is_ok());
    reply.lines().filter(is_id).map(str::to_owned).collect()
}

fn first(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{n}-0")).collect()
}

#[tokio::test]
async fn each_event_is_an_entry_whose_id_is_its_position() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    app.audit_settled().await;
    assert_eq!(ids(&acme).await, first(4));
    let entry = redis(&format!("XRANGE audit:{{{}}} 4 4", acme.tenant_id)).await;
    let fields: Vec<_> = entry.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    let event = events(&acme, "kind = role_created").await.remove(0);
    for (name, value) in [
        ("id", &event.id),
        ("kind", &"role_created".to_owned()),
        ("actor_id", &acme.user_id),
        ("actor_tenant_id", &acme.tenant_id),
        ("target_id", &role),
        ("session_id", &acme.tokens.session_id),
        ("request_id", &event.request_id),
        ("hash", &event.hash),
    ] {
        let at = fields.iter().position(|field| *field == name).expect(name);
        assert_eq!(fields[at + 1], value, "{name}");
    }
    assert!(fields.contains(&"create_time") && fields.contains(&"detail"));
    assert!(!entry.contains("127.0.0.1"), "the client's address");
}

#[tokio::test]
async fn a_stream_length_of_zero_turns_the_stream_off() {
    let app = TestApp::with(|values| values.set("AUDIT_STREAM_LENGTH", "0")).await;
    let acme = app.tenant("acme").await;
    app.audit_settled().await;
    assert_eq!(ids(&acme).await, [""; 0]);
    assert_eq!(events(&acme, "").await.len(), 3);
}

/// While Redis is unavailable or hangs, no write waits for it and no event is lost.
#[tokio::test]
async fn redis_receives_missed_events_later_and_in_order() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.tenant("acme").await;
    app.audit_settled().await;
    for (n, misbehave) in [Proxy::cut as fn(&Proxy), Proxy::hold].into_iter().enumerate() {
        let before = ids(&acme).await.len();
        misbehave(&proxy);
        for m in 0..3 {
            acme.create_role(&format!("role-{n}{m}"), RoleLevel::Member, &[]).await;
        }
        let all_sealed =
            || async { events(&acme, "").await.iter().all(|event| event.position > 0) };
        until(10, all_sealed).await;
        assert_eq!(ids(&acme).await.len(), before);
        proxy.pass();
        app.audit_settled().await;
        assert_eq!(ids(&acme).await, first(before + 3));
    }
}

/// An entry whose acknowledgement is lost is sent again, but stored only once.
#[tokio::test]
async fn an_entry_that_is_sent_twice_is_stored_once() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.tenant("acme").await;
    app.audit_settled().await;
    for n in 0..3 {
        proxy.when_sent("XADD", Then::HoldReplies);
        acme.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        proxy.until_held().await;
        proxy.cut();
        proxy.pass();
        app.audit_settled().await;
        assert_eq!(ids(&acme).await, first(4 + n));
    }
}

/// N23: a key with a value of another type stops the stream of its tenant, but no other stream.
#[tokio::test]
async fn a_blocked_stream_does_not_delay_the_streams_of_other_tenants() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    app.audit_settled().await;
    let before = ids(&acme).await.len();
    let key = format!("audit:{{{}}}", acme.tenant_id);
    redis(&format!("SET {key} x")).await;
    // More events than one batch.
    let events = "insert into audit_events (tenant_id, event_id, kind, request_id)
                  select $1::uuid, gen_random_uuid(), 'user_created', ''
                  from generate_series(1, 250)";
    let insert = sqlx::query(events).bind(&acme.tenant_id);
    insert.execute(&mut app.owner().await).await.expect("events");

    let had = ids(&other).await.len();
    other.create_role("ops", RoleLevel::Member, &[]).await;
    until(10, || async { ids(&other).await.len() == had + 1 }).await;
    assert!(app.metric("tenantry_audit_streams_blocked_total").await > Some(0.0));

    redis(&format!("DEL {key}")).await;
    until(30, || async { ids(&acme).await.len() == 250 }).await;
    assert_eq!(ids(&acme).await, first(before + 250)[before..]);
}

/// N23: an event is sent when its stream contains the event, not when the stream has a higher id.
#[tokio::test]
async fn a_stream_with_foreign_entries_loses_no_events() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let blocked = async || app.metric("tenantry_audit_streams_blocked_total").await;
    let key = format!("audit:{{{}}}", acme.tenant_id);
    for (round, foreign) in ["99999999-0", "next-0", "next-0"].into_iter().enumerate() {
        app.audit_settled().await;
        let position = ids(&acme).await.len() + 1;
        let foreign = foreign.replace("next", &position.to_string());
        let (was_blocked, had) = (blocked().await, ids(&other).await.len());
        // The foreign entry has the id of another event.
        redis(&format!("XADD {key} {foreign} id {}", unknown_id())).await;
        acme.create_role(&format!("a-{round}"), RoleLevel::Member, &[]).await;
        until(10, || async { blocked().await > was_blocked }).await;
        other.create_role(&format!("b-{round}"), RoleLevel::Member, &[]).await;
        until(10, || async { ids(&other).await.len() == had + 1 }).await;
        let waits = "select count(*) from audit_outbox where tenant_id = $1::uuid";
        assert_eq!(app.count(waits, &acme.tenant_id).await, 1);

        // The repair that the runbook describes.
        redis(&format!("XDEL {key} {foreign}")).await;
        let last = format!("{}-0", position - 1);
        redis(&format!("XSETID {key} {last}")).await;
        until(30, || async { ids(&acme).await.len() == position }).await;
        assert_eq!(ids(&acme).await, first(position));
    }
}

/// N23: any number of blocked streams does not delay other streams.
#[tokio::test]
async fn a_thousand_blocked_streams_do_not_delay_the_streams_of_other_tenants() {
    let app = TestApp::spawn().await;
    let other = app.tenant("other").await;
    app.audit_settled().await;
    // More streams than the server remembers as blocked, in more than one batch. Their tenant
    // ids sort before the other tenant's.
    let start = &unknown_id()[9..23];
    let wrong: Vec<_> = (0..1500).map(|n| format!("00000000-{start}-{n:012}")).collect();
    for some in wrong.chunks(500) {
        let keys: Vec<_> = some.iter().map(|id| format!("audit:{{{id}}}")).collect();
        redis(&format!("MSET {} x", keys.join(" x "))).await;
    }
    let events = "insert into audit_events (tenant_id, event_id, kind, request_id)
                  select unnest($1::text[])::uuid, gen_random_uuid(), 'user_created', ''";
    let insert = sqlx::query(events).bind(&wrong);
    insert.execute(&mut app.owner().await).await.expect("events");

    let had = ids(&other).await.len();
    let waiting = async || {
        app.count("select count(*) from audit_queue where tenant_id <> $1", &other.tenant_id).await
    };
    until(30, || async { waiting().await == 0 }).await;
    for n in 1..=3 {
        other.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        until(30, || async { ids(&other).await.len() == had + n }).await;
    }
    for some in wrong.chunks(500) {
        let keys: Vec<_> = some.iter().map(|id| format!("audit:{{{id}}}")).collect();
        redis(&format!("UNLINK {}", keys.join(" "))).await;
    }
}
