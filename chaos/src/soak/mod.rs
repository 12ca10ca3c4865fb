//! A long run with steady load and without faults: nothing may grow.
//!
//! [`sequences`] sends calls at the rate of [`pace`]. [`sample`] reads the figures (the measured
//! values) of the system, and [`series`] decides whether they grew. docs/reliability.md explains
//! the run.

mod ageing;
mod api;
mod meter;
mod pace;
mod plot;
mod report;
mod sample;
mod sequences;
mod series;
mod setup;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use fastrand::Rng;
use tokio::{
    task::{JoinSet, LocalSet},
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    api::{Api, CallFailed},
    meter::Meter,
    report::{Report, Values},
    sample::Sampler,
    sequences::Mix,
};
use crate::{
    cluster::{Cluster, ClusterOptions},
    stores::{RedisOption, StoresOption},
    workload::PlatformAdmin,
};

/// Number of tenants that exist during the whole run.
const TENANTS: usize = 3;

/// Number of workers that read streams.
const STREAMS: usize = 4;

/// Time between two updates that make ended rows old.
const AGEING: Duration = Duration::from_mins(1);

/// Options of a run.
pub struct Options {
    duration: Duration,
    /// Time between two samples.
    interval: Duration,
    /// Calls per second.
    rate: u32,
    workers: usize,
    replicas: usize,
    /// Whether the run does not delete users, so that its checks must find growth.
    plants_growth: bool,
    dir: PathBuf,
}

pub fn command() -> Command {
    let time = |name, default, help| {
        let parser = humantime::parse_duration;
        Arg::new(name).long(name).value_parser(parser).default_value(default).help(help)
    };
    Command::new("soak")
        .about("Send a steady mix of all calls without faults, and check that nothing grows")
        .arg(time("duration", "1h", "Duration of the load"))
        .arg(time("interval", "5s", "Time between two samples"))
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_parser(value_parser!(u32).range(1..=100_000))
                .default_value("100")
                .help("Calls per second"),
        )
        .arg(crate::number("workers", "32", "Number of calls in progress at the same time"))
        .arg(crate::number("replicas", "2", "Number of replicas"))
        .arg(
            Arg::new("plant-growth")
                .long("plant-growth")
                .action(ArgAction::SetTrue)
                .help("Do not delete users, so that the checks must find growth"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_parser(value_parser!(PathBuf))
                .default_value("target/soak")
                .help("Directory for the data of the stores, the logs and the report"),
        )
}

/// Reads the options.
///
/// # Errors
/// Never: all options have defaults.
pub fn options(matches: &ArgMatches) -> anyhow::Result<Options> {
    Ok(Options {
        duration: *matches.get_one("duration").context("no duration")?,
        interval: *matches.get_one("interval").context("no interval")?,
        rate: *matches.get_one("rate").context("no rate")?,
        workers: crate::count(matches, "workers")?,
        replicas: crate::count(matches, "replicas")?,
        plants_growth: matches.get_flag("plant-growth"),
        dir: matches.get_one::<PathBuf>("dir").context("no directory")?.clone(),
    })
}

/// Runs, prints the report, and writes it. Returns [`Report::is_good`].
///
/// # Errors
/// Returns an error when the run could not be made, for example because a program is missing.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let mail_dir = std::path::absolute(options.dir.join("mails"))?;
    let (cluster, platform) = Cluster::start(ClusterOptions {
        dir: &options.dir,
        stores: &StoresOption::Private,
        redis: RedisOption::Single,
        replicas: options.replicas,
        previous: None,
        settings: settings(&mail_dir.display().to_string()),
    })
    .await?;
    let meter = Arc::new(Meter::new()?);
    let mix = Arc::new(prepare(options, &cluster, &platform, meter.clone(), mail_dir).await?);
    let values = send_and_observe(options, &cluster, &meter, &mix).await?;
    let report = Report::new(options.duration, options.rate, options.replicas, &meter, values);
    crate::say(&report.text()?);
    report.write(&options.dir)?;
    crate::say(&format!("the report, the samples and the plots are in {}", options.dir.display()));
    cluster.stop().await?;
    Ok(report.is_good())
}

/// Sends calls and takes samples until the run ends.
async fn send_and_observe(
    options: &Options,
    cluster: &Cluster,
    meter: &Meter,
    mix: &Arc<Mix>,
) -> anyhow::Result<Values> {
    // One thread is enough for all workers.
    let thread = LocalSet::new();
    let mut rng = Rng::new();
    let mut workers = JoinSet::new();
    for number in 0..options.workers + STREAMS {
        let (mix, rng) = (mix.clone(), rng.fork());
        let work = async move {
            if number < STREAMS { mix.watch(rng).await } else { mix.work(rng).await }
        };
        workers.spawn_local_on(work, &thread);
    }
    let sent = async {
        let values = Box::pin(observe(options, cluster, meter)).await?;
        mix.end();
        workers.join_all().await;
        Ok(values)
    };
    thread.run_until(sent).await
}

/// Takes samples until the run ends.
async fn observe(options: &Options, cluster: &Cluster, meter: &Meter) -> anyhow::Result<Values> {
    let mut sampler = Sampler::new(cluster).await?;
    let mut values = Values::default();
    let began = Instant::now();
    let mut aged_at = began;
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while began.elapsed() < options.duration {
        ticks.tick().await;
        let figures = sampler.sample(cluster, meter).await.context("a sample")?;
        values.add(began.elapsed(), &figures);
        if aged_at.elapsed() >= AGEING {
            aged_at = Instant::now();
            ageing::make_ended_rows_old(&cluster.stores).await.context("old rows")?;
        }
    }
    Ok(values)
}

/// Signs in, and creates the tenants that stay.
async fn prepare(
    options: &Options,
    cluster: &Cluster,
    platform: &PlatformAdmin,
    meter: Arc<Meter>,
    mail_dir: PathBuf,
) -> anyhow::Result<Mix> {
    let addresses = cluster.addresses().await;
    let anonymous = Api::new(&addresses, options.rate, meter.clone())?;
    let sign_in = anonymous.sign_in("platform", &platform.email, &platform.password).await;
    let (_, platform) = sign_in.map_err(|CallFailed| anyhow!("{:?}", meter.failures()))?;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let tenant = setup::create_tenant(&anonymous, &format!("permanent-{number}")).await;
        tenants.push(tenant.with_context(|| format!("{:?}", meter.failures()))?);
    }
    meter.take_latencies();
    Ok(Mix::new(anonymous, platform, tenants, mail_dir, options.plants_growth))
}

/// Settings that let every cache, stream and connection reach its bound within minutes.
fn settings(mail_dir: &str) -> Vec<(&'static str, String)> {
    let settings = [
        ("LOG_LEVEL", "info"),
        ("RATE_LIMIT_PASSWORD_RESET", "off"),
        ("SESSION_RETENTION", "1d"),
        ("MEMORY_TOKENS", "1000"),
        ("MEMORY_SUBJECT_BYTES", "1048576"),
        ("AUDIT_STREAM_LENGTH", "200"),
        ("MAX_CONNECTION_AGE", "5m"),
    ];
    let mail = ("MAIL_URL", format!("file://{mail_dir}"));
    settings.map(|(name, value)| (name, value.to_owned())).into_iter().chain([mail]).collect()
}

/// Converts a count to `f64`. The conversion is exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
