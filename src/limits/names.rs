//! Names of the counters in Redis and in the replicas. The names have a fixed length for any input,
//! and reveal neither email nor IP address.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Builder;

use crate::{
    ids::TenantId,
    tokens::{Keyring, Renew},
};

/// The label with which the key is derived from the keyring's secret.
const LABEL: &str = "tenantry limit names";

/// Number of HMAC bytes in a name. 16 bytes make collisions negligible.
const NAME_BYTES: usize = 16;

/// Prefix length of an IPv6 network, in bits. The smallest network of one customer is a /64
/// (RFC 6177).
const NETWORK_BITS: u32 = 64;

/// Derives the names of counters with a secret key.
pub struct CounterNames(ArcSwap<hmac::Key>);

impl CounterNames {
    /// Derives the key of the names from the keyring's secret.
    ///
    /// # Errors
    /// When the key cannot be derived.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self(ArcSwap::from_pointee(derive_key(keyring)?)))
    }

    /// The name of a tenant is its id. The id is not secret, and is the hash tag of the tenant's
    /// Redis keys.
    pub(super) fn tenant(tenant: TenantId) -> String {
        tenant.to_string()
    }

    pub(super) fn placeholder_tenant(&self, id_or_slug: &str) -> TenantId {
        let id = self.hmac(&[b"tenant", id_or_slug.as_bytes()]);
        TenantId(Builder::from_custom_bytes(id).into_uuid())
    }

    pub(super) fn placeholder_tenant_of_network(&self, ip: Option<IpAddr>) -> TenantId {
        let octets = ip.map(|ip| octets(network(ip))).unwrap_or_default();
        let id = self.hmac(&[b"tenant of network", &octets]);
        TenantId(Builder::from_custom_bytes(id).into_uuid())
    }

    pub(super) fn network(&self, ip: IpAddr) -> String {
        self.encoded_hmac(&[b"network", &octets(network(ip))])
    }

    /// The name of a tenant's account, whether the tenant and the account exist or not.
    pub(super) fn account(&self, tenant: &str, normalized_email: &str) -> String {
        self.encoded_hmac(&[b"account", tenant.as_bytes(), normalized_email.as_bytes()])
    }

    /// The name of an email address, across all tenants.
    pub(super) fn mailbox(&self, normalized_email: &str) -> String {
        self.encoded_hmac(&[b"mailbox", normalized_email.as_bytes()])
    }

    fn encoded_hmac(&self, parts: &[&[u8]]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.hmac(parts))
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; NAME_BYTES] {
        let mut context = hmac::Context::with_key(&self.0.load());
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; NAME_BYTES];
        bytes.copy_from_slice(&context.sign().as_ref()[..NAME_BYTES]);
        bytes
    }
}

impl Renew for CounterNames {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.0.store(Arc::new(derive_key(keyring)?));
        Ok(())
    }
}

fn derive_key(keyring: &Keyring) -> anyhow::Result<hmac::Key> {
    let secrets = keyring.derive(LABEL)?;
    let secret = secrets.first().context("no secret for the names of limits")?;
    Ok(hmac::Key::new(HMAC_SHA256, secret))
}

/// The network of an address: the IPv4 address itself, or the /64 of the IPv6 address.
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let mask = u128::MAX << (128 - NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G03: all addresses of one IPv6 /64 are in one network. Each IPv4 address is a network.
    #[test]
    fn addresses_of_one_customer_are_in_one_network() {
        let network_of = |text: &str| network(text.parse().expect("the address is valid"));
        assert_eq!(network_of("2001:db8::1"), network_of("2001:db8:0:0:ffff::9"));
        assert_ne!(network_of("2001:db8:0:1::1"), network_of("2001:db8:0:2::1"));
        assert_eq!(network_of("::ffff:192.0.2.7"), network_of("192.0.2.7"));
        assert_ne!(network_of("192.0.2.7"), network_of("192.0.2.8"));
    }
}
