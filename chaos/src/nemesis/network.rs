//! Faults of the network between replicas and stores.

use std::time::Duration;

use tokio::time::sleep;

use super::{Nemesis, Target};
use crate::{cluster::Cluster, proxy::Flow};

/// Delay of each piece of data on a slow network.
const SLOW: Duration = Duration::from_millis(150);

/// Disturbs the connections of replicas to a store.
pub async fn disturb(
    cluster: &Cluster,
    nemesis: Nemesis,
    target: Target,
    duration: Duration,
) -> String {
    let flow = match nemesis {
        Nemesis::CutPostgres | Nemesis::CutRedis => Flow::Cut,
        Nemesis::SlowPostgres | Nemesis::SlowRedis => Flow::Slow(SLOW),
        _ => Flow::Hold,
    };
    let is_postgres =
        matches!(nemesis, Nemesis::CutPostgres | Nemesis::HoldPostgres | Nemesis::SlowPostgres);
    let set = |flow| {
        for (number, links) in cluster.links.iter().enumerate() {
            if target.includes(number) {
                let proxy = if is_postgres { &links.postgres } else { &links.redis };
                proxy.set_flow(flow);
            }
        }
    };
    set(flow);
    sleep(duration).await;
    set(Flow::Pass);
    target.to_string()
}
