//! Injects faults into a running Tenantry, and checks the history of its answers.
//!
//! Reading order: [`run`] connects all parts. [`cluster`] is the running system, [`workload`]
//! sends calls and writes the [`history`], and [`nemesis`] injects faults. Afterwards [`checks`]
//! compares the history with the [`model`]. docs/reliability.md explains the invariants. [`soak`]
//! is another kind of run: long, with steady load and without faults.

mod checks;
mod cluster;
mod history;
mod http;
mod model;
mod nemesis;
mod proxy;
mod replica;
mod report;
mod run;
mod soak;
mod stores;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};

use crate::{
    nemesis::{NEMESES, Nemesis},
    report::RunOptions,
    run::Options,
    stores::{RedisOption, StoresOption},
};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match matches.subcommand() {
        Some(("soak", matches)) => {
            soak::options(matches).and_then(|options| runtime?.block_on(soak::run(&options)))
        }
        _ => options(&matches).and_then(|options| runtime?.block_on(run::run(&options))),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn command() -> Command {
    let names = NEMESES.map(|(_, name)| name);
    Command::new("tenantry-chaos")
        .about("Inject faults into a running Tenantry, and check the history of its answers")
        .after_help("Exits with 1 if an invariant was broken or something grew, with 2 if the run failed.")
        .subcommand(soak::command())
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_parser(humantime::parse_duration)
                .default_value("60s")
                .help("Duration of the workload"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_parser(value_parser!(u64))
                .help("Seed of the order of calls and faults; random by default"),
        )
        .arg(
            Arg::new("nemesis")
                .long("nemesis")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(PossibleValuesParser::new(names))
                .help("Inject only this kind of fault; the option can be repeated"),
        )
        .arg(
            Arg::new("overlap")
                .long("overlap")
                .action(ArgAction::SetTrue)
                .help("Inject two faults of different parts at a time, such as Postgres and Redis"),
        )
        .arg(number("replicas", "3", "Number of replicas"))
        .arg(number("workers", "12", "Number of concurrent workers"))
        .arg(
            Arg::new("stores")
                .long("stores")
                .value_name("private|patroni|patroni-async|POSTGRES_URL,REDIS_URL")
                .value_parser(StoresOption::parse)
                .default_value("private")
                .help("Start private stores, also with three Postgres servers under Patroni, whose replication is synchronous or asynchronous; or use running stores, whose data is replaced"),
        )
        .arg(
            Arg::new("previous")
                .long("previous")
                .value_name("PROGRAM")
                .value_parser(value_parser!(PathBuf))
                .help("Start with this program of an earlier release, for the fault change-release"),
        )
        .arg(
            Arg::new("redis")
                .long("redis")
                .value_name("single|sentinel|cluster")
                .value_parser(RedisOption::parse)
                .default_value("single")
                .help("Run one Redis, or start several servers with Sentinel or as a cluster"),
        )
        .arg(
            Arg::new("plant-delay")
                .long("plant-delay")
                .value_name("TIME")
                .value_parser(humantime::parse_duration)
                .help("Treat revocations as acknowledged this much earlier, so that the checks must find violations"),
        )
        .arg(
            Arg::new("plant-loss")
                .long("plant-loss")
                .action(ArgAction::SetTrue)
                .help("Let Postgres acknowledge commits that are not on disk, so that the checks must find violations"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_parser(value_parser!(PathBuf))
                .default_value("target/chaos")
                .help("Directory for the data of the stores, the logs and the report"),
        )
}

/// An option with a number, at least 1.
fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_parser(value_parser!(u64).range(1..))
        .default_value(default)
        .help(help)
}

fn options(matches: &ArgMatches) -> anyhow::Result<Options> {
    let stores: &StoresOption = matches.get_one("stores").context("no stores")?;
    let redis: RedisOption = *matches.get_one("redis").context("no Redis")?;
    // Without the option, all kinds of faults are chosen.
    let chosen_names: Vec<&String> = matches.get_many("nemesis").unwrap_or_default().collect();
    let is_chosen =
        |name: &str| chosen_names.is_empty() || chosen_names.iter().any(|chosen| *chosen == name);
    let previous: Option<PathBuf> = matches.get_one("previous").cloned();
    let can_change = |nemesis| nemesis != Nemesis::ChangeRelease || previous.is_some();
    let nemeses: Vec<Nemesis> = NEMESES
        .iter()
        .filter(|(nemesis, name)| {
            is_chosen(name) && nemesis.suits(stores, redis) && can_change(*nemesis)
        })
        .map(|(nemesis, _)| *nemesis)
        .collect();
    ensure!(!nemeses.is_empty(), "these faults need other stores or --previous");
    Ok(Options {
        run: RunOptions {
            seed: matches.get_one("seed").copied().unwrap_or_else(|| fastrand::u64(..1_000_000)),
            duration: *matches.get_one::<Duration>("duration").context("no duration")?,
            replicas: count(matches, "replicas")?,
            workers: count(matches, "workers")?,
        },
        stores: stores.clone(),
        redis,
        nemeses,
        overlap: matches.get_flag("overlap"),
        previous,
        plants_loss: matches.get_flag("plant-loss"),
        planted_delay: matches.get_one("plant-delay").copied(),
        dir: matches.get_one::<PathBuf>("dir").context("no directory")?.clone(),
    })
}

/// Reads an option of [`number`].
fn count(matches: &ArgMatches, name: &str) -> anyhow::Result<usize> {
    Ok(usize::try_from(*matches.get_one::<u64>(name).context("no number")?)?)
}

/// Prints a line on standard output.
#[expect(clippy::print_stdout, reason = "the output of a command")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
