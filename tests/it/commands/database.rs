//! `tenantry migrate`, `bootstrap`, `seed` and `policies`

use tenantry::proto::v1::GetTenantRequest;

use super::{run, word_after};
use crate::harness::{Cluster, TestApp, methods};

#[tokio::test]
async fn after_two_migrations_of_an_empty_database_the_server_works() {
    let cluster = Cluster::get();
    cluster.empty_database("cmd_migrate").await;
    let owner_url = cluster.owner_url("cmd_migrate");
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str())];

    for _ in 0..2 {
        let output = run(&["migrate"], &settings).await;
        assert!(output.ok && output.out.contains("the schema is up to date"), "{output:?}");
    }
    let app = TestApp::on_database("cmd_migrate", |_| {}).await;
    assert!(app.create_tenant("acme").await.may("doc:read").await);
}

/// J14: when replicas with a new version start concurrently, each migration is applied once.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_are_applied_once() {
    let cluster = Cluster::get();
    cluster.empty_database("cmd_migrate_at_once").await;
    let owner_url = cluster.owner_url("cmd_migrate_at_once");
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str())];
    let outputs = futures::future::join_all((0..4).map(|_| run(&["migrate"], &settings))).await;
    assert!(outputs.iter().all(|output| output.ok), "{outputs:?}");
    let app = TestApp::on_database("cmd_migrate_at_once", |_| {}).await;
    assert!(app.create_tenant("acme").await.may("doc:read").await);
}

#[tokio::test]
async fn the_platform_is_created_once_and_its_administrator_signs_in() {
    let app = TestApp::spawn().await;
    let owner_url = app.owner_url();
    let master = app.master_key();
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str()), ("MASTER_KEY_PATH", &master)];

    let output = run(&["bootstrap", "--email", "root@platform.test"], &settings).await;
    assert!(output.ok, "{output:?}");
    assert_eq!(word_after(&output.out, "tenant"), "platform");
    assert_eq!(word_after(&output.out, "email"), "root@platform.test");
    let password = word_after(&output.out, "password");
    let platform_admin = app.anonymous().login("platform", "root@platform.test", password).await;
    let acme = app.create_tenant("acme").await;
    let request = GetTenantRequest { tenant: "acme".into() };
    let reply = platform_admin.tenants().get_tenant(request).await.expect("a tenant");
    assert_eq!(reply.into_inner().tenant.expect("the tenant").id, acme.tenant_id);

    let second_output = run(&["bootstrap", "--email", "other@platform.test"], &settings).await;
    assert!(!second_output.ok && second_output.out.is_empty(), "{second_output:?}");
    assert!(
        second_output.err.contains("the platform tenant is there already"),
        "{second_output:?}"
    );
}

#[tokio::test]
async fn the_database_role_of_the_service_cannot_create_the_platform() {
    let app = TestApp::spawn().await;
    let url = Cluster::get().app_url(&app.database);

    let output = run(
        &["bootstrap"],
        &[("MIGRATE_DATABASE_URL", &url), ("MASTER_KEY_PATH", &app.master_key())],
    )
    .await;
    assert!(!output.ok && output.err.contains("can't make the platform tenant"), "{output:?}");
}

#[tokio::test]
async fn the_demo_tenant_is_created_once_and_its_administrator_signs_in() {
    let app = TestApp::spawn().await;
    let url = Cluster::get().app_url(&app.database);
    let master = app.master_key();
    let settings = [("DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", &master)];

    let output = run(&["seed"], &settings).await;
    assert!(output.ok, "{output:?}");
    let (slug, email) = (word_after(&output.out, "tenant"), word_after(&output.out, "email"));
    assert_eq!((slug, email), ("demo", "admin@demo.local"));
    let admin = app.anonymous().login(slug, email, word_after(&output.out, "password")).await;
    let me = admin.identity().await;
    assert_eq!(me.roles, ["org_admin"]);
    for permission in ["agent:manage", "workflow:execute"] {
        assert!(me.permissions.iter().any(|held| held == permission), "{me:?}");
        assert!(admin.may(permission).await);
    }

    let second_output = run(&["seed"], &settings).await;
    assert!(!second_output.ok && second_output.out.is_empty(), "{second_output:?}");
    assert!(second_output.err.contains("the demo tenant is there already"), "{second_output:?}");
}

#[tokio::test]
async fn commands_report_a_missing_setting() {
    for (command, setting) in [
        ("migrate", "MIGRATE_DATABASE_URL"),
        ("bootstrap", "MIGRATE_DATABASE_URL"),
        ("seed", "DATABASE_URL"),
    ] {
        let output = run(&[command], &[]).await;
        assert!(!output.ok && output.err.contains(&format!("{setting} must be set")), "{output:?}");
    }
}

#[tokio::test]
async fn a_malformed_url_is_not_repeated_in_the_error() {
    let secret = "postgres://tenantry_app:canary@[::1/x";
    for (command, setting) in [("migrate", "MIGRATE_DATABASE_URL"), ("seed", "DATABASE_URL")] {
        let output = run(&[command], &[(setting, secret)]).await;
        let expected = format!("{setting} must be a URL like postgres://user@host/database");
        assert!(!output.ok && output.err.contains(&expected), "{output:?}");
        assert!(!output.err.contains("canary"), "{output:?}");
    }
}

#[tokio::test]
async fn the_command_policies_lists_every_method() {
    let output = run(&["policies"], &[]).await;
    assert!(output.ok, "{output:?}");

    let listed_policies: Vec<_> =
        output.out.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut paths: Vec<_> = methods().iter().map(crate::harness::Method::path).collect();
    paths.push("/envoy.service.auth.v3.Authorization/Check".into());
    paths.sort_unstable();
    assert_eq!(listed_policies.iter().map(|(path, _)| *path).collect::<Vec<_>>(), paths);
    let policy_of = |name: &str| {
        listed_policies.iter().find(|(path, _)| path.ends_with(name)).expect(name).1.trim()
    };
    assert_eq!(policy_of("/Login"), "public; limited as sign_in");
    assert_eq!(policy_of("/WhoAmI"), "authenticated");
    assert_eq!(policy_of("/GetUser"), "user:read, or for one's own");
    assert_eq!(policy_of("/CreateTenant"), "tenant:create, in the platform tenant");
}
