//! Limits the number of open connections: in total and per network.

use std::{net::IpAddr, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    concurrency::bounded::{self, BoundedPermits, TooMany},
    config, limits,
};

/// Counts the open connections, and refuses connections above the limits.
pub(super) struct ConnectionLimiter {
    permits: Arc<BoundedPermits<IpAddr>>,
    gauge: Gauge,
    refusals: Family<RefusalLabel, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabel {
    by: &'static str,
}

/// An open connection, which is counted until this value is dropped.
pub(super) struct OpenConnection {
    gauge: Gauge,
    _permit: bounded::BoundedPermit<IpAddr>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: config::Connections, registry: &mut Registry) -> Self {
        let (gauge, refusals) = (Gauge::default(), Family::<RefusalLabel, Counter>::default());
        registry.register("tenantry_connections", "gRPC connections that are open", gauge.clone());
        let help = "gRPC connections closed because too many were open";
        registry.register("tenantry_connections_refused", help, refusals.clone());
        for by in ["total", "address"] {
            drop(refusals.get_or_create(&RefusalLabel { by }));
        }
        Self { permits: BoundedPermits::new(limits.total, limits.per_address), gauge, refusals }
    }

    /// Counts one more connection; `None` when a limit is reached.
    pub(super) fn try_open(&self, peer: IpAddr) -> Option<OpenConnection> {
        let by = match self.permits.acquire(limits::network(peer)) {
            Ok(permit) => {
                self.gauge.inc();
                return Some(OpenConnection { gauge: self.gauge.clone(), _permit: permit });
            }
            Err(TooMany::Total) => "total",
            Err(TooMany::PerOwner) => "address",
        };
        self.refusals.get_or_create(&RefusalLabel { by }).inc();
        None
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
