//! Checks that the files in the settings can be read.

use super::values::Reader;
use crate::tokens::KeySource;

/// The files of keys and certificates that do not depend on the source of the signing keys.
const FILES: &[&str] = &[
    "MASTER_KEY_PATH",
    "TLS_CERT_PATH",
    "TLS_KEY_PATH",
    "TLS_CLIENT_CA_PATH",
    "PASSWORD_PEPPER_PATH",
];

/// The files of signing keys.
const KEY_FILES: &[&str] = &[
    "JWT_ACCESS_PRIVATE_KEY_PATH",
    "JWT_ACCESS_PUBLIC_KEY_PATH",
    "JWT_REFRESH_PRIVATE_KEY_PATH",
    "JWT_REFRESH_PUBLIC_KEY_PATH",
];

/// The files of the connection to the key service.
const KEY_SERVICE_FILES: &[&str] = &["TRANSIT_TOKEN_PATH", "TRANSIT_CA_PATH"];

/// Adds an error for each file that can't be read.
pub(super) fn check(key_source: &KeySource, reader: &mut Reader<'_>) {
    let source_files = match key_source {
        KeySource::Files(_) => KEY_FILES,
        KeySource::Transit(_) => KEY_SERVICE_FILES,
    };
    for name in source_files.iter().chain(FILES) {
        reader.check_file(name);
    }
}
