//! Client of a key service with Vault's Transit API. The keys never leave the service
//! (ASVS 13.3.3).
//!
//! The client blocks its thread, as signing with a local key does, so it must not run on a thread
//! of the async runtime.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use reqwest::{
    Certificate,
    blocking::{Client, RequestBuilder},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How to connect to the key service.
#[derive(Clone, Debug)]
pub struct TransitConnection {
    /// Base URL of the service.
    pub url: Url,
    /// Mount path of the Transit engine.
    pub mount: String,
    /// File with the token for the key service. The file is read for each request, because another
    /// program renews the token.
    pub token: PathBuf,
    /// File with the CA certificates of the service, in PEM; `None` for the CA certificates that
    /// the operating system trusts.
    pub ca: Option<PathBuf>,
}

/// A client of the key service.
pub struct Transit {
    client: Client,
    connection: TransitConnection,
}

#[derive(Deserialize)]
struct ApiResponse<T> {
    data: T,
}

impl Transit {
    /// Creates a client. The client connects at the first request.
    ///
    /// # Errors
    /// When the CA certificates can't be read.
    pub fn new(connection: &TransitConnection) -> anyhow::Result<Self> {
        let mut builder = Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(path) = &connection.ca {
            let path_text = path.display();
            let pem = fs::read(path).with_context(|| format!("can't read {path_text}"))?;
            let cas = Certificate::from_pem_bundle(&pem);
            let cas = cas.ok().filter(|certificates| !certificates.is_empty());
            builder = builder.tls_certs_only(
                cas.with_context(|| format!("{path_text} has no valid CA certificate"))?,
            );
        }
        let client = builder.build().context("can't create a client for TRANSIT_URL")?;
        Ok(Self { client, connection: connection.clone() })
    }

    /// Sends a GET request; returns the `data` of the response.
    ///
    /// # Errors
    /// When the service does not respond, or responds with an error or with another type of data.
    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        self.send(self.client.get(self.endpoint(path)?))
    }

    /// Sends a POST request; returns the `data` of the response.
    ///
    /// # Errors
    /// When the service does not respond, or responds with an error or with another type of data.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.send(self.client.post(self.endpoint(path)?).json(body))
    }

    fn endpoint(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.connection.url.clone();
        {
            let mut segments =
                url.path_segments_mut().ok().context("TRANSIT_URL can't have a path")?;
            segments
                .pop_if_empty()
                .push("v1")
                .extend(self.connection.mount.split('/'))
                .extend(path);
        }
        Ok(url)
    }

    /// Sends a request. No error contains the request or the response, because both may be secret.
    fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let path_text = self.connection.token.display();
        let token = fs::read_to_string(&self.connection.token)
            .map(SecretString::from)
            .with_context(|| format!("can't read {path_text}"))?;
        let response = request
            .header("x-vault-token", token.expose_secret().trim())
            .header("x-vault-request", "true")
            .send()
            .map_err(|error| {
                anyhow::anyhow!("the key service does not respond: {}", failure_kind(&error))
            })?;
        let status = response.status();
        ensure!(status.is_success(), "the key service responded with {status}");
        let response: ApiResponse<T> =
            response.json().ok().context("the key service sent an unexpected response")?;
        Ok(response.data)
    }
}

fn failure_kind(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "can't connect"
    } else {
        "the connection broke"
    }
}
