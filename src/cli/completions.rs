//! The command `tenantry completions`.

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

use super::output;

pub(super) fn command() -> Command {
    let shell = Arg::new("shell").required(true).value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print the completion script of a shell: source <(tenantry completions bash)")
        .arg(shell)
}

/// Prints the completion script for a shell.
pub(super) fn run(mut program: Command, matches: &ArgMatches) -> anyhow::Result<()> {
    let shell = *matches.get_one::<Shell>("shell").context("no shell")?;
    // `generate` panics if a write fails, so the script is first written to memory.
    let mut script = Vec::new();
    generate(shell, &mut program, "tenantry", &mut script);
    output::write(&script);
    Ok(())
}
