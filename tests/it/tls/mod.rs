//! TLS: connections, client certificates, and certificates that change while the server runs.

mod clients;
mod files;
mod reload;
mod service_accounts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tenantry::config::Values;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{TestApp, unique_text};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct CertificateAndKey {
    pub cert: String,
    pub key: String,
}

impl Authority {
    /// Creates an authority with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each authority has a different name, because OpenSSL takes a certificate with the name of
        // its authority for a self-signed certificate.
        params.distinguished_name.push(DnType::CommonName, unique_text());
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Creates a certificate for this DNS name.
    pub fn sign(&self, name: &str) -> CertificateAndKey {
        self.sign_all(&[name])
    }

    fn sign_all(&self, names: &[&str]) -> CertificateAndKey {
        self.sign_until(names, None)
    }

    /// Creates a certificate that is valid until this time from now; `None` for a long time.
    fn sign_until(&self, names: &[&str], validity: Option<time::Duration>) -> CertificateAndKey {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        if let Some(validity) = validity {
            params.not_after = tenantry::clock::now() + validity;
        }
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        CertificateAndKey { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// The TLS files of a server.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// Creates the files with a certificate for `localhost` that this authority signs.
    pub fn create(authority: &Authority) -> Self {
        let files = Self { dir: tempfile::tempdir().expect("a folder") };
        files.write(&authority.sign("localhost"));
        files
    }

    fn write(&self, certificate: &CertificateAndKey) {
        fs::write(self.path("key.pem"), &certificate.key).expect("written");
        fs::write(self.path("cert.pem"), &certificate.cert).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets the settings of a server that uses these files.
    pub fn set(&self, values: &mut Values) {
        values.set("TLS_CERT_PATH", path_text(&self.path("cert.pem")));
        values.set("TLS_KEY_PATH", path_text(&self.path("key.pem")));
    }

    /// Like [`Files::set`], and requires client certificates that this authority signs.
    fn set_with_clients(&self, values: &mut Values, authority: &Authority) {
        self.set(values);
        fs::write(self.path("clients.pem"), authority.pem()).expect("written");
        values.set("TLS_CLIENT_CA_PATH", path_text(&self.path("clients.pem")));
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// A new connection of a client that trusts `trusted`, with or without a client certificate.
fn channel(app: &TestApp, trusted: &Authority, certificate: Option<&CertificateAndKey>) -> Channel {
    let mut tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(trusted.pem()));
    if let Some(certificate) = certificate {
        tls = tls.identity(Identity::from_pem(&certificate.cert, &certificate.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", app.addr)).expect("a URL");
    endpoint.tls_config(tls).expect("a configuration").connect_lazy()
}

/// Calls a method that needs no token.
async fn check_health(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
}
