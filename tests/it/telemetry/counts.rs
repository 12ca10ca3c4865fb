//! Metrics of calls, and of Postgres and Redis.

use tenantry::proto::v1::{CheckRequest, GetUserRequest, WhoAmIRequest};
use tonic::Code;

use super::collector::Collector;
use crate::harness::{TestApp, assert_refused, unknown_id, wait_until};

/// Name of the metric that counts the calls of a method with this code.
fn call_count_metric(method: &str, code: &str) -> String {
    format!(
        "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",\
         rpc_method=\"tenantry.v1.{method}\",rpc_response_status_code=\"{code}\"}}"
    )
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let check_count = call_count_metric("PermissionService/Check", "OK");
    assert_eq!(
        app.metric(&check_count).await,
        Some(0.0),
        "the metric exists before the first call"
    );
    let request = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    for _ in 0..3 {
        acme.decide(request.clone()).await;
    }
    assert_eq!(app.metric(&check_count).await, Some(3.0));
    let request = GetUserRequest { user_id: unknown_id() };
    assert_refused(acme.users().get_user(request).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(app.metric(&call_count_metric("UserService/GetUser", "NOT_FOUND")).await, Some(1.0));
}

/// K05: the number of series is bounded, whatever names callers send.
#[tokio::test]
async fn unknown_methods_and_tenants_add_no_series() {
    let app = TestApp::spawn().await;
    // Lines that begin with `#` are comments.
    let series_count = || async {
        let (_, page) = app.get("/metrics").await;
        page.lines().filter(|line| !line.starts_with('#')).count()
    };
    let call_path = |path: String| {
        let mut client = tonic::client::Grpc::new(app.channel.clone());
        async move {
            client.ready().await.expect("ready");
            let codec = tonic_prost::ProstCodec::<WhoAmIRequest, WhoAmIRequest>::default();
            let path = path.parse().expect("a path");
            client.unary(tonic::Request::new(WhoAmIRequest {}), path, codec).await
        }
    };
    let result = call_path("/tenantry.v1.UserService/First".to_owned()).await;
    assert_refused(result, Code::Unimplemented, "METHOD_UNKNOWN");
    // The server adds the series of the tables shortly after its start.
    let has_tables =
        || async { app.metric("tenantry_table_rows{table=\"users\"}").await.is_some() };
    wait_until(20, has_tables).await;
    let count_before = series_count().await;
    for n in 0..100 {
        let result = call_path(format!("/tenantry.v1.UserService/Made{n}")).await;
        assert_refused(result, Code::Unimplemented, "METHOD_UNKNOWN");
        let client = app.anonymous().with_metadata("x-tenant-id", &format!("made-{n}"));
        client
            .auth()
            .who_am_i(WhoAmIRequest {})
            .await
            .expect_err("a call without a token is refused");
    }
    let added = series_count().await - count_before;
    // The first refusal of WhoAmI adds its buckets, sum and count.
    assert!(added < 20, "{added}");
}

#[tokio::test]
async fn calls_to_postgres_and_redis_are_counted_by_operation_and_outcome() {
    let app = TestApp::spawn().await;
    app.create_tenant("acme").await;
    let (_, page) = app.get("/metrics").await;
    let operation_count = |system: &str, operation: &str| {
        let prefix = format!(
            "db_client_operation_duration_seconds_count{{db_system_name=\"{system}\",\
             db_operation_name=\"{operation}\",error_type=\"\"}}"
        );
        let line =
            page.lines().find_map(|line| line.strip_prefix(&prefix)).expect("the metric exists");
        line.trim().parse::<f64>().expect("a number")
    };
    for (system, operation) in [
        ("postgresql", "BEGIN"),
        ("postgresql", "COMMIT"),
        ("postgresql", "INSERT"),
        ("postgresql", "SELECT"),
        ("redis", "EVALSHA"),
    ] {
        assert!(operation_count(system, operation) >= 1.0, "{system} {operation}");
    }
    let connection_count = |state: &str| {
        let name = format!("db_client_connection_count{{db_client_connection_state=\"{state}\"}}");
        let app = &app;
        async move { app.metric(&name).await }
    };
    assert!(connection_count("used").await.is_some());
    // The background workers may use all connections for a moment.
    let has_idle = || async { connection_count("idle").await.is_some_and(|count| count >= 1.0) };
    wait_until(10, has_idle).await;
    assert!(app.metric("db_client_connection_max").await.is_some_and(|max| max >= 1.0));
    assert_eq!(app.metric("tenantry_hashing_queue").await, Some(0.0));
    assert!(app.metric("tenantry_hashing_queue_max").await.is_some_and(|max| max > 1.0));
}

/// An exemplar of a bucket is the trace id of one call that the bucket has counted. So a bucket of
/// slow calls leads to the trace of a slow call.
#[tokio::test]
async fn histogram_buckets_have_exemplars_with_a_trace_id() {
    let collector = Collector::start().await;
    let app =
        TestApp::with_settings(|values| values.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()))
            .await;
    let acme = app.create_tenant("acme").await;
    let id = unknown_id().replace('-', "");
    let client = acme.with_metadata("traceparent", &format!("00-{id}-00f067aa0ba902b7-01"));
    client.auth().who_am_i(WhoAmIRequest {}).await.expect("a response");
    let (_, page) = app.get("/metrics").await;
    // In the text format, the exemplar is at the end of the bucket's line.
    let exemplar = format!("# {{trace_id=\"{id}\"}}");
    let line = page.lines().find(|line| line.contains(&exemplar)).expect("an exemplar");
    assert!(line.starts_with("rpc_server_call_duration_seconds_bucket"), "{line}");
    assert!(line.contains("WhoAmI"), "{line}");
}
