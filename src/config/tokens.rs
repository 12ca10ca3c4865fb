//! Keys, and the lives of tokens and sessions.

use std::time::Duration;

use super::values::{DAY, Reader};
use crate::{
    secrets::transit::TransitAddress,
    tokens::{KeyPaths, KeySource, TransitKeys},
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
    pub(super) fn read(reader: &mut Reader<'_>, service: Option<TransitAddress>) -> Self {
        Self {
            keys: keys(reader, service),
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
fn keys(reader: &mut Reader<'_>, service: Option<TransitAddress>) -> KeySource {
    let Some(service) = service else {
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
