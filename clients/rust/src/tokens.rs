//! The access token of a client's calls. One call gets the next token for all calls that wait,
//! before the current token expires.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tonic::{Code, Status};

use crate::{
    client::Client,
    v1::{
        ExchangeApiKeyRequest, RefreshRequest, auth_service_client::AuthServiceClient,
        exchange_api_key_request::Credential,
    },
};

/// The part of a token's lifetime, in tenths, after which the client gets the next token.
const USED_TENTHS: u32 = 8;

/// The credentials of a client.
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

/// An access token, with the times when it is renewed and when it expires.
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

    /// Returns the value of the `authorization` metadata.
    pub(crate) fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }
}

/// Gets and stores the tokens of a client.
pub(crate) struct TokenSource {
    client: Client,
    current: Mutex<Option<Arc<AccessToken>>>,
    /// The lock admits one call at a time to get the next token with these credentials.
    credentials: AsyncMutex<Credentials>,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

impl TokenSource {
    pub(crate) fn new(client: Client, credentials: Credentials) -> Self {
        Self { client, current: Mutex::default(), credentials: AsyncMutex::new(credentials) }
    }

    /// Returns the token to call with. If many calls need the next token, only one of them gets it.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<AccessToken>, Status> {
        if let Some(token) = self.known().filter(|token| Instant::now() < token.renew) {
            return Ok(token);
        }
        // A separate task, which ends even if the waiting call is cancelled. Otherwise the refresh
        // token could be used up while its response is lost, and the next use ends the session.
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
            // The current token is still valid, so a later call can try again.
            Err(status) => known.filter(|token| Instant::now() < token.ends).ok_or(status),
        }
    }

    /// Discards a token that the server refused.
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

/// The `request_id` of a refresh: the hash of the refresh token. With it, a refresh whose response
/// was lost can be repeated and returns the same pair of tokens, also for another process that has
/// the same refresh token.
fn request_id(refresh_token: &SecretString) -> String {
    let sum = digest::digest(&digest::SHA256, refresh_token.expose_secret().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(sum)
}

/// The system time: tokens have an absolute expiry time.
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
    fn the_request_id_is_the_hash_of_the_refresh_token() {
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
        // A token that has expired, or has no expiry time, is used only for the waiting call.
        let ended = AccessToken::new("t", None).unwrap();
        assert!(ended.renew <= Instant::now());
    }
}
