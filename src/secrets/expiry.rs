//! The expiry of the server's certificate: its check, its gauge, and warnings in the log.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use anyhow::{Context, ensure};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::clock;

/// A warning is logged when the certificate expires within this time.
const WARNING_TIME: Duration = Duration::days(14);

/// Returns the end of the validity of a chain's first certificate, which is the server's.
///
/// # Errors
/// When the certificate can't be parsed, or when it has expired.
pub(super) fn check_not_expired(
    chain: &[CertificateDer<'static>],
    path: &Path,
) -> anyhow::Result<OffsetDateTime> {
    let path = path.display();
    let certificate = chain.first().with_context(|| format!("{path} has no certificate"))?;
    let certificate = X509Certificate::from_der(certificate).map(|(_, certificate)| certificate);
    let certificate =
        certificate.ok().with_context(|| format!("{path} is no X.509 certificate"))?;
    let not_after = certificate.validity().not_after.to_datetime();
    ensure!(not_after > clock::now(), "the certificate in {path} expired at {not_after}");
    Ok(not_after)
}

/// Warns when the certificate in use expires soon, and when it has expired.
#[derive(Default)]
pub(super) struct ExpiryWatch {
    /// The end of the certificate's validity, in seconds since 1970.
    not_after: Gauge,
    /// For each of the two warnings, "expires soon" and "has expired": the end of the validity of
    /// the certificate for which the warning was last logged, in seconds since 1970; 0 before.
    warned: [AtomicI64; 2],
}

impl ExpiryWatch {
    pub fn register(&self, registry: &mut Registry) {
        let help = "End of the validity of the TLS certificate, in seconds since 1970";
        let name = "tenantry_tls_certificate_not_after_seconds";
        registry.register(name, help, self.not_after.clone());
    }

    /// Updates the gauge, and logs one warning for each certificate and cause.
    pub fn check(&self, not_after: OffsetDateTime) {
        let not_after_seconds = not_after.unix_timestamp();
        self.not_after.set(not_after_seconds);
        let remaining = not_after - clock::now();
        let [soon, expired] = &self.warned;
        let is_first = |warned: &AtomicI64| {
            warned.swap(not_after_seconds, Ordering::Relaxed) != not_after_seconds
        };
        if remaining <= Duration::ZERO {
            if is_first(expired) {
                tracing::warn!(%not_after, "the TLS certificate has expired; clients refuse it");
            }
        } else if remaining <= WARNING_TIME && is_first(soon) {
            tracing::warn!(%not_after, "the TLS certificate expires soon");
        }
    }
}
