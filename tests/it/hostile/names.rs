//! Names, as many as somebody likes to make up.

use tenantry::proto::v1::{LoginRequest, WhoAmIRequest};

use crate::harness::{Forge, PASSWORD, TestApp};

const ATTACKS: usize = 100;

async fn series(app: &TestApp) -> usize {
    let (_, page) = app.get("/metrics").await;
    assert!(!page.contains("made-up"), "{page}");
    page.lines().filter(|line| !line.starts_with('#')).count()
}

/// K05: nothing that callers make up names a metric.
#[tokio::test]
async fn metrics_do_not_grow_with_what_callers_make_up() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
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
        let elsewhere = acme.with("x-tenant-id", &format!("made-up-{n}"));
        elsewhere.auth().who_am_i(WhoAmIRequest {}).await.expect_err("refused");
    };
    attack(0).await;
    let before = series(&app).await;
    assert!(before >= 10, "{before}");
    for n in 1..ATTACKS {
        attack(n).await;
    }
    // What the server does by itself now and then adds a few that are of no caller.
    let more = series(&app).await - before;
    assert!(more < ATTACKS, "{more}");
}
