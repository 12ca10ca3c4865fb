//! Large numbers of invented names of tenants, users and keys.

use tenantry::proto::v1::{LoginRequest, WhoAmIRequest};

use crate::harness::{Forge, PASSWORD, TestApp};

const ATTACKS: usize = 100;

async fn series_count(app: &TestApp) -> usize {
    let (_, page) = app.get("/metrics").await;
    assert!(!page.contains("made-up"), "{page}");
    page.lines().filter(|line| !line.starts_with('#')).count()
}

/// K05: no invented name becomes a metric or a label value.
#[tokio::test]
async fn the_number_of_metrics_does_not_grow_with_invented_names() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let attack = async |n: usize| {
        let sign_in = LoginRequest {
            email: format!("made-up-{n}@acme.test"),
            password: PASSWORD.into(),
            organization_slug: format!("made-up-{n}"),
            ..LoginRequest::default()
        };
        acme.auth().login(sign_in).await.expect_err("refused");
        let (mut header, claims) = Forge::read(&acme.tokens.access_token);
        header.kid = Some(format!("made-up-{n}"));
        let token = forge.sign(&header, &claims);
        acme.with_token(&token).auth().who_am_i(WhoAmIRequest {}).await.expect_err("refused");
        let invented_tenant = acme.with_metadata("x-tenant-id", &format!("made-up-{n}"));
        invented_tenant.auth().who_am_i(WhoAmIRequest {}).await.expect_err("refused");
    };
    attack(0).await;
    let count_before = series_count(&app).await;
    assert!(count_before >= 10, "{count_before}");
    for n in 1..ATTACKS {
        attack(n).await;
    }
    // Background work of the server adds a few series, independent of these calls.
    let growth = series_count(&app).await - count_before;
    assert!(growth < ATTACKS, "{growth}");
}
