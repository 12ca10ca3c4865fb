//! Certificates that change while the server runs.

use std::fs;

use super::{Authority, Files, channel, check_health};
use crate::harness::{TestApp, wait_until};

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_old_connections_continue() {
    let (old_authority, new_authority) = (Authority::new(), Authority::new());
    let files = Files::create(&old_authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    let old_channel = channel(&app, &old_authority, None);
    check_health(old_channel.clone()).await.expect("an answer");

    files.write(&new_authority.sign("localhost"));
    wait_until(10, || async { check_health(channel(&app, &new_authority, None)).await.is_ok() })
        .await;
    check_health(channel(&app, &old_authority, None))
        .await
        .expect_err("the old certificate is still used");
    check_health(old_channel).await.expect("an answer");
    let reloads_metric = "tenantry_certificate_reloads_total{outcome=\"ok\"}";
    assert_eq!(app.metric(reloads_metric).await, Some(1.0));
}

#[tokio::test]
async fn unusable_files_do_not_replace_the_certificate() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    for break_file in [
        |files: &Files| fs::remove_file(files.path("cert.pem")).expect("removed"),
        // N37: a certificate that has expired.
        |files: &Files| {
            let expired = Authority::new().sign_until(&["localhost"], Some(-time::Duration::HOUR));
            files.write(&expired);
        },
        |files: &Files| fs::write(files.path("cert.pem"), "").expect("written"),
        // A certificate that belongs to another key.
        |files: &Files| {
            let other_certificate = Authority::new().sign("localhost");
            fs::write(files.path("cert.pem"), other_certificate.cert).expect("written");
        },
    ] {
        let failed_metric = "tenantry_certificate_reloads_total{outcome=\"failed\"}";
        let count_before = app.metric(failed_metric).await.unwrap_or_default();
        break_file(&files);
        wait_until(10, || async {
            app.metric(failed_metric).await.unwrap_or_default() > count_before
        })
        .await;
        check_health(channel(&app, &authority, None)).await.expect("an answer");
        files.write(&authority.sign("localhost"));
    }
}

#[tokio::test]
async fn new_client_authorities_replace_the_old_ones() {
    let (authority, old_authority, new_authority) =
        (Authority::new(), Authority::new(), Authority::new());
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set_with_clients(values, &old_authority)).await;
    let (old_certificate, new_certificate) =
        (old_authority.sign("billing"), new_authority.sign("billing"));
    check_health(channel(&app, &authority, Some(&old_certificate))).await.expect("an answer");
    fs::write(files.path("clients.pem"), new_authority.pem()).expect("written");
    wait_until(10, || async {
        check_health(channel(&app, &authority, Some(&new_certificate))).await.is_ok()
    })
    .await;
    check_health(channel(&app, &authority, Some(&old_certificate)))
        .await
        .expect_err("the old authority is still accepted");
}

/// N37: the gauge has the expiry of the certificate in use.
#[tokio::test]
async fn the_gauge_has_the_expiry_of_the_certificate_in_use() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    let metric = "tenantry_tls_certificate_not_after_seconds";
    let now = tenantry::clock::now().unix_timestamp();
    let first_expiry = app.metric(metric).await.expect("a gauge");
    let days =
        |seconds: f64| (seconds - f64::from(i32::try_from(now).expect("before 2038"))) / 86400.0;
    assert!(days(first_expiry) > 365.0, "{first_expiry}");
    files.write(&authority.sign_until(&["localhost"], Some(time::Duration::days(10))));
    wait_until(10, || async {
        (9.9..10.1).contains(&days(app.metric(metric).await.expect("a gauge")))
    })
    .await;
}
