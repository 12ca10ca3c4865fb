//! The commands of the `tenantry` program.

#[macro_use]
mod output;

mod audit;
mod bootstrap;
mod completions;
mod connect;
mod dev;
mod healthcheck;
mod keys;
mod master_key;
mod migrate;
mod policies;
mod progress;
pub mod provision;
mod reset_password;
mod restored;
mod serve;

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{ArgMatches, Command};

use crate::{config::Values, telemetry};

/// Maximum duration of a command that makes a few changes.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs the command in the program's arguments.
#[must_use]
pub fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let matches = command().get_matches();
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::write_last_line(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The definition of the command line.
#[must_use]
pub fn command() -> Command {
    let with_settings = |name: &'static str, about: &'static str| {
        Values::arguments(Command::new(name).about(about))
    };
    Command::new("tenantry")
        .version(env!("TENANTRY_VERSION"))
        .about("Multi-tenant identity and authorization over gRPC")
        .after_long_help(include_str!("manual.txt"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings("serve", "Serve with an existing Postgres and Redis"))
        .subcommand(with_settings(
            "dev",
            "Serve for development: starts a private Postgres and Redis, migrates, creates keys, \
             an administrator and a demo tenant",
        ))
        .subcommand(
            with_settings(
                "migrate",
                "Apply the schema's migrations with MIGRATE_DATABASE_URL. If DATABASE_URL has a \
                 password for the role tenantry_app, set that password",
            )
            .arg(migrate::status_argument())
            .arg(migrate::replace_password_argument()),
        )
        .subcommand(keys::command())
        .subcommand(master_key::command())
        .subcommand(audit::command())
        .subcommand(
            with_settings("bootstrap", "Create the platform tenant and its first administrator")
                .arg(bootstrap::email_argument("admin@platform.local")),
        )
        .subcommand(
            with_settings("seed", "Create the demo tenant and its administrator")
                .arg(bootstrap::email_argument(bootstrap::DEMO_EMAIL)),
        )
        .subcommand(reset_password::command())
        .subcommand(restored::command())
        .subcommand(with_settings("healthcheck", "Check whether the server at GRPC_ADDR is ready"))
        .subcommand(Command::new("policies").about("Print the access policy of each method"))
        .subcommand(completions::command())
}

fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    match name {
        "policies" => return policies::run(),
        "completions" => return completions::run(command(), matches),
        "keys" => return keys::run(matches),
        "audit" => return block_on(audit::run(matches)),
        "reset-password" => return block_on(within_timeout(reset_password::run(matches))),
        "restored" => return block_on(restored::run(matches)),
        "master-key" => return block_on(master_key::run(matches)),
        _ => {}
    }
    let values = Values::gather(matches);
    if name == "serve" {
        // `serve` checks all settings. This check includes `Values::check_sources`.
        return block_on(serve::run(values));
    }
    let values = values.check_sources()?;
    match name {
        "dev" => block_on(dev::run(values)),
        "migrate" => {
            let replaces_password = migrate::replaces_password(matches);
            block_on(migrate::run(values, migrate::only_status(matches), replaces_password))
        }
        "bootstrap" => {
            let create = bootstrap::create_platform(values, bootstrap::email(matches));
            block_on(within_timeout(create))
        }
        "seed" => {
            let create = bootstrap::create_demo(values, bootstrap::email(matches));
            block_on(within_timeout(create))
        }
        "healthcheck" => block_on(healthcheck::run(values)),
        _ => anyhow::bail!("no such command: {name}"),
    }
}

/// Stops a short command with an error after [`COMMAND_TIMEOUT`], because a store may stop to
/// respond without an error.
async fn within_timeout(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::time::timeout(COMMAND_TIMEOUT, command)
        .await
        .context("a store did not answer in time")?
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?
        .block_on(command)
}
