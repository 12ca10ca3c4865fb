//! Findings of `tenantry audit verify`.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{DeleteTenantRequest, RoleLevel};

use crate::{
    commands::{Ran, run},
    harness::{Client, Cluster, TestApp},
};

async fn verify(app: &TestApp, more: &[&str]) -> Ran {
    let url = Cluster::get().app_url(&app.database);
    let arguments: Vec<_> = ["audit", "verify"].iter().chain(more).copied().collect();
    run(&arguments, &[("DATABASE_URL", &url)]).await
}

fn findings(ran: &Ran) -> Vec<Value> {
    ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn with_roles(app: &TestApp, slug: &str, count: usize) -> Client {
    let tenant = app.tenant(slug).await;
    for n in 0..count {
        tenant.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
    }
    tenant
}

#[tokio::test]
async fn an_unaltered_trail_verifies() {
    let app = TestApp::spawn().await;
    let acme = with_roles(&app, "acme", 3).await;
    let gone = app.tenant("gone").await;
    let ran = verify(&app, &[]).await;
    assert!(!ran.ok && ran.err.contains("--tenant"), "{ran:?}");
    let root = app.platform_admin().await;
    let delete = DeleteTenantRequest { tenant: "gone".into(), etag: String::new() };
    root.tenants().delete_tenant(delete).await.expect("deleted");
    app.audit_settled().await;

    let ran = verify(&app, &[]).await;
    assert!(ran.ok, "{ran:?}");
    let found = findings(&ran);
    // The trail of a deleted tenant is kept.
    for (tenant, count) in [(&acme.tenant_id, 6), (&gone.tenant_id, 4)] {
        let of = found.iter().find(|line| line["tenant_id"] == **tenant).expect("a line");
        assert_eq!(of["position"], count);
        assert_eq!(of["faults"], serde_json::json!([]));
    }
    assert_eq!(findings(&verify(&app, &["--tenant", "acme"]).await).len(), 1);
    assert!(!verify(&app, &["--tenant", "nowhere"]).await.ok);
}

/// R33, K12: `audit verify` detects changes by a user with write access to the database.
#[tokio::test]
async fn every_alteration_is_found() {
    let app = TestApp::spawn().await;
    for (slug, what, alter) in [
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
        ("place", "position 4", "delete from audit_chain where $place"),
        ("hash", "position 4", "update audit_chain set hash = sha256('') where $place"),
        (
            "added",
            "no place",
            "insert into audit_events
             (tenant_id, event_id, kind, request_id, created_at)
             values ('$t', gen_random_uuid(), 'forged', '', now() - interval '1 hour');
             delete from audit_queue where tenant_id = '$t'",
        ),
    ] {
        let tenant = with_roles(&app, slug, 3).await;
        app.audit_settled().await;
        let alter = alter
            .replace(
                "$event",
                "tenant_id = '$t' and event_id = (select event_id from audit_chain
                where tenant_id = '$t' and position = 4)",
            )
            .replace("$place", "tenant_id = '$t' and position = 4")
            .replace("$t", &tenant.tenant_id);
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut app.owner().await).await.expect(what);
        let ran = verify(&app, &["--tenant", slug]).await;
        assert!(!ran.ok, "{slug}");
        let faults = findings(&ran)[0]["faults"].to_string();
        assert!(faults.contains(what), "{slug}: {faults}");
    }
}

/// The chain alone cannot reveal that its last events were removed or rewritten. A last position
/// and hash that are stored outside of the database reveal such a change.
#[tokio::test]
async fn a_kept_end_shows_a_truncated_or_rewritten_chain() {
    let app = TestApp::spawn().await;
    let dir = tempfile::tempdir().expect("a folder");
    let kept = dir.path().join("kept");
    let mut lines = String::new();
    for slug in ["grown", "cut", "gone"] {
        with_roles(&app, slug, 3).await;
        app.audit_settled().await;
        lines += &verify(&app, &["--tenant", slug]).await.out;
    }
    std::fs::write(&kept, &lines).expect("written");
    let kept = kept.to_str().expect("a path");
    app.platform_admin().await.create_role("more", RoleLevel::Member, &[]).await;
    assert!(verify(&app, &["--kept", kept]).await.ok);

    let cut = "with cut as (
            delete from audit_chain c using tenants t where c.tenant_id = t.tenant_id
                and (slug = 'cut' and position = 6 or slug = 'gone') returning c.*)
        delete from audit_events e using cut
        where e.tenant_id = cut.tenant_id and e.event_id = cut.event_id";
    sqlx::query(cut).execute(&mut app.owner().await).await.expect("cut off");
    assert!(verify(&app, &[]).await.ok, "a shorter chain verifies");
    let ran = verify(&app, &["--kept", kept]).await;
    assert!(!ran.ok && ran.err.contains("2 of"), "{ran:?}");
    let faulty: Vec<_> =
        findings(&ran).into_iter().filter(|line| line["faults"] != serde_json::json!([])).collect();
    assert!(faulty.iter().all(|line| line["faults"][0].to_string().contains("kept")), "{faulty:?}");
    assert_eq!(faulty.len(), 2);
}
