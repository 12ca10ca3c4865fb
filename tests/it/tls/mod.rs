//! TLS: connections, client certificates, and certificates that change.

mod clients;
mod files;
mod reload;
mod service_accounts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tenantry::config::Values;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::TestApp;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Signed {
    cert: String,
    key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Signed {
        self.sign_all(&[name])
    }

    fn sign_all(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// The TLS files of a server.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub fn of(authority: &Authority) -> Self {
        let files = Self { dir: tempfile::tempdir().expect("a folder") };
        files.put(&authority.sign("localhost"));
        files
    }

    fn put(&self, signed: &Signed) {
        fs::write(self.path("key.pem"), &signed.key).expect("written");
        fs::write(self.path("cert.pem"), &signed.cert).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn set(&self, values: &mut Values) {
        values.set("TLS_CERT_PATH", text(&self.path("cert.pem")));
        values.set("TLS_KEY_PATH", text(&self.path("key.pem")));
    }

    /// Requires client certificates signed by this authority.
    fn set_with_clients(&self, values: &mut Values, authority: &Authority) {
        self.set(values);
        fs::write(self.path("clients.pem"), authority.pem()).expect("written");
        values.set("TLS_CLIENT_CA_PATH", text(&self.path("clients.pem")));
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A new connection of a client that trusts `trusted`, with or without a client certificate.
fn channel(app: &TestApp, trusted: &Authority, own: Option<&Signed>) -> Channel {
    let mut tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(trusted.pem()));
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.cert, &own.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", app.addr)).expect("a URL");
    endpoint.tls_config(tls).expect("a configuration").connect_lazy()
}

async fn ask(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
}
