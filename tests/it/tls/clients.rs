//! TLS connections of clients.

use std::time::Duration;

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tenantry::proto::v1::WhoAmIRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{Authority, Files, channel, check_health};
use crate::{
    commands::run,
    harness::{Client, TestApp, within_seconds},
};

#[tokio::test]
async fn calls_are_encrypted_and_plaintext_is_refused() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    let client = Client::anonymous(channel(&app, &authority, None));
    let acme = client.sign_up_tenant("acme").await;
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("an answer");

    check_health(app.channel.clone()).await.expect_err("a connection without TLS fails");
    check_health(channel(&app, &Authority::new(), None))
        .await
        .expect_err("the client trusts another authority");
    let http = app.http.to_string();
    let settings = [("TLS_CERT_PATH", "cert.pem"), ("HTTP_ADDR", http.as_str())];
    let output = run(&["healthcheck"], &settings).await;
    assert!(output.ok, "{output:?}");
}

#[tokio::test]
async fn a_client_that_does_not_negotiate_http2_is_disconnected() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
        roots.add(cert).expect("an authority");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        let stream = TcpStream::connect(app.addr).await.expect("connected");
        let name = "localhost".try_into().expect("a name");
        let tls = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
        if let Ok(mut tls) = tls {
            let mut rest = Vec::new();
            within_seconds(5, tls.read_to_end(&mut rest)).await.ok();
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
}

#[tokio::test]
async fn with_client_authorities_clients_need_a_certificate() {
    let (authority, client_authority) = (Authority::new(), Authority::new());
    let files = Files::create(&authority);
    let app =
        TestApp::with_settings(|values| files.set_with_clients(values, &client_authority)).await;
    let certificate = client_authority.sign("billing.internal");
    check_health(channel(&app, &authority, Some(&certificate))).await.expect("an answer");
    check_health(channel(&app, &authority, None))
        .await
        .expect_err("a client without a certificate is refused");
    let other_certificate = authority.sign("billing.internal");
    check_health(channel(&app, &authority, Some(&other_certificate)))
        .await
        .expect_err("a certificate of another authority is refused");
}

/// G13: the connection is closed after a timeout, and does not delay other clients.
/// J02: the connection does not delay a shutdown.
#[tokio::test]
async fn incomplete_handshakes_are_closed() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| files.set(values)).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(app.addr).await.expect("connected");
        // The header of a record that announces 512 bytes (RFC 8446, section 5.1).
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
        streams.push(stream);
    }
    check_health(channel(&app, &authority, None)).await.expect("an answer");
    let start = Instant::now();
    for stream in &mut streams {
        let mut rest = Vec::new();
        within_seconds(20, stream.read_to_end(&mut rest)).await.ok();
    }
    assert!(start.elapsed() > Duration::from_secs(5), "closed before the timeout of the handshake");
    // Another incomplete handshake does not delay the shutdown.
    let _other_stream = TcpStream::connect(app.addr).await.expect("connected");
    within_seconds(5, app.stop()).await;
}
