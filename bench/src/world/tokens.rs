//! Access tokens and refresh tokens, signed with the server's keys.

use std::{
    path::{Path, PathBuf},
    thread,
    thread::available_parallelism,
};

use anyhow::{Context, anyhow};
use secrecy::ExposeSecret;
use tenantry::{
    privacy,
    tokens::{Keyring, SubjectType, TokenContent, TokenKind, pem},
};
use tonic::metadata::{Ascii, MetadataValue};

use super::shape::{self, Shape};

/// Value of the `authorization` metadata: `Bearer` and an access token.
pub type Bearer = MetadataValue<Ascii>;

/// The server's keys.
pub struct Keys {
    /// Keys that sign tokens.
    pub keyring: Keyring,
    /// Path of the master key's file.
    pub master_key_path: PathBuf,
}

/// Reads the keys. Creates them first if they do not exist.
///
/// # Errors
/// Returns an error when the keys cannot be written or read.
pub fn load_keys(dir: &Path) -> anyhow::Result<Keys> {
    pem::ensure(dir, pem::KeyAlgorithm::Rs256)?;
    let master_key_path = master_key_path(dir);
    privacy::ensure_key(&master_key_path)?;
    // Issuer and audience are the defaults of the server's settings.
    let keyring = Keyring::load(&pem::source(dir), "tenantry", "tenantry")?;
    Ok(Keys { keyring, master_key_path })
}

/// Path of the master key's file.
pub fn master_key_path(dir: &Path) -> PathBuf {
    dir.join("master.keys")
}

/// Signs the access tokens of the first `sessions` sessions. A signature takes a millisecond,
/// so all cores sign.
///
/// # Errors
/// Never in practice: loaded keys can sign.
pub fn sign_access_tokens(
    keyring: &Keyring,
    shape: Shape,
    sessions: u64,
) -> anyhow::Result<Vec<Bearer>> {
    let threads = available_parallelism().map_or(1, usize::from);
    let numbers: Vec<u64> = (0..sessions).collect();
    thread::scope(|scope| {
        let handles: Vec<_> = numbers
            .chunks(numbers.len().div_ceil(threads).max(1))
            .map(|chunk| {
                scope.spawn(|| {
                    chunk.iter().map(|number| sign_bearer(keyring, shape, *number)).collect()
                })
            })
            .collect();
        let mut tokens = Vec::new();
        for handle in handles {
            let chunk_tokens: anyhow::Result<Vec<_>> =
                handle.join().map_err(|_| anyhow!("signing panicked"))?;
            tokens.extend(chunk_tokens?);
        }
        Ok(tokens)
    })
}

fn sign_bearer(keyring: &Keyring, shape: Shape, session: u64) -> anyhow::Result<Bearer> {
    let roles = shape.roles_of(shape.session_user(session));
    let content = TokenContent {
        roles: roles.map(|role| format!("role-{role:02}")).collect(),
        ..content(shape, session, tenantry::tokens::new_jti())
    };
    Ok(format!("Bearer {}", sign_token(keyring, TokenKind::Access, content)?).parse()?)
}

/// Signs the refresh token that matches the loaded row of a session. Its `jti` is the session's
/// number.
///
/// # Errors
/// Never in practice: loaded keys can sign.
pub fn refresh_token(keyring: &Keyring, shape: Shape, session: u64) -> anyhow::Result<String> {
    sign_token(keyring, TokenKind::Refresh, content(shape, session, session.to_string()))
}

fn content(shape: Shape, session: u64, jti: String) -> TokenContent {
    let now = tenantry::clock::now();
    TokenContent {
        user: shape::user_id(shape.session_user(session)),
        subject_type: SubjectType::User,
        tenant: shape::tenant(),
        session: shape::session_id(session),
        roles: Vec::new(),
        jti,
        issued_at: now,
        expires_at: now + time::Duration::hours(24),
    }
}

fn sign_token(keyring: &Keyring, kind: TokenKind, content: TokenContent) -> anyhow::Result<String> {
    let token = keyring.sign(kind, &keyring.kid(kind), content).ok().context("a key can't sign")?;
    Ok(token.jwt.expose_secret().to_owned())
}
