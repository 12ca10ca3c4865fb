//! The command `tenantry audit`.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::Serialize;

use super::{progress, provision};
use crate::{
    audit::{
        self,
        export::{Export, ExportedEvent},
        verify::{self, Head, VerifiedTrail},
    },
    config::{self, Values, postgres_url},
    db::Db,
    ids::TenantId,
    telemetry, tenants,
    tokens::{Keyring, StatementKeys},
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
        )
        .arg(jwks_arg("checkpoints. Without it, the configured keys are used"));
    let export = Command::new("export")
        .about(
            "Export the audit trail. Prints a line of JSON for the checkpoint of a trail, and for \
             each event that has a place in the chain, in the order of the chain",
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
    let sign = Command::new("sign")
        .about(
            "Sign the checkpoints of audit trails again with the current key, after their key was \
             removed. Servers do this by themselves as long as they have the public key",
        )
        .arg(jwks_arg("the checkpoints").required(true));
    Command::new("audit")
        .about("Verify or export the audit trail, or sign its checkpoints again")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Values::arguments(verify))
        .subcommand(Values::arguments(export))
        .subcommand(Values::arguments(sign))
}

/// The argument `--jwks`. `help_end` continues the sentence "they verify".
fn jwks_arg(help_end: &str) -> Arg {
    let help_start = "File with public keys, as the server publishes them at \
                      /.well-known/jwks.json: they verify";
    Arg::new("jwks")
        .long("jwks")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!("{help_start} {help_end}"))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches).check_sources()?;
    let db = Db::connect(&postgres_url(&values, "DATABASE_URL")?, 1)?;
    db.postgres().check().await?;
    match name {
        "export" => export(&db, matches).await,
        "sign" => sign(&db, &values, matches).await,
        _ => verify(&db, &values, matches).await,
    }
}

async fn verify(db: &Db, values: &Values, matches: &ArgMatches) -> anyhow::Result<()> {
    // The heads that an earlier run printed: the trails must still contain them.
    let kept_heads = match matches.get_one::<PathBuf>("kept") {
        Some(path) => read_heads(path)?,
        None => HashMap::new(),
    };
    let tenants = selected_tenants(db, matches, &kept_heads).await?;
    let (mut faulty_trails, mut unsealed_events, mut trimmed_heads) = (0, 0, 0);
    let mut keys = None;
    let bar = progress::bar(tenants.len() as u64, "trails verified");
    for tenant in &tenants {
        let kept_head = kept_heads.get(&tenant.0);
        let no_keys = StatementKeys::default();
        let mut trail =
            verify::verify(db, keys.as_ref().unwrap_or(&no_keys), *tenant, kept_head).await?;
        // Only checkpoints need keys, so the keys are read at the first trail with a checkpoint.
        // That trail is then verified again, with the keys.
        if keys.is_none() && trail.checkpoint.is_some() {
            let keys = keys.insert(statement_keys(values, matches).await?);
            trail = verify::verify(db, keys, *tenant, kept_head).await?;
        }
        let line = serde_json::to_string(&trail)?;
        bar.suspend(|| out!("{line}"));
        bar.inc(1);
        faulty_trails += usize::from(!trail.faults.is_empty());
        unsealed_events += trail.unsealed;
        trimmed_heads += usize::from(trail.kept_head_is_trimmed);
    }
    bar.finish_and_clear();
    if unsealed_events > 0 {
        telemetry::write_last_line(format!(
            "{unsealed_events} events wait to be sealed and were not verified. A running server \
             seals events within a second"
        ));
    }
    if trimmed_heads > 0 {
        telemetry::write_last_line(format!(
            "{trimmed_heads} of {} kept hashes could not be compared: their events were deleted, \
             because their retention is over",
            kept_heads.len()
        ));
    }
    ensure!(faulty_trails == 0, "{faulty_trails} of {} trails have faults", tenants.len());
    Ok(())
}

/// Signs again each checkpoint that another key than the current one signed, if the keys of
/// `--jwks` verify the checkpoint.
async fn sign(db: &Db, values: &Values, matches: &ArgMatches) -> anyhow::Result<()> {
    let keys = Arc::new(statement_keys(values, matches).await?);
    let source = config::signing_keys(values)?.context("no signing keys are configured")?;
    // The client of a key service blocks its thread, so it must not run on a thread of the runtime.
    // The issuer can be empty here, because a checkpoint that is signed again keeps its issuer.
    let load = move || Keyring::load(&source, "", "");
    let keyring = Arc::new(tokio::task::spawn_blocking(load).await??);
    let mut invalid_count = 0;
    let signing = audit::sign_stale(db, &keyring, &keys, |tenant, why| {
        invalid_count += 1;
        telemetry::write_last_line(format!("{tenant}: {why}"));
    });
    out!("{} checkpoints were signed", signing.await?);
    ensure!(invalid_count == 0, "{invalid_count} checkpoints are not valid");
    Ok(())
}

/// Reads the public keys that verify checkpoints: from the file of `--jwks`, or without this
/// argument the configured keys.
async fn statement_keys(values: &Values, matches: &ArgMatches) -> anyhow::Result<StatementKeys> {
    if let Some(path) = matches.get_one::<PathBuf>("jwks") {
        let file = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("can't read {file}"))?;
        return StatementKeys::from_jwks(&text).with_context(|| format!("can't use {file}"));
    }
    let source = config::signing_keys(values)?.context(
        "a trail has a checkpoint, and no public keys are configured that verify it: add --jwks with \
         a copy of /.well-known/jwks.json",
    )?;
    // The client of a key service blocks its thread, so it must not run on a thread of the runtime.
    let load = move || anyhow::Ok(Keyring::load(&source, "", "")?.statement_keys());
    let keys = tokio::task::spawn_blocking(load).await?;
    keys.context("the signing keys can't be read (JWT_…_KEY_PATH): correct the path, or add --jwks")
}

async fn export(db: &Db, matches: &ArgMatches) -> anyhow::Result<()> {
    let after = *matches.get_one::<i64>("after").context("no value of --after")?;
    ensure!(
        after == 0 || matches.contains_id("tenant"),
        "--after needs --tenant: each tenant has its own positions"
    );
    for tenant in selected_tenants(db, matches, &HashMap::new()).await? {
        let mut export = Export::new(db, tenant);
        let (position, events) = if after == 0 {
            let (checkpoint, events) = export.read_start().await?;
            write_lines(checkpoint.as_slice())?;
            (checkpoint.map_or(0, |checkpoint| checkpoint.position), events)
        } else {
            check_not_deleted_after(&export, after).await?;
            (after, export.read_after(after).await?)
        };
        export_events(&mut export, position, events).await?;
    }
    Ok(())
}

/// Writes the events page by page, so the memory does not depend on the length of a trail.
/// `position` is the position before the first page.
async fn export_events(
    export: &mut Export<'_>,
    mut position: i64,
    mut events: Vec<ExportedEvent>,
) -> anyhow::Result<()> {
    while let (Some(first), Some(last)) = (events.first(), events.last()) {
        if first.position > position + 1 {
            // Positions are missing, perhaps because events were deleted since the last page.
            check_not_deleted_after(export, position).await?;
        }
        position = last.position;
        write_lines(&events)?;
        events = export.read_after(position).await?;
    }
    Ok(())
}

/// Fails when events after `position` were deleted. So an export never leaves out events silently.
async fn check_not_deleted_after(export: &Export<'_>, position: i64) -> anyhow::Result<()> {
    let checkpoint = export.checkpoint_position().await?;
    ensure!(
        position >= checkpoint,
        "the events after position {position} were deleted, because their retention is over; the \
         trail starts after position {checkpoint}: export it without --after, or with --after \
         {checkpoint}"
    );
    Ok(())
}

/// Writes each value as a line of JSON. Unlike `out!`, this fails when the output can't be written,
/// so that no incomplete export looks complete.
fn write_lines(values: &[impl Serialize]) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, value)?;
        lines.push(b'\n');
    }
    io::stdout().write_all(&lines).context("can't write to standard output")
}

/// The tenant of `--tenant`, or without this argument all tenants.
async fn selected_tenants(
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
    Ok(tenants::find(db, TenantId::UNKNOWN, id_or_slug)
        .await?
        .context("there is no such tenant")?
        .id)
}

/// The tenants that have an audit trail, and the tenants of `kept_heads`.
async fn all_tenants(
    db: &Db,
    kept_heads: &HashMap<uuid::Uuid, Head>,
) -> anyhow::Result<Vec<TenantId>> {
    let platform = tenants::find(db, TenantId::UNKNOWN, provision::PLATFORM).await?;
    let platform = platform.context(
        "there is no platform tenant, so the tenants can't be listed: set --tenant to a tenant",
    )?;
    let mut tenants = verify::tenants(db, platform.id).await?;
    tenants.extend(kept_heads.keys().map(|id| TenantId(*id)));
    tenants.sort_unstable();
    tenants.dedup();
    Ok(tenants)
}

/// Reads the heads from the output of an earlier run. A head is the position and the hash of the
/// last event of a trail.
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
