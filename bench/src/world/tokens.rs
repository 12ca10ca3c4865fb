//! Access tokens, signed with the server's own key.

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

/// Value of the `authorization` metadata of one session.
pub type Bearer = MetadataValue<Ascii>;

/// The server's own keys.
pub struct Keys {
    /// Keys that sign tokens.
    pub signing: Keyring,
    /// Path of the master key's file.
    pub master: PathBuf,
}

/// Creates the keys if they do not exist, and reads them.
///
/// # Errors
/// Returns an error when the keys cannot be written or read.
pub fn keys(dir: &Path) -> anyhow::Result<Keys> {
    pem::ensure(dir, pem::KeyAlgorithm::Rs256)?;
    let master = master_key(dir);
    privacy::ensure_key(&master)?;
    // The default issuer and audience of the settings.
    Ok(Keys { signing: Keyring::load(&pem::source(dir), "tenantry", "tenantry")?, master })
}

/// Path of the master key's file.
pub fn master_key(dir: &Path) -> PathBuf {
    dir.join("master.keys")
}

/// Signs the access tokens of the first `sessions` sessions. A signature takes a millisecond,
/// so all cores sign.
///
/// # Errors
/// Never in practice: loaded keys can sign.
pub fn sign(keys: &Keyring, shape: Shape, sessions: u64) -> anyhow::Result<Vec<Bearer>> {
    let threads = available_parallelism().map_or(1, usize::from);
    let all: Vec<u64> = (0..sessions).collect();
    thread::scope(|scope| {
        let shares: Vec<_> = all
            .chunks(all.len().div_ceil(threads).max(1))
            .map(|share| scope.spawn(|| share.iter().map(|id| bearer(keys, shape, *id)).collect()))
            .collect();
        let mut tokens = Vec::new();
        for share in shares {
            let share_tokens: anyhow::Result<Vec<_>> =
                share.join().map_err(|_| anyhow!("signing panicked"))?;
            tokens.extend(share_tokens?);
        }
        Ok(tokens)
    })
}

fn bearer(keys: &Keyring, shape: Shape, session: u64) -> anyhow::Result<Bearer> {
    let roles = shape.roles_of(shape.session_user(session));
    let content = TokenContent {
        roles: roles.map(|role| format!("role-{role:02}")).collect(),
        ..content(shape, session, tenantry::tokens::new_jti())
    };
    Ok(format!("Bearer {}", sign_token(keys, TokenKind::Access, content)?).parse()?)
}

/// The refresh token that a session was loaded with. Its `jti` is the session's number.
///
/// # Errors
/// Never in practice: loaded keys can sign.
pub fn refresh_token(keys: &Keyring, shape: Shape, session: u64) -> anyhow::Result<String> {
    sign_token(keys, TokenKind::Refresh, content(shape, session, session.to_string()))
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

fn sign_token(keys: &Keyring, kind: TokenKind, content: TokenContent) -> anyhow::Result<String> {
    let token = keys.sign(kind, &keys.kid(kind), content).ok().context("a key does not sign")?;
    Ok(token.jwt.expose_secret().to_owned())
}
