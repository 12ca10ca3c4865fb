//! Client of a key service with Vault's Transit API. The keys never leave the service
//! (ASVS 13.3.3).
//!
//! The client blocks, like signing with a local key, so it must not run on the runtime's threads.

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

/// The address of the key service, and the token that authenticates the client.
#[derive(Clone, Debug)]
pub struct TransitAddress {
    /// Base URL of the service.
    pub url: Url,
    /// Mount path of the Transit engine.
    pub mount: String,
    /// File with the access token. The file is read at each call, because an agent renews the
    /// token.
    pub token: PathBuf,
    /// File with the CA certificates of the service, in PEM; `None` for the certificates that the
    /// system trusts.
    pub ca: Option<PathBuf>,
}

/// A client of the key service.
pub struct Transit {
    client: Client,
    address: TransitAddress,
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
    pub fn new(address: &TransitAddress) -> anyhow::Result<Self> {
        let mut client = Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(path) = &address.ca {
            let path_text = path.display();
            let pem = fs::read(path).with_context(|| format!("can't read {path_text}"))?;
            let authorities = Certificate::from_pem_bundle(&pem);
            let authorities = authorities.ok().filter(|certificates| !certificates.is_empty());
            client = client.tls_certs_only(
                authorities.with_context(|| format!("{path_text} has no authority"))?,
            );
        }
        let client = client.build().context("no client for TRANSIT_URL")?;
        Ok(Self { client, address: address.clone() })
    }

    /// Sends a GET request; returns the `data` of the response.
    ///
    /// # Errors
    /// When the service does not answer, or answers with an error or another type of data.
    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        self.send(self.client.get(self.endpoint(path)?))
    }

    /// Sends a POST request; returns the `data` of the response.
    ///
    /// # Errors
    /// When the service does not answer, or answers with an error or another type of data.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.send(self.client.post(self.endpoint(path)?).json(body))
    }

    fn endpoint(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.address.url.clone();
        {
            let mut segments =
                url.path_segments_mut().ok().context("TRANSIT_URL can't have a path")?;
            segments.pop_if_empty().push("v1").extend(self.address.mount.split('/')).extend(path);
        }
        Ok(url)
    }

    /// Sends a request. No error contains the request or the response, because both may be secret.
    fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let path_text = self.address.token.display();
        let token = fs::read_to_string(&self.address.token)
            .map(SecretString::from)
            .with_context(|| format!("can't read {path_text}"))?;
        let response = request
            .header("x-vault-token", token.expose_secret().trim())
            .header("x-vault-request", "true")
            .send()
            .map_err(|error| {
                anyhow::anyhow!("the key service does not answer: {}", kind(&error))
            })?;
        let status = response.status();
        ensure!(status.is_success(), "the key service answers {status}");
        let response: ApiResponse<T> =
            response.json().ok().context("the key service sends an unexpected response")?;
        Ok(response.data)
    }
}

fn kind(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it takes too long"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}
