//! `tenantry completions`

use std::io;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

pub(super) fn command() -> Command {
    let shell = Arg::new("shell").required(true).value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print what completes the commands in a shell: source <(tenantry completions bash)")
        .arg(shell)
}

/// Prints the shell's script.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let shell = *matches.get_one::<Shell>("shell").context("no shell")?;
    generate(shell, &mut super::command(), "tenantry", &mut io::stdout());
    Ok(())
}
