//! Settings of the key service (Vault's Transit API).

use url::{Host, Url};

use super::values::Reader;
use crate::secrets::transit::TransitAddress;

/// Reads the address of the key service; `None` when `TRANSIT_URL` is `off`.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<TransitAddress> {
    let url = reader.read("TRANSIT_URL", |text| match text {
        "off" => Ok(None),
        text => service(text).map(Some),
    })?;
    Some(TransitAddress {
        url,
        mount: reader.text("TRANSIT_MOUNT"),
        token: reader.path("TRANSIT_TOKEN_PATH"),
        ca: reader.path_or_off("TRANSIT_CA_PATH"),
    })
}

/// Parses the URL of a key service. The URL must use TLS, except on loopback, because each request
/// contains the access token.
fn service(text: &str) -> Result<Url, String> {
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
        _ => Err("must be an https URL, or an http one of this machine".into()),
    }
}
