//! How many connections there may be, and where they come from.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{config, limits};

/// The connections that are open.
pub(super) struct Connections {
    limits: config::Connections,
    open: Mutex<OpenOnes>,
    gauge: Gauge,
    refused: Family<Refused, Counter>,
}

#[derive(Default)]
struct OpenOnes {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Refused {
    by: &'static str,
}

/// One that is open, until dropped.
pub(super) struct Open {
    all: Arc<Connections>,
    network: IpAddr,
}

impl Connections {
    pub(super) fn new(limits: config::Connections, registry: &mut Registry) -> Arc<Self> {
        let (gauge, refused) = (Gauge::default(), Family::default());
        registry.register("tenantry_connections", "gRPC connections that are open", gauge.clone());
        let help = "gRPC connections that were closed for their number";
        registry.register("tenantry_connections_refused", help, refused.clone());
        Arc::new(Self { limits, open: Mutex::default(), gauge, refused })
    }

    /// Counts one more; `None` when there are too many.
    pub(super) fn open(self: &Arc<Self>, peer: IpAddr) -> Option<Open> {
        let network = limits::network(peer);
        let mut open = self.lock();
        let from_there = open.by_network.get(&network).copied().unwrap_or_default();
        let by = if open.total >= self.limits.total {
            "total"
        } else if from_there >= self.limits.per_address {
            "address"
        } else {
            open.total += 1;
            open.by_network.insert(network, from_there + 1);
            self.gauge.inc();
            return Some(Open { all: self.clone(), network });
        };
        self.refused.get_or_create(&Refused { by }).inc();
        None
    }

    fn lock(&self) -> MutexGuard<'_, OpenOnes> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.total -= 1;
        self.all.gauge.dec();
        if let Some(count) = open.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&self.network);
            }
        }
    }
}
