//! grpc.health.v1.Health

use std::collections::BTreeSet;

use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{TestApp, assert_refused, methods};

fn request_for(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// Names of the API's services, from the descriptors.
fn service_names() -> BTreeSet<String> {
    methods().iter().map(|method| method.0.parent_service().full_name().to_owned()).collect()
}

#[tokio::test]
async fn health_reports_the_server_and_each_service_without_a_token() {
    let app = TestApp::shared();
    let mut health = HealthClient::new(app.channel.clone());
    let names = service_names();
    assert_eq!(names.len(), 8);
    for service in names.iter().map(String::as_str).chain([""]) {
        let mut stream = health.watch(request_for(service)).await.expect("a stream").into_inner();
        // The status becomes SERVING after Postgres has answered.
        while stream.message().await.expect("a message").expect("the stream is open").status()
            != ServingStatus::Serving
        {}
        let reply = health.check(request_for(service)).await.expect("an answer").into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn health_reports_no_other_service() {
    let app = TestApp::spawn().await;
    app.create_tenant("acme").await;
    let mut health = HealthClient::new(app.channel.clone());
    for service in ["acme", "tenantry.v1.NothingService", "tenantry.v1", "version"] {
        assert_refused(health.check(request_for(service)).await, Code::NotFound, "NOT_FOUND");
    }
    // A health check ignores an invalid token.
    let mut request = Request::new(request_for(""));
    request.metadata_mut().insert("authorization", "Bearer x".parse().expect("a value"));
    health.check(request).await.expect("an answer");
}

#[tokio::test]
async fn health_reports_not_serving_before_the_server_stops() {
    let app = TestApp::spawn().await;
    let mut health = HealthClient::new(app.channel.clone());
    let mut stream = health.watch(request_for("tenantry.v1.AuthService")).await.expect("a stream");
    let stream = stream.get_mut();
    while stream.message().await.expect("a message").expect("the stream is open").status()
        != ServingStatus::Serving
    {}
    let stop = tokio::spawn(app.stop());
    let message = stream.message().await.expect("a message").expect("the stream is open");
    assert_eq!(message.status(), ServingStatus::NotServing);
    stop.await.expect("the server stops");
}
