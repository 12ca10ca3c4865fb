//! Rules for pairs of settings: values that are valid alone, but make no sense together.

use std::{net::SocketAddr, time::Duration};

use super::{server::Server, tokens::Tokens, values::Reader};
use crate::tokens::KeySource;

/// Adds an error for each pair of settings that makes no sense. A setting that is invalid alone has
/// the default of its type, and is not reported again.
pub(super) fn check(tokens: &Tokens, server: &Server, reader: &mut Reader<'_>) {
    let lifetimes = tokens.lifetimes;
    let access = ("JWT_ACCESS_EXPIRES_IN", lifetimes.access);
    let refresh = ("JWT_REFRESH_EXPIRES_IN", lifetimes.refresh);
    let session = ("SESSION_EXPIRES_IN", lifetimes.session);
    check_order(reader, access, refresh);
    // If a default lifetime is longer than that of the session, this is no error, because the
    // lifetime of the session applies then.
    for lifetime in [access, refresh] {
        if reader.is_explicit(lifetime.0) {
            check_order(reader, lifetime, session);
        }
    }
    let connections = server.connections;
    let (name, total_name) = ("MAX_CONNECTIONS_PER_ADDRESS", "MAX_CONNECTIONS");
    let total = connections.total;
    // A total of 0 is the default of the type: MAX_CONNECTIONS is invalid alone.
    if reader.is_explicit(name) && total > 0 && total < connections.per_address {
        reader.add_error(name, &format!("must be at most {total_name}, which is {total}"));
    }
    check_addresses(server, reader);
    if let KeySource::Transit(keys) = &tokens.keys
        && keys.access == keys.refresh
        && !keys.access.is_empty()
    {
        reader.add_error("JWT_REFRESH_TRANSIT_KEY", "must differ from JWT_ACCESS_TRANSIT_KEY");
    }
}

/// Adds an error if the first setting is above the second setting. Each setting is a name and a
/// value.
fn check_order(
    reader: &mut Reader<'_>,
    (name, value): (&str, Duration),
    (max_name, max_value): (&str, Duration),
) {
    // A maximum of zero is the default of the type: the second setting is invalid alone.
    if value > max_value && !max_value.is_zero() {
        let max = humantime::format_duration(max_value);
        reader.add_error(name, &format!("must be at most {max_name}, which is {max}"));
    }
}

/// Adds an error if gRPC and HTTP would listen on the same address and port.
fn check_addresses(server: &Server, reader: &mut Reader<'_>) {
    let overlap = |a: SocketAddr, b: SocketAddr| {
        let is_same_address =
            a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() == b.port() && a.port() != 0 && is_same_address
    };
    if server.http_addr.is_some_and(|http_addr| overlap(server.addr, http_addr)) {
        reader.add_error("HTTP_ADDR", "must have another port than GRPC_ADDR");
    }
}
