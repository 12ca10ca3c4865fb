//! Settings of the key service (Vault's Transit API).

use url::{Host, Url};

use super::values::Reader;
use crate::secrets::transit::TransitConnection;

/// Reads the settings of the connection to the key service; `None` when `TRANSIT_URL` is `off` or
/// invalid. The reader collects the error.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<TransitConnection> {
    let url = reader.read("TRANSIT_URL", |text| match text {
        "off" => Ok(None),
        text => parse_url(text).map(Some),
    })?;
    Some(TransitConnection {
        url,
        mount: reader.text("TRANSIT_MOUNT"),
        token: reader.path("TRANSIT_TOKEN_PATH"),
        ca: reader.path_or_off("TRANSIT_CA_PATH"),
    })
}

/// Parses the URL of a key service. The URL must use TLS, except on loopback, because each request
/// contains the token for the key service.
fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be a URL like https://vault:8200, or off")?;
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err("must be an https URL, or an http URL with a loopback host".into()),
    }
}
