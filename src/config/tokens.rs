//! Settings of signing keys, and lifetimes of tokens and sessions.

use std::time::Duration;

use super::{
    transit,
    values::{DAY, Reader, Values},
};
use crate::{
    secrets::transit::TransitConnection,
    tokens::{KeyPaths, KeySource, TransitKeys},
};

/// Signing keys, and lifetimes of tokens and sessions.
pub struct Tokens {
    /// The source of the signing keys.
    pub keys: KeySource,
    /// The `iss` claim of tokens.
    pub issuer: String,
    /// The `aud` claim of access tokens.
    pub audience: String,
    /// The lifetimes of tokens and sessions.
    pub lifetimes: Lifetimes,
}

/// The lifetimes of tokens and sessions.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Lifetime of an access token.
    pub access: Duration,
    /// Lifetime of a refresh token. A session ends if it is not refreshed for this time.
    pub refresh: Duration,
    /// Maximum lifetime of a session, also when it is refreshed.
    pub session: Duration,
}

impl Tokens {
    pub(super) fn read(reader: &mut Reader<'_>, key_service: Option<TransitConnection>) -> Self {
        Self {
            keys: read_key_source(reader, key_service),
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

/// Parses and checks only the settings of signing keys; `None` when neither key
/// files nor a key service are configured.
///
/// # Errors
/// Fails with one message that lists every invalid setting.
pub fn signing_keys(values: &Values) -> anyhow::Result<Option<KeySource>> {
    let is_off = |name| values.get(name).is_none_or(|text| text == "off");
    if is_off("JWT_REFRESH_PRIVATE_KEY_PATH") && is_off("TRANSIT_URL") {
        return Ok(None);
    }
    let mut reader = Reader::new(values);
    let key_service = transit::read(&mut reader);
    let source = read_key_source(&mut reader, key_service);
    reader.finish()?;
    Ok(Some(source))
}

/// Reads the source of the keys: the key service if it is configured, otherwise files.
fn read_key_source(reader: &mut Reader<'_>, key_service: Option<TransitConnection>) -> KeySource {
    let Some(service) = key_service else {
        return KeySource::Files(KeyPaths {
            access_private: reader.path("JWT_ACCESS_PRIVATE_KEY_PATH"),
            access_public: reader.path("JWT_ACCESS_PUBLIC_KEY_PATH"),
            refresh_private: reader.path("JWT_REFRESH_PRIVATE_KEY_PATH"),
            refresh_public: reader.path("JWT_REFRESH_PUBLIC_KEY_PATH"),
        });
    };
    KeySource::Transit(TransitKeys {
        service,
        access: reader.text("JWT_ACCESS_TRANSIT_KEY"),
        refresh: reader.text("JWT_REFRESH_TRANSIT_KEY"),
    })
}
