//! `tenantry migrate`, `bootstrap`, `seed` and `policies`

use tenantry::proto::v1::{GetTenantRequest, WhoAmIRequest};

use super::{run, word_after};
use crate::harness::{Cluster, TestApp, methods};

#[tokio::test]
async fn migrating_an_empty_database_twice_gives_a_working_database() {
    let cluster = Cluster::get();
    cluster.empty_database("cmd_migrate").await;
    let owner = cluster.owner_url("cmd_migrate");
    let settings = [("MIGRATE_DATABASE_URL", owner.as_str())];

    for _ in 0..2 {
        let ran = run(&["migrate"], &settings).await;
        assert!(ran.ok && ran.out.contains("the schema is up to date"), "{ran:?}");
    }
    let app = TestApp::on("cmd_migrate", |_| {}).await;
    assert!(app.tenant("acme").await.may("", "doc:read").await);
}

/// J14: replicas that start at the same time with a new version migrate only once.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_are_applied_once() {
    let cluster = Cluster::get();
    cluster.empty_database("cmd_migrate_at_once").await;
    let owner = cluster.owner_url("cmd_migrate_at_once");
    let settings = [("MIGRATE_DATABASE_URL", owner.as_str())];
    let all = futures::future::join_all((0..4).map(|_| run(&["migrate"], &settings))).await;
    assert!(all.iter().all(|ran| ran.ok), "{all:?}");
    let app = TestApp::on("cmd_migrate_at_once", |_| {}).await;
    assert!(app.tenant("acme").await.may("", "doc:read").await);
}

#[tokio::test]
async fn the_platform_is_created_once_and_its_administrator_signs_in() {
    let app = TestApp::spawn().await;
    let owner = app.owner_url();
    let master = app.master_key();
    let settings = [("MIGRATE_DATABASE_URL", owner.as_str()), ("MASTER_KEY_PATH", &master)];

    let ran = run(&["bootstrap", "--email", "root@platform.test"], &settings).await;
    assert!(ran.ok, "{ran:?}");
    assert_eq!(word_after(&ran.out, "tenant"), "platform");
    assert_eq!(word_after(&ran.out, "email"), "root@platform.test");
    let password = word_after(&ran.out, "password");
    let root = app.anonymous().login("platform", "root@platform.test", password).await;
    let acme = app.tenant("acme").await;
    let get = GetTenantRequest { tenant: "acme".into() };
    let found = root.tenants().get_tenant(get).await.expect("found").into_inner().tenant;
    assert_eq!(found.expect("the tenant").id, acme.tenant_id);

    let again = run(&["bootstrap", "--email", "other@platform.test"], &settings).await;
    assert!(!again.ok && again.out.is_empty(), "{again:?}");
    assert!(again.err.contains("the platform tenant is there already"), "{again:?}");
}

#[tokio::test]
async fn the_services_own_role_cannot_create_the_platform() {
    let app = TestApp::spawn().await;
    let url = Cluster::get().app_url(&app.database);

    let ran = run(
        &["bootstrap"],
        &[("MIGRATE_DATABASE_URL", &url), ("MASTER_KEY_PATH", &app.master_key())],
    )
    .await;
    assert!(!ran.ok && ran.err.contains("can't make the platform tenant"), "{ran:?}");
}

#[tokio::test]
async fn the_demo_tenant_is_created_once_and_its_administrator_signs_in() {
    let app = TestApp::spawn().await;
    let url = Cluster::get().app_url(&app.database);
    let master = app.master_key();
    let settings = [("DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", &master)];

    let ran = run(&["seed"], &settings).await;
    assert!(ran.ok, "{ran:?}");
    let (slug, email) = (word_after(&ran.out, "tenant"), word_after(&ran.out, "email"));
    assert_eq!((slug, email), ("demo", "admin@demo.local"));
    let admin = app.anonymous().login(slug, email, word_after(&ran.out, "password")).await;
    let me = admin.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
    assert_eq!(me.roles, ["org_admin"]);
    for permission in ["agent:manage", "workflow:execute"] {
        assert!(me.permissions.iter().any(|held| held == permission), "{me:?}");
        assert!(admin.may("", permission).await);
    }

    let again = run(&["seed"], &settings).await;
    assert!(!again.ok && again.out.is_empty(), "{again:?}");
    assert!(again.err.contains("the demo tenant is there already"), "{again:?}");
}

#[tokio::test]
async fn commands_name_the_setting_that_is_missing() {
    for (command, setting) in [
        ("migrate", "MIGRATE_DATABASE_URL"),
        ("bootstrap", "MIGRATE_DATABASE_URL"),
        ("seed", "DATABASE_URL"),
    ] {
        let ran = run(&[command], &[]).await;
        assert!(!ran.ok && ran.err.contains(&format!("{setting} must be set")), "{ran:?}");
    }
}

#[tokio::test]
async fn a_malformed_url_is_not_repeated_in_the_error() {
    let secret = "postgres://tenantry_app:canary@[::1/x";
    for (command, setting) in [("migrate", "MIGRATE_DATABASE_URL"), ("seed", "DATABASE_URL")] {
        let ran = run(&[command], &[(setting, secret)]).await;
        assert!(!ran.ok && ran.err.contains("can't be read"), "{ran:?}");
        assert!(!ran.err.contains("canary"), "{ran:?}");
    }
}

#[tokio::test]
async fn policies_shows_every_method() {
    let ran = run(&["policies"], &[]).await;
    assert!(ran.ok, "{ran:?}");

    let shown: Vec<_> = ran.out.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut paths: Vec<_> = methods().iter().map(crate::harness::Method::path).collect();
    paths.push("/envoy.service.auth.v3.Authorization/Check".into());
    paths.sort_unstable();
    assert_eq!(shown.iter().map(|(path, _)| *path).collect::<Vec<_>>(), paths);
    let of = |name: &str| shown.iter().find(|(path, _)| path.ends_with(name)).expect(name).1.trim();
    assert_eq!(of("/Login"), "public; limited as sign_in");
    assert_eq!(of("/WhoAmI"), "authenticated");
    assert_eq!(of("/GetUser"), "user:read, or for one's own");
    assert_eq!(of("/CreateTenant"), "tenant:create, in the platform tenant");
}
