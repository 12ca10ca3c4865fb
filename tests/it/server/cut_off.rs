//! The server's connection to Postgres ends before or after any statement of any write, as when
//! the server process is killed.

use std::collections::BTreeMap;

use crate::{
    feed::tokens::{good, writes},
    harness::{Client, Proxy, TestApp, Then},
};

/// Connections of the server whose network is cut.
const CONNECTIONS: u32 = 2;

/// Writes whose sample call changes nothing, because the requested state already exists.
const IDLE: [&str; 3] = ["EnableUser", "ReactivateTenant", "RevokeAllSessions"];

/// All rows except those of the audit trail, and the number of audit events.
#[derive(PartialEq, Debug)]
struct There {
    rows: BTreeMap<String, String>,
    counts: BTreeMap<String, i64>,
    events: i64,
}

async fn look(app: &TestApp, caller: &Client) -> There {
    let (mut rows, mut counts) = (app.rows_of(&caller.tenant_id).await, app.row_counts().await);
    rows.remove("audit_events");
    let events = counts.remove("audit_events").expect("the table");
    There { rows, counts, events }
}

/// I08: a write that is cut off is stored completely or not at all, and an audit event exists
/// exactly when there is a change.
#[tokio::test]
async fn an_interrupted_write_is_stored_completely_or_not_at_all() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica = TestApp::on(&app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("DATABASE_MAX_CONNECTIONS", CONNECTIONS.to_string());
    })
    .await;
    for (n, method) in writes().iter().enumerate() {
        let (caller, message) = good(&app, method, n, &root).await;
        let there = caller.on(&replica.channel);
        let mut lost = 0;
        'write: for step in 1..50 {
            for then in [Then::Cut, Then::CutReplies] {
                app.audit_settled().await;
                let before = look(&app, &caller).await;
                proxy.at_statement(step, then);
                // Each connection that ended with the last cut fails once.
                let mut reply = method.call(&there, &message).await;
                for _ in 0..CONNECTIONS {
                    if reply.is_err() && !proxy.has_fired() {
                        reply = method.call(&there, &message).await;
                    }
                }
                let cut = proxy.has_fired();
                proxy.pass();
                let after = look(&app, &caller).await;
                let changed = (&before.rows, &before.counts) != (&after.rows, &after.counts);
                let name = method.path();
                assert_eq!(after.events > before.events, changed, "{name}, {step}");
                let idle = IDLE.contains(&method.0.name());
                assert!(
                    changed || reply.is_err() || idle,
                    "{name}, {step}: acknowledged but not stored"
                );
                lost += usize::from(reply.is_err());
                if changed || reply.is_ok() {
                    break 'write;
                }
                assert!(cut, "{name} fails by itself: {reply:?}");
            }
        }
        assert!(lost > 2, "{}: {lost}", method.path());
    }
}
