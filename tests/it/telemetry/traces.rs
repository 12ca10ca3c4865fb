//! K03, K04: contents of traces, sampling, and the cost when the collector does not answer.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tenantry::proto::v1::{CheckRequest, GetJwksRequest, LoginRequest, WhoAmIRequest};
use tokio::{net::TcpListener, time::Instant};
use tonic::Code;

use super::collector::{Collector, attribute, hex, is_error};
use crate::harness::{Client, PASSWORD, Proxy, Serving, TestApp, refused, unknown_id, until};

const CALLER: &str = "00f067aa0ba902b7";

/// A server that samples this share of the calls without a trace context of their own.
async fn traced(share: &str) -> (TestApp, Collector) {
    let collector = Collector::start().await;
    let app = TestApp::with(|values| {
        values.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
        values.set("OTEL_TRACES_SAMPLER_ARG", share);
    })
    .await;
    (app, collector)
}

/// The id of a new trace, and a client that sends its context.
fn in_trace(client: &Client, sampled: bool) -> (String, Client) {
    let id = unknown_id().replace('-', "");
    let flags = u8::from(sampled);
    let client = client.with("traceparent", &format!("00-{id}-{CALLER}-{flags:02x}"));
    (id, client)
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// K03: a trace covers the call and its store operations.
#[tokio::test]
async fn a_callers_trace_continues_through_every_store() {
    let (app, collector) = traced("0").await;
    let acme = app.tenant("acme").await;
    let (id, client) = in_trace(&app.anonymous(), true);
    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        device_name: "canary".into(),
    };
    client.auth().login(request).await.expect("signs in");
    let spans = collector.trace(&id).await;

    let [call] = named(&spans, "tenantry.v1.AuthService/Login")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!((call.kind(), hex(&call.parent_span_id)), (SpanKind::Server, CALLER.to_owned()));
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "tenantry.v1.AuthService/Login"),
        ("rpc.response.status_code", "OK"),
    ] {
        assert_eq!(attribute(call, key).as_deref(), Some(value));
    }
    let stores: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Client).collect();
    assert!(stores.iter().all(|span| span.parent_span_id == call.span_id), "{spans:?}");
    for (name, system, operation) in [
        ("SELECT find_tenant", "postgresql", "SELECT"),
        ("SELECT sign_in_candidate", "postgresql", "SELECT"),
        ("SELECT open_session", "postgresql", "SELECT"),
        ("EVALSHA", "redis", "EVALSHA"),
    ] {
        let found = named(&spans, name);
        assert!(!found.is_empty(), "{name}: {spans:?}");
        assert_eq!(attribute(found[0], "db.system.name").as_deref(), Some(system));
        assert_eq!(attribute(found[0], "db.operation.name").as_deref(), Some(operation));
        assert!(!is_error(found[0]));
    }
    let span_text = format!("{spans:?}");
    for secret in [acme.email.as_str(), PASSWORD, "canary", "acme", &acme.tenant_id] {
        assert!(!span_text.contains(secret), "{secret}");
    }
}

/// Transactions are traced too. A decision from memory is a span without child spans.
#[tokio::test]
async fn a_decision_from_memory_has_no_store_spans() {
    let (app, collector) = traced("0").await;
    let acme = app.tenant("acme").await;
    let (id, client) = in_trace(&acme, true);
    client.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    let spans = collector.trace(&id).await;
    for name in ["BEGIN", "SELECT users"] {
        assert_eq!(named(&spans, name).len(), 1, "{name}: {spans:?}");
    }
    let question = || CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let is_alone = || async {
        let (id, client) = in_trace(&acme, true);
        client.decide(question()).await;
        collector.trace(&id).await.len() == 1
    };
    until(10, is_alone).await;
}

#[tokio::test]
async fn a_call_that_its_caller_does_not_sample_is_not_recorded() {
    let (app, collector) = traced("1").await;
    let (unsampled, client) = in_trace(&app.anonymous(), false);
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let (sampled, client) = in_trace(&app.anonymous(), true);
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    collector.trace(&sampled).await;
    assert!(collector.all().iter().all(|span| hex(&span.trace_id) != unsampled));
}

/// K03: the call is answered whatever trace headers it has, and an invalid header is ignored.
#[tokio::test]
async fn invalid_trace_headers_begin_a_new_trace() {
    let (app, collector) = traced("1").await;
    let id = unknown_id().replace('-', "");
    let good = format!("00-{id}-{CALLER}-01");
    let huge = format!("{good}-{}", "a".repeat(4000));
    for bad in [
        "",
        "x",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        &format!("00-{id}-0000000000000000-01"),
        &format!("ff-{id}-{CALLER}-01"),
        &format!("00-{}-{CALLER}-01", id.to_uppercase()),
        &huge,
    ] {
        let client = app.anonymous().with("traceparent", bad);
        client.auth().get_jwks(GetJwksRequest {}).await.expect(bad);
    }
    let twice = app.anonymous().with("traceparent", &good).with("traceparent", &good);
    twice.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let count = || collector.all().iter().filter(|s| s.kind() == SpanKind::Server).count();
    until(20, || async { count() == 8 }).await;
    assert!(collector.all().iter().all(|span| hex(&span.trace_id) != id));

    // Further headers beside a valid one do no harm, and are not exported.
    let (id, client) = in_trace(&app.anonymous(), true);
    let client = client.with("tracestate", &"a=b,".repeat(500)).with("baggage", "canary=1");
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
    let acme = app.tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica = TestApp::on(&app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    })
    .await;
    let replica_client = acme.on(&second_replica.channel);
    replica_client.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    let (id, replica_client) = in_trace(&acme.on(&second_replica.channel), true);
    proxy.cut();
    let reply = replica_client.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    let spans = collector.trace(&id).await;
    let [call] = named(&spans, "tenantry.v1.AuthService/WhoAmI")[..] else {
        panic!("{spans:?}");
    };
    assert!(is_error(call));
    assert_eq!(attribute(call, "rpc.response.status_code").as_deref(), Some("UNAVAILABLE"));
    let failed: Vec<_> = spans.iter().filter(|s| s.kind() == SpanKind::Client).collect();
    assert!(failed.iter().any(|span| is_error(span)), "{spans:?}");
    let why: Vec<_> = failed.iter().filter_map(|span| attribute(span, "error.type")).collect();
    assert!(!why.is_empty(), "{spans:?}");
    assert!(
        why.iter().all(|why| ["connection", "pool_timed_out"].contains(&why.as_str())),
        "{why:?}"
    );

    // An error of the caller is no error of the server.
    proxy.pass();
    let (id, anonymous) = in_trace(&app.anonymous().on(&second_replica.channel), true);
    let reply = anonymous.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_MISSING");
    let spans = collector.trace(&id).await;
    assert!(spans.iter().all(|span| !is_error(span)), "{spans:?}");
}

/// K04: a hanging collector costs only a bounded queue, and a short wait at shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_collector_delays_no_call() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", hanging.local_addr().expect("an address"));
    let serving = Serving::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ])
    .await;
    let client = Client::anonymous(serving.channel.clone());
    let ask = || async {
        for _ in 0..10_000 {
            client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        }
    };
    ask().await;
    let before = serving.status("VmRSS");
    ask().await;
    // In KiB: an unbounded queue would need one KiB per span.
    let grown = serving.status("VmRSS").saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
    let began = Instant::now();
    serving.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15));
}
