//! The command `tenantry keys`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{PossibleValuesParser, TypedValueParser},
    value_parser,
};

use crate::{
    clock,
    config::SETTINGS,
    tokens::{
        Keyring, TokenKind,
        pem::{self, KeyAlgorithm, TokenLifetimes},
    },
};

const ACCESS_LIFETIME: &str = "JWT_ACCESS_EXPIRES_IN";
const REFRESH_LIFETIME: &str = "JWT_REFRESH_EXPIRES_IN";

pub(super) fn command() -> Command {
    Command::new("keys")
        .about("Create, rotate and show the keys that sign tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("generate")
                .about("Create both key pairs; existing keys are not changed")
                .arg(dir_arg())
                .arg(algorithm_arg().default_value("RS256")),
        )
        .subcommand(
            Command::new("rotate")
                .about(
                    "Add keys that are published now and sign later, so that all tokens stay \
                     valid, and remove replaced keys whose tokens have expired. Adds no keys while \
                     added keys do not sign yet",
                )
                .arg(dir_arg())
                .arg(algorithm_arg())
                .arg(
                    Arg::new("ahead")
                        .long("ahead")
                        .value_name("TIME")
                        .value_parser(humantime::parse_duration)
                        .default_value("15m")
                        .help(
                            "Time until the new keys sign; all verifiers need the new keys by then",
                        ),
                )
                .arg(
                    Arg::new("compromised")
                        .long("compromised")
                        .action(ArgAction::SetTrue)
                        .help("Remove the old keys immediately: everybody must sign in again"),
                )
                .args(lifetime_args()),
        )
        .subcommand(
            Command::new("retire")
                .about("Remove replaced keys whose tokens have expired")
                .arg(dir_arg())
                .args(lifetime_args()),
        )
        .subcommand(Command::new("list").about("Show the keys and their states").arg(dir_arg()))
}

fn dir_arg() -> Arg {
    Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .default_value("keys")
        .help("Folder of the PEM files")
}

fn algorithm_arg() -> Arg {
    let names =
        PossibleValuesParser::new(["RS256", "ES256", "EdDSA"]).map(|name| match name.as_str() {
            "ES256" => KeyAlgorithm::Es256,
            "EdDSA" => KeyAlgorithm::EdDsa,
            _ => KeyAlgorithm::Rs256,
        });
    Arg::new("algorithm")
        .long("algorithm")
        .value_parser(names)
        .help("Algorithm of the new keys; a rotation keeps the current algorithm by default")
}

/// The arguments for the lifetimes of tokens.
fn lifetime_args() -> Vec<Arg> {
    let settings = SETTINGS
        .iter()
        .filter(|setting| [ACCESS_LIFETIME, REFRESH_LIFETIME].contains(&setting.name));
    settings
        .map(|setting| {
            let arg = Arg::new(setting.name)
                .long(setting.flag())
                .env(setting.name)
                .value_name("TIME")
                .value_parser(humantime::parse_duration)
                .help(setting.help);
            match setting.default {
                Some(default) => arg.default_value(default),
                None => arg,
            }
        })
        .collect()
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let dir = matches.get_one::<PathBuf>("dir").context("no folder")?;
    match name {
        "generate" => {
            let algorithm = matches.get_one("algorithm").copied().context("no algorithm")?;
            if pem::ensure(dir, algorithm)? {
                out!("made keys in {}", dir.display());
            } else {
                out!("keys are in {} already", dir.display());
            }
        }
        "rotate" => rotate(dir, matches)?,
        "retire" => pem::retire(dir, lifetimes(matches)?)?,
        // `list`: all four commands end with the list of the keys.
        _ => {}
    }
    list(dir)
}

fn rotate(dir: &Path, matches: &ArgMatches) -> anyhow::Result<()> {
    // If the server could not load the present keys, this fails before a key is changed.
    Keyring::load(&pem::source(dir), "", "")?;
    let algorithm = matches.get_one("algorithm").copied();
    if matches.get_flag("compromised") {
        pem::replace(dir, algorithm)?;
        out!("replaced the keys in {}: all earlier tokens are refused", dir.display());
        return Ok(());
    }
    let ahead = *matches.get_one::<Duration>("ahead").context("no value of --ahead")?;
    ensure!(ahead <= Duration::from_hours(24 * 365), "--ahead must be at most a year");
    let sign_from = clock::now().replace_nanosecond(0).context("the time is invalid")? + ahead;
    if pem::rotate(dir, algorithm, sign_from, lifetimes(matches)?)? {
        out!("added keys in {}; they sign in {}", dir.display(), humantime::format_duration(ahead));
    } else {
        out!("keys in {} do not sign yet; no keys were added", dir.display());
    }
    Ok(())
}

fn lifetimes(matches: &ArgMatches) -> anyhow::Result<TokenLifetimes> {
    let lifetime = |name| matches.get_one::<Duration>(name).copied().context("no lifetime");
    Ok(TokenLifetimes { access: lifetime(ACCESS_LIFETIME)?, refresh: lifetime(REFRESH_LIFETIME)? })
}

fn list(dir: &Path) -> anyhow::Result<()> {
    let keyring = Keyring::load(&pem::source(dir), "", "")?;
    for kind in [TokenKind::Access, TokenKind::Refresh] {
        let name = if kind == TokenKind::Access { "access" } else { "refresh" };
        for key in keyring.list(kind) {
            let since = key.starts.map(|time| format!("  from {time}")).unwrap_or_default();
            out!("{name:<7} {} {:<9} {}{since}", key.kid, key.state, key.alg);
        }
    }
    Ok(())
}
