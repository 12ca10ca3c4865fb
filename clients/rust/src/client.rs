//! The channel: deadlines, tries, and whose calls they are.

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

/// How long a call has, with all its tries, unless it is said.
const DEADLINE: Duration = Duration::from_secs(5);
const CONNECTING: Duration = Duration::from_secs(2);
/// How long a call has, as the server is told (gRPC over HTTP/2).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How long a connection may be silent before it is pinged, and then before it is given up.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The server's address can't be one.
#[derive(Debug, thiserror::Error)]
#[error("the server's address can't be used")]
pub struct ConnectError(#[from] tonic::transport::Error);

/// Says how the server is reached, and as whom.
#[derive(Debug)]
#[must_use = "it does nothing before `connect`"]
pub struct Builder {
    url: String,
    tls: Option<ClientTlsConfig>,
    credentials: Option<Credentials>,
    deadline: Duration,
}

impl Builder {
    /// Signs in as a service account, by the secret of an API key.
    pub fn api_key(mut self, secret: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::ApiKey(SecretString::from(secret.into())));
        self
    }

    /// Goes on with a user's sign-in, from the newest refresh token of its session. The
    /// session is this client's from then on: a refresh token works once.
    pub fn session(mut self, refresh_token: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::session(SecretString::from(refresh_token.into())));
        self
    }

    /// How long a call has, with all its tries, where it brings no deadline of its own; 5
    /// seconds unless it is said.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whom to trust, and who this is, over `https`; the system's authorities unless it
    /// is said.
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The client. It connects with its first call, and again whenever it must.
    ///
    /// # Errors
    /// When the address is none, or its TLS can't be set up.
    pub fn connect(self) -> Result<Client, ConnectError> {
        let mut endpoint = Endpoint::from_shared(self.url)?
            .connect_timeout(CONNECTING)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let tls = self.tls.unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint = endpoint.tls_config(tls)?;
        }
        let anonymous =
            Client { channel: endpoint.connect_lazy(), tokens: None, deadline: self.deadline };
        let tokens = self
            .credentials
            .map(|credentials| Arc::new(TokenSource::new(anonymous.clone(), credentials)));
        Ok(Client { tokens, ..anonymous })
    }
}

/// A channel for the generated clients: `PermissionServiceClient::new(client.clone())`. To
/// clone it is cheap, and all its clones share the connection and the token.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    tokens: Option<Arc<TokenSource>>,
    deadline: Duration,
}

impl Client {
    /// A client of the server at this `http` or `https` URL. Without credentials only
    /// public methods can be called.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder { url: url.into(), tls: None, credentials: None, deadline: DEADLINE }
    }

    /// The same without a token, for what is public.
    pub(crate) fn anonymous(&self) -> Self {
        Self { tokens: None, ..self.clone() }
    }

    /// A call with all its tries.
    async fn send(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (mut head, body) = request.into_parts();
        // Every method takes one message.
        let message = match body.collect().await {
            Ok(message) => message.to_bytes(),
            Err(status) => return status.into_http(),
        };
        let until = Instant::now() + self.deadline;
        if !retry::is_stream(&path) && !head.headers.contains_key(&GRPC_TIMEOUT) {
            let millis = format!("{}m", self.deadline.as_millis().min(99_999_999));
            let value = HeaderValue::try_from(millis);
            head.headers.extend(value.map(|value| (GRPC_TIMEOUT, value)));
        }
        let call = self.tries(&path, &head, &message);
        if retry::is_stream(&path) {
            return call.await;
        }
        match time::timeout_at(until, call).await {
            Ok(answered) => answered,
            Err(_) => Status::deadline_exceeded("the deadline passed").into_http(),
        }
    }

    async fn tries(&self, path: &str, head: &Parts, message: &Bytes) -> Response<Body> {
        let mut waits = retry::waits();
        let mut renewed = false;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(status) => return status.into_http(),
            };
            let answer = self.once(head, message, token.as_deref()).await;
            let wait = match retry::refusal(&answer) {
                // Refused before it began: any method may be called again.
                Some(Code::Unauthenticated) if !renewed && token.is_some() => {
                    renewed = true;
                    self.tokens.iter().zip(&token).for_each(|(all, token)| all.is_refused(token));
                    continue;
                }
                Some(Code::Unavailable) if retry::is_read(path) => waits.next(),
                _ => None,
            };
            let Some(wait) = wait else { return answer };
            time::sleep(wait).await;
        }
    }

    async fn token(&self) -> Result<Option<Arc<AccessToken>>, Status> {
        match &self.tokens {
            Some(tokens) => tokens.current().await.map(Some),
            None => Ok(None),
        }
    }

    async fn once(
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
        // However a connection fails, to the caller the server is away.
        self.channel.clone().oneshot(request).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a call was not answered");
            Status::unavailable("the server can't be reached").into_http()
        })
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each try waits for its connection.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.clone().send(request);
        Box::pin(async move { Ok(call.await) })
    }
}
