//! The outbox, which sends audit events to Redis Streams: one stream for each tenant.

use tenantry::proto::v1::RoleLevel;

use super::events_oldest_first;
use crate::harness::{Client, Fault, Proxy, TestApp, redis, unknown_id, wait_until};

/// Ids of the entries in a tenant's stream.
async fn entry_ids(admin: &Client) -> Vec<String> {
    let reply = redis(&format!("XRANGE audit:{{{}}} - +", admin.tenant_id)).await;
    // A base64url hash may also end with "-0", but the text before this end is not a number.
    let is_id = |line: &&str| line.strip_suffix("-0").is_some_and(|n| n.parse::<u64>().is_ok());
    reply.lines().filter(is_id).map(str::to_owned).collect()
}

/// Ids of the entries at the positions from 1 to `count`.
fn first_entry_ids(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{n}-0")).collect()
}

#[tokio::test]
async fn each_event_is_an_entry_whose_id_is_its_position() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    app.wait_until_audit_settled().await;
    // The three events of a new tenant, and `role_created`.
    assert_eq!(entry_ids(&acme).await, first_entry_ids(4));
    let entry = redis(&format!("XRANGE audit:{{{}}} 4 4", acme.tenant_id)).await;
    // Without the lines of the Redis protocol that have lengths.
    let fields: Vec<_> = entry.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    let event = events_oldest_first(&acme, "kind = role_created").await.remove(0);
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
        let index = fields.iter().position(|field| *field == name).expect(name);
        assert_eq!(fields[index + 1], value, "{name}");
    }
    assert!(fields.contains(&"create_time") && fields.contains(&"detail"));
    assert!(!entry.contains("127.0.0.1"), "the entry contains the client's address");
}

#[tokio::test]
async fn a_stream_length_of_zero_turns_the_stream_off() {
    let app = TestApp::with_settings(|values| values.set("AUDIT_STREAM_LENGTH", "0")).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    assert!(entry_ids(&acme).await.is_empty());
    assert_eq!(events_oldest_first(&acme, "").await.len(), 3, "the events of a new tenant");
}

/// N21: the memory of a stream is limited, so that a tenant with many large events can't fill Redis.
/// The newest events stay.
#[tokio::test]
async fn a_stream_with_large_events_has_fewer_entries() {
    let app = TestApp::with_settings(|values| values.set("AUDIT_STREAM_LENGTH", "1000")).await;
    let acme = app.create_tenant("acme").await;
    // First small events, then events of 10 KiB: 700 in total, besides the three of a new tenant.
    let insert = "insert into audit_events (tenant_id, event_id, kind, request_id, detail)
        select $1::uuid, ('f' || lpad(to_hex(n), 31, '0'))::uuid, 'call_limited', '',
               jsonb_build_object('text', repeat('x', case when n <= 250 then 10 else 10240 end))
        from generate_series(1, 700) n";
    let mut owner_connection = app.owner_connection().await;
    sqlx::query(insert)
        .bind(&acme.tenant_id)
        .execute(&mut owner_connection)
        .await
        .expect("the events are inserted");
    app.wait_until_audit_settled().await;
    let usage = redis(&format!("MEMORY USAGE audit:{{{}}} SAMPLES 0", acme.tenant_id)).await;
    let used_bytes = usage.lines().find_map(|line| line.strip_prefix(':')).expect(&usage);
    let used_bytes: u64 = used_bytes.parse().expect("a number");
    // The limit is 4 KiB for each entry of the setting.
    let limit = 1000 * 4 * 1024;
    assert!(used_bytes < limit + limit / 10, "{used_bytes} bytes");
    let ids = entry_ids(&acme).await;
    assert!((200..450).contains(&ids.len()), "{} entries", ids.len());
    assert_eq!(ids.last(), first_entry_ids(703).last());
}

/// While Redis is unavailable or hangs, no write waits for Redis and no event is lost.
#[tokio::test]
async fn redis_receives_missed_events_later_and_in_order() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    for (n, inject_fault) in [Proxy::cut as fn(&Proxy), Proxy::hold].into_iter().enumerate() {
        let sent_before = entry_ids(&acme).await.len();
        inject_fault(&proxy);
        for m in 0..3 {
            acme.create_role(&format!("role-{n}{m}"), RoleLevel::Member, &[]).await;
        }
        let all_sealed = || async {
            events_oldest_first(&acme, "").await.iter().all(|event| event.position > 0)
        };
        wait_until(10, all_sealed).await;
        assert_eq!(entry_ids(&acme).await.len(), sent_before);
        proxy.pass();
        app.wait_until_audit_settled().await;
        assert_eq!(entry_ids(&acme).await, first_entry_ids(sent_before + 3));
    }
}

/// An entry whose acknowledgement is lost is sent again, but stored only once.
#[tokio::test]
async fn an_entry_that_is_sent_twice_is_stored_once() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    for n in 0..3 {
        proxy.fault_when_sent("XADD", Fault::HoldReplies);
        acme.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        proxy.wait_until_held().await;
        proxy.cut();
        proxy.pass();
        app.wait_until_audit_settled().await;
        // The three events of a new tenant, and one event per round.
        assert_eq!(entry_ids(&acme).await, first_entry_ids(4 + n));
    }
}

/// N23: a key with a value of another type stops the stream of its tenant, but no other stream.
#[tokio::test]
async fn a_blocked_stream_does_not_delay_the_streams_of_other_tenants() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    app.wait_until_audit_settled().await;
    let sent_before = entry_ids(&acme).await.len();
    let key = format!("audit:{{{}}}", acme.tenant_id);
    redis(&format!("SET {key} x")).await;
    // More events than one batch, which has at most 200.
    let insert_events = "insert into audit_events (tenant_id, event_id, kind, request_id)
                  select $1::uuid, gen_random_uuid(), 'user_created', ''
                  from generate_series(1, 250)";
    let insert = sqlx::query(insert_events).bind(&acme.tenant_id);
    insert.execute(&mut app.owner_connection().await).await.expect("the events are inserted");

    let other_sent_before = entry_ids(&other).await.len();
    other.create_role("ops", RoleLevel::Member, &[]).await;
    wait_until(10, || async { entry_ids(&other).await.len() == other_sent_before + 1 }).await;
    assert!(app.metric("tenantry_audit_streams_blocked_total").await > Some(0.0));

    // `SET` replaced the entries of earlier events, so the stream has only the 250 new events.
    redis(&format!("DEL {key}")).await;
    wait_until(30, || async { entry_ids(&acme).await.len() == 250 }).await;
    assert_eq!(entry_ids(&acme).await, first_entry_ids(sent_before + 250)[sent_before..]);
}

/// N23: an event counts as sent only when its stream contains the event. An entry with the same id
/// or a higher id is not enough.
#[tokio::test]
async fn a_stream_with_foreign_entries_loses_no_events() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let blocked_total = async || app.metric("tenantry_audit_streams_blocked_total").await;
    let key = format!("audit:{{{}}}", acme.tenant_id);
    // `next` stands for the position of the next event.
    for (round, foreign_id) in ["99999999-0", "next-0", "next-0"].into_iter().enumerate() {
        app.wait_until_audit_settled().await;
        let position = entry_ids(&acme).await.len() + 1;
        let foreign_id = foreign_id.replace("next", &position.to_string());
        let (blocked_before, sent_before) = (blocked_total().await, entry_ids(&other).await.len());
        // Another program writes an entry with the id of an unknown event.
        redis(&format!("XADD {key} {foreign_id} id {}", unknown_id())).await;
        acme.create_role(&format!("a-{round}"), RoleLevel::Member, &[]).await;
        wait_until(10, || async { blocked_total().await > blocked_before }).await;
        other.create_role(&format!("b-{round}"), RoleLevel::Member, &[]).await;
        wait_until(10, || async { entry_ids(&other).await.len() == sent_before + 1 }).await;
        let count_waiting = "select count(*) from audit_outbox where tenant_id = $1::uuid";
        assert_eq!(app.count(count_waiting, &acme.tenant_id).await, 1);

        // The repair that the runbook describes.
        redis(&format!("XDEL {key} {foreign_id}")).await;
        let last_entry_id = format!("{}-0", position - 1);
        redis(&format!("XSETID {key} {last_entry_id}")).await;
        wait_until(30, || async { entry_ids(&acme).await.len() == position }).await;
        assert_eq!(entry_ids(&acme).await, first_entry_ids(position));
    }
}

/// N23: blocked streams do not delay other streams, whatever the number of blocked streams.
#[tokio::test]
async fn a_thousand_blocked_streams_do_not_delay_the_streams_of_other_tenants() {
    let app = TestApp::spawn().await;
    let other = app.create_tenant("other").await;
    app.wait_until_audit_settled().await;
    // More streams than the 1000 that the server remembers as blocked, and more than one batch.
    // Their tenant ids sort before the id of the other tenant, so the server tries them first.
    let unique_part = &unknown_id()[9..23];
    let blocked_tenants: Vec<_> =
        (0..1500).map(|n| format!("00000000-{unique_part}-{n:012}")).collect();
    for chunk in blocked_tenants.chunks(500) {
        let keys: Vec<_> = chunk.iter().map(|id| format!("audit:{{{id}}}")).collect();
        redis(&format!("MSET {} x", keys.join(" x "))).await;
    }
    let insert_events = "insert into audit_events (tenant_id, event_id, kind, request_id)
                  select unnest($1::text[])::uuid, gen_random_uuid(), 'user_created', ''";
    let insert = sqlx::query(insert_events).bind(&blocked_tenants);
    insert.execute(&mut app.owner_connection().await).await.expect("the events are inserted");

    let sent_before = entry_ids(&other).await.len();
    let count_unsealed = async || {
        app.count("select count(*) from audit_queue where tenant_id <> $1", &other.tenant_id).await
    };
    wait_until(30, || async { count_unsealed().await == 0 }).await;
    for n in 1..=3 {
        other.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        wait_until(30, || async { entry_ids(&other).await.len() == sent_before + n }).await;
    }
    for chunk in blocked_tenants.chunks(500) {
        let keys: Vec<_> = chunk.iter().map(|id| format!("audit:{{{id}}}")).collect();
        redis(&format!("UNLINK {}", keys.join(" "))).await;
    }
}
