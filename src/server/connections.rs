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

/// Counts the open connections.
pub(super) struct Connections {
    open: Arc<BoundedPermits<IpAddr>>,
    gauge: Gauge,
    refused: Family<RefusalLabel, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabel {
    by: &'static str,
}

/// An open connection, which is counted until this value is dropped.
pub(super) struct Open {
    gauge: Gauge,
    _permit: bounded::BoundedPermit<IpAddr>,
}

impl Connections {
    pub(super) fn new(limits: config::Connections, registry: &mut Registry) -> Self {
        let (gauge, refused) = (Gauge::default(), Family::<RefusalLabel, Counter>::default());
        registry.register("tenantry_connections", "gRPC connections that are open", gauge.clone());
        let help = "gRPC connections closed because too many were open";
        registry.register("tenantry_connections_refused", help, refused.clone());
        for by in ["total", "address"] {
            drop(refused.get_or_create(&RefusalLabel { by }));
        }
        Self { open: BoundedPermits::new(limits.total, limits.per_address), gauge, refused }
    }

    /// Counts one more connection; `None` when a limit is reached.
    pub(super) fn open(&self, peer: IpAddr) -> Option<Open> {
        let by = match self.open.open(limits::network(peer)) {
            Ok(permit) => {
                self.gauge.inc();
                return Some(Open { gauge: self.gauge.clone(), _permit: permit });
            }
            Err(TooMany::Total) => "total",
            Err(TooMany::OfOwner) => "address",
        };
        self.refused.get_or_create(&RefusalLabel { by }).inc();
        None
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
