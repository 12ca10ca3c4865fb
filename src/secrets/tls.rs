//! TLS: the server's certificate and the CAs of client certificates. [`super::reload`]
//! loads changed files again. An open connection keeps the configuration with which it was
//! accepted.

use std::{fs, io, path::Path, sync::Arc};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::{
    expiry::{self, ExpiryWatch},
    reload::Reload,
};
use crate::{config::TlsPaths, credentials::api_keys::ClientNames};

/// The ALPN protocol names (RFC 7301) when only gRPC is served, which uses HTTP/2.
const GRPC: &[&[u8]] = &[b"h2"];

/// The ALPN protocol names when gRPC-Web is served too, which uses HTTP/2 or HTTP/1.
const GRPC_AND_WEB: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The TLS configuration of new connections.
pub struct Tls {
    paths: TlsPaths,
    protocols: &'static [&'static [u8]],
    current: ArcSwap<LoadedFiles>,
    expiry: ExpiryWatch,
}

struct LoadedFiles {
    files: Files,
    acceptor: TlsAcceptor,
    /// The end of the certificate's validity.
    not_after: OffsetDateTime,
}

/// The content of the files.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files. Clients may negotiate HTTP/1 when gRPC-Web is served.
    ///
    /// # Errors
    /// When a file is missing, when the certificate and the key do not match, or when the
    /// certificate has expired.
    pub fn load(paths: TlsPaths, serves_web: bool) -> anyhow::Result<Arc<Self>> {
        let protocols = if serves_web { GRPC_AND_WEB } else { GRPC };
        let files = Files::read(&paths)?;
        let loaded = LoadedFiles::new(files, &paths, protocols)?;
        let expiry = ExpiryWatch::default();
        expiry.check(loaded.not_after);
        Ok(Arc::new(Self { paths, protocols, current: ArcSwap::from_pointee(loaded), expiry }))
    }

    /// Registers the gauge of the certificate's expiry.
    pub fn register(&self, registry: &mut Registry) {
        self.expiry.register(registry);
    }

    /// Runs the TLS handshake with a client (RFC 8446, section 4).
    ///
    /// # Errors
    /// When the handshake fails, when the client lacks a required certificate, or when the client
    /// offers no protocol that is served.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.current.load().acceptor.clone();
        let stream = acceptor.accept(stream).await?;
        if stream.get_ref().1.alpn_protocol().is_none() {
            return Err(io::Error::other("the client offers no protocol by ALPN"));
        }
        Ok(stream)
    }
}

/// The names in the client's verified certificate; `None` when the client sent no certificate.
pub fn client_names(stream: &TlsStream<TcpStream>) -> Option<ClientNames> {
    stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(ClientNames::of)
}

impl Reload for Tls {
    const NAME: &str = "certificates";
    const METRIC: &str = "tenantry_certificate_reloads";

    fn reload(&self) -> anyhow::Result<bool> {
        // The certificate can expire although no file changed.
        self.expiry.check(self.current.load().not_after);
        let files = Files::read(&self.paths)?;
        if files == self.current.load().files {
            return Ok(false);
        }
        let loaded = LoadedFiles::new(files, &self.paths, self.protocols)?;
        self.expiry.check(loaded.not_after);
        self.current.store(Arc::new(loaded));
        Ok(true)
    }
}

impl Files {
    fn read(paths: &TlsPaths) -> anyhow::Result<Self> {
        let read_file =
            |path: &Path| fs::read(path).with_context(|| format!("can't read {}", path.display()));
        Ok(Self {
            cert: read_file(&paths.cert)?,
            key: Zeroizing::new(read_file(&paths.key)?),
            client_ca: paths.client_ca.as_deref().map(read_file).transpose()?,
        })
    }
}

impl LoadedFiles {
    fn new(files: Files, paths: &TlsPaths, protocols: &[&[u8]]) -> anyhow::Result<Self> {
        let chain = certificates(&files.cert, &paths.cert)?;
        let not_after = expiry::check_not_expired(&chain, &paths.cert)?;
        let key_path = paths.key.display();
        // The error contains only the path, because the parser's error could contain a part of the
        // key.
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| anyhow::anyhow!("{key_path} has no private key in PEM"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("no supported TLS version")?;
        let config = match (&files.client_ca, &paths.client_ca) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for ca in certificates(pem, path)? {
                    let path_text = path.display();
                    roots
                        .add(ca)
                        .with_context(|| format!("{path_text} has no valid CA certificate"))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build()?)
            }
            _ => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(chain, key).with_context(|| {
            format!("{} and {key_path} do not go together", paths.cert.display())
        })?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self { files, acceptor: TlsAcceptor::from(Arc::new(config)), not_after })
    }
}

fn certificates(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path_text = path.display();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|_| anyhow::anyhow!("{path_text} is not PEM"))?;
    ensure!(!certificates.is_empty(), "{path_text} has no certificate");
    Ok(certificates)
}
