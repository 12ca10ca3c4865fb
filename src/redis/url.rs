//! The URL of Redis: one server, Redis Sentinel or Redis Cluster.

use fred::types::config::{Config, Server, ServerConfig};
use url::Url;

const EXAMPLE: &str = "must be a URL like redis://host:port";

/// Reads a URL. The URL of Sentinel and of Cluster may name several hosts, with commas between them
/// or as parameters `node=host:port`.
///
/// # Errors
/// Describes the mistake. The text never contains the URL, because a URL may contain a password.
pub(super) fn parse(text: &str) -> Result<Config, &'static str> {
    let (first, others) = split_hosts(text);
    let url = Url::parse(&first).map_err(|_| EXAMPLE)?;
    let is_sentinel = url.scheme().ends_with("-sentinel");
    let is_cluster = url.scheme().ends_with("-cluster");
    if is_sentinel && !url.query_pairs().any(|(name, _)| name == "sentinelServiceName") {
        return Err(
            "must name the master: redis-sentinel://host:port,host:port?sentinelServiceName=name",
        );
    }
    if is_cluster && !matches!(url.path(), "" | "/" | "/0") {
        return Err("must not name a database, because Redis Cluster has only database 0");
    }
    let mut config = Config::from_url(&first).map_err(|_| EXAMPLE)?;
    match &mut config.server {
        ServerConfig::Sentinel { hosts, .. } => hosts.extend(servers(&others, 26379)?),
        ServerConfig::Clustered { hosts, .. } => hosts.extend(servers(&others, 6379)?),
        _ if others.is_empty() => {}
        _ => {
            return Err("may name several hosts only with redis-sentinel:// or redis-cluster://");
        }
    }
    Ok(config)
}

/// Splits a URL into the URL with only its first host, and the other hosts.
fn split_hosts(text: &str) -> (String, Vec<&str>) {
    let start = text.find("://").map_or(0, |index| index + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |index| start + index);
    let hosts_start = text[start..end].rfind('@').map_or(start, |index| start + index + 1);
    let mut hosts = text[hosts_start..end].split(',');
    let first = hosts.next().unwrap_or_default();
    (format!("{}{first}{}", &text[..hosts_start], &text[end..]), hosts.collect())
}

/// Reads hosts with an optional port.
fn servers(hosts: &[&str], default_port: u16) -> Result<Vec<Server>, &'static str> {
    let server = |host: &&str| {
        let url = Url::parse(&format!("redis://{host}")).ok()?;
        Some(Server::new(url.host_str()?.to_owned(), url.port().unwrap_or(default_port)))
    };
    hosts.iter().map(|host| server(host).ok_or(EXAMPLE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<Vec<String>, &'static str> {
        let hosts = parse(text)?.server.hosts();
        Ok(hosts.iter().map(|server| format!("{}:{}", server.host, server.port)).collect())
    }

    /// H09: a URL may name all sentinels, or several nodes of a cluster.
    #[test]
    fn a_url_names_all_sentinels_or_several_nodes_of_a_cluster() {
        for (text, expected) in [
            ("redis://a", vec!["a:6379"]),
            ("redis-sentinel://a,b:7,c?sentinelServiceName=m", vec!["a:26379", "b:7", "c:26379"]),
            // The hosts of the parameters `node` come first.
            ("redis-sentinel://a/2?sentinelServiceName=m&node=b:7", vec!["b:7", "a:26379"]),
            ("rediss-cluster://a:1,b:2,c", vec!["a:1", "b:2", "c:6379"]),
            ("redis-cluster://user:pass%2Cword@a:1?node=b:2", vec!["b:2", "a:1"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(hosts(text), Ok(expected), "{text}");
        }
        let config = parse("redis-cluster://user:pass%2Cword@a,b").expect("the URL is valid");
        assert_eq!(config.username.as_deref(), Some("user"));
        assert_eq!(config.password.as_deref(), Some("pass,word"));
    }

    /// H09: Sentinel and Redis itself can have different passwords.
    #[test]
    fn sentinels_have_their_own_password() {
        let text = "redis-sentinel://:server@a/2?sentinelServiceName=m&sentinelPassword=sentinel";
        let config = parse(text).expect("the URL is valid");
        assert_eq!((config.password.as_deref(), config.database), (Some("server"), Some(2)));
        let ServerConfig::Sentinel { password, service_name, .. } = config.server else {
            panic!("the server is not Sentinel");
        };
        assert_eq!((password.as_deref(), service_name.as_str()), (Some("sentinel"), "m"));
    }

    /// N36: each mistake in the URL has its own message.
    #[test]
    fn the_error_describes_the_mistake_in_a_url() {
        for (text, expected) in [
            ("redis-sentinel://a:1", "must name the master"),
            ("redis-cluster://a:1/2", "must not name a database"),
            ("redis://a:1,b:2", "may name several hosts only with"),
            ("redis://", EXAMPLE),
            ("redis-cluster://a:1,:2", EXAMPLE),
            ("redis-cluster://a:x", EXAMPLE),
            ("redis-sentinel://a?sentinelServiceName=m&node=b", EXAMPLE),
        ] {
            let message = hosts(text).expect_err(text);
            assert!(message.starts_with(expected), "{text}: {message}");
        }
        for text in ["redis-cluster://a:1/0", "redis-cluster://a:1/"] {
            assert!(hosts(text).is_ok(), "{text}");
        }
    }
}
