//! Benchmark of Tenantry. The benchmark mainly compares the cost of decisions with the cost of gRPC
//! itself, on the same machine at the same time.
//!
//! Reading order: [`scenarios`] has one file for each question. Scenarios get servers and data
//! from [`world`], send calls with [`load`], and put their results into [`report`].

mod bare;
mod cores;
mod load;
mod proc;
mod report;
mod scenarios;
mod world;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};

use crate::{
    cores::Cores,
    report::Report,
    scenarios::{Bench, Effort, SCENARIOS, Scenario},
    world::World,
};

/// Maximum number of users with `--quick`.
const QUICK_USERS: u64 = 100_000;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("bare", matches)) => serve_bare(matches),
        _ => bench(&matches),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let names = SCENARIOS.iter().map(|scenario| scenario.name);
    Command::new("tenantry-bench")
        .about("Measure what Tenantry's decisions cost")
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Fewer and shorter rounds, with 100000 users at most"),
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("SCENARIO")
                .action(ArgAction::Append)
                .value_parser(PossibleValuesParser::new(names))
                .help("Run only this scenario; the option can be repeated"),
        )
        .arg(
            Arg::new("users")
                .long("users")
                .value_name("N")
                .value_parser(value_parser!(u64).range(2_000..))
                .default_value("10000000")
                .help("Number of users in the largest database, 2000 at least"),
        )
        .arg(
            Arg::new("keep-data")
                .long("keep-data")
                .action(ArgAction::SetTrue)
                .help("Use the databases that an earlier run kept, and keep them"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_parser(value_parser!(PathBuf))
                .default_value("target/bench")
                .help("Directory for the data of Postgres and Redis, and for the report"),
        )
        .subcommand(
            Command::new("bare")
                .about("Start a minimal server with only gRPC health, for comparison with Tenantry")
                .arg(Arg::new("addr").required(true).value_parser(value_parser!(SocketAddr))),
        )
}

fn serve_bare(matches: &ArgMatches) -> anyhow::Result<()> {
    bare::serve(*matches.get_one("addr").context("no address")?)
}

fn bench(matches: &ArgMatches) -> anyhow::Result<()> {
    let quick = matches.get_flag("quick");
    let mut users = *matches.get_one::<u64>("users").context("no number of users")?;
    let mut effort =
        Effort { rounds: 5, warm_up: Duration::from_secs(1), measured: Duration::from_secs(3) };
    if quick {
        users = users.min(QUICK_USERS);
        effort = Effort {
            rounds: 2,
            warm_up: Duration::from_millis(300),
            measured: Duration::from_secs(1),
        };
    }
    let only_names: Vec<&String> = matches.get_many("only").unwrap_or_default().collect();
    let selected: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| {
            only_names.is_empty() || only_names.iter().any(|name| *name == scenario.name)
        })
        .collect();
    let sizes = scenarios::sizes(&selected, users);
    let dir: &PathBuf = matches.get_one("dir").context("no folder")?;

    let cores = Cores::divide()?;
    let world = World::prepare(dir, cores, &sizes, matches.get_flag("keep-data"))?;
    let report = Report::new(&world)?;
    let mut bench = Bench { world, report, effort, users };
    let mut first_error = None;
    for scenario in selected {
        say(&format!("{}: {}", scenario.name, scenario.about));
        bench.report.begin_scenario(scenario.name);
        // The results of other scenarios stay valid when one scenario fails, so the run
        // continues.
        if let Err(error) = (scenario.run)(&mut bench).context(scenario.name) {
            say(&format!("    {error:#}"));
            first_error.get_or_insert(error);
        }
    }
    let Bench { world, report, .. } = bench;
    say(&report.table());
    report.write(dir)?;
    world.shut_down()?;
    first_error.map_or(Ok(()), Err)
}

/// Prints a line on standard output.
#[expect(clippy::print_stdout, reason = "the output of a command")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Converts a count to `f64`. The conversion is exact up to 2^53, and every count here is far below
/// 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}
