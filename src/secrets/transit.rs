//! A key service that speaks Vault's Transit API: keys that never leave it
//! (ASVS 13.3.3).
//!
//! The client blocks, as signing does: it is called off the runtime's threads.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use reqwest::{
    Certificate,
    blocking::{Client, RequestBuilder},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

/// How long the service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where the service is.
#[derive(Clone, Debug)]
pub struct TransitAddress {
    /// Its address.
    pub url: Url,
    /// Where the engine is mounted.
    pub mount: String,
    /// The file with the token, read at each call: an agent renews it.
    pub token: PathBuf,
    /// The file with the service's authority; `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// The service.
pub struct Transit {
    client: Client,
    address: TransitAddress,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

impl Transit {
    /// A client; it connects when it is asked for something.
    ///
    /// # Errors
    /// When the authority can't be read.
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

    /// What is there at a path.
    ///
    /// # Errors
    /// When the service does not answer, or not with that.
    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        self.ask(self.client.get(self.at(path)?))
    }

    /// What a path answers to a body.
    ///
    /// # Errors
    /// When the service does not answer, or not with that.
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

    /// No error repeats what was sent or answered: it may be secret.
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
            answer.json().ok().context("the key service answers something else")?;
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
