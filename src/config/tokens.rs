//! Keys, and the lives of tokens and sessions.

use std::time::Duration;

use url::{Host, Url};

use super::{DAY, values::Reader};
use crate::{
    tokens::{KeyPaths, KeySource, TransitKeys},
    transit::TransitAddress,
};

/// Keys and lifetimes.
pub struct Tokens {
    /// Where the keys are.
    pub keys: KeySource,
    /// The tokens' `iss`.
    pub issuer: String,
    /// The access tokens' `aud`.
    pub audience: String,
    /// The tokens' and sessions' lives.
    pub lifetimes: Lifetimes,
}

/// The lives of tokens and sessions.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an access token.
    pub access: Duration,
    /// Of a refresh token: a session that is not refreshed for so long ends.
    pub refresh: Duration,
    /// Of a session, whatever is refreshed.
    pub session: Duration,
}

impl Tokens {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            keys: keys(reader),
            issuer: reader.text("JWT_ISSUER"),
            audience: reader.text("JWT_AUDIENCE"),
            lifetimes: Lifetimes {
                access: reader.duration("JWT_ACCESS_EXPIRES_IN", DAY),
                refresh: reader.duration("JWT_REFRESH_EXPIRES_IN", 366 * DAY),
                session: reader.duration("SESSION_EXPIRES_IN", 366 * DAY),
            },
        }
    }
}

/// The keys are in a key service where there is one, else in files.
fn keys(reader: &mut Reader<'_>) -> KeySource {
    let service = reader.read("TRANSIT_URL", |text| match text {
        "off" => Ok(None),
        text => service(text).map(Some),
    });
    let Some(url) = service else {
        return KeySource::Files(KeyPaths {
            access_private: reader.path("JWT_ACCESS_PRIVATE_KEY_PATH"),
            access_public: reader.path("JWT_ACCESS_PUBLIC_KEY_PATH"),
            refresh_private: reader.path("JWT_REFRESH_PRIVATE_KEY_PATH"),
            refresh_public: reader.path("JWT_REFRESH_PUBLIC_KEY_PATH"),
        });
    };
    KeySource::Transit(TransitKeys {
        service: TransitAddress {
            url,
            mount: reader.text("TRANSIT_MOUNT"),
            token: reader.path("TRANSIT_TOKEN_PATH"),
            ca: reader.path_or_off("TRANSIT_CA_PATH"),
        },
        access: reader.text("JWT_ACCESS_TRANSIT_KEY"),
        refresh: reader.text("JWT_REFRESH_TRANSIT_KEY"),
    })
}

/// A key service's address: the token goes there, so nobody may listen.
fn service(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be a URL like https://vault:8200, or off")?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => Err("must be an https URL, or an http one of this machine".into()),
    }
}
