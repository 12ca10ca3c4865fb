//! Certificates that change while the server runs.

use std::fs;

use super::{Authority, Files, ask, channel};
use crate::harness::{TestApp, until};

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_old_connections_continue() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::of(&old);
    let app = TestApp::with(|values| files.set(values)).await;
    let kept = channel(&app, &old, None);
    ask(kept.clone()).await.expect("an answer");

    files.put(&new.sign("localhost"));
    until(10, || async { ask(channel(&app, &new, None)).await.is_ok() }).await;
    ask(channel(&app, &old, None)).await.expect_err("the old certificate is still used");
    ask(kept).await.expect("an answer");
    let reloads = "tenantry_certificate_reloads_total{outcome=\"ok\"}";
    assert_eq!(app.metric(reloads).await, Some(1.0));
}

#[tokio::test]
async fn unusable_files_change_nothing() {
    let authority = Authority::new();
    let files = Files::of(&authority);
    let app = TestApp::with(|values| files.set(values)).await;
    for spoil in [
        |files: &Files| fs::remove_file(files.path("cert.pem")).expect("removed"),
        |files: &Files| fs::write(files.path("cert.pem"), "").expect("written"),
        // A certificate that belongs to another key.
        |files: &Files| {
            let other = Authority::new().sign("localhost");
            fs::write(files.path("cert.pem"), other.cert).expect("written");
        },
    ] {
        let failed = "tenantry_certificate_reloads_total{outcome=\"failed\"}";
        let before = app.metric(failed).await.unwrap_or_default();
        spoil(&files);
        until(10, || async { app.metric(failed).await.unwrap_or_default() > before }).await;
        ask(channel(&app, &authority, None)).await.expect("an answer");
        files.put(&authority.sign("localhost"));
    }
}

#[tokio::test]
async fn the_client_authorities_can_change_too() {
    let (authority, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::of(&authority);
    let app = TestApp::with(|values| files.set_with_clients(values, &old)).await;
    let (before, after) = (old.sign("billing"), new.sign("billing"));
    ask(channel(&app, &authority, Some(&before))).await.expect("an answer");
    fs::write(files.path("clients.pem"), new.pem()).expect("written");
    until(10, || async { ask(channel(&app, &authority, Some(&after))).await.is_ok() }).await;
    ask(channel(&app, &authority, Some(&before)))
        .await
        .expect_err("the old authority is still accepted");
}
