//! The access token of a client's calls: taken once for all who wait, before the one in
//! use ends.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex as Turn, time::Instant};
use tonic::{Code, Status};

use crate::{
    client::Client,
    v1::{
        ExchangeApiKeyRequest, RefreshRequest, auth_service_client::AuthServiceClient,
        exchange_api_key_request::Credential,
    },
};

/// Which part of a token's life it is used for, in tenths, before the next is taken.
const USED_TENTHS: u32 = 8;

/// What a client proves itself with.
pub(crate) enum Credentials {
    /// The secret of a service account's API key.
    ApiKey(SecretString),
    /// The newest refresh token of a user's session.
    Session { refresh_token: SecretString },
}

impl Credentials {
    pub(crate) fn session(refresh_token: SecretString) -> Self {
        Self::Session { refresh_token }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey(_) => "ApiKey",
            Self::Session { .. } => "Session",
        })
    }
}

/// A token and how long it is good.
pub(crate) struct AccessToken {
    bearer: HeaderValue,
    renew: Instant,
    ends: Instant,
}

impl AccessToken {
    fn new(token: &str, ends: Option<prost_types::Timestamp>) -> Result<Self, Status> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::internal("the server's token can't be sent"))?;
        bearer.set_sensitive(true);
        let ends = ends.and_then(|ends| SystemTime::try_from(ends).ok());
        let life = ends.and_then(|ends| ends.duration_since(now()).ok()).unwrap_or_default();
        let begun = Instant::now();
        Ok(Self { bearer, renew: begun + life / 10 * USED_TENTHS, ends: begun + life })
    }

    /// The `authorization` metadata.
    pub(crate) fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }
}

/// Gives a client its tokens.
pub(crate) struct TokenSource {
    client: Client,
    current: Mutex<Option<Arc<AccessToken>>>,
    /// Whose turn it is to take the next one, with what.
    credentials: Turn<Credentials>,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

impl TokenSource {
    pub(crate) fn new(client: Client, credentials: Credentials) -> Self {
        Self { client, current: Mutex::default(), credentials: Turn::new(credentials) }
    }

    /// The token to call with. Of many that need the next one, one takes it.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<AccessToken>, Status> {
        if let Some(token) = self.known().filter(|token| Instant::now() < token.renew) {
            return Ok(token);
        }
        // To its end, also where the call that asked is given up: a refresh token that was
        // spent for an answer that nobody took would end the session.
        let source = self.clone();
        let taken = tokio::spawn(async move { source.next().await }).await;
        taken.unwrap_or_else(|_| Err(Status::internal("no token was taken")))
    }

    async fn next(&self) -> Result<Arc<AccessToken>, Status> {
        let mut credentials = self.credentials.lock().await;
        let known = self.known();
        if let Some(token) = known.clone().filter(|token| Instant::now() < token.renew) {
            return Ok(token);
        }
        match self.take(&mut credentials).await {
            Ok(token) => {
                let token = Arc::new(token);
                *self.lock() = Some(token.clone());
                Ok(token)
            }
            // There is time left to get it.
            Err(status) => known.filter(|token| Instant::now() < token.ends).ok_or(status),
        }
    }

    /// The server does not accept this token: it is not to be used again.
    pub(crate) fn is_refused(&self, token: &Arc<AccessToken>) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, token)) {
            *current = None;
        }
    }

    async fn take(&self, credentials: &mut Credentials) -> Result<AccessToken, Status> {
        let mut auth = AuthServiceClient::new(self.client.clone());
        match credentials {
            Credentials::ApiKey(secret) => {
                let credential = Some(Credential::ApiKey(secret.expose_secret().to_owned()));
                let request = ExchangeApiKeyRequest { credential, ..Default::default() };
                let got = auth.exchange_api_key(request).await?;
                let got = got.into_inner();
                AccessToken::new(&got.access_token, got.access_expire_time)
            }
            Credentials::Session { refresh_token } => {
                let request = RefreshRequest {
                    refresh_token: refresh_token.expose_secret().to_owned(),
                    request_id: request_id(refresh_token),
                };
                let mut got = auth.refresh(request.clone()).await;
                if got.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                    got = auth.refresh(request).await;
                }
                let got = got?.into_inner();
                *credentials = Credentials::session(got.refresh_token.into());
                AccessToken::new(&got.access_token, got.access_expire_time)
            }
        }
    }

    fn known(&self) -> Option<Arc<AccessToken>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<AccessToken>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token's hash: a refresh may be made again when its answer got lost, also by another
/// process that has the same token, and gets the same pair.
fn request_id(refresh_token: &SecretString) -> String {
    let sum = digest::digest(&digest::SHA256, refresh_token.expose_secret().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(sum)
}

/// Tokens say when they end by the world's clock.
#[expect(clippy::disallowed_methods, reason = "this crate's clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// N20
    #[test]
    fn whoever_has_a_refresh_token_refreshes_it_by_the_same_id() {
        let id = request_id(&"abc".into());
        assert_eq!(id, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        assert_ne!(id, request_id(&"abd".into()));
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let ends = prost_types::Timestamp::from(now() + Duration::from_secs(100));
        let token = AccessToken::new("t", Some(ends)).unwrap();
        assert!(token.renew > Instant::now() && token.renew < token.ends);
        assert!(token.bearer().is_sensitive());
        // One that has ended, or does not say when, is used for the call that asked.
        let ended = AccessToken::new("t", None).unwrap();
        assert!(ended.renew <= Instant::now());
    }
}
