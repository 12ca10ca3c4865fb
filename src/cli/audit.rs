//! The command `tenantry audit`.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{connect::url, progress, provision};
use crate::{
    audit::verify::{self, Head, VerifiedTrail},
    config::Values,
    db::Db,
    ids::TenantId,
    tenants,
};

pub(super) fn command() -> Command {
    let verify = Command::new("verify")
        .about(
            "Verify every tenant's audit trail. Prints one line of JSON for each: the trail's \
             end and its faults; fails when a trail has faults",
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
                .help("Lines that an earlier run printed; the trail must still contain those ends"),
        );
    Command::new("audit")
        .about("Verify the audit trail")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Values::arguments(verify))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (_, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches)?;
    let db = Db::connect(&url(&values, "DATABASE_URL")?, 1)?;
    let kept = match matches.get_one::<PathBuf>("kept") {
        Some(path) => read_kept(path)?,
        None => HashMap::new(),
    };
    let tenants = match matches.get_one::<String>("tenant") {
        Some(named) => vec![find(&db, named).await?],
        None => all(&db, &kept).await?,
    };
    let mut faulty = 0;
    let bar = progress::bar(tenants.len() as u64, "trails verified");
    for tenant in &tenants {
        let finding = verify::verify(&db, *tenant, kept.get(&tenant.0)).await?;
        let line = serde_json::to_string(&finding)?;
        bar.suspend(|| println!("{line}"));
        bar.inc(1);
        faulty += usize::from(!finding.faults.is_empty());
    }
    bar.finish_and_clear();
    ensure!(faulty == 0, "{faulty} of {} trails have faults", tenants.len());
    Ok(())
}

/// Finds a tenant by id or slug. An id works also for a deleted tenant.
async fn find(db: &Db, named: &str) -> anyhow::Result<TenantId> {
    if let Ok(id) = uuid::Uuid::try_parse(named) {
        return Ok(TenantId(id));
    }
    Ok(tenants::find(db, named).await?.context("there is no such tenant")?.id)
}

/// The tenants that have an audit trail, and those in the kept lines.
async fn all(db: &Db, kept: &HashMap<uuid::Uuid, Head>) -> anyhow::Result<Vec<TenantId>> {
    let platform = tenants::find(db, provision::PLATFORM).await?;
    let platform = platform.context(
        "without a platform tenant the tenants cannot be listed: name one with --tenant",
    )?;
    let mut tenants = verify::tenants(db, platform.id).await?;
    tenants.extend(kept.keys().map(|id| TenantId(*id)));
    tenants.sort_unstable();
    tenants.dedup();
    Ok(tenants)
}

fn read_kept(path: &PathBuf) -> anyhow::Result<HashMap<uuid::Uuid, Head>> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("can't read {shown}"))?;
    let mut kept = HashMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let finding: VerifiedTrail =
            serde_json::from_str(line).with_context(|| format!("{shown} has an unknown line"))?;
        // Of several lines for a tenant, the last one is the newest.
        kept.insert(finding.head.tenant_id, finding.head);
    }
    Ok(kept)
}
