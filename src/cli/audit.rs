//! The command `tenantry audit`.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{progress, provision};
use crate::{
    audit::verify::{self, Head, VerifiedTrail},
    config::{Values, postgres_url},
    db::Db,
    ids::TenantId,
    telemetry, tenants,
};

pub(super) fn command() -> Command {
    let verify = Command::new("verify")
        .about(
            "Verify every tenant's audit trail. Prints a line of JSON for each trail, with the \
             position and hash of its last event and with its faults. Fails when a trail has \
             faults",
        )
        .arg(
            Arg::new("tenant")
                .long("tenant")
                .value_name("TENANT")
                .help("Verify only this tenant's trail, by id or slug"),
        )
        .arg(
            Arg::new("kept")
                .long("kept")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File with the output of an earlier run: the trails must contain its hashes"),
        );
    Command::new("audit")
        .about("Verify the audit trail")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Values::arguments(verify))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (_, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches).check_sources()?;
    let db = Db::connect(&postgres_url(&values, "DATABASE_URL")?, 1)?;
    let kept_heads = match matches.get_one::<PathBuf>("kept") {
        Some(path) => read_heads(path)?,
        None => HashMap::new(),
    };
    let tenants = match matches.get_one::<String>("tenant") {
        Some(id_or_slug) => vec![find_tenant(&db, id_or_slug).await?],
        None => all_tenants(&db, &kept_heads).await?,
    };
    let (mut faulty_trails, mut unsealed_events) = (0, 0);
    let bar = progress::bar(tenants.len() as u64, "trails verified");
    for tenant in &tenants {
        let trail = verify::verify(&db, *tenant, kept_heads.get(&tenant.0)).await?;
        let line = serde_json::to_string(&trail)?;
        bar.suspend(|| println!("{line}"));
        bar.inc(1);
        faulty_trails += usize::from(!trail.faults.is_empty());
        unsealed_events += trail.unsealed;
    }
    bar.finish_and_clear();
    if unsealed_events > 0 {
        telemetry::write_last_line(format!(
            "{unsealed_events} events wait to be sealed and were not verified. A running server \
             seals events within a second"
        ));
    }
    ensure!(faulty_trails == 0, "{faulty_trails} of {} trails have faults", tenants.len());
    Ok(())
}

/// Finds a tenant by id or slug. A deleted tenant can be found by its id.
async fn find_tenant(db: &Db, id_or_slug: &str) -> anyhow::Result<TenantId> {
    if let Ok(id) = uuid::Uuid::try_parse(id_or_slug) {
        return Ok(TenantId(id));
    }
    Ok(tenants::find(db, id_or_slug).await?.context("there is no such tenant")?.id)
}

/// The tenants that have an audit trail, and the tenants of `kept_heads`.
async fn all_tenants(
    db: &Db,
    kept_heads: &HashMap<uuid::Uuid, Head>,
) -> anyhow::Result<Vec<TenantId>> {
    let platform = tenants::find(db, provision::PLATFORM).await?;
    let platform = platform.context(
        "there is no platform tenant, so the tenants can't be listed: set --tenant to a tenant",
    )?;
    let mut tenants = verify::tenants(db, platform.id).await?;
    tenants.extend(kept_heads.keys().map(|id| TenantId(*id)));
    tenants.sort_unstable();
    tenants.dedup();
    Ok(tenants)
}

/// Reads the heads in the output of an earlier run.
fn read_heads(path: &PathBuf) -> anyhow::Result<HashMap<uuid::Uuid, Head>> {
    let file = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("can't read {file}"))?;
    let mut heads = HashMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let trail: VerifiedTrail = serde_json::from_str(line)
            .with_context(|| format!("{file} has a line that `audit verify` did not print"))?;
        // If there are several lines for a tenant, the last line replaces the earlier lines.
        heads.insert(trail.head.tenant_id, trail.head);
    }
    Ok(heads)
}
