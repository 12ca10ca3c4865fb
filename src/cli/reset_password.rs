//! The command `tenantry reset-password`, for an administrator who can't sign in any more.

use std::io::{self, BufRead, Read};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use super::{
    bootstrap,
    connect::open,
    provision::{self, PasswordReset},
};
use crate::config::{Passwords, Values, postgres_url};

/// Maximum length of a password on standard input, in bytes. The rules for passwords allow only
/// shorter passwords.
const MAX_INPUT: u64 = 4096;

pub(super) fn command() -> Command {
    let argument = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).required(true).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Values::arguments(
        Command::new("reset-password")
            .about(
                "Set a new password for a user who can't sign in, end the user's sessions, and \
                 record it in the audit trail. Prints a generated password, once",
            )
            .arg(argument(
                "tenant",
                "SLUG",
                "Slug of the user's tenant; the platform is `platform`",
            ))
            .arg(argument("email", "EMAIL", "The user's email"))
            .arg(flag("enable", "Also enable the user, if the user is disabled"))
            .arg(flag("password-stdin", "Read the new password from the first line of the input")),
    )
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let values = Values::gather(matches).check_sources()?;
    let text = |name| matches.get_one::<String>(name).context("an argument is missing");
    let is_password_given = matches.get_flag("password-stdin");
    let password = is_password_given.then(read_password).transpose()?;
    let reset = PasswordReset {
        slug: text("tenant")?,
        email: text("email")?,
        password,
        enable: matches.get_flag("enable"),
    };
    let policy = Passwords::check(&values)?.policy;
    let db = open(&values, &postgres_url(&values, "DATABASE_URL")?).await?;
    let done = provision::reset_password(&db, &bootstrap::hasher(&values)?, policy, reset).await?;
    out!("tenant   {}", done.credentials.tenant);
    out!("email    {}", done.credentials.email);
    if !is_password_given {
        out!("password {}", done.credentials.password);
    }
    out!("{} sessions ended", done.ended_sessions);
    if done.was_enabled {
        out!("the user was disabled and is enabled now");
    }
    Ok(())
}

/// Reads the first line of standard input.
fn read_password() -> anyhow::Result<SecretString> {
    let mut line = Zeroizing::new(String::new());
    let input = io::stdin().lock().take(MAX_INPUT);
    io::BufReader::new(input).read_line(&mut line).context("can't read the password")?;
    let password = SecretString::from(line.trim_end_matches(['\r', '\n']));
    ensure!(!password.expose_secret().is_empty(), "there is no password on standard input");
    Ok(password)
}
