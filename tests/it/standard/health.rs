//! grpc.health.v1.Health

use std::collections::BTreeSet;

use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{TestApp, methods, refused};

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// The API's services, from the descriptors.
fn services() -> BTreeSet<String> {
    methods().iter().map(|method| method.0.parent_service().full_name().to_owned()).collect()
}

#[tokio::test]
async fn health_reports_the_server_and_each_service_without_a_token() {
    let app = TestApp::shared();
    let mut health = HealthClient::new(app.channel.clone());
    let services = services();
    assert_eq!(services.len(), 8);
    for service in services.iter().map(String::as_str).chain([""]) {
        let mut watch = health.watch(ask(service)).await.expect("a stream").into_inner();
        // The first SERVING status comes after Postgres has answered.
        while watch.message().await.expect("an answer").expect("open").status()
            != ServingStatus::Serving
        {}
        let reply = health.check(ask(service)).await.expect("an answer").into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn health_reports_no_other_service() {
    let app = TestApp::spawn().await;
    app.tenant("acme").await;
    let mut health = HealthClient::new(app.channel.clone());
    for service in ["acme", "tenantry.v1.NothingService", "tenantry.v1", "version"] {
        refused(health.check(ask(service)).await, Code::NotFound, "NOT_FOUND");
    }
    // A health check ignores an invalid token.
    let mut request = Request::new(ask(""));
    request.metadata_mut().insert("authorization", "Bearer x".parse().expect("a value"));
    health.check(request).await.expect("an answer");
}

#[tokio::test]
async fn health_reports_not_serving_before_the_server_stops() {
    let app = TestApp::spawn().await;
    let mut health = HealthClient::new(app.channel.clone());
    let mut watch = health.watch(ask("tenantry.v1.AuthService")).await.expect("a stream");
    let watch = watch.get_mut();
    while watch.message().await.expect("an answer").expect("open").status()
        != ServingStatus::Serving
    {}
    let stopping = tokio::spawn(app.stop());
    let last = watch.message().await.expect("an answer").expect("open");
    assert_eq!(last.status(), ServingStatus::NotServing);
    stopping.await.expect("it stops");
}
