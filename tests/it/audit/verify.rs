//! `tenantry audit verify`, and the faults that it finds.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{DeleteTenantRequest, RoleLevel};

use crate::{
    commands::{CommandOutput, run},
    harness::{Client, Cluster, TestApp},
};

async fn run_verify(app: &TestApp, options: &[&str]) -> CommandOutput {
    let url = Cluster::get().app_url(&app.database);
    let arguments: Vec<_> = ["audit", "verify"].iter().chain(options).copied().collect();
    run(&arguments, &[("DATABASE_URL", &url)]).await
}

/// The lines of the output, one per tenant.
fn findings(output: &CommandOutput) -> Vec<Value> {
    output.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn create_tenant_with_roles(app: &TestApp, slug: &str, count: usize) -> Client {
    let tenant = app.create_tenant(slug).await;
    for n in 0..count {
        tenant.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
    }
    tenant
}

#[tokio::test]
async fn an_unaltered_trail_has_no_faults() {
    let app = TestApp::spawn().await;
    let acme = create_tenant_with_roles(&app, "acme", 3).await;
    let deleted_tenant = app.create_tenant("gone").await;
    // Only the platform tenant may list all tenants, and this tenant does not exist yet.
    let output = run_verify(&app, &[]).await;
    assert!(!output.ok && output.err.contains("--tenant"), "{output:?}");
    let platform_admin = app.platform_admin().await;
    let delete = DeleteTenantRequest { tenant: "gone".into(), etag: String::new() };
    platform_admin.tenants().delete_tenant(delete).await.expect("deleted");
    app.wait_until_audit_settled().await;

    let output = run_verify(&app, &[]).await;
    assert!(output.ok, "{output:?}");
    let all_findings = findings(&output);
    // Each tenant has three first events. Acme has three roles, and the deleted tenant keeps its
    // trail with `tenant_deleted`.
    for (tenant, count) in [(&acme.tenant_id, 6), (&deleted_tenant.tenant_id, 4)] {
        let finding =
            all_findings.iter().find(|finding| finding["tenant_id"] == **tenant).expect("a line");
        assert_eq!(finding["position"], count);
        assert_eq!(finding["faults"], serde_json::json!([]));
    }
    assert_eq!(findings(&run_verify(&app, &["--tenant", "acme"]).await).len(), 1);
    assert!(!run_verify(&app, &["--tenant", "nowhere"]).await.ok);
}

/// K12: `audit verify` detects changes by a user with write access to the database.
#[tokio::test]
async fn every_alteration_of_a_trail_is_found() {
    let app = TestApp::spawn().await;
    // Position 4 is the event of the first role.
    for (slug, expected_fault, alteration) in [
        ("kind", "position 4", "update audit_events set kind = 'role_deleted' where $event"),
        ("actor", "position 4", "update audit_events set actor_id = null where $event"),
        (
            "time",
            "position 4",
            "update audit_events set created_at = created_at - interval '1 s'
             where $event",
        ),
        ("detail", "position 4", "update audit_events set detail = '{\"x\": 1}' where $event"),
        ("removed", "position 4", "delete from audit_events where $event"),
        ("emptied", "position 1", "delete from audit_events where tenant_id = '$t'"),
        ("chain", "position 4", "delete from audit_chain where $position"),
        ("hash", "position 4", "update audit_chain set hash = sha256('') where $position"),
        (
            "added",
            "no place",
            "insert into audit_events
             (tenant_id, event_id, kind, request_id, created_at)
             values ('$t', gen_random_uuid(), 'forged', '', now() - interval '1 hour');
             delete from audit_queue where tenant_id = '$t'",
        ),
    ] {
        let tenant = create_tenant_with_roles(&app, slug, 3).await;
        app.wait_until_audit_settled().await;
        let alteration = alteration
            .replace(
                "$event",
                "tenant_id = '$t' and event_id = (select event_id from audit_chain
                where tenant_id = '$t' and position = 4)",
            )
            .replace("$position", "tenant_id = '$t' and position = 4")
            .replace("$t", &tenant.tenant_id);
        sqlx::raw_sql(AssertSqlSafe(alteration))
            .execute(&mut app.owner_connection().await)
            .await
            .expect(expected_fault);
        let output = run_verify(&app, &["--tenant", slug]).await;
        assert!(!output.ok, "{slug}");
        let faults = findings(&output)[0]["faults"].to_string();
        assert!(faults.contains(expected_fault), "{slug}: {faults}");
    }
}

/// The chain alone cannot reveal that its last events were removed or rewritten. A last position
/// and hash that are stored outside of the database reveal such a change.
#[tokio::test]
async fn the_output_of_an_earlier_run_reveals_removed_last_events() {
    let app = TestApp::spawn().await;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("kept");
    let mut earlier_output = String::new();
    for slug in ["whole", "cut", "gone"] {
        create_tenant_with_roles(&app, slug, 3).await;
        app.wait_until_audit_settled().await;
        earlier_output += &run_verify(&app, &["--tenant", slug]).await.out;
    }
    std::fs::write(&path, &earlier_output).expect("written");
    let path = path.to_str().expect("a path");
    app.platform_admin().await.create_role("more", RoleLevel::Member, &[]).await;
    assert!(run_verify(&app, &["--kept", path]).await.ok);

    let delete_events = "with cut as (
            delete from audit_chain c using tenants t where c.tenant_id = t.tenant_id
                and (slug = 'cut' and position = 6 or slug = 'gone') returning c.*)
        delete from audit_events e using cut
        where e.tenant_id = cut.tenant_id and e.event_id = cut.event_id";
    sqlx::query(delete_events)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the events are deleted");
    assert!(run_verify(&app, &[]).await.ok, "a shorter chain alone has no faults");
    // The trails of the tenants `cut` and `gone` have faults.
    let output = run_verify(&app, &["--kept", path]).await;
    assert!(!output.ok && output.err.contains("2 of"), "{output:?}");
    let faulty_trails: Vec<_> = findings(&output)
        .into_iter()
        .filter(|line| line["faults"] != serde_json::json!([]))
        .collect();
    assert!(
        faulty_trails.iter().all(|line| line["faults"][0].to_string().contains("kept")),
        "{faulty_trails:?}"
    );
    assert_eq!(faulty_trails.len(), 2);
}
