//! The commands `tenantry bootstrap` and `tenantry seed`.

use anyhow::Context;
use clap::{Arg, ArgMatches};

use super::{
    connect::{open, url},
    provision::{self, Credentials},
};
use crate::{
    config::{self, Values},
    passwords::Hasher,
};

pub(super) const DEMO_EMAIL: &str = "admin@demo.local";

pub(super) fn email_argument(default: &'static str) -> Arg {
    Arg::new("email")
        .long("email")
        .value_name("EMAIL")
        .default_value(default)
        .help("The administrator's email")
}

pub(super) fn email(matches: &ArgMatches) -> String {
    matches.get_one::<String>("email").cloned().unwrap_or_default()
}

/// Creates the platform tenant. Fails when it exists.
pub(super) async fn platform(values: Values, email: String) -> anyhow::Result<()> {
    let owner = open(&values, &url(&values, "MIGRATE_DATABASE_URL")?).await?;
    let made = provision::platform(&owner, &hasher(&values)?, &email).await?;
    show(&made.context("the platform tenant is there already")?);
    Ok(())
}

/// Creates the demo tenant. Fails when it exists.
pub(super) async fn demo(values: Values, email: String) -> anyhow::Result<()> {
    let db = open(&values, &url(&values, "DATABASE_URL")?).await?;
    let made = provision::demo(&db, &hasher(&values)?, &email).await?;
    show(&made.context("the demo tenant is there already")?);
    Ok(())
}

/// Creates a hasher with the server's settings.
pub(super) fn hasher(values: &Values) -> anyhow::Result<Hasher> {
    Hasher::start(&config::Passwords::check(values)?)
}

fn show(made: &Credentials) {
    println!("tenant   {}", made.tenant);
    println!("email    {}", made.email);
    println!("password {}", made.password);
}
