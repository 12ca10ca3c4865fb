//! Parsing of Postgres URLs. A URL may name several servers, separated by commas:
//! `postgres://user@db1:5432,db2:5432/tenantry`.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use url::Url;

/// The parameter of libpq that selects the primary among several servers.
const SESSION_ATTRIBUTES: &str = "target_session_attrs";

/// The accepted values of [`SESSION_ATTRIBUTES`]. Other values are refused, because the service
/// always connects to the primary.
const PRIMARY_ATTRIBUTES: [&str; 2] = ["read-write", "primary"];

/// A Postgres server that a URL names.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub options: PgConnectOptions,
    /// Host and port, or the path of the Unix socket. Contains no secret.
    pub address: String,
}

/// Checks that a URL is valid. The error says what the URL must look like.
pub(crate) fn check_url(url: &SecretString) -> Result<(), &'static str> {
    servers(url.expose_secret()).map(drop)
}

/// The servers of a URL, in the order of the URL.
///
/// # Errors
/// When the URL is invalid. The error does not contain the URL, because the URL may contain a
/// password.
pub(super) fn parse(url: &SecretString) -> anyhow::Result<Vec<Server>> {
    servers(url.expose_secret())
        .map_err(|problem| anyhow::anyhow!("a Postgres URL can't be read: it {problem}"))
}

/// The schemes of a Postgres URL.
pub(crate) const SCHEMES: &[&str] = &["postgres", "postgresql"];

/// The error for a URL without the required form.
const FORM: &str = "must be a URL like postgres://user@host/database";

fn servers(url: &str) -> Result<Vec<Server>, &'static str> {
    let server = |url: Url| {
        let options = PgConnectOptions::from_url(&without_session_attributes(url)?);
        let options = options.map_err(|_| FORM)?.application_name("tenantry");
        // An IPv6 address has brackets in a URL, but must not have them in the options.
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        // PgBouncer refuses connections with the parameter `extra_float_digits`, which sqlx sends
        // by default.
        let options = options.host(&host).extra_float_digits(None).disable_statement_logging();
        Ok(Server { address: address(&options), options })
    };
    urls(url)?.into_iter().map(server).collect()
}

/// The URL of the first server. Its role, password and database are the same for all servers.
///
/// # Errors
/// When the URL is invalid.
pub(super) fn first_url(url: &str) -> Result<Url, &'static str> {
    urls(url)?.into_iter().next().ok_or(FORM)
}

/// One URL for each server.
fn urls(url: &str) -> Result<Vec<Url>, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    if !SCHEMES.contains(&scheme) {
        return Err(FORM);
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    // With an unescaped slash in the password, a part of the password would be the host.
    if path.split('?').next().is_some_and(|path| path.contains('@')) {
        return Err("must have a password without / and ?, or with %2F and %3F instead");
    }
    let hosts_start = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(hosts_start);
    // The parser's own error is not returned, because it may contain the password.
    let parse = |host| Url::parse(&format!("{scheme}://{user}{host}{path}")).map_err(|_| FORM);
    hosts.split(',').map(parse).collect()
}

/// The URL without the parameter [`SESSION_ATTRIBUTES`], which sqlx does not know.
fn without_session_attributes(mut url: Url) -> Result<Url, &'static str> {
    let (session_attributes, others): (Vec<_>, Vec<_>) =
        url.query_pairs().into_owned().partition(|(name, _)| name == SESSION_ATTRIBUTES);
    if session_attributes.is_empty() {
        return Ok(url);
    }
    if session_attributes.iter().any(|(_, value)| !PRIMARY_ATTRIBUTES.contains(&value.as_str())) {
        return Err("may have target_session_attrs only as read-write: the service always uses \
                    the primary");
    }
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(others);
    }
    Ok(url)
}

fn address(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> Result<Vec<String>, &'static str> {
        Ok(servers(url)?.into_iter().map(|server| server.address).collect())
    }

    #[test]
    fn a_url_names_one_or_several_servers() {
        for (url, expected) in [
            ("postgres://app@db/tenantry", vec!["db:5432"]),
            ("postgresql://app:p%40w@db:6432", vec!["db:6432"]),
            (
                "postgres://app@db1,db2:6432,[::1]:7432/tenantry?target_session_attrs=read-write",
                vec!["db1:5432", "db2:6432", "[::1]:7432"],
            ),
            ("postgres://app@localhost/tenantry?host=/run/postgresql", vec!["/run/postgresql"]),
        ] {
            assert_eq!(addresses(url), Ok(expected.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn servers_of_one_url_share_user_database_and_parameters() {
        let url = "postgres://app@db1,db2/tenantry?sslmode=require&target_session_attrs=primary";
        for server in servers(url).expect("the URL is valid") {
            assert_eq!(server.options.get_username(), "app");
            assert_eq!(server.options.get_database(), Some("tenantry"));
            assert!(matches!(server.options.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
        }
    }

    #[test]
    fn an_invalid_url_or_a_url_that_selects_a_standby_is_refused() {
        for url in [
            "",
            "db",
            "postgresx:/foo",
            "postgresx://app@db/tenantry",
            "mysql://app@db/tenantry",
            "postgres://app@db:port/tenantry",
            "postgres://app:1234/5x@db/tenantry",
            "postgres://app@db/tenantry?target_session_attrs=any",
            "postgres://app@db/tenantry?target_session_attrs=standby",
        ] {
            assert!(addresses(url).is_err(), "{url}");
        }
    }
}
