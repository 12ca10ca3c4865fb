//! Contents of traces, sampling, and the cost when the collector does not answer.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tenantry::proto::v1::{CheckRequest, GetJwksRequest, LoginRequest, WhoAmIRequest};
use tokio::{net::TcpListener, time::Instant};
use tonic::Code;

use super::collector::{Collector, attribute, hex, is_error};
use crate::harness::{
    Client, PASSWORD, Proxy, ServerProcess, TestApp, assert_refused, unknown_id, wait_until,
};

const CALLER_SPAN_ID: &str = "00f067aa0ba902b7";

/// Starts a server that samples this share of the calls without a trace context.
async fn start_traced_app(share: &str) -> (TestApp, Collector) {
    let collector = Collector::start().await;
    let app = TestApp::with_settings(|values| {
        values.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
        values.set("OTEL_TRACES_SAMPLER_ARG", share);
    })
    .await;
    (app, collector)
}

/// The id of a new trace, and a client that sends the context of this trace.
fn with_new_trace(client: &Client, sampled: bool) -> (String, Client) {
    let id = unknown_id().replace('-', "");
    let flags = u8::from(sampled);
    let client =
        client.with_metadata("traceparent", &format!("00-{id}-{CALLER_SPAN_ID}-{flags:02x}"));
    (id, client)
}

fn spans_named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// K03: a trace covers the call and its store operations.
#[tokio::test]
async fn a_callers_trace_continues_through_every_store() {
    let (app, collector) = start_traced_app("0").await;
    let acme = app.create_tenant("acme").await;
    let (id, client) = with_new_trace(&app.anonymous(), true);
    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        device_name: "canary".into(),
    };
    client.auth().login(request).await.expect("signed in");
    let spans = collector.trace(&id).await;

    let [call] = spans_named(&spans, "tenantry.v1.AuthService/Login")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (call.kind(), hex(&call.parent_span_id)),
        (SpanKind::Server, CALLER_SPAN_ID.to_owned())
    );
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "tenantry.v1.AuthService/Login"),
        ("rpc.response.status_code", "OK"),
    ] {
        assert_eq!(attribute(call, key).as_deref(), Some(value));
    }
    let store_spans: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Client).collect();
    assert!(store_spans.iter().all(|span| span.parent_span_id == call.span_id), "{spans:?}");
    for (name, system, operation) in [
        ("SELECT find_tenant", "postgresql", "SELECT"),
        ("SELECT sign_in_candidate", "postgresql", "SELECT"),
        ("SELECT open_session", "postgresql", "SELECT"),
        ("EVALSHA", "redis", "EVALSHA"),
    ] {
        let matches = spans_named(&spans, name);
        assert!(!matches.is_empty(), "{name}: {spans:?}");
        assert_eq!(attribute(matches[0], "db.system.name").as_deref(), Some(system));
        assert_eq!(attribute(matches[0], "db.operation.name").as_deref(), Some(operation));
        assert!(!is_error(matches[0]));
    }
    let span_text = format!("{spans:?}");
    for secret in [acme.email.as_str(), PASSWORD, "canary", "acme", &acme.tenant_id] {
        assert!(!span_text.contains(secret), "{secret}");
    }
}

/// Transactions are traced too. A decision from the cache is a span without child spans.
#[tokio::test]
async fn a_decision_from_memory_has_no_store_spans() {
    let (app, collector) = start_traced_app("0").await;
    let acme = app.create_tenant("acme").await;
    let (id, client) = with_new_trace(&acme, true);
    client.auth().who_am_i(WhoAmIRequest {}).await.expect("a response");
    let spans = collector.trace(&id).await;
    for name in ["BEGIN", "SELECT users"] {
        assert_eq!(spans_named(&spans, name).len(), 1, "{name}: {spans:?}");
    }
    let request = || CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let is_single_span = || async {
        let (id, client) = with_new_trace(&acme, true);
        client.decide(request()).await;
        collector.trace(&id).await.len() == 1
    };
    wait_until(10, is_single_span).await;
}

#[tokio::test]
async fn a_call_that_its_caller_does_not_sample_is_not_recorded() {
    let (app, collector) = start_traced_app("1").await;
    let (unsampled_trace, client) = with_new_trace(&app.anonymous(), false);
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let (sampled_trace, client) = with_new_trace(&app.anonymous(), true);
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    collector.trace(&sampled_trace).await;
    assert!(collector.all().iter().all(|span| hex(&span.trace_id) != unsampled_trace));
}

/// K03: a call succeeds whatever trace headers it has, and an invalid header is ignored.
#[tokio::test]
async fn invalid_trace_headers_begin_a_new_trace() {
    let (app, collector) = start_traced_app("1").await;
    let id = unknown_id().replace('-', "");
    let valid_header = format!("00-{id}-{CALLER_SPAN_ID}-01");
    let huge_header = format!("{valid_header}-{}", "a".repeat(4000));
    for invalid_header in [
        "",
        "x",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        &format!("00-{id}-0000000000000000-01"),
        &format!("ff-{id}-{CALLER_SPAN_ID}-01"),
        &format!("00-{}-{CALLER_SPAN_ID}-01", id.to_uppercase()),
        &huge_header,
    ] {
        let client = app.anonymous().with_metadata("traceparent", invalid_header);
        client.auth().get_jwks(GetJwksRequest {}).await.expect(invalid_header);
    }
    let client = app
        .anonymous()
        .with_metadata("traceparent", &valid_header)
        .with_metadata("traceparent", &valid_header);
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let server_spans = || collector.all().iter().filter(|s| s.kind() == SpanKind::Server).count();
    // The seven headers above, and the header that was sent twice.
    wait_until(20, || async { server_spans() == 8 }).await;
    assert!(collector.all().iter().all(|span| hex(&span.trace_id) != id));

    // Other trace headers beside a valid `traceparent` have no effect, and are not exported.
    let (id, client) = with_new_trace(&app.anonymous(), true);
    let client = client
        .with_metadata("tracestate", &"a=b,".repeat(500))
        .with_metadata("baggage", "canary=1");
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let spans = collector.trace(&id).await;
    let span_text = format!("{spans:?}");
    assert!(!span_text.contains("canary") && !span_text.contains("a=b"), "{span_text}");
}

#[tokio::test]
async fn a_failed_call_is_marked_as_error_with_its_type() {
    let collector = Collector::start().await;
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica = TestApp::on_database(&app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    })
    .await;
    let replica_client = acme.on_server(&second_replica.channel);
    replica_client.auth().who_am_i(WhoAmIRequest {}).await.expect("a response");
    let (id, replica_client) = with_new_trace(&acme.on_server(&second_replica.channel), true);
    proxy.cut();
    let reply = replica_client.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    let spans = collector.trace(&id).await;
    let [call] = spans_named(&spans, "tenantry.v1.AuthService/WhoAmI")[..] else {
        panic!("{spans:?}");
    };
    assert!(is_error(call));
    assert_eq!(attribute(call, "rpc.response.status_code").as_deref(), Some("UNAVAILABLE"));
    let store_spans: Vec<_> = spans.iter().filter(|s| s.kind() == SpanKind::Client).collect();
    assert!(store_spans.iter().any(|span| is_error(span)), "{spans:?}");
    let error_types: Vec<_> =
        store_spans.iter().filter_map(|span| attribute(span, "error.type")).collect();
    assert!(!error_types.is_empty(), "{spans:?}");
    assert!(
        error_types.iter().all(|kind| ["connection", "pool_timed_out"].contains(&kind.as_str())),
        "{error_types:?}"
    );

    // A refused token is not an error of the server.
    proxy.pass();
    let (id, anonymous) = with_new_trace(&app.anonymous().on_server(&second_replica.channel), true);
    let reply = anonymous.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_MISSING");
    let spans = collector.trace(&id).await;
    assert!(spans.iter().all(|span| !is_error(span)), "{spans:?}");
}

/// K04: a hanging collector costs only a bounded queue, and a short wait at shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_collector_delays_no_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = ServerProcess::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ])
    .await;
    let client = Client::anonymous(server.channel.clone());
    let make_calls = || async {
        for _ in 0..10_000 {
            client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        }
    };
    make_calls().await;
    let memory_before = server.proc_status_number("VmRSS");
    make_calls().await;
    // In KiB. An unbounded queue would grow by more than one KiB for each of the 10,000 spans. The
    // bounded queue, and the free memory that the allocator keeps, took up to 6 MiB on a busy
    // machine.
    let growth = server.proc_status_number("VmRSS").saturating_sub(memory_before);
    assert!(growth < 8192, "{growth} KiB");
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(15));
}

/// N34: the log says that the collector accepts no traces.
#[tokio::test]
async fn the_log_says_that_the_collector_is_unavailable() {
    let server = ServerProcess::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ])
    .await;
    Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let message = "the collector accepts no traces; they are dropped";
    wait_until(20, || async { !server.log_events(message).is_empty() }).await;
    assert_eq!(server.log_events(message)[0]["collector"], "http://127.0.0.1:1");
}
