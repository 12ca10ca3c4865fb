//! The server's connections to Postgres are cut before or after each statement of each write, as
//! when the server process is killed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use prost_reflect::DynamicMessage;
use tenantry::proto::v1::ListRolesRequest;
use tokio::task::yield_now;

use crate::{
    feed::tokens::{valid_request, write_methods},
    harness::{Client, Fault, Method, Proxy, RawReply, TestApp, wait_until},
};

/// Number of connections of the replica, which connects to Postgres through a proxy.
const CONNECTIONS: u32 = 2;

/// Maximum time in which a call is repeated because it fails without the fault.
const MAX_WAIT_FOR_FAULT: Duration = Duration::from_secs(10);

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

/// The tables whose rows or row counts differ.
fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let tables = before.counts.keys();
    let differs = |table: &&String| {
        before.rows.get(*table) != after.rows.get(*table)
            || before.counts.get(*table) != after.counts.get(*table)
    };
    tables.filter(differs).cloned().collect()
}

/// I08: a write that is cut off is stored completely or not at all, and an audit event exists
/// exactly when there is a change.
#[tokio::test]
async fn an_interrupted_write_is_stored_completely_or_not_at_all() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica = TestApp::on_database(&app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("DATABASE_MAX_CONNECTIONS", CONNECTIONS.to_string());
    })
    .await;
    let system = System { app, replica, proxy, platform_admin };
    for (n, method) in write_methods().iter().enumerate() {
        // A fault can hit a statement of a background worker. If the write is stored for this
        // reason before the fault has hit some of its statements, the test begins again with a new
        // write. A write has several statements, so more than two of its calls fail.
        let mut failed_calls = 0;
        for attempt in 0..3 {
            failed_calls = system.interrupt_write(method, n + 1000 * attempt).await;
            if failed_calls > 2 {
                break;
            }
        }
        assert!(failed_calls > 2, "{}: {failed_calls}", method.path());
    }
}

struct System {
    app: TestApp,
    /// Connects to Postgres through the proxy.
    replica: TestApp,
    proxy: Proxy,
    platform_admin: Client,
}

impl System {
    /// Makes the same write again and again. Each time a fault hits another statement, until the
    /// write is stored. Returns the number of failed calls. `n` makes the write unique.
    async fn interrupt_write(&self, method: &Method, n: usize) -> usize {
        let (caller, message) = valid_request(&self.app, method, n, &self.platform_admin).await;
        let replica_client = caller.on_server(&self.replica.channel);
        let mut failed_calls = 0;
        for statement in 1..50 {
            for fault in [Fault::Cut, Fault::CutReplies] {
                self.app.wait_until_purged().await;
                self.app.wait_until_audit_settled().await;
                let snapshot_before = snapshot(&self.app, &caller).await;
                self.proxy.fault_at_statement(statement, fault);
                let reply = self.call(&replica_client, method, &message).await;
                let was_cut = self.proxy.has_fault_started();
                self.proxy.pass();
                self.wait_until_usable().await;
                let snapshot_after = snapshot(&self.app, &caller).await;
                let has_changed = (&snapshot_before.rows, &snapshot_before.counts)
                    != (&snapshot_after.rows, &snapshot_after.counts);
                let name = method.path();
                assert_eq!(
                    snapshot_after.events > snapshot_before.events,
                    has_changed,
                    "{name}, {statement}: {:?}",
                    differences(&snapshot_before, &snapshot_after)
                );
                let changes_nothing = METHODS_WITHOUT_CHANGE.contains(&method.0.name());
                assert!(
                    has_changed || reply.is_err() || changes_nothing,
                    "{name}, {statement}: acknowledged but not stored"
                );
                failed_calls += usize::from(reply.is_err());
                // After a cut, a success without a change means that the cut hit a statement of a
                // background worker.
                if has_changed || (reply.is_ok() && !was_cut) {
                    return failed_calls;
                }
                assert!(was_cut || reply.is_ok(), "{name} fails without a cut: {reply:?}");
            }
        }
        failed_calls
    }

    /// Makes the call. The call is repeated until the fault has started, because it also fails
    /// without the fault: while the replica still has connections that an earlier cut closed, or
    /// while the replica has not yet found Postgres again. A call that fails without the fault
    /// stores nothing.
    async fn call(&self, client: &Client, method: &Method, message: &DynamicMessage) -> RawReply {
        let deadline = Instant::now() + MAX_WAIT_FOR_FAULT;
        loop {
            let reply = method.call(client, message).await;
            if reply.is_ok() || self.proxy.has_fault_started() || Instant::now() > deadline {
                return reply;
            }
            yield_now().await;
        }
    }

    /// Waits until the replica has noticed that Postgres is available again. Until then, its calls
    /// fail immediately.
    async fn wait_until_usable(&self) {
        let admin = self.platform_admin.on_server(&self.replica.channel);
        wait_until(10, || async {
            admin.roles().list_roles(ListRolesRequest::default()).await.is_ok()
        })
        .await;
    }
}
