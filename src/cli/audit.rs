//! The command `tenantry audit`.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{progress, provision};
use crate::{
    audit::{
        export,
        verify::{self, Head, VerifiedTrail},
    },
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
    let export = Command::new("export")
        .about(
            "Export the audit trail. Prints a line of JSON for each event that has a place in the \
             chain, in the order of the chain",
        )
        .arg(
            Arg::new("tenant")
                .long("tenant")
                .value_name("TENANT")
                .help("Export only this tenant's trail, by id or slug"),
        )
        .arg(
            Arg::new("after")
                .long("after")
                .value_name("POSITION")
                .value_parser(value_parser!(i64).range(0..))
                .default_value("0")
                .help(
                    "Start after this position: the position of the last event of an earlier run",
                ),
        );
    Command::new("audit")
        .about("Verify or export the audit trail")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Values::arguments(verify))
        .subcommand(Values::arguments(export))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches).check_sources()?;
    let db = Db::connect(&postgres_url(&values, "DATABASE_URL")?, 1)?;
    db.postgres().check().await?;
    if name == "export" { export(&db, matches).await } else { verify(&db, matches).await }
}

async fn verify(db: &Db, matches: &ArgMatches) -> anyhow::Result<()> {
    let kept_heads = match matches.get_one::<PathBuf>("kept") {
        Some(path) => read_heads(path)?,
        None => HashMap::new(),
    };
    let tenants = tenants(db, matches, &kept_heads).await?;
    let (mut faulty_trails, mut unsealed_events) = (0, 0);
    let bar = progress::bar(tenants.len() as u64, "trails verified");
    for tenant in &tenants {
        let trail = verify::verify(db, *tenant, kept_heads.get(&tenant.0)).await?;
        let line = serde_json::to_string(&trail)?;
        bar.suspend(|| out!("{line}"));
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

/// Writes the events batch by batch, so the memory does not depend on the length of a trail.
async fn export(db: &Db, matches: &ArgMatches) -> anyhow::Result<()> {
    let after = *matches.get_one::<i64>("after").context("--after has a default")?;
    ensure!(
        after == 0 || matches.contains_id("tenant"),
        "--after needs --tenant: each tenant has its own positions"
    );
    for tenant in tenants(db, matches, &HashMap::new()).await? {
        let mut position = after;
        loop {
            let events = export::read_after(db, tenant, position).await?;
            let Some(last) = events.last() else { break };
            position = last.position;
            let mut lines = Vec::new();
            for event in &events {
                serde_json::to_writer(&mut lines, event)?;
                lines.push(b'\n');
            }
            io::stdout().write_all(&lines).context("can't write to standard output")?;
        }
    }
    Ok(())
}

/// The tenant of the command, or all tenants.
async fn tenants(
    db: &Db,
    matches: &ArgMatches,
    kept_heads: &HashMap<uuid::Uuid, Head>,
) -> anyhow::Result<Vec<TenantId>> {
    match matches.get_one::<String>("tenant") {
        Some(id_or_slug) => Ok(vec![find_tenant(db, id_or_slug).await?]),
        None => all_tenants(db, kept_heads).await,
    }
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
