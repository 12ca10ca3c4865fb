//! The client's IP address: the address of the peer, or the address that a trusted proxy reports.

use std::{net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of the trusted proxies. When the list is empty, addresses in headers are not
/// read (ASVS 15.3.4).
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The address of the client that sent a call. If the peer is not a trusted proxy, the result
    /// is the peer's address. If the peer is a trusted proxy, the result is the last address in
    /// `x-forwarded-for` that is not a trusted proxy, because the client can forge all earlier
    /// addresses. If all addresses in the header are trusted proxies, the result is the first
    /// address.
    /// `forwarded` and `x-real-ip` are not read.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let values = headers.get_all(&FORWARDED_FOR).iter().rev();
        let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            // The entries before an unreadable entry cannot be trusted, so the result is the
            // address of the proxy that added the unreadable entry.
            let Some(ip) = parse_address(hop) else { break };
            client = ip;
            if !self.trusts(ip) {
                break;
            }
        }
        client
    }

    /// The address of the client whose request a gateway (Envoy) asks about. A gateway reports
    /// `source`, the address of the gateway's peer, and the headers of the client's request. If the
    /// gateway is not a trusted proxy, or reports no `source`, the result is the gateway's address.
    #[must_use]
    pub fn client_behind_gateway(
        &self,
        gateway: IpAddr,
        source: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> IpAddr {
        match source {
            Some(source) if self.trusts(gateway.to_canonical()) => self.client(source, headers),
            _ => gateway,
        }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Parses an address with or without a port.
fn parse_address(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?.trim();
    let plain = text.parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    plain.or_else(with_port).or_else(in_brackets).map(|ip: IpAddr| ip.to_canonical())
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses a comma-separated list of networks or addresses, or `off`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let parse = |text: &str| {
            let text = text.trim();
            text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
        };
        let networks = text.split(',').map(parse).collect::<Option<_>>();
        networks.map(Self).ok_or_else(|| "must be networks like 10.0.0.0/8,::1, or off".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the client for these `x-forwarded-for` headers. The request also has the
    /// headers `x-real-ip` and `forwarded`, which must have no effect.
    fn client(trusted: &str, peer: &str, forwarded_for: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded_for {
            headers.append(&FORWARDED_FOR, value.parse().expect("the header is valid"));
        }
        headers.append("x-real-ip", "9.9.9.9".parse().expect("the header is valid"));
        headers.append("forwarded", "for=9.9.9.9".parse().expect("the header is valid"));
        let trusted: TrustedProxies = trusted.parse().expect("the networks are valid");
        trusted.client(peer.parse().expect("the peer address is valid"), &headers).to_string()
    }

    /// G03: a client cannot choose its address with a header.
    #[test]
    fn addresses_in_headers_are_read_from_trusted_proxies_only() {
        assert_eq!(client("off", "192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.0/8", "10.1.1.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.0/8", "::ffff:10.1.1.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.1.1.1", "10.1.1.2", &["1.1.1.1"]), "10.1.1.2");
    }

    /// G03: addresses before the last hop that is not a trusted proxy are ignored.
    #[test]
    fn the_client_is_the_last_hop_that_is_not_trusted() {
        let client_of =
            |forwarded_for: &[&str]| client("10.0.0.0/8,fd00::/8", "10.1.1.1", forwarded_for);
        assert_eq!(client_of(&["6.6.6.6, 1.1.1.1"]), "1.1.1.1");
        assert_eq!(client_of(&["6.6.6.6, 1.1.1.1, 10.2.2.2"]), "1.1.1.1");
        assert_eq!(client_of(&["6.6.6.6", "1.1.1.1", "10.2.2.2,fd00::7"]), "1.1.1.1");
        assert_eq!(client_of(&["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client_of(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client_of(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client_of(&["1.1.1.1, unknown"]), "10.1.1.1");
        assert_eq!(client_of(&["1.1.1.1, x, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(client_of(&["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
        assert_eq!(client_of(&[""]), "10.1.1.1");
        assert_eq!(client_of(&[]), "10.1.1.1");
    }

    /// N19: the address of the client is read from the report of a trusted gateway only.
    #[test]
    fn the_report_of_a_gateway_is_used_only_if_the_gateway_is_trusted() {
        let client_of = |gateway: &str, source: Option<&str>| {
            let trusted: TrustedProxies = "10.0.0.0/8".parse().expect("the networks are valid");
            let ip = |text: &str| text.parse().expect("the address is valid");
            let mut headers = HeaderMap::new();
            headers
                .insert(&FORWARDED_FOR, "6.6.6.6, 1.1.1.1".parse().expect("the header is valid"));
            trusted.client_behind_gateway(ip(gateway), source.map(ip), &headers).to_string()
        };
        assert_eq!(client_of("10.1.1.1", Some("192.0.2.1")), "192.0.2.1");
        assert_eq!(client_of("10.1.1.1", Some("10.2.2.2")), "1.1.1.1");
        assert_eq!(client_of("10.1.1.1", None), "10.1.1.1");
        assert_eq!(client_of("192.0.2.9", Some("192.0.2.1")), "192.0.2.9");
    }

    #[test]
    fn invalid_networks_are_refused() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/8,", "on"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }
}
