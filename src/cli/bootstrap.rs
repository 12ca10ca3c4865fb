//! The commands `tenantry bootstrap` and `tenantry seed`.

use anyhow::Context;
use clap::{Arg, ArgMatches};

use super::{
    connect::open,
    provision::{self, Credentials},
};
use crate::{
    config::{self, Values, postgres_url},
    email,
    passwords::Hasher,
};

pub(super) const DEMO_EMAIL: &str = "admin@demo.local";

pub(super) fn email_argument(default: &'static str) -> Arg {
    Arg::new("email")
        .long("email")
        .value_name("EMAIL")
        .default_value(default)
        .value_parser(parse_email)
        .help("The administrator's email")
}

fn parse_email(text: &str) -> Result<String, &'static str> {
    if email::is_address(text) { Ok(text.to_owned()) } else { Err("it must be an email address") }
}

pub(super) fn email(matches: &ArgMatches) -> String {
    matches.get_one::<String>("email").cloned().unwrap_or_default()
}

/// Creates the platform tenant and its administrator, and prints the administrator's credentials.
/// Fails when the tenant exists.
pub(super) async fn create_platform(values: Values, email: String) -> anyhow::Result<()> {
    let owner_db = open(&values, &postgres_url(&values, "MIGRATE_DATABASE_URL")?).await?;
    let credentials =
        provision::create_platform_tenant(&owner_db, &hasher(&values)?, &email).await?;
    print(&credentials.context("the platform tenant is there already")?);
    Ok(())
}

/// Creates the demo tenant and its administrator, and prints the administrator's credentials. Fails
/// when the tenant exists.
pub(super) async fn create_demo(values: Values, email: String) -> anyhow::Result<()> {
    let db = open(&values, &postgres_url(&values, "DATABASE_URL")?).await?;
    let credentials = provision::create_demo_tenant(&db, &hasher(&values)?, &email).await?;
    print(&credentials.context("the demo tenant is there already")?);
    Ok(())
}

/// Starts a password hasher with the settings of the server.
pub(super) fn hasher(values: &Values) -> anyhow::Result<Hasher> {
    Hasher::start(&config::Passwords::check(values)?)
}

fn print(credentials: &Credentials) {
    out!("tenant   {}", credentials.tenant);
    out!("email    {}", credentials.email);
    out!("password {}", credentials.password);
}
