//! Reads Envoy's `CheckRequest`.

use std::{collections::HashMap, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::proto::{Address, AttributeContext, CheckRequest, HttpRequest};
use crate::{
    error::{Error, Result},
    permissions::Scope,
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

/// The lowest positive number that a JSON number can't represent exactly with all its neighbours:
/// 2^53. As for the scope of a Check, such numbers are refused.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

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
pub(super) struct CheckedRequest {
    pub(super) headers: HeaderMap,
    /// The address that is connected to Envoy: of the client, or of a proxy in front of Envoy.
    pub(super) client_of_envoy: Option<IpAddr>,
    pub(super) requirement: Requirement,
}

/// The requirement of a route.
#[derive(Debug, PartialEq)]
pub(super) enum Requirement {
    /// A valid access token.
    Authenticated,
    /// A valid access token, whose subject must hold this permission in the scope.
    Permission { name: String, scope: Scope },
}

impl CheckedRequest {
    /// Reads a `CheckRequest`.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when a header is malformed, and INTERNAL when the route has no
    /// valid requirement.
    pub(super) fn read(request: &CheckRequest) -> Result<Self> {
        let attributes = request.attributes.as_ref();
        let http = attributes.and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
        let requirement = match attributes {
            Some(attributes) => read_requirement(&attributes.context_extensions)?,
            None => return Err(Error::defect("Envoy's check request has no attributes")),
        };
        let headers = http.map(read_headers).transpose()?.unwrap_or_default();
        let client_of_envoy = attributes.and_then(read_source);
        Ok(Self { headers, client_of_envoy, requirement })
    }
}

/// Reads the requirement of a route. A route without a requirement is an error, so that a forgotten
/// configuration never allows a request.
fn read_requirement(extensions: &HashMap<String, String>) -> Result<Requirement> {
    let defect = |text: &'static str| Err(Error::defect(text));
    match (extensions.get(PERMISSION_KEY), extensions.get(ACCESS_KEY).map(String::as_str)) {
        (Some(name), None) => {
            Ok(Requirement::Permission { name: name.clone(), scope: read_scope(extensions)? })
        }
        (None, Some("authenticated")) => Ok(Requirement::Authenticated),
        (None, None) => defect("Envoy's route has no `permission` and no `access` extension"),
        (Some(_), Some(_)) => {
            defect("Envoy's route has both a `permission` and an `access` extension")
        }
        (None, Some(_)) => defect("Envoy's route has an `access` that is not `authenticated`"),
    }
}

/// Reads the scope of a route's requirement.
fn read_scope(extensions: &HashMap<String, String>) -> Result<Scope> {
    let mut scope = Scope::new();
    for (extension, text) in extensions {
        let (key, value) = if let Some(key) = extension.strip_prefix(SCOPE_PREFIX) {
            (key, Value::String(text.clone()))
        } else if let Some(key) = extension.strip_prefix(SCOPE_JSON_PREFIX) {
            let value = serde_json::from_str(text).ok().filter(is_comparable);
            let value = value.ok_or_else(|| {
                let problem = "is not a JSON number below 2^53, a boolean or a text";
                Error::defect(format!("the extension {extension:?} of Envoy's route {problem}"))
            })?;
            (key, value)
        } else {
            continue;
        };
        if scope.insert(key.to_owned(), value).is_some() {
            let text = format!("Envoy's route has two extensions for the scope's key {key:?}");
            return Err(Error::defect(text));
        }
    }
    Ok(scope)
}

/// Whether a scope can be compared with this value.
fn is_comparable(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() < FIRST_INEXACT),
        Value::Bool(_) | Value::String(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn read_source(attributes: &AttributeContext) -> Option<IpAddr> {
    let Address::SocketAddress(socket) =
        attributes.source.as_ref()?.address.as_ref()?.address.as_ref()?;
    socket.address.parse().ok()
}

/// Reads the headers in [`READ_HEADERS`]. A repeated header stays repeated if Envoy sends raw
/// headers; otherwise Envoy joins the values.
fn read_headers(http: &HttpRequest) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let raw_headers = http.header_map.iter().flat_map(|map| &map.headers);
    let raw_headers = raw_headers.map(|header| {
        let is_raw = !header.raw_value.is_empty();
        let value = if is_raw { &header.raw_value } else { header.value.as_bytes() };
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
        let read = |pairs: &[(&str, &str)]| read_requirement(&extensions(pairs)).ok();
        assert_eq!(read(&[("access", "authenticated")]), Some(Requirement::Authenticated));
        let scope: Scope = [("region".to_owned(), "eu".into())].into_iter().collect();
        let expected = Requirement::Permission { name: "a:b".into(), scope };
        let pairs = [("permission", "a:b"), ("scope.region", "eu"), ("virtual_host", "v")];
        assert_eq!(read(&pairs), Some(expected));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("access", "public")]), None);
        assert_eq!(read(&[("access", "authenticated"), ("permission", "a:b")]), None);
    }

    /// N43: numbers and booleans have their JSON types, and a value of another type is an error.
    #[test]
    fn the_values_of_a_scope_have_types() {
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
