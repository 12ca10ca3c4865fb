//! The gRPC channel of a client: adds the access token and a deadline to each call, and retries
//! calls.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION, request::Parts};
use http_body_util::{BodyExt, Full};
use secrecy::SecretString;
use tokio::time::{self, Instant};
use tonic::{
    Code, Status,
    body::Body,
    codegen::Bytes,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tower::{Service, ServiceExt};

use crate::{
    retry,
    tokens::{AccessToken, Credentials, TokenSource},
};

/// Default time until the deadline of a call, including all retries.
const DEADLINE: Duration = Duration::from_secs(5);
/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The header that tells the server the deadline of a call (gRPC over HTTP/2).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Time without data after which the client pings the connection. If no answer arrives within the
/// same time, the client closes the connection.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

/// The server's URL is invalid, or the TLS configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the server's URL or the TLS configuration can't be used")]
pub struct ConnectError(#[from] tonic::transport::Error);

/// Configures the server's URL, TLS, credentials and the default deadline of a [`Client`].
#[derive(Debug)]
#[must_use = "the builder does nothing before `connect`"]
pub struct Builder {
    url: String,
    tls: Option<ClientTlsConfig>,
    credentials: Option<Credentials>,
    deadline: Duration,
}

impl Builder {
    /// Signs in as a service account with the secret of an API key.
    pub fn api_key(mut self, secret: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::ApiKey(SecretString::from(secret.into())));
        self
    }

    /// Continues a user's session with the newest refresh token of the session. From then on, only
    /// this client may refresh the session, because a refresh token works once.
    pub fn session(mut self, refresh_token: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::session(SecretString::from(refresh_token.into())));
        self
    }

    /// Sets the deadline, including all retries, of calls that have no deadline. The default is 5
    /// seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the trusted certificate authorities and the client certificate for `https`. The default
    /// is the system's authorities and no client certificate.
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Builds the client. The client connects at its first call, and reconnects when necessary.
    ///
    /// # Errors
    /// Returns [`ConnectError`] when the URL is invalid or TLS cannot be set up.
    pub fn connect(self) -> Result<Client, ConnectError> {
        let mut endpoint = Endpoint::from_shared(self.url)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_TIME)
            .keep_alive_timeout(KEEPALIVE_TIME)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let tls = self.tls.unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint = endpoint.tls_config(tls)?;
        }
        let anonymous_client =
            Client { channel: endpoint.connect_lazy(), tokens: None, deadline: self.deadline };
        let tokens = self
            .credentials
            .map(|credentials| Arc::new(TokenSource::new(anonymous_client.clone(), credentials)));
        Ok(Client { tokens, ..anonymous_client })
    }
}

/// A channel for the generated clients: `PermissionServiceClient::new(client.clone())`. Cloning
/// is cheap. All clones share the connection and the token.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    tokens: Option<Arc<TokenSource>>,
    deadline: Duration,
}

impl Client {
    /// Starts building a client for the server at this `http` or `https` URL. Without credentials
    /// the client can call only public methods.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder { url: url.into(), tls: None, credentials: None, deadline: DEADLINE }
    }

    /// Returns the same client without a token, for public methods.
    pub(crate) fn anonymous(&self) -> Self {
        Self { tokens: None, ..self.clone() }
    }

    /// Makes a call, with retries until the deadline. A stream has no deadline.
    async fn send(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (mut head, body) = request.into_parts();
        // Every method takes exactly one message, so the whole body can be stored for retries.
        let message = match body.collect().await {
            Ok(message) => message.to_bytes(),
            Err(status) => return status.into_http(),
        };
        let deadline_time = Instant::now() + self.deadline;
        if !retry::is_stream(&path) && !head.headers.contains_key(&GRPC_TIMEOUT) {
            let millis = format!("{}m", self.deadline.as_millis().min(99_999_999));
            let value = HeaderValue::try_from(millis);
            head.headers.extend(value.map(|value| (GRPC_TIMEOUT, value)));
        }
        let call = self.send_with_retries(&path, &head, &message);
        if retry::is_stream(&path) {
            return call.await;
        }
        match time::timeout_at(deadline_time, call).await {
            Ok(response) => response,
            Err(_) => Status::deadline_exceeded("the deadline passed").into_http(),
        }
    }

    async fn send_with_retries(&self, path: &str, head: &Parts, message: &Bytes) -> Response<Body> {
        let mut backoff = retry::backoff();
        let mut has_discarded_token = false;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(status) => return status.into_http(),
            };
            let response = self.send_once(head, message, token.as_deref()).await;
            let wait = match retry::status_in_headers(&response) {
                // The server refuses such a call before the method runs, so any method can be
                // repeated.
                Some(Code::Unauthenticated) if !has_discarded_token && token.is_some() => {
                    has_discarded_token = true;
                    // Both are `Some`: the token comes from the source.
                    self.tokens
                        .iter()
                        .zip(&token)
                        .for_each(|(source, token)| source.discard(token));
                    continue;
                }
                Some(Code::Unavailable) if retry::is_read(path) => backoff.next(),
                _ => None,
            };
            let Some(wait) = wait else { return response };
            time::sleep(wait).await;
        }
    }

    async fn token(&self) -> Result<Option<Arc<AccessToken>>, Status> {
        match &self.tokens {
            Some(tokens) => tokens.current().await.map(Some),
            None => Ok(None),
        }
    }

    async fn send_once(
        &self,
        head: &Parts,
        message: &Bytes,
        token: Option<&AccessToken>,
    ) -> Response<Body> {
        let body = Body::new(Full::new(message.clone()));
        let mut request = Request::from_parts(head.clone(), body);
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.bearer().clone());
        }
        // Every connection error becomes UNAVAILABLE.
        self.channel.clone().oneshot(request).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a call failed without a response");
            Status::unavailable("the server can't be reached").into_http()
        })
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The client is always ready, because each attempt waits for the connection itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.clone().send(request);
        Box::pin(async move { Ok(call.await) })
    }
}
