//! The server's connections to Postgres are cut before or after each statement of each write, as
//! when the server process is killed.

use std::collections::BTreeMap;

use crate::{
    feed::tokens::{good, writes},
    harness::{Client, Proxy, TestApp, Then},
};

/// Number of database connections of the server behind the proxy.
const CONNECTIONS: u32 = 2;

/// Methods whose sample call changes no row, because the requested state already exists.
const METHODS_WITHOUT_CHANGE: [&str; 3] = ["EnableUser", "ReactivateTenant", "RevokeAllSessions"];

/// The database before or after a call: all rows outside the audit trail, and the number of
/// audit events.
#[derive(PartialEq, Debug)]
struct Snapshot {
    rows: BTreeMap<String, String>,
    counts: BTreeMap<String, i64>,
    events: i64,
}

async fn snapshot(app: &TestApp, caller: &Client) -> Snapshot {
    let (mut rows, mut counts) = (app.rows_of(&caller.tenant_id).await, app.row_counts().await);
    rows.remove("audit_events");
    let events = counts.remove("audit_events").expect("the count of audit_events");
    Snapshot { rows, counts, events }
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
        let replica_client = caller.on(&replica.channel);
        let mut failed_calls = 0;
        'write: for step in 1..50 {
            for then in [Then::Cut, Then::CutReplies] {
                app.audit_settled().await;
                let before = snapshot(&app, &caller).await;
                proxy.at_statement(step, then);
                // Each connection that the previous cut ended fails once.
                let mut reply = method.call(&replica_client, &message).await;
                for _ in 0..CONNECTIONS {
                    if reply.is_err() && !proxy.has_fired() {
                        reply = method.call(&replica_client, &message).await;
                    }
                }
                let cut = proxy.has_fired();
                proxy.pass();
                let after = snapshot(&app, &caller).await;
                let changed = (&before.rows, &before.counts) != (&after.rows, &after.counts);
                let name = method.path();
                assert_eq!(after.events > before.events, changed, "{name}, {step}");
                let changes_nothing = METHODS_WITHOUT_CHANGE.contains(&method.0.name());
                assert!(
                    changed || reply.is_err() || changes_nothing,
                    "{name}, {step}: acknowledged but not stored"
                );
                failed_calls += usize::from(reply.is_err());
                // A cut that hits a statement of a background worker tells nothing of this call.
                if changed || (reply.is_ok() && !cut) {
                    break 'write;
                }
                assert!(cut || reply.is_ok(), "{name} fails without a cut: {reply:?}");
            }
        }
        assert!(failed_calls > 2, "{}: {failed_calls}", method.path());
    }
}
