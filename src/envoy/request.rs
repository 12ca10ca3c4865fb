//! Reads Envoy's `CheckRequest`.

use std::{collections::HashMap, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::proto::{Address, AttributeContext, CheckRequest, HttpRequest};
use crate::{
    error::{Error, Result},
    permissions::{Permission, Scope},
    proto::v1::ErrorReason,
};

/// The key of the required permission in the context extensions of a route.
const PERMISSION_KEY: &str = "permission";
/// The key whose only valid value, `authenticated`, means that no permission is required.
const ACCESS_KEY: &str = "access";
/// The prefix of the keys of the scope whose values are text.
const SCOPE_PREFIX: &str = "scope.";
/// The prefix of the keys of the scope whose values are JSON: a number, a boolean or a text.
const SCOPE_JSON_PREFIX: &str = "scope_json.";

/// 2^53. From this number on, a JSON number (a double) can't represent each whole number exactly.
/// So numbers of this size are refused, as in the scope of a `Check` call.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

/// Maximum number of characters of an extension's name that an error message shows.
const MAX_SHOWN_CHARACTERS: usize = 100;

/// The headers that are read: the token, the tenant and the client's address.
const READ_HEADERS: [&str; 6] = [
    "authorization",
    "x-tenant-id",
    "x-organization-slug",
    "x-tenant-id-bin",
    "x-organization-slug-bin",
    "x-forwarded-for",
];

/// The request that Envoy asks about, and the requirement of the request's route.
pub(super) struct CheckedRequest<'a> {
    pub(super) headers: HeaderMap,
    /// The address that is connected to Envoy: of the client, or of a proxy in front of Envoy.
    pub(super) client_of_envoy: Option<IpAddr>,
    pub(super) requirement: Requirement<'a>,
}

/// The reason why a `CheckRequest` can't be decided.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The configuration of the route is not valid. The text describes the problem.
    InvalidRoute(String),
    /// The request that Envoy asks about is refused.
    Refused(Error),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The requirement of a route.
#[derive(Debug, PartialEq)]
pub(super) enum Requirement<'a> {
    /// A valid access token.
    Authenticated,
    /// A valid access token, whose subject must hold this permission in the scope.
    Permission { permission: Permission<'a>, scope: Scope },
}

impl<'a> CheckedRequest<'a> {
    /// Reads a `CheckRequest`.
    ///
    /// # Errors
    /// [`ReadError::Refused`] with `INVALID_ARGUMENT` when a header is malformed, and
    /// [`ReadError::InvalidRoute`] when the route has no valid requirement.
    pub(super) fn read(request: &'a CheckRequest) -> Result<Self, ReadError> {
        let Some(attributes) = &request.attributes else {
            return Err(invalid_route("the check request has no attributes"));
        };
        let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let requirement = read_requirement(&attributes.context_extensions)?;
        let headers = http.map(read_headers).transpose()?.unwrap_or_default();
        let client_of_envoy = read_source(attributes);
        Ok(Self { headers, client_of_envoy, requirement })
    }
}

fn invalid_route(problem: impl Into<String>) -> ReadError {
    ReadError::InvalidRoute(problem.into())
}

/// Reads the requirement of a route. A route without a requirement is an error, so that a forgotten
/// configuration never allows a request.
fn read_requirement(extensions: &HashMap<String, String>) -> Result<Requirement<'_>, ReadError> {
    let invalid = |problem: &str| Err(invalid_route(problem));
    match (extensions.get(PERMISSION_KEY), extensions.get(ACCESS_KEY).map(String::as_str)) {
        (Some(name), None) => {
            let permission =
                Permission::parse_without_wildcards("permission", name).map_err(|_| {
                    invalid_route("the route's permission is not of the form resource:action")
                })?;
            Ok(Requirement::Permission { permission, scope: read_scope(extensions)? })
        }
        (None, Some("authenticated")) => Ok(Requirement::Authenticated),
        (None, None) => invalid("the route has no `permission` and no `access` extension"),
        (Some(_), Some(_)) => {
            invalid("the route has both a `permission` and an `access` extension")
        }
        (None, Some(_)) => invalid("the route has an `access` that is not `authenticated`"),
    }
}

/// Reads the scope of a route's requirement.
fn read_scope(extensions: &HashMap<String, String>) -> Result<Scope, ReadError> {
    let mut scope = Scope::new();
    for (extension, text) in extensions {
        let (key, value) = if let Some(key) = extension.strip_prefix(SCOPE_PREFIX) {
            (key, Value::String(text.clone()))
        } else if let Some(key) = extension.strip_prefix(SCOPE_JSON_PREFIX) {
            let value = serde_json::from_str(text).ok().filter(is_comparable);
            let value = value.ok_or_else(|| {
                invalid_route(format!(
                    "the extension {} of the route is not a JSON number below 2^53, a boolean or \
                     a text",
                    shortened(extension)
                ))
            })?;
            (key, value)
        } else {
            continue;
        };
        if scope.insert(key.to_owned(), value).is_some() {
            return Err(invalid_route(format!(
                "the route has two extensions for the key {} of the scope",
                shortened(extension)
            )));
        }
    }
    Ok(scope)
}

/// The start of an extension's name, for error messages. Any client can call this service, with a
/// name of any length.
fn shortened(extension: &str) -> String {
    let start: String = extension.chars().take(MAX_SHOWN_CHARACTERS).collect();
    format!("{start:?}")
}

/// Whether a scope may have this value: only values that can be compared exactly.
fn is_comparable(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() < FIRST_INEXACT),
        Value::Bool(_) | Value::String(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Reads the address that is connected to Envoy.
fn read_source(attributes: &AttributeContext) -> Option<IpAddr> {
    let Address::SocketAddress(socket) =
        attributes.source.as_ref()?.address.as_ref()?.address.as_ref()?;
    socket.address.parse().ok()
}

/// Reads the headers in [`READ_HEADERS`]. Envoy sends either raw headers, in which a
/// repeated header stays repeated, or headers whose repeated values it has joined.
fn read_headers(http: &HttpRequest) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let raw_headers = http.header_map.iter().flat_map(|map| &map.headers);
    let raw_headers = raw_headers.map(|header| {
        let has_raw_value = !header.raw_value.is_empty();
        let value = if has_raw_value { &header.raw_value } else { header.value.as_bytes() };
        (&header.key, value)
    });
    let joined_headers = http.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    for (name, value) in raw_headers.chain(joined_headers) {
        let known_name = READ_HEADERS.iter().find(|known| name.eq_ignore_ascii_case(known));
        let Some(name) = known_name else {
            continue;
        };
        let value = HeaderValue::from_bytes(value).map_err(|_| {
            Error::refused(ErrorReason::InvalidMetadata, "a header value is not valid in HTTP")
        })?;
        headers.append(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_route_without_exactly_one_requirement_is_an_error() {
        let route = extensions(&[("access", "authenticated")]);
        assert_eq!(read_requirement(&route).ok(), Some(Requirement::Authenticated));
        let scope: Scope = [("region".to_owned(), "eu".into())].into_iter().collect();
        let permission = Permission::parse("a:b").expect("a permission");
        let expected = Requirement::Permission { permission, scope };
        let route =
            extensions(&[("permission", "a:b"), ("scope.region", "eu"), ("virtual_host", "v")]);
        assert_eq!(read_requirement(&route).ok(), Some(expected));
        for route in [
            &[][..],
            &[("access", "public")],
            &[("permission", "a:*")],
            &[("access", "authenticated"), ("permission", "a:b")],
        ] {
            assert_eq!(read_requirement(&extensions(route)).ok(), None, "{route:?}");
        }
    }

    /// N43: numbers and booleans have their JSON types, and a value of another type is an error.
    #[test]
    fn a_scope_keeps_the_json_types_of_its_values() {
        let read = |pairs: &[(&str, &str)]| read_scope(&extensions(pairs)).ok();
        let scope = read(&[
            ("scope.text", "7"),
            ("scope_json.number", "7"),
            ("scope_json.decimal", " -1.5 "),
            ("scope_json.flag", "true"),
            ("scope_json.quoted", "\"eu\""),
        ]);
        let expected = serde_json::json!({
            "text": "7", "number": 7, "decimal": -1.5, "flag": true, "quoted": "eu",
        });
        assert_eq!(scope.map(Value::Object), Some(expected));
        for value in ["", "eu", "null", "[1]", "{}", "1e400", "9007199254740992", "7 8", "True"] {
            assert_eq!(read(&[("scope_json.key", value)]), None, "{value}");
        }
        assert_eq!(read(&[("scope.key", "7"), ("scope_json.key", "7")]), None);
    }
}
