//! Names in client certificates (RFC 8705, section 2.1). `store::by_certificate` finds the API key
//! that has one of these names.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, DnsName};
use url::Url;
use webpki::EndEntityCert;

/// The names in the client certificate of a connection. A CA that this server trusts has signed
/// the certificate.
#[derive(Clone, Debug)]
pub struct ClientNames(Arc<[String]>);

impl ClientNames {
    /// The DNS names and URIs among the subject alternative names of a verified certificate.
    /// DNS names are in lower case. A certificate that can't be parsed has no names.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let names = EndEntityCert::try_from(certificate).ok().map(|certificate| {
            let hosts = certificate.valid_dns_names().map(str::to_ascii_lowercase);
            hosts.chain(certificate.valid_uri_names().map(str::to_owned)).collect()
        });
        Self(names.unwrap_or_default())
    }

    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

/// Normalises a name for comparison with the names in certificates: a URI stays unchanged, a DNS
/// name is converted to lower case. Returns `None` when the name is neither a URI nor a DNS name.
#[must_use]
pub fn certificate_name(name: &str) -> Option<String> {
    if name.contains("://") {
        return Url::parse(name).ok().map(|_| name.to_owned());
    }
    let host = name.to_ascii_lowercase();
    DnsName::try_from(host.as_str()).is_ok().then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_name_is_a_dns_name_or_a_uri() {
        let spiffe = "spiffe://example.org/Billing";
        assert_eq!(certificate_name(spiffe).as_deref(), Some(spiffe));
        assert_eq!(certificate_name("Billing.Example.org").as_deref(), Some("billing.example.org"));
        for malformed in ["", "*.example.org", "a b", "://", "CN=billing", "10.0.0.1/8"] {
            assert_eq!(certificate_name(malformed), None, "{malformed}");
        }
    }
}
