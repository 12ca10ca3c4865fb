//! `tenantry keys`

use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::tokens::{Keyring, TokenKind, pem};

pub(super) fn command() -> Command {
    let dir = Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .default_value("keys")
        .help("Folder of the PEM files");
    Command::new("keys")
        .about("Make and show the keys that sign tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("generate")
                .about("Make both RSA 3072 key pairs; keys that are there are left alone")
                .arg(dir.clone()),
        )
        .subcommand(Command::new("list").about("Show the ids of the keys").arg(dir))
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let dir = matches.get_one::<PathBuf>("dir").context("no folder")?;
    if name == "generate" {
        if pem::ensure(dir)? {
            println!("made keys in {}", dir.display());
        } else {
            println!("keys are in {} already", dir.display());
        }
    }
    let keyring = Keyring::load(&pem::paths(dir), "", "")?;
    println!("access  {}", keyring.kid(TokenKind::Access));
    println!("refresh {}", keyring.kid(TokenKind::Refresh));
    Ok(())
}
