//! Requests to Patroni's REST API, and to etcd.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, de::DeserializeOwned};

use crate::http::request;

/// Timeout of a question. A server that does not answer is asked again.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// Timeout of a switchover.
const SWITCHOVER_LIMIT: Duration = Duration::from_mins(1);

/// The state of a standby, as the leader from which it replicates reports it.
#[derive(Deserialize)]
pub struct Standby {
    /// The name of the standby.
    pub application_name: String,
    pub state: String,
    pub sync_state: String,
}

/// Whether the server confirms that it has the role in the path, such as `/primary`.
pub async fn is_role(rest_address: &str, path: &str) -> bool {
    let reply = request(rest_address, "GET", path, "", QUESTION_LIMIT).await;
    reply.is_ok_and(|reply| status(&reply) == Some("200"))
}

/// The standbys that replicate from this server, as its Postgres reports them.
///
/// # Errors
/// Returns an error when Patroni does not reply.
pub async fn standbys(rest_address: &str) -> anyhow::Result<Vec<Standby>> {
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        replication: Vec<Standby>,
    }
    Ok(get::<State>(rest_address, "/patroni").await?.replication)
}

/// Whether commits wait for this standby, according to the leader.
///
/// # Errors
/// Returns an error when Patroni does not reply.
pub async fn has_synchronous(rest_address: &str, standby: &str) -> anyhow::Result<bool> {
    #[derive(Deserialize)]
    struct Member {
        name: String,
        role: String,
    }
    #[derive(Deserialize)]
    struct State {
        members: Vec<Member>,
    }
    let members = get::<State>(rest_address, "/cluster").await?.members;
    Ok(members.iter().any(|member| member.name == standby && member.role == "sync_standby"))
}

async fn get<T: DeserializeOwned>(rest_address: &str, path: &str) -> anyhow::Result<T> {
    let reply = request(rest_address, "GET", path, "", QUESTION_LIMIT).await?;
    let (_, body) = reply.split_once("\r\n\r\n").context("a reply without a body")?;
    Ok(serde_json::from_str(body)?)
}

/// Whether a member of etcd knows the version of its cluster. Otherwise Patroni would end at its
/// start.
pub async fn is_etcd_ready(address: &str) -> bool {
    let reply = request(address, "GET", "/version", "", QUESTION_LIMIT).await;
    reply.is_ok_and(|reply| status(&reply) == Some("200") && !reply.contains("not_decided"))
}

/// Asks for a switchover.
///
/// # Errors
/// Returns an error when Patroni refuses.
pub async fn switch_over(rest_address: &str, body: &str) -> anyhow::Result<()> {
    let reply = request(rest_address, "POST", "/switchover", body, SWITCHOVER_LIMIT).await?;
    ensure!(status(&reply) == Some("200"), "Patroni refused the switchover: {reply}");
    Ok(())
}

fn status(reply: &str) -> Option<&str> {
    reply.split(' ').nth(1)
}
