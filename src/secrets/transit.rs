//! Client of a key service with Vault's Transit API. Its keys never leave the service
//! (ASVS 13.3.3).
//!
//! The client blocks, as signing does, so call it off the runtime's threads.

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

/// The address of the key service, and how to authenticate to it.
#[derive(Clone, Debug)]
pub struct TransitAddress {
    /// Base URL of the service.
    pub url: Url,
    /// Mount path of the Transit engine.
    pub mount: String,
    /// File with the access token. It is read at each call, because an agent renews it.
    pub token: PathBuf,
    /// File with the CA certificates of the service, in PEM; `None` for those that the system
    /// trusts.
    pub ca: Option<PathBuf>,
}

/// A client of the key service.
pub struct Transit {
    client: Client,
    address: TransitAddress,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

impl Transit {
    /// Creates a client. It connects at the first request.
    ///
    /// # Errors
    /// When the CA certificates can't be read.
    pub fn new(address: &TransitAddress) -> anyhow::Result<Self> {
        let mut client = Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(path) = &address.ca {
            let shown = path.display();
            let pem = fs::read(path).with_context(|| format!("can't read {shown}"))?;
            let authorities = Certificate::from_pem_bundle(&pem);
            let authorities = authorities.ok().filter(|found| !found.is_empty());
            client = client
                .tls_certs_only(authorities.with_context(|| format!("{shown} has no authority"))?);
        }
        let client = client.build().context("no client for TRANSIT_URL")?;
        Ok(Self { client, address: address.clone() })
    }

    /// Sends a GET request; returns the `data` of the response.
    ///
    /// # Errors
    /// When the service does not answer, or answers with an error or another type of data.
    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        self.ask(self.client.get(self.at(path)?))
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
        self.ask(self.client.post(self.at(path)?).json(body))
    }

    fn at(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.address.url.clone();
        {
            let mut segments =
                url.path_segments_mut().ok().context("TRANSIT_URL can't have a path")?;
            segments.pop_if_empty().push("v1").extend(self.address.mount.split('/')).extend(path);
        }
        Ok(url)
    }

    /// No error contains the request or the response, because they may be secret.
    fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let shown = self.address.token.display();
        let token = fs::read_to_string(&self.address.token)
            .map(SecretString::from)
            .with_context(|| format!("can't read {shown}"))?;
        let answer = request
            .header("x-vault-token", token.expose_secret().trim())
            .header("x-vault-request", "true")
            .send()
            .map_err(|error| {
                anyhow::anyhow!("the key service does not answer: {}", kind(&error))
            })?;
        let status = answer.status();
        ensure!(status.is_success(), "the key service answers {status}");
        let answer: Answer<T> =
            answer.json().ok().context("the key service sends an unexpected response")?;
        Ok(answer.data)
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
