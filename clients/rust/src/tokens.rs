//! The access tokens of a client. The client gets the next token before the current token expires,
//! and only once for all calls that wait.

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

/// The client gets the next token after this many tenths of a token's lifetime.
const RENEW_TENTHS: u32 = 8;

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

/// An access token, with the time from which the client gets the next token, and the expiry time.
pub(crate) struct AccessToken {
    bearer: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
}

impl AccessToken {
    fn new(token: &str, expire_time: Option<prost_types::Timestamp>) -> Result<Self, Status> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::internal("the server's token can't be sent"))?;
        bearer.set_sensitive(true);
        let expiry = expire_time.and_then(|time| SystemTime::try_from(time).ok());
        let lifetime = expiry.and_then(|time| time.duration_since(now()).ok()).unwrap_or_default();
        let now_instant = Instant::now();
        Ok(Self {
            bearer,
            renew_at: now_instant + lifetime / 10 * RENEW_TENTHS,
            expires_at: now_instant + lifetime,
        })
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
    /// Only the task that holds this lock gets the next token.
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

    /// Returns the token for a call. If many calls need the next token, only one request gets it
    /// for all of them.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<AccessToken>, Status> {
        if let Some(token) = self.stored_token().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token);
        }
        // A separate task gets the token, so that it finishes even if the waiting call is
        // cancelled. Otherwise the refresh token could be used up while its response is lost, and
        // the next use of the refresh token would end the session.
        let source = self.clone();
        let task = tokio::spawn(async move { source.fetch_next_token().await });
        task.await
            .unwrap_or_else(|_| Err(Status::internal("the task that gets an access token failed")))
    }

    async fn fetch_next_token(&self) -> Result<Arc<AccessToken>, Status> {
        let mut credentials = self.credentials.lock().await;
        let stored_token = self.stored_token();
        if let Some(token) = stored_token.clone().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token);
        }
        match self.request_token(&mut credentials).await {
            Ok(token) => {
                let token = Arc::new(token);
                *self.lock() = Some(token.clone());
                Ok(token)
            }
            // While the stored token is still valid, it is used, and a later call tries again.
            Err(status) => {
                stored_token.filter(|token| Instant::now() < token.expires_at).ok_or(status)
            }
        }
    }

    /// Discards a token that the server refused.
    pub(crate) fn discard(&self, token: &Arc<AccessToken>) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, token)) {
            *current = None;
        }
    }

    async fn request_token(&self, credentials: &mut Credentials) -> Result<AccessToken, Status> {
        let mut auth = AuthServiceClient::new(self.client.clone());
        match credentials {
            Credentials::ApiKey(secret) => {
                let credential = Some(Credential::ApiKey(secret.expose_secret().to_owned()));
                let request = ExchangeApiKeyRequest { credential, ..Default::default() };
                let response = auth.exchange_api_key(request).await?;
                let response = response.into_inner();
                AccessToken::new(&response.access_token, response.access_expire_time)
            }
            Credentials::Session { refresh_token } => {
                let request = RefreshRequest {
                    refresh_token: refresh_token.expose_secret().to_owned(),
                    request_id: request_id(refresh_token),
                };
                let mut result = auth.refresh(request.clone()).await;
                if result.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                    result = auth.refresh(request).await;
                }
                let response = result?.into_inner();
                *credentials = Credentials::session(response.refresh_token.into());
                AccessToken::new(&response.access_token, response.access_expire_time)
            }
        }
    }

    fn stored_token(&self) -> Option<Arc<AccessToken>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<AccessToken>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `request_id` of a refresh: the hash of the refresh token. A repeated refresh with the same
/// id returns the same pair of tokens. So a client can repeat a refresh whose response was lost,
/// and two processes with the same refresh token get the same pair.
fn request_id(refresh_token: &SecretString) -> String {
    let hash = digest::digest(&digest::SHA256, refresh_token.expose_secret().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hash)
}

/// The system time. It is needed because the server sends an absolute expiry time.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place where this crate reads the system time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// N20: a repeated refresh, and a refresh by another process, have the same request id.
    #[test]
    fn the_request_id_is_the_hash_of_the_refresh_token() {
        let id = request_id(&"abc".into());
        // The SHA-256 of `abc`, in base64url.
        assert_eq!(id, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        assert_ne!(id, request_id(&"abd".into()));
    }

    #[test]
    fn a_token_is_renewed_before_its_expiry() {
        let expire_time = prost_types::Timestamp::from(now() + Duration::from_secs(100));
        let token = AccessToken::new("t", Some(expire_time)).unwrap();
        assert!(token.renew_at > Instant::now() && token.renew_at < token.expires_at);
        assert!(token.bearer().is_sensitive());
        // A token without an expiry time is renewed for the next call.
        let without_expiry = AccessToken::new("t", None).unwrap();
        assert!(without_expiry.renew_at <= Instant::now());
    }
}
