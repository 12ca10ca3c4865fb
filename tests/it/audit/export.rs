//! `tenantry audit export`.

use serde_json::Value;
use tenantry::proto::v1::RoleLevel;

use crate::{
    commands::{CommandOutput, run},
    harness::{Cluster, TestApp},
};

async fn run_export(app: &TestApp, options: &[&str]) -> CommandOutput {
    let url = Cluster::get().app_url(&app.database);
    let arguments: Vec<_> = ["audit", "export"].iter().chain(options).copied().collect();
    run(&arguments, &[("DATABASE_URL", &url)]).await
}

/// The exported events, one per line.
fn exported_events(output: &CommandOutput) -> Vec<Value> {
    assert!(output.ok, "{output:?}");
    output.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// An export of more than one batch has every event once, in the order of the chain, and continues
/// after a position.
#[tokio::test]
async fn an_export_has_every_event_and_continues_after_a_position() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let other = app.create_tenant("other").await;
    acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let insert_events = "insert into audit_events (tenant_id, event_id, kind, request_id)
         select $1::text::uuid, gen_random_uuid(), 'call_limited', '' from generate_series(1, 1200)";
    sqlx::query(insert_events)
        .bind(&acme.tenant_id)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("events");
    app.wait_until_audit_settled().await;

    let all_of_acme = exported_events(&run_export(&app, &["--tenant", "acme"]).await);
    // The three events of a new tenant, `role_created`, and 1200 inserted events.
    assert_eq!(all_of_acme.len(), 1204);
    for (event, position) in all_of_acme.iter().zip(1_i64..) {
        assert_eq!(event["position"], position);
        assert_eq!(event["tenant_id"], acme.tenant_id.as_str());
    }
    let role = all_of_acme.iter().find(|event| event["kind"] == "role_created").expect("an event");
    assert_eq!(role["actor_id"], acme.user_id.as_str());
    assert_eq!(role["hash"].as_str().map(str::len), Some(43), "32 bytes as base64url");
    let later_events =
        exported_events(&run_export(&app, &["--tenant", &acme.tenant_id, "--after", "1000"]).await);
    assert_eq!(later_events, all_of_acme[1000..]);
    assert_eq!(
        exported_events(&run_export(&app, &["--tenant", "acme", "--after", "1204"]).await).len(),
        0
    );

    app.platform_admin().await;
    app.wait_until_audit_settled().await;
    let all_events = exported_events(&run_export(&app, &[]).await);
    let count =
        |tenant: &str| all_events.iter().filter(|event| event["tenant_id"] == tenant).count();
    assert_eq!((count(&acme.tenant_id), count(&other.tenant_id)), (1204, 3));
    // A position belongs to a trail, so `--after` requires `--tenant`.
    let refused_output = run_export(&app, &["--after", "5"]).await;
    assert!(!refused_output.ok && refused_output.err.contains("--tenant"), "{refused_output:?}");
}
