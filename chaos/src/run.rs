//! One run: starts the system, runs workers and nemeses, reads the final state, and checks.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use fastrand::Rng;
use tenantry::proto::v1::AuditEvent;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    checks::{self, TrailEvent, Trails, Violation},
    cluster::{Cluster, ClusterOptions},
    history::Fault,
    model::EFFECT_LIMIT,
    nemesis::{self, Nemesis},
    report::{Report, RunOptions},
    stores::{RedisOption, StoresOption},
    workload::{self, Client, Kind, World},
};

/// Number of tenants that the workload uses and suspends.
const TENANTS: usize = 3;

pub struct Options {
    pub run: RunOptions,
    pub stores: StoresOption,
    pub redis: RedisOption,
    pub nemeses: Vec<Nemesis>,
    /// Whether two faults of different parts are injected at a time.
    pub overlap: bool,
    /// Treats revocations as acknowledged this much earlier, so that the checks must find
    /// violations.
    pub planted_delay: Option<Duration>,
    /// Path of the program of the previous release. The run starts with it.
    pub previous: Option<PathBuf>,
    /// Lets Postgres lose acknowledged commits when it is killed, so that the checks must find
    /// violations.
    pub plants_loss: bool,
    pub dir: PathBuf,
}

/// Runs, prints the report, and writes it. Returns whether there are no violations.
///
/// # Errors
/// Returns an error when the run could not be made, for example because a program is missing.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let mut rng = Rng::with_seed(options.run.seed);
    crate::say(&format!("seed {}", options.run.seed));
    let (cluster, platform) = Cluster::start(ClusterOptions {
        dir: &options.dir,
        stores: &options.stores,
        redis: options.redis,
        replicas: options.run.replicas,
        previous: options.previous.clone(),
        settings: Vec::new(),
    })
    .await?;
    if options.plants_loss {
        cluster.stores.lose_commits().await?;
    }
    let world = World::new(cluster.addresses().await, 1);
    let world = workload::create(world, &platform, TENANTS, &mut rng).await?;

    let mut workers = JoinSet::new();
    for number in 0..options.run.workers {
        // Every third worker reads. The first worker writes, also if it is the only one.
        let kind = if number % 3 == 2 { Kind::Reader } else { Kind::Writer };
        workers.spawn(Client::new(world.clone(), rng.fork(), kind)?.work());
    }
    let mut client = Client::new(world.clone(), rng.fork(), Kind::Writer)?;
    let end = world.history.now() + options.run.duration;
    let faults =
        nemesis::inject_faults(&cluster, &mut client, &options.nemeses, options.overlap, end)
            .await?;
    sleep(end.saturating_sub(world.history.now())).await;
    world.end();
    workers.join_all().await;

    // Calls with an unknown outcome may still take effect.
    sleep(EFFECT_LIMIT).await;
    world.begin_final();
    let trails = workload::read_final_state(&mut client).await.context("the final state")?;
    let broken_trails = cluster.verify_audit().await?;
    cluster.stop().await?;
    finish(options, &world, faults, trails, broken_trails)
}

fn finish(
    options: &Options,
    world: &World,
    faults: Vec<Fault>,
    trails: BTreeMap<usize, Vec<AuditEvent>>,
    broken_trails: Option<String>,
) -> anyhow::Result<bool> {
    let ops = world.history.take();
    let trails: Trails =
        trails.into_iter().map(|(tenant, events)| (tenant, to_trail(events))).collect();
    let mut verdict = checks::check(
        &ops,
        &faults,
        &trails,
        options.stores.failover_may_lose(),
        options.planted_delay,
    );
    verdict.violations.extend(broken_trails.map(|output| Violation {
        invariant: "`tenantry audit verify` finds no fault",
        text: output,
        operations: Vec::new(),
    }));
    let report = Report::new(&options.run, &ops, faults, verdict);
    crate::say(&report.text()?);
    report.write(&options.dir, &ops)?;
    crate::say(&format!("the report is in {}", options.dir.display()));
    Ok(!report.has_violations())
}

fn to_trail(events: Vec<AuditEvent>) -> Vec<TrailEvent> {
    let mut trail: Vec<_> = events
        .into_iter()
        .map(|event| TrailEvent {
            position: event.position,
            op: workload::operation_of(&event.request_id),
            kind: event.kind,
        })
        .collect();
    trail.sort_by_key(|event| event.position);
    trail
}
